//! A device that joins and renews over real TLS, with real keys, sockets and files.

#![cfg(test)]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use wasmbed_device::{
    DeviceConfig, DeviceIdentity, Handle,
    fleet::{self, FleetConfig},
    start,
};
use wasmbed_pki::{
    Authorities, CertificationRequest, DeviceClients, DeviceIssuer, DevicePeer, DeviceServer,
    FactoryAuthority, Identity, Leaf, PairingToken,
    tls::{provider, roots},
};
use wasmbed_protocol::{
    Certificate, CloseReason, Closing, DeviceMessage, DeviceUid, Epoch, Frames, GatewayMessage, HeartbeatAck,
    Join, JoinAnswer, JoinState, JoinStatement, KeyHash, MessageGroups, Welcome, decode_device,
    encode_gateway, encode_join_statement, limits,
};

const TRUST: &str = "wasmbed.test";
const TOKEN: &str = "0a1b2c3d.000102030405060708090a0b0c0d0e0f";
const UID: DeviceUid = DeviceUid([7; 16]);
/// Far more than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Certificates begin an hour before they are issued: with these they are due for renewal, or are not for long.
const SHORT_S: u64 = 60;
const LONG_S: u64 = 30 * 24 * 3_600;

/// What the gateway saw.
#[derive(Debug)]
enum News {
    /// A Join with a proof that holds, in a connection that joins.
    Proven {
        key: KeyHash,
    },
    Refused {
        at: Instant,
    },
    Renewed,
    /// A session, with the serial number of its certificate.
    Session {
        serial: String,
        key: KeyHash,
    },
}

struct Gateway {
    server: DeviceServer,
    issuer: DeviceIssuer,
    /// Joins to refuse, and the pause to ask for.
    refusals: Mutex<u32>,
    retry_after_ms: u32,
    /// Lifetimes of what is issued, the first one first; then long ones.
    lifetimes: Mutex<Vec<u64>>,
    epoch: Mutex<u64>,
    /// To end the session at its next heartbeat.
    end: AtomicBool,
    news: Mutex<mpsc::Sender<News>>,
}

struct World {
    authorities: Authorities,
    /// The device's factory identity.
    made: Identity,
    gateway: Arc<Gateway>,
    address: SocketAddr,
    news: mpsc::Receiver<News>,
    folder: tempfile::TempDir,
}

impl World {
    fn new(refusals: u32, retry_after_ms: u32, lifetimes: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        let authorities = Authorities::create_or_open(&pki, TRUST).unwrap();
        let factory = FactoryAuthority::create_or_open(&folder.path().join("factory"), TRUST).unwrap();
        let identity = authorities.issue_gateway("wasmbed-system", "gateway", &["127.0.0.1".into()]).unwrap();
        let clients = DeviceClients {
            devices: roots([authorities.devices_root().clone()]).unwrap(),
            factory: Some(roots([factory.root().clone()]).unwrap()),
            self_signed: true,
        };
        let (certificate, key) = Identity::files(&pki, "devices-issuing");
        let (sender, news) = mpsc::channel();
        let gateway = Arc::new(Gateway {
            server: DeviceServer::new(&identity, clients).unwrap(),
            issuer: DeviceIssuer::open(&certificate, &key, TRUST).unwrap(),
            refusals: Mutex::new(refusals),
            retry_after_ms,
            lifetimes: Mutex::new(lifetimes.to_vec()),
            epoch: Mutex::new(0),
            end: AtomicBool::new(false),
            news: Mutex::new(sender),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&gateway);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let gateway = Arc::clone(&serving);
                thread::spawn(move || gateway.serve(stream.unwrap()));
            }
        });
        Self { authorities, made: factory.issue("SN_0042").unwrap(), gateway, address, news, folder }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    fn start(&self, identity: DeviceIdentity) -> Handle {
        let roots = vec![self.authorities.services_root().clone()];
        start(DeviceConfig::new(identity, roots, vec![self.address.to_string()], self.data_dir())).unwrap()
    }

    fn factory(&self) -> DeviceIdentity {
        let Identity { chain_pem, key_pem, .. } = &self.made;
        DeviceIdentity::Factory(Identity::from_pem(chain_pem, key_pem).unwrap())
    }

    fn next(&self) -> News {
        self.news.recv_timeout(PATIENCE).expect("the gateway saw nothing more")
    }

    /// The key of the Join that is next.
    fn proven(&self) -> KeyHash {
        match self.next() {
            News::Proven { key } => key,
            other => panic!("not a Join: {other:?}"),
        }
    }

    /// Serial number and key of the session that is next.
    fn session(&self) -> (String, KeyHash) {
        match self.next() {
            News::Session { serial, key } => (serial, key),
            other => panic!("not a session: {other:?}"),
        }
    }
}

