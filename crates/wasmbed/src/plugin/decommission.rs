//! `kubectl wasmbed decommission`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::devices::{Chosen, Device, Place};
use crate::output::{complain, print_line};

/// Take devices out of service: they erase what they have, sign that they did, and are kept out.
///
/// This can't be taken back. A device that is away does it when it comes back; `kubectl wait --for=condition=Decommissioned wdev/NAME`
/// waits until its proof was verified.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Runs the command: all Devices, also after one could not be changed.
///
/// # Errors
/// Nobody said yes, or how many could not be changed; why was said before.
pub(super) async fn run(args: Args) -> Result<()> {
    let (place, devices) = args.chosen.find().await?;
    if !args.yes {
        ask(&devices)?;
    }
    let mut refused = 0_usize;
    for device in &devices {
        if let Err(error) = decommission(&place, device).await {
            if let [_] = devices.as_slice() {
                return Err(error);
            }
            refused += 1;
            complain(&format!("error: {}: {}", device.key(), wasmbed_telemetry::with_causes(error.as_ref())));
        }
    }
    ensure!(refused == 0, "{refused} of {} Devices are not decommissioned", devices.len());
    Ok(())
}

async fn decommission(place: &Place, device: &Device) -> Result<()> {
    place.specify(device, &json!({ "decommission": true })).await?;
    print_line(&format!("{} is being decommissioned", device.key()));
    Ok(())
}

fn ask(devices: &[Device]) -> Result<()> {
    let names: Vec<String> = devices.iter().map(Device::key).collect();
    let (input, mut screen) = (io::stdin(), io::stderr());
    ensure!(input.is_terminal(), "this can't be taken back: give --yes where nobody can be asked");
    write!(screen, "Erase {}? This can't be taken back. [y/N] ", names.join(", ")).context("can't ask")?;
    screen.flush().context("can't ask")?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).context("can't read the answer")?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was done");
    Ok(())
}
