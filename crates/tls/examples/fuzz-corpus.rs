//! Writes the device of `tests/accept` and, in a second run, what gateways answer it: `cargo run -p wasmbed-tls --example
//! fuzz-corpus`, twice.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool that a person runs"
)]

#[path = "../tests/accept/mod.rs"]
mod accept;

use std::{fs, io::Write, path::Path};

use rustls_pki_types::pem::PemObject;
use wasmbed_pki::{
    Authorities,
    tls::{Profile, roots, server_config},
};
use wasmbed_tls::Time;

fn main() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (fixtures, corpus) = (crate_folder.join("tests/accept"), crate_folder.join("../../fuzz/corpus/tls"));
    // The authorities are kept for the second run alone: nobody else needs their keys.
    let folder = std::env::temp_dir().join("wasmbed-tls-fuzz-corpus");
    let is_second = folder.join("services-root.crt").exists();
    fs::create_dir_all(&folder).unwrap();
    let authorities = Authorities::create_or_open(&folder, "example.org").unwrap();
    if !is_second {
        let device = authorities.issue_device("lab", "board-1").unwrap();
        fs::write(fixtures.join("device.der"), &device.chain()[0]).unwrap();
        fs::write(fixtures.join("devices-issuing.der"), &device.chain()[1]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(device.key_pem.as_bytes()).unwrap();
        fs::write(fixtures.join("device.key.der"), key.secret_der()).unwrap();
        fs::write(fixtures.join("services-root.der"), authorities.services_root()).unwrap();
        return;
    }
    let gateway = authorities.issue_gateway("wasmbed", "one", &[]).unwrap();
    let controller = authorities.issue_controller("wasmbed", "one").unwrap();
    let devices = || roots([authorities.devices_root().clone()]).unwrap();
    for (name, identity, fragment, piece) in [
        ("gateway", &gateway, 4_101, 255u8),
        ("gateway-bytes", &gateway, 4_101, 0),
        ("gateway-fragments", &gateway, 64, 3),
        ("controller", &controller, 4_101, 255),
    ] {
        let mut config = (*server_config(Profile::Device, identity, devices()).unwrap()).clone();
        config.max_fragment_size = Some(fragment);
        let mut server = rustls::ServerConnection::new(config.into()).unwrap();
        let mut session = accept::client().connect(&Time::new(0), 0).unwrap();
        let mut file = vec![piece];
        for round in 0..3 {
            let mut sent = Vec::new();
            session.transmit(&mut |bytes| {
                sent.extend_from_slice(bytes);
                bytes.len()
            });
            let mut sent = sent.as_slice();
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                let _ = server.process_new_packets();
            }
            if round == 1 && !server.is_handshaking() {
                server.writer().write_all(b"to the device").unwrap();
                server.refresh_traffic_keys().unwrap();
                server.writer().write_all(b"with other keys").unwrap();
            }
            let start = file.len();
            while server.wants_write() {
                server.write_tls(&mut file).unwrap();
            }
            let _ = session.receive(&file[start..]);
            session.recv(&mut [0; 4_096]);
        }
        fs::write(corpus.join(name), file).unwrap();
    }
    fs::write(corpus.join("close-notify"), [255, 0x15, 3, 3, 0, 2, 1, 0]).unwrap();
    fs::write(corpus.join("protocol-version"), [255, 0x15, 3, 3, 0, 2, 2, 70]).unwrap();
    fs::write(corpus.join("http"), b"\xffHTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    fs::remove_dir_all(folder).unwrap();
}