fn pairing() -> DeviceIdentity {
    DeviceIdentity::Pairing { token: TOKEN.parse().unwrap(), trust_domain: TRUST.into() }
}

/// One connection.
struct Session<'a> {
    gateway: &'a Gateway,
    stream: StreamOwned<ServerConnection, TcpStream>,
    peer: Option<DevicePeer>,
    open: bool,
}

impl Gateway {
    fn serve(&self, stream: TcpStream) {
        let connection = ServerConnection::new(Arc::clone(self.server.config())).unwrap();
        let stream = StreamOwned::new(connection, stream);
        let mut session = Session { gateway: self, stream, peer: None, open: true };
        let (mut received, mut buffer) = (Vec::new(), [0; 8_192]);
        while session.open {
            match session.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
            }
            let whole = std::mem::take(&mut received);
            let mut frames = Frames::new(&whole);
            for body in frames.by_ref() {
                session.handle(decode_device(body.unwrap()).unwrap());
            }
            received = whole[frames.consumed()..].to_vec();
        }
    }

    fn tell(&self, news: News) {
        // The test may have seen enough.
        let _ = self.news.lock().unwrap().send(news);
    }

    /// A chain for the request's key.
    fn issue(&self, request: &[u8]) -> Vec<u8> {
        let mut lifetimes = self.lifetimes.lock().unwrap();
        let seconds = if lifetimes.is_empty() { LONG_S } else { lifetimes.remove(0) };
        let request = CertificationRequest::parse(request).unwrap();
        let pem = self.issuer.issue(&request, "default", "joined", &UID.to_string(), seconds).unwrap();
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|one| one.unwrap().to_vec());
        chain.collect::<Vec<_>>().concat()
    }
}

