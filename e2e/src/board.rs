//! A board in QEMU that tests can reset and unplug.

use std::path::Path;

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use wasmbed_emulator::{Emulator, Kind, Options, find_firmware, reach_host};
use wasmbed_flash::provision::{self, Issued, Network, Provision};
use wasmbed_pki::{Identity, read_certificates};

use crate::{Machine, TIMEOUT};

/// Name of the one Device.
pub const NAME: &str = "board";

/// Starts a board with the identity of [`NAME`]; its gateway is the one at `gateway`.
///
/// # Errors
/// There is no firmware, or QEMU does not start.
pub fn start(kind: Kind, machine: &Machine, gateway: &str) -> Result<Emulator> {
    Ok(Emulator::start(&prepare(kind, machine, gateway)?)?)
}

/// What [`start`] starts, with the identity in its flash.
///
/// # Errors
/// There is no firmware, or the flash can't be written.
pub fn prepare(kind: Kind, machine: &Machine, gateway: &str) -> Result<Options> {
    let files = machine.layout().device_identity("default", NAME)?;
    let identity = Identity::read(&files.certificate, &files.key)?;
    let roots = read_certificates(&machine.layout().services_root())?;
    prepare_with(kind, machine.dir(), &identity, &roots, gateway)
}

/// The same without a machine; the flash lies in `dir`.
///
/// # Errors
/// There is no firmware, or the flash can't be written.
pub fn prepare_with(
    kind: Kind,
    dir: &Path,
    identity: &Identity,
    roots: &[CertificateDer<'static>],
    gateway: &str,
) -> Result<Options> {
    prepare_as(kind, dir, provision::Identity::Operational(issued(identity)), roots, gateway, [7; 32])
}

/// A chain and its key, as a board is provisioned with them.
#[must_use]
pub fn issued(identity: &Identity) -> Issued {
    Issued {
        chain: identity.chain().iter().map(|der| der.to_vec().into()).collect(),
        key: identity.key().secret_der().to_vec().into(),
    }
}

/// The same with an identity of any kind, and a seed of its random numbers.
///
/// # Errors
/// There is no firmware, or the flash can't be written.
pub fn prepare_as(
    kind: Kind,
    dir: &Path,
    identity: provision::Identity,
    roots: &[CertificateDer<'static>],
    gateway: &str,
    seed: [u8; 32],
) -> Result<Options> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/firmware");
    let firmware = find_firmware(kind, Some(&folder)).context("cargo xtask firmware builds it")?;
    let flash = dir.join(format!("{kind}.flash"));
    let identity = Provision {
        identity,
        services_roots: roots.iter().map(|der| der.to_vec().into()).collect(),
        gateways: vec![reach_host(gateway)],
        seed: seed.into(),
        board: kind.name().to_owned(),
        network: Network::Dhcp,
    };
    wasmbed_emulator::provision(kind, &flash, identity)?;
    Ok(Options::new(kind, firmware, flash))
}

/// Reads the console up to a line with that in it, and returns what was read.
///
/// # Errors
/// The line does not come within [`TIMEOUT`], or QEMU ends.
pub fn read_to(emulator: &Emulator, wanted: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    emulator.wait_for_line(wanted, TIMEOUT, |line| {
        lines.push(line.to_owned());
        line.contains(wanted)
    })?;
    Ok(lines)
}
