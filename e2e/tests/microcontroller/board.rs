//! A board in QEMU that tests can reset and unplug.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use wasmbed_e2e::{Machine, TIMEOUT};
use wasmbed_emulator::{Emulator, Kind, Options, find_firmware, provision, reach_host};
use wasmbed_flash::provision::{Network, Provision};
use wasmbed_pki::{Identity, read_certificates};

/// Name of the one Device.
pub(crate) const NAME: &str = "board";
/// A line of the console comes within this, or never.
pub(crate) const PATIENCE: Duration = TIMEOUT;

/// Starts a board with the identity of [`NAME`]; its gateway is the one at `gateway`.
pub(crate) fn start(kind: Kind, machine: &Machine, gateway: &str) -> Result<Emulator> {
    let files = machine.layout().device_identity("default", NAME)?;
    let identity = Identity::read(&files.certificate, &files.key)?;
    let roots = read_certificates(&machine.layout().services_root())?;
    start_with(kind, machine.dir(), &identity, &roots, gateway)
}

/// The same without a machine.
pub(crate) fn start_with(
    kind: Kind,
    dir: &Path,
    identity: &Identity,
    roots: &[rustls::pki_types::CertificateDer<'static>],
    gateway: &str,
) -> Result<Emulator> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/firmware");
    let firmware = find_firmware(kind, Some(&folder)).context("cargo xtask firmware builds it")?;
    let flash = dir.join("board.flash");
    let identity = Provision {
        chain: identity.chain().iter().map(|der| der.to_vec().into()).collect(),
        key: identity.key().secret_der().to_vec().into(),
        services_roots: roots.iter().map(|der| der.to_vec().into()).collect(),
        gateways: vec![reach_host(gateway)],
        seed: [7; 32].into(),
        board: kind.name().to_owned(),
        network: Network::Dhcp,
    };
    provision(kind, &flash, identity)?;
    Ok(Emulator::start(&Options::new(kind, firmware, flash))?)
}

/// Reads the console up to a line with that in it, and returns what was read.
pub(crate) fn read_to(emulator: &Emulator, wanted: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    emulator.wait_for_line(wanted, PATIENCE, |line| {
        lines.push(line.to_owned());
        line.contains(wanted)
    })?;
    Ok(lines)
}