impl Session<'_> {
    fn send(&mut self, message: &GatewayMessage<'_>) {
        let mut frame = [0; limits::FRAME_BYTES_MAX];
        let length = encode_gateway(message, &mut frame).unwrap();
        // A device that went away ends the reading.
        let _ = self.stream.write_all(&frame[..length]).and_then(|()| self.stream.flush());
    }

    fn answer(&mut self, state: JoinState, retry_after_ms: u32, detail: &str) {
        let (device_uid, namespace, name) = (Some(UID), "default", "joined");
        let answer = JoinAnswer { state, device_uid, namespace, name, retry_after_ms, detail };
        self.send(&GatewayMessage::JoinAnswer(answer));
    }

    fn peer(&mut self) -> DevicePeer {
        let found = || self.gateway.server.authenticate(&self.stream.conn, TRUST).unwrap();
        self.peer.get_or_insert_with(found).clone()
    }

    fn push_chain(&mut self, chain: &[u8]) {
        // In pieces, as a longer chain comes.
        for (index, bytes) in chain.chunks(500).enumerate() {
            let offset = (index * 500) as u32;
            let piece = Certificate { chain_bytes: chain.len() as u32, offset, bytes };
            self.send(&GatewayMessage::Certificate(piece));
        }
    }

    fn handle(&mut self, message: DeviceMessage<'_>) {
        match (self.peer(), message) {
            (DevicePeer::Device(peer), DeviceMessage::Join(join)) => {
                assert_eq!((join.proof, join.pairing_id), (None, None));
                let request = CertificationRequest::parse(join.request).unwrap();
                assert_eq!(request.public_key_info(), peer.facts.public_key, "a renewal keeps the key");
                self.answer(JoinState::Pending, 0, "the signer");
                let chain = self.gateway.issue(join.request);
                self.push_chain(&chain);
                self.gateway.tell(News::Renewed);
            }
            (DevicePeer::Device(peer), DeviceMessage::Hello(_)) => {
                let mut epoch = self.gateway.epoch.lock().unwrap();
                *epoch += 1;
                let welcome = Welcome {
                    epoch: Epoch(*epoch),
                    unix_ms: std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64,
                    heartbeat_interval_ms: 200,
                    heartbeat_timeout_ms: 30_000,
                    log_bytes_per_second: 0,
                    desired_known: false,
                    groups: Some(MessageGroups::RENEWAL),
                };
                drop(epoch);
                let key = KeyHash::of(&peer.facts.public_key);
                self.gateway.tell(News::Session { serial: peer.facts.serial, key });
                self.send(&GatewayMessage::Welcome(welcome));
            }
            (DevicePeer::Device(_), DeviceMessage::Heartbeat(heartbeat)) => {
                let unix_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
                let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms };
                self.send(&GatewayMessage::HeartbeatAck(ack));
                if self.gateway.end.swap(false, Relaxed) {
                    let reason = CloseReason::ShuttingDown;
                    self.send(&GatewayMessage::Goodbye(Closing { reason, retry_after_ms: 0, detail: "" }));
                    self.open = false;
                }
            }
            (_, DeviceMessage::Error(error)) => panic!("the device complains: {error:?}"),
            (DevicePeer::Device(_), _) => {}
            (peer, DeviceMessage::Join(join)) => self.join(&peer, &join),
            (_, other) => panic!("a device that joins sends {other:?}"),
        }
    }

    fn join(&mut self, peer: &DevicePeer, join: &Join<'_>) {
        {
            let mut refusals = self.gateway.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                drop(refusals);
                self.answer(JoinState::Refused, self.gateway.retry_after_ms, "no such Device");
                self.gateway.tell(News::Refused { at: Instant::now() });
                self.open = false;
                return;
            }
        }
        let request = CertificationRequest::parse(join.request).unwrap();
        let key = KeyHash::of(request.public_key_info());
        let Some(proof) = join.proof else { return self.answer(JoinState::ProofNeeded, 0, "") };
        let statement =
            JoinStatement { key, trust_domain: TRUST, namespace: "default", name: "joined", device_uid: UID };
        let mut bytes = [0; limits::JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes).unwrap();
        match peer {
            DevicePeer::Factory { id, .. } => {
                assert_eq!((id.serial(), join.pairing_id), ("SN_0042", None));
                let leaf = self.stream.conn.peer_certificates().unwrap()[0].clone();
                assert!(is_signed_by(&leaf, &bytes[..length], proof), "the proof is the factory key's");
            }
            DevicePeer::SelfSigned(facts) => {
                assert_eq!(join.pairing_id, Some("0a1b2c3d"));
                assert_eq!(facts.public_key, request.public_key_info(), "it holds the key that it asks for");
                let token: PairingToken = TOKEN.parse().unwrap();
                assert!(token.key().proves(&bytes[..length], proof), "the proof is the token's");
            }
            DevicePeer::Device(_) => panic!("this one joins"),
        }
        self.gateway.tell(News::Proven { key });
        self.answer(JoinState::Pending, 0, "a person approves it");
        let chain = self.gateway.issue(join.request);
        self.push_chain(&chain);
    }
}

