//! A gateway, controller and signer in one, for boards that join: it verifies what those verify, issues at once, and counts what
//! it saw. Nobody is asked, so that a test can begin again as often as it likes.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use rustls::{
    ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use wasmbed_e2e::TIMEOUT;
use wasmbed_identity::{Leaf, PairingKey};
use wasmbed_pki::{
    Authorities, CertificateFacts, CertificationRequest, DeviceClients, DeviceIssuer, DeviceKey, DevicePeer,
    DeviceServer, FactoryAuthority, is_signed_by,
    statement::{Erased, Nonce, Order, SignedProof},
    tls::roots,
};
use wasmbed_protocol::{
    Certificate, CloseReason, Closing, Decommission, DeviceMessage, DeviceUid, Epoch, GatewayMessage,
    HeartbeatAck, Join, JoinAnswer, JoinState, JoinStatement, KeyHash, MessageGroups, Welcome, decode_device,
    encode_gateway, encode_join_statement,
    limits::{FRAME_BYTES_MAX, JOIN_STATEMENT_BYTES_MAX},
};

/// The Device that every board here is.
pub(crate) const NAMESPACE: &str = "lab";
pub(crate) const NAME: &str = "bench-1";
const UID: DeviceUid = DeviceUid([0x5a; 16]);
const NONCE: Nonce = Nonce([0xa5; 16]);
const TRUST_DOMAIN: &str = "wasmbed";
/// Of what a board gets when it joins, seconds. Authorities date an hour back, and two thirds of both are past by then: the board
/// renews it in its first session.
const FIRST_S: u64 = 600;
const RENEWED_S: u64 = 31_536_000;
/// A chain comes in pieces, as from a gateway whose chains are longer.
const PIECE_BYTES: usize = 500;

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// What it saw of boards.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Keys that a certificate was asked for.
    pub(crate) keys: BTreeSet<KeyHash>,
    /// Joins that it has proven.
    pub(crate) joined: u32,
    /// Renewals that it issued.
    pub(crate) renewed: u32,
    /// The `notAfter` of the certificates that sessions were established with.
    pub(crate) sessions: Vec<i64>,
    /// Proofs that it verified.
    pub(crate) proofs: u32,
    /// What no board may do.
    pub(crate) faults: Vec<String>,
}

struct Office {
    server: DeviceServer,
    issuer: DeviceIssuer,
    pairing: Option<PairingKey>,
    /// What every board gets in its session.
    order: Mutex<Option<Vec<u8>>>,
    seen: Mutex<Seen>,
}

/// Answers everyone who comes, until the test program ends.
pub(crate) struct Registrar {
    address: SocketAddr,
    office: Arc<Office>,
}

impl Registrar {
    pub(crate) fn listen(
        pki: &Path,
        authorities: &Authorities,
        factory: &FactoryAuthority,
        pairing: Option<PairingKey>,
    ) -> Result<Self> {
        let gateway = authorities.issue_gateway("wasmbed-system", "gateway", &["10.0.2.2".to_owned()])?;
        let clients = DeviceClients {
            devices: roots([authorities.devices_root().clone()])?,
            factory: Some(roots([factory.root().clone()])?),
            self_signed: pairing.is_some(),
        };
        let file = |extension: &str| pki.join(format!("devices-issuing.{extension}"));
        let office = Arc::new(Office {
            server: DeviceServer::new(&gateway, clients)?,
            issuer: DeviceIssuer::open(&file("crt"), &file("key"), TRUST_DOMAIN)?,
            pairing,
            order: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
        let address = listener.local_addr()?;
        let kept = Arc::clone(&office);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let office = Arc::clone(&kept);
                thread::spawn(move || office.answer(stream));
            }
        });
        Ok(Self { address, office })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A chain, PEM, of a board's first certificate.
    pub(crate) fn issue(&self, request: &CertificationRequest) -> Result<String> {
        self.office.issue(request, FIRST_S)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.office.seen().clone()
    }

    /// The next board begins with nothing.
    pub(crate) fn forget(&self) {
        *self.office.seen() = Seen::default();
        *self.office.order() = None;
    }

