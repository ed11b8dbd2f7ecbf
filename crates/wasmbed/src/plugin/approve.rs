//! `kubectl wasmbed approve`.
//!
//! ```text
//! Device ── revoked ──────────────────────────────────────────────> refused
//!        ── a request without proof, not confirmed ── a person compares its fingerprint ──> approved, confirmed_key
//!        ── otherwise ────────────────────────────────────────────> approved
//! ```

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use wasmbed_protocol::KeyHash;

use super::devices::{Chosen, Device, Place, Proof, Request};
use crate::output::{complain, harmless, print_line};

/// Let devices in: approve them and, where a device has no proof of who it is, confirm its key.
///
/// A device without a factory identity and without a pairing token asks for a certificate with nothing but a key. Its fingerprint is
/// shown: compare it with the one that the device shows on its console, and say yes, or give it with --fingerprint. Anyone between the
/// device and the gateway could have put another key in its place.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// The fingerprint that the device shows, 64 hex digits; for one Device.
    #[arg(long, value_name = "HASH", conflicts_with = "selector")]
    fingerprint: Option<String>,
}

/// Runs the command: all Devices, also after one could not be approved.
///
/// # Errors
/// How many could not be approved; why was said before.
pub(super) async fn run(args: Args) -> Result<()> {
    let shown: Option<KeyHash> = match &args.fingerprint {
        Some(text) => {
            let hash = text.to_ascii_lowercase().parse().ok();
            Some(hash.context("--fingerprint is not 64 hex digits")?)
        }
        None => None,
    };
    let (place, devices) = args.chosen.find().await?;
    ensure!(
        shown.is_none() || devices.len() == 1,
        "--fingerprint is of one device's key: name one Device with it"
    );
    let requests = place.open_requests().await?;
    let mut refused = 0_usize;
    for device in &devices {
        let of_device: Vec<&Request> = requests.iter().filter(|request| request.is_for(device)).collect();
        if let Err(error) = approve(&place, device, &of_device, shown.as_ref()).await {
            if let [_] = devices.as_slice() {
                return Err(error);
            }
            refused += 1;
            complain(&format!("error: {}: {}", device.key(), wasmbed_telemetry::with_causes(error.as_ref())));
        }
    }
    ensure!(refused == 0, "{refused} of {} Devices were not approved", devices.len());
    Ok(())
}

async fn approve(
    place: &Place,
    device: &Device,
    requests: &[&Request],
    shown: Option<&KeyHash>,
) -> Result<()> {
    let key = device.key();
    ensure!(!device.spec.revoked, "the Device {key} is revoked: set spec.revoked to false first");
    let serial = device.spec.serial.as_deref().unwrap_or("none");
    print_line(&format!("{key}  serial {}", harmless(serial)));
    for Request { name, fingerprint, proof, .. } in requests {
        print_line(&format!("  request {name}  key {fingerprint}  {}", proof.sentence()));
    }
    let confirmed = confirmed_key(device, requests, shown)?;
    let patch = patch(device, confirmed.as_deref());
    let Some(patch) = patch else {
        print_line(&format!("{key} unchanged"));
        return Ok(());
    };
    place.change(device, patch).await?;
    let how = if confirmed.is_some() { "approved, with this key" } else { "approved" };
    print_line(&format!("{key} {how}"));
    Ok(())
}

/// What changes in a Device; none if nothing does.
fn patch(device: &Device, confirmed: Option<&str>) -> Option<Value> {
    let mut spec = serde_json::Map::new();
    if !device.spec.approved {
        spec.insert("approved".to_owned(), json!(true));
    }
    if confirmed.is_some() && confirmed != device.spec.confirmed_key.as_deref() {
        spec.insert("confirmed_key".to_owned(), json!(confirmed));
    }
    (!spec.is_empty()).then(|| json!({ "spec": spec }))
}

/// The key that a person has compared; none if nobody has to.
fn confirmed_key(device: &Device, requests: &[&Request], shown: Option<&KeyHash>) -> Result<Option<String>> {
    let bare = requests.iter().filter(|request| request.proof == Proof::None);
    let bare: Vec<&&Request> = bare.collect();
    if let Some(shown) = shown.map(KeyHash::to_string) {
        ensure!(
            bare.iter().any(|request| request.fingerprint == shown),
            "no request without proof is for the key {shown}: if the device shows it, someone put another key in its place, or the device has not asked yet"
        );
        return Ok(Some(shown));
    }
    let is_open = |request: &&&&Request| device.spec.confirmed_key.as_ref() != Some(&request.fingerprint);
    let mut open = bare.iter().filter(is_open);
    match (open.next(), open.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => bail!(
            "requests for several keys are open without proof: give the one that the device shows with --fingerprint"
        ),
        (Some(request), None) => ask(&request.fingerprint).map(Some),
    }
}

fn ask(fingerprint: &str) -> Result<String> {
    const HINT: &str =
        "compare the fingerprint with the one that the device shows, and give it with --fingerprint";
    let (input, mut screen) = (std::io::stdin(), std::io::stderr());
    ensure!(input.is_terminal(), "the device has no proof of who it is: {HINT}");
    write!(screen, "Does the device show this fingerprint? {fingerprint} [y/N] ").context("can't ask")?;
    screen.flush().context("can't ask")?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).context("can't read an answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(fingerprint.to_owned()),
        _ => bail!("not approved: {HINT}"),
    }
}
