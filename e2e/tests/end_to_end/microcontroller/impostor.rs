//! A server in a gateway's place, which shows what a test gives it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection, pki_types::CertificateDer};
use wasmbed_e2e::TIMEOUT;
use wasmbed_pki::{
    Identity,
    tls::{Profile, roots, server_config},
};

/// Answers everyone who comes, until the test program ends.
pub(crate) struct Impostor {
    address: SocketAddr,
    devices_root: CertificateDer<'static>,
    shown: Arc<Mutex<Shown>>,
}

#[derive(Clone)]
enum Shown {
    Nothing,
    Tls12,
    Tls13(Arc<ServerConfig>),
}

impl Impostor {
    pub(crate) fn listen(devices_root: &CertificateDer<'static>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
        let address = listener.local_addr()?;
        let shown = Arc::new(Mutex::new(Shown::Nothing));
        let kept = Arc::clone(&shown);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let shown = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // Its end is what is tested.
                let _ = answer(&mut stream, &shown);
            }
        });
        Ok(Self { address, devices_root: devices_root.clone(), shown })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows this identity from now on, as a gateway would.
    pub(crate) fn show(&self, identity: &Identity) -> Result<()> {
        let config = server_config(Profile::Device, identity, roots([self.devices_root.clone()])?)?;
        self.set(Shown::Tls13(config));
        Ok(())
    }

    /// Picks TLS 1.2, whatever it is offered.
    pub(crate) fn speak_tls_1_2(&self) {
        self.set(Shown::Tls12);
    }

    fn set(&self, shown: Shown) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

fn answer(stream: &mut TcpStream, shown: &Shown) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    match shown {
        Shown::Nothing => Ok(()),
        Shown::Tls12 => pick_tls_1_2(stream),
        Shown::Tls13(config) => handshake(stream, Arc::clone(config)),
    }
}

/// Does the handshake, and what else the board asks is not answered.
fn handshake(stream: &mut TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
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

/// Reads the ClientHello and answers with a ServerHello of RFC 5246, section 7.4.1.3: version 3.3, no session id,
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression and no extensions.
fn pick_tls_1_2(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut hello)?;
    let mut answer = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    answer.extend([7; 32]);
    answer.extend([0, 0xc0, 0x2b, 0]);
    stream.write_all(&answer)?;
    // The board ends it.
    let _ = stream.read(&mut header)?;
    Ok(())
}
