//! Writes what `tests/accept` trusts and the corpus of the fuzz target `client`: `cargo run -p wasmbed-pki --example fuzz-corpus`.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool that a person runs"
)]

use std::{fs, path::Path};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use wasmbed_pki::{Authorities, FactoryAuthority};

/// As `NOW_S` of `tests/accept`.
const NOW: i64 = 1_800_000_000;
const TRUST_DOMAIN: &str = "example.org";

fn main() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (trusted, corpus) =
        (crate_folder.join("tests/accept"), crate_folder.join("../../fuzz/corpus/client"));
    fs::create_dir_all(&corpus).unwrap();
    // Nobody needs the authorities' keys again.
    let folder = tempfile::tempdir().unwrap();
    let devices = Authorities::create_or_open_at(&folder.path().join("fleet"), TRUST_DOMAIN, NOW).unwrap();
    let factory =
        FactoryAuthority::create_or_open_at(&folder.path().join("factory"), TRUST_DOMAIN, NOW).unwrap();
    let (device, made) = (devices.issue_device("lab", "board-1").unwrap(), factory.issue("SN-1").unwrap());
    fs::write(trusted.join("devices-root.der"), devices.devices_root()).unwrap();
    fs::write(trusted.join("devices-issuing.der"), &device.chain()[1]).unwrap();
    fs::write(trusted.join("factory-root.der"), factory.root()).unwrap();
    fs::write(trusted.join("factory-issuing.der"), &made.chain()[1]).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let own = CertificateParams::default().self_signed(&key).unwrap();
    let write = |name: &str, kind: u8, der: &[u8]| {
        fs::write(corpus.join(name), [&[kind], der].concat()).unwrap();
    };
    write("request", 0, request.der());
    write("self-signed", 1, own.der());
    write("factory", 1, &made.chain()[0]);
    write("device", 1, &device.chain()[0]);
}
