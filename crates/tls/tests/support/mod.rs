//! A fleet's certificates in memory, and a gateway as `wasmbed-pki` configures it, at the other end of a session.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{io::Write, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use wasmbed_pki::{
    Identity,
    tls::{Profile, roots, server_config},
};
use wasmbed_tls::{Client, Credentials, P256Key, RandomSource, Session, SessionState, Time, TlsError};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;
pub(crate) use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

pub(crate) const GATEWAY: &str = "spiffe://example.org/ns/wasmbed/gateway/one";
pub(crate) const DEVICE: &str = "spiffe://example.org/ns/lab/device/board-1";

pub(crate) struct Random;

impl RandomSource for Random {
    fn fill(&self, buffer: &mut [u8]) {
        rustls::crypto::ring::default_provider().secure_random.fill(buffer).unwrap();
    }
}

/// The authorities of one trust domain, as `wasmbed-pki` makes them.
pub(crate) struct Fleet {
    pub(crate) services_root: Authority,
    pub(crate) services: Authority,
    pub(crate) devices_root: Authority,
    pub(crate) devices: Authority,
}

pub(crate) fn authority(
    name: &str,
    purposes: &[ExtendedKeyUsagePurpose],
    above: Option<&Authority>,
) -> Authority {
    authority_with(name, purposes, above, |_| {})
}

pub(crate) fn authority_with(
    name: &str,
    purposes: &[ExtendedKeyUsagePurpose],
    above: Option<&Authority>,
    change: impl FnOnce(&mut CertificateParams),
) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::from(above.is_none())));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = purposes.to_vec();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2045, 1, 1));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    match above {
        Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let services_root = authority("services root", &[], None);
        let devices_root = authority("devices root", &[], None);
        Self {
            services: authority("services issuing", &[ServerAuth, ClientAuth], Some(&services_root)),
            devices: authority("devices issuing", &[ClientAuth], Some(&devices_root)),
            services_root,
            devices_root,
        }
    }

    pub(crate) fn gateway(&self) -> Identity {
        leaf(&self.services, &[GATEWAY], ServerAuth, |_| {})
    }

    pub(crate) fn client(&self) -> Client {
        self.client_trusting(&[&self.services_root])
    }

    pub(crate) fn client_trusting(&self, services_roots: &[&Authority]) -> Client {
        let device = leaf(&self.devices, &[DEVICE], ClientAuth, |_| {});
        client(&device, services_roots.iter().map(|root| root.der().clone()).collect()).unwrap()
    }

    /// As a gateway configures the devices' port.
    pub(crate) fn server(&self, gateway: &Identity) -> Arc<ServerConfig> {
        server_config(Profile::Device, gateway, roots([self.devices_root.der().clone()]).unwrap()).unwrap()
    }
}

pub(crate) fn client(
    device: &Identity,
    services_roots: Vec<CertificateDer<'static>>,
) -> Result<Client, TlsError> {
    let mut client = Client::new("example.org", &services_roots, &Random)?;
    client.present(Credentials::device(device.chain(), &key(device))?)?;
    Ok(client)
}

pub(crate) fn key(device: &Identity) -> P256Key {
    P256Key::from_der(&device.key()).unwrap()
}

/// A leaf valid from 2025 to 2035, with its chain.
pub(crate) fn leaf(
    below: &Authority,
    uris: &[&str],
    purpose: ExtendedKeyUsagePurpose,
    change: impl FnOnce(&mut CertificateParams),
) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2035, 1, 1));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, below).unwrap();
    Identity::from_pem(&(certificate.pem() + &below.pem()), &key.serialize_pem()).unwrap()
}

/// Seconds since 1970 at the beginning of a year, roughly.
pub(crate) fn year(year: u64) -> u64 {
    (year - 1970) * 31_556_952
}

/// A session and its gateway, connected by two byte queues.
pub(crate) struct Pair {
    pub(crate) session: Session,
    pub(crate) server: ServerConnection,
    pub(crate) to_session: Vec<u8>,
    pub(crate) to_server: Vec<u8>,
    /// What the application on the board read.
    pub(crate) read: Vec<u8>,
}

impl Pair {
    pub(crate) fn new(client: &Client, server: Arc<ServerConfig>, time: &Time) -> Self {
        Self {
            session: client.connect(time, 0).unwrap(),
            server: ServerConnection::new(server).unwrap(),
            to_session: Vec::new(),
            to_server: Vec::new(),
            read: Vec::new(),
        }
    }

    /// Moves everything in pieces of at most `piece` bytes until nothing moves; the application reads at once.
    pub(crate) fn run(&mut self, piece: usize) -> Result<(), TlsError> {
        loop {
            let mut moved = self.move_to_server(piece);
            while self.server.wants_write() {
                self.server.write_tls(&mut self.to_session).unwrap();
            }
            let offered = self.to_session.len().min(piece);
            let taken = self.session.receive(&self.to_session[..offered]);
            let mut buffer = [0; 1_500];
            loop {
                let count = self.session.recv(&mut buffer);
                self.read.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    break;
                }
                moved = true;
            }
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    // The alert reaches the gateway.
                    self.move_to_server(usize::MAX);
                    return Err(error);
                }
            };
            self.to_session.drain(..taken);
            if !moved && taken == 0 && !self.session.wants_transmit() {
                return Ok(());
            }
        }
    }

    pub(crate) fn move_to_server(&mut self, piece: usize) -> bool {
        let sent = self.session.transmit(&mut |bytes| {
            let count = bytes.len().min(piece);
            self.to_server.extend_from_slice(&bytes[..count]);
            count
        });
        while !self.to_server.is_empty() {
            let offered = self.to_server.len().min(piece);
            let count = self.server.read_tls(&mut &self.to_server[..offered]).unwrap();
            self.to_server.drain(..count);
            let _ = self.server.process_new_packets();
        }
        sent > 0
    }

    /// Connects.
    pub(crate) fn up(client: &Client, server: Arc<ServerConfig>) -> Self {
        let mut pair = Self::new(client, server, &Time::new(0));
        pair.run(usize::MAX).unwrap();
        assert_eq!(pair.session.state(), SessionState::Up);
        assert!(!pair.server.is_handshaking());
        pair
    }

    pub(crate) fn server_writes(&mut self, bytes: &[u8]) {
        self.server.set_buffer_limit(None);
        self.server.writer().write_all(bytes).unwrap();
    }

    pub(crate) fn server_reads(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut self.server.reader(), &mut bytes);
        bytes
    }

    pub(crate) fn device_writes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.session.send(bytes);
            bytes = &bytes[sent..];
            self.run(usize::MAX).unwrap();
        }
    }
}

/// How a connection to this gateway ends that must not come up.
pub(crate) fn refusal(client: &Client, server: Arc<ServerConfig>, time: &Time) -> TlsError {
    let mut pair = Pair::new(client, server, time);
    let error = pair.run(usize::MAX).expect_err("the gateway must be refused");
    assert_eq!(pair.session.state(), SessionState::Closed);
    assert_eq!(pair.session.failure(), Some(&error));
    assert_eq!(pair.session.peer(), None);
    assert_eq!(pair.session.send(b"x"), 0);
    assert_eq!(pair.session.receive(b"more"), Err(error.clone()));
    let words = error.to_string();
    assert!(words.len() <= wasmbed_tls::REASON_BYTES_MAX, "{words}");
    error
}
