//! Who calls himself a gateway and is none: the board says why it goes on looking.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection};
use wasmbed_emulator::Kind;
use wasmbed_pki::{
    Authorities, Identity,
    tls::{Profile, roots, server_config},
};

use crate::board::{PATIENCE, start_with};

each_board!(
    one_below_another_authority_is_refused,
    a_controller_that_answers_as_a_gateway_is_refused,
    a_device_that_answers_as_a_gateway_is_refused,
);

/// The board's own authorities, and a listener that shows `identity` to whoever comes.
fn refused(kind: Kind, impostor: impl FnOnce(&Authorities) -> Result<Identity>, reason: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authorities = Authorities::create_or_open(&dir.path().join("pki"), "wasmbed")?;
    let identity = impostor(&authorities)?;
    let anyone = roots([authorities.devices_root().clone()])?;
    let address = listen(server_config(Profile::Device, &identity, anyone)?)?;
    let device = authorities.issue_device("default", "board")?;
    let root = authorities.services_root().clone();
    let board = start_with(kind, dir.path(), &device, &[root], &address.to_string())?;
    board.wait_for_line("why it refuses", PATIENCE, |line| {
        line.contains("gateway not reached") && line.contains(reason)
    })?;
    Ok(())
}

/// Handshakes with everyone who comes, until this program ends.
fn listen(config: Arc<ServerConfig>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Its end is what is tested.
            let _ = handshake(&mut stream, Arc::clone(&config));
        }
    });
    Ok(address)
}

fn handshake(stream: &mut TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    loop {
        connection.complete_io(stream)?;
        if !connection.is_handshaking() {
            let mut plain = [0; 64];
            match connection.reader().read(&mut plain) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.flush()?,
                _ => return Ok(()),
            }
        }
    }
}

fn one_below_another_authority_is_refused(kind: Kind) -> Result<()> {
    let other = tempfile::tempdir()?;
    let strangers = Authorities::create_or_open(&other.path().join("pki"), "wasmbed")?;
    let hosts = ["10.0.2.2".to_owned()];
    refused(
        kind,
        |_| Ok(strangers.issue_gateway("wasmbed-system", "gateway", &hosts)?),
        "does not stand below a services root",
    )
}

fn a_controller_that_answers_as_a_gateway_is_refused(kind: Kind) -> Result<()> {
    refused(
        kind,
        |own| Ok(own.issue_controller("wasmbed-system", "controller")?),
        "the gateway's certificate",
    )
}

fn a_device_that_answers_as_a_gateway_is_refused(kind: Kind) -> Result<()> {
    refused(kind, |own| Ok(own.issue_device("default", "thief")?), "is not meant for a server")
}