    /// From now on boards are to end, and none joins.
    pub(crate) fn decommission(&self, authorities: &Authorities) -> Result<()> {
        let controller = authorities.issue_controller("wasmbed-system", "controller")?;
        let (key, certificates) = (DeviceKey::of(&controller)?, controller.chain());
        let chain: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
        let device = format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/device/{NAME}");
        let order = Order { device: &device, device_uid: UID, nonce: NONCE };
        *self.office.order() = Some(order.sign(&chain, |message| key.sign(message))?);
        Ok(())
    }
}

impl Office {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, stream: TcpStream) {
        if let Err(error) = self.serve(stream) {
            // A connection that is cut is what is tested.
            if error.downcast_ref::<std::io::Error>().is_none() {
                self.seen().faults.push(format!("{error:#}"));
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut tls = StreamOwned::new(ServerConnection::new(self.server.config().clone())?, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        match self.server.authenticate(&tls.conn, TRUST_DOMAIN)? {
            DevicePeer::Device(peer) => {
                let id = format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/device/{NAME}");
                ensure!(peer.id.as_str() == id, "{} is not the Device that joined", peer.id);
                self.session(&mut tls, &peer.facts)
            }
            DevicePeer::Factory { .. } | DevicePeer::SelfSigned(_) => self.join(&mut tls),
        }
    }

    fn join(&self, tls: &mut Tls) -> Result<()> {
        loop {
            let frame = read(tls)?;
            let DeviceMessage::Join(join) = decode_device(&frame)? else {
                bail!("a device that joins sends nothing but Join: {frame:?}");
            };
            if self.order().is_some() {
                return write(tls, &answer(JoinState::Refused, "the Device is to be decommissioned"));
            }
            let request = self.request(&join)?;
            let Some(proof) = join.proof else {
                write(tls, &answer(JoinState::ProofNeeded, ""))?;
                continue;
            };
            let key = KeyHash::of(request.public_key_info());
            ensure!(self.proves(tls, key, proof)?, "a proof that is none for {key}");
            write(tls, &answer(JoinState::Pending, "the signer has not issued yet"))?;
            self.seen().joined += 1;
            self.send_chain(tls, &request, FIRST_S)?;
            // The board ends it.
            return read(tls).map(|_| ());
        }
    }

    fn request(&self, join: &Join<'_>) -> Result<CertificationRequest> {
        let request = CertificationRequest::parse(join.request)?;
        self.seen().keys.insert(KeyHash::of(request.public_key_info()));
        Ok(request)
    }

    fn proves(&self, tls: &Tls, key: KeyHash, proof: &[u8]) -> Result<bool> {
        let statement = JoinStatement {
            key,
            trust_domain: TRUST_DOMAIN,
            namespace: NAMESPACE,
            name: NAME,
            device_uid: UID,
        };
        let mut bytes = [0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes)?;
        let statement = &bytes[..length];
        if let Some(pairing) = &self.pairing {
            return Ok(pairing.proves(statement, proof));
        }
        let presented = tls.conn.peer_certificates().and_then(<[_]>::first).context("no certificate")?;
        let leaf = Leaf::parse(presented)?;
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        Ok(algorithms.iter().any(|algorithm| leaf.verify_signature(*algorithm, statement, proof).is_ok()))
    }

    fn session(&self, tls: &mut Tls, facts: &CertificateFacts) -> Result<()> {
        let own = KeyHash::of(&facts.public_key);
        let frame = read(tls)?;
        let DeviceMessage::Hello(hello) = decode_device(&frame)? else { bail!("no Hello: {frame:?}") };
        let epoch = Epoch(hello.last_epoch.0 + 1);
        let welcome = Welcome {
            epoch,
            unix_ms: unix_ms()?,
            heartbeat_interval_ms: 1_000,
            heartbeat_timeout_ms: 30_000,
            log_bytes_per_second: 1_000,
            desired_known: false,
            groups: Some(MessageGroups(MessageGroups::RENEWAL.0 | MessageGroups::DECOMMISSION.0)),
        };
        // Before the board says that it has a session.
        self.seen().sessions.push(facts.not_after);
        if self.seen().proofs > 0 {
            return write(tls, &GatewayMessage::Reject(DECOMMISSIONED));
        }
        write(tls, &GatewayMessage::Welcome(welcome))?;
        let order = self.order().clone();
        if let Some(order) = &order {
            write(tls, &GatewayMessage::Decommission(Decommission { order }))?;
        }
        let mut renewed = false;
        loop {
            let frame = read(tls)?;
            match decode_device(&frame)? {
                DeviceMessage::Decommissioned(decommissioned) => {
                    let signed = SignedProof::decode(decommissioned.proof)?;
                    let is_own = signed.verify(|message, signature| {
                        is_signed_by(&facts.public_key, message, signature).then_some(()).ok_or(())
                    });
                    let proof = signed.proof();
                    let is_right = (proof.device_uid, proof.nonce, proof.erased) == (UID, NONCE, Erased::ALL);
                    ensure!(is_own.is_ok() && is_right, "a proof that is none of {own}: {proof:?}");
                    self.seen().proofs += 1;
                    return write(tls, &GatewayMessage::Goodbye(DECOMMISSIONED));
                }
                DeviceMessage::Join(_) if order.is_some() => {
                    write(tls, &answer(JoinState::Refused, "the Device is to be decommissioned"))?;
                }
                DeviceMessage::Join(join) => {
                    let request = self.request(&join)?;
                    let key = KeyHash::of(request.public_key_info());
                    ensure!(key == own, "a session of {own} renews for {key}");
                    ensure!(join.proof.is_none() && join.pairing_id.is_none(), "a renewal needs no proof");
                    self.seen().renewed += 1;
                    self.send_chain(tls, &request, RENEWED_S)?;
                    renewed = true;
                }
                // The next connection shows what became of the chain.
                DeviceMessage::Heartbeat(_) if renewed => {
                    let close = Closing { reason: CloseReason::ShuttingDown, retry_after_ms: 0, detail: "" };
                    return write(tls, &GatewayMessage::Goodbye(close));
                }
                DeviceMessage::Heartbeat(heartbeat) => {
                    let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms: unix_ms()? };
                    write(tls, &GatewayMessage::HeartbeatAck(ack))?;
                }
                DeviceMessage::Error(error) => bail!("the board complains: {error:?}"),
                DeviceMessage::Hello(_)
                | DeviceMessage::Reported(_)
                | DeviceMessage::AssignmentGet(_)
                | DeviceMessage::ModuleGet(_)
                | DeviceMessage::Log(_)
                | DeviceMessage::Trap(_)
                | DeviceMessage::Publish(_)
                | DeviceMessage::SettingsAnswer(_)
                | DeviceMessage::DeliverAck(_) => {}
            }
        }
    }

    fn issue(&self, request: &CertificationRequest, seconds: u64) -> Result<String> {
        Ok(self.issuer.issue(request, NAMESPACE, NAME, &UID.to_string(), seconds)?)
    }

    fn send_chain(&self, tls: &mut Tls, request: &CertificationRequest, seconds: u64) -> Result<()> {
        let pem = self.issue(request, seconds)?;
        let mut chain = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            chain.extend_from_slice(&certificate?);
        }
        let chain_bytes = u32::try_from(chain.len())?;
        for (index, bytes) in chain.chunks(PIECE_BYTES).enumerate() {
            let offset = u32::try_from(index * PIECE_BYTES)?;
            write(tls, &GatewayMessage::Certificate(Certificate { chain_bytes, offset, bytes }))?;
        }
        Ok(())
    }
}

const DECOMMISSIONED: Closing<'static> =
    Closing { reason: CloseReason::Decommissioned, retry_after_ms: 0, detail: "" };

fn answer(state: JoinState, detail: &str) -> GatewayMessage<'_> {
    GatewayMessage::JoinAnswer(JoinAnswer {
        state,
        device_uid: Some(UID),
        namespace: NAMESPACE,
        name: NAME,
        retry_after_ms: 0,
        detail,
    })
}

fn read(tls: &mut Tls) -> Result<Vec<u8>> {
    let mut head = [0; 2];
    tls.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(head))];
    tls.read_exact(&mut body)?;
    Ok(body)
}

fn write(tls: &mut Tls, message: &GatewayMessage<'_>) -> Result<()> {
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_gateway(message, &mut frame)?;
    tls.write_all(&frame[..length])?;
    Ok(tls.flush()?)
}

fn unix_ms() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
