//! `kubectl wasmbed deny`.

use anyhow::{Result, ensure};
use serde_json::json;

use super::devices::{Chosen, Device, Place, Request};
use crate::output::{complain, print_line};

/// Keep devices out: deny their requests for certificates, and withdraw their approval.
///
/// A device whose request was denied may ask again later, and waits for approval then. With --revoke it is kept out for good, and its
/// session ends.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Also revoke the Devices.
    #[arg(long)]
    revoke: bool,
}

/// Runs the command: all Devices, also after one could not be denied.
///
/// # Errors
/// How many could not be denied; why was said before.
pub(super) async fn run(args: Args) -> Result<()> {
    let (place, devices) = args.chosen.find().await?;
    let requests = place.open_requests().await?;
    let mut refused = 0_usize;
    for device in &devices {
        let of_device = requests.iter().filter(|request| request.is_for(device));
        if let Err(error) = deny(&place, device, of_device, args.revoke).await {
            if let [_] = devices.as_slice() {
                return Err(error);
            }
            refused += 1;
            complain(&format!("error: {}: {}", device.key(), wasmbed_telemetry::with_causes(error.as_ref())));
        }
    }
    ensure!(refused == 0, "{refused} of {} Devices were not denied", devices.len());
    Ok(())
}

async fn deny<'a>(
    place: &Place,
    device: &Device,
    requests: impl Iterator<Item = &'a Request>,
    revoke: bool,
) -> Result<()> {
    // First: no controller approves the requests of a Device that is not approved.
    let spec =
        if revoke { json!({ "approved": false, "revoked": true }) } else { json!({ "approved": false }) };
    if device.spec.approved || (revoke && !device.spec.revoked) {
        place.change(device, json!({ "spec": spec })).await?;
    }
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?.to_string();
    for request in requests {
        place.deny(request, &now).await?;
        print_line(&format!("  request {} denied", request.name));
    }
    print_line(&format!("{} {}", device.key(), if revoke { "revoked" } else { "denied" }));
    Ok(())
}