fn is_signed_by(leaf: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let algorithms = provider().signature_verification_algorithms;
    let leaf = Leaf::parse(leaf).unwrap();
    algorithms.all.iter().any(|one| leaf.verify_signature(*one, message, signature).is_ok())
}

fn stop(device: Handle) {
    device.stop();
    device.wait().unwrap();
}

#[test]
fn a_device_joins_by_factory_identity_or_token_and_keeps_what_it_got() {
    for identity in [|world: &World| world.factory(), |_: &World| pairing()] {
        let world = World::new(0, 0, &[]);
        let device = world.start(identity(&world));
        let key = world.proven();
        let (serial, with) = world.session();
        assert_eq!(with, key);
        let since = Instant::now();
        while device.progress().sessions == 0 {
            assert!(since.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        let record = world.data_dir().join("storage").join("identity");
        assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o077, 0, "nobody else reads it");
        stop(device);
        // Another process of it has the same key and certificate.
        let device = world.start(identity(&world));
        let (again, _) = world.session();
        assert_eq!(again, serial);
        stop(device);
    }
}

#[test]
fn a_refused_join_waits_as_it_was_told() {
    let world = World::new(3, 400, &[]);
    let device = world.start(world.factory());
    let mut times = Vec::new();
    loop {
        match world.next() {
            News::Refused { at } => times.push(at),
            News::Proven { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(400)), "{times:?}");
    stop(device);
}

#[test]
fn a_chain_is_renewed_in_the_session_and_the_next_connection_presents_it() {
    let world = World::new(0, 0, &[SHORT_S]);
    let device = world.start(world.factory());
    world.proven();
    let (first, key) = world.session();
    assert!(matches!(world.next(), News::Renewed), "it is due at once");
    assert!(world.news.recv_timeout(Duration::from_millis(300)).is_err(), "the session goes on");
    stop(device);
    let device = world.start(world.factory());
    let (second, with) = world.session();
    assert_ne!(second, first);
    assert_eq!(with, key);
    assert!(world.news.recv_timeout(Duration::from_millis(300)).is_err(), "nothing is due for long");
    stop(device);
}

#[test]
fn a_session_that_ends_is_followed_by_one_with_the_new_chain_in_the_same_process() {
    let world = World::new(0, 0, &[SHORT_S]);
    let device = world.start(pairing());
    world.proven();
    let (first, _) = world.session();
    assert!(matches!(world.next(), News::Renewed));
    world.gateway.end.store(true, Relaxed);
    let (second, _) = world.session();
    assert_ne!(second, first);
    stop(device);
}

#[test]
fn a_device_that_loses_its_record_joins_anew_with_another_key() {
    let world = World::new(0, 0, &[]);
    let device = world.start(world.factory());
    let key = world.proven();
    assert!(matches!(world.next(), News::Session { .. }));
    stop(device);
    fs::write(world.data_dir().join("storage").join("identity"), b"damaged").unwrap();
    let device = world.start(world.factory());
    let other = world.proven();
    assert_ne!(other, key);
    assert!(matches!(world.next(), News::Session { .. }));
    stop(device);
}

#[test]
fn a_fleet_joins_too() {
    let world = World::new(0, 0, &[]);
    let issue = {
        let folder = world.folder.path().join("factory");
        let factory = FactoryAuthority::create_or_open(&folder, TRUST).unwrap();
        move |_| factory.issue("SN_0042").map(DeviceIdentity::Factory).map_err(Into::into)
    };
    let roots = vec![world.authorities.services_root().clone()];
    let devices = 20;
    let config = FleetConfig::new(devices, Arc::new(issue), roots, vec![world.address.to_string()]);
    let fleet = fleet::start(config).unwrap();
    let mut keys = BTreeSet::new();
    while keys.len() < devices {
        if let News::Session { key, .. } = world.next() {
            keys.insert(key);
        }
    }
    fleet.stop();
    fleet.wait().unwrap();
    assert!(world.gateway.lifetimes.lock().unwrap().is_empty());
}
