//! A device over real TLS, sockets and files, and what it refuses to talk to.

#![cfg(test)]

mod gateway;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use gateway::{ScriptedGateway, Wanted};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use wasmbed_device::{
    DeviceConfig, DeviceError, DeviceIdentity,
    fleet::{self, FleetConfig, FleetStorage},
    start,
};
use wasmbed_pki::{
    Authorities, Identity,
    tls::{Profile, roots, server_config},
};
use wasmbed_protocol::UartGrant;

const TRUST: &str = "wasmbed.test";
/// Far more than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    authorities: Authorities,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { authorities: Authorities::create_or_open(&folder.path().join("pki"), TRUST).unwrap(), folder }
    }

    fn services_roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.authorities.services_root().clone()]
    }

    fn device_roots(&self) -> Arc<RootCertStore> {
        roots([self.authorities.devices_root().clone()]).unwrap()
    }

    fn gateway(&self) -> Arc<ServerConfig> {
        let identity =
            self.authorities.issue_gateway("wasmbed-system", "gateway", &["127.0.0.1".into()]).unwrap();
        server_config(Profile::Device, &identity, self.device_roots()).unwrap()
    }

    fn device(&self, name: &str) -> Identity {
        self.authorities.issue_device("default", name).unwrap()
    }

    fn config(&self, name: &str, gateways: Vec<String>) -> DeviceConfig {
        DeviceConfig::new(self.device(name), self.services_roots(), gateways, self.folder.path().join(name))
    }
}

enum News {
    /// The device reported something new.
    Reported {
        /// Whether the application runs.
        running: bool,
        /// How often the module was asked for in this session.
        module_gets: usize,
    },
    /// The application logged a line.
    Logged(String),
    /// The handshake failed.
    Refused(io::Error),
}

/// Serves sessions, a thread for each, until the listener is gone; says what it sees.
fn serve(config: Arc<ServerConfig>, wanted: Arc<Wanted>) -> (SocketAddr, mpsc::Receiver<News>) {
    serve_in_pieces(config, wanted, usize::MAX)
}

/// The same, with at most `piece` bytes in each TLS record.
fn serve_in_pieces(
    config: Arc<ServerConfig>,
    wanted: Arc<Wanted>,
    piece: usize,
) -> (SocketAddr, mpsc::Receiver<News>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (news, seen) = mpsc::channel();
    thread::spawn(move || {
        for (epoch, stream) in listener.incoming().enumerate() {
            let (config, wanted, news) = (Arc::clone(&config), Arc::clone(&wanted), news.clone());
            thread::spawn(move || {
                session(stream.unwrap(), config, &wanted, (epoch as u64 + 1, piece), &news)
            });
        }
    });
    (address, seen)
}

fn session(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    wanted: &Wanted,
    (epoch, piece): (u64, usize),
    news: &mpsc::Sender<News>,
) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut gateway = ScriptedGateway::new(wanted, 5, epoch);
    let mut buffer = [0; 8_192];
    let mut told = None;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let answer = gateway.handle(&buffer[..length]);
                for part in answer.chunks(piece) {
                    if stream.write_all(part).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                if stream.conn.is_handshaking() {
                    // The test may be over.
                    let _ = news.send(News::Refused(error));
                }
                return;
            }
        }
        for line in gateway.lines.drain(..) {
            // The test may have seen enough.
            let _ = news.send(News::Logged(line));
        }
        if gateway.seen != told {
            told.clone_from(&gateway.seen);
            // The test may have seen enough.
            let _ =
                news.send(News::Reported { running: gateway.is_running(), module_gets: gateway.module_gets });
        }
    }
}

fn hello() -> Arc<Wanted> {
    Arc::new(Wanted::new(include_bytes!("../../../guests/prebuilt/counter.wasm").to_vec(), &["key-value"]))
}

/// Waits for the application to run; how often the module was asked for in that session.
fn until_running(news: &mpsc::Receiver<News>) -> usize {
    loop {
        match news.recv_timeout(PATIENCE).expect("the application never ran") {
            News::Reported { running: true, module_gets } => return module_gets,
            News::Reported { running: false, .. } | News::Logged(_) => {}
            News::Refused(error) => panic!("handshake: {error}"),
        }
    }
}

#[test]
fn a_device_pulls_runs_reports_and_goes_on_after_a_restart_without_pulling_again() {
    let world = World::new();
    let (address, news) = serve(world.gateway(), hello());
    // A name is looked up, and all its addresses are tried.
    let by_name = format!("localhost:{}", address.port());
    let device = start(world.config("one", vec![by_name])).unwrap();
    assert!(until_running(&news) > 0);
    device.stop();
    device.wait().unwrap();

    let device = start(world.config("one", vec![address.to_string()])).unwrap();
    assert_eq!(until_running(&news), 0, "the module was on disk");
    let again = start(world.config("one", vec![address.to_string()]));
    assert!(matches!(again, Err(DeviceError::InUse(_))), "{again:?}");
    device.stop();
    device.wait().unwrap();
}

/// Reads the monotonic clock and `uptime` between waits and within slices; logs `back` at the first step back of one, `ok` after
/// 20 waits without.
const CLOCKS: &str = r#"(module
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasmbed" "uptime" (func $uptime (result i64)))
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "backok")
    (global $ns (mut i64) (i64.const 0))
    (global $ms (mut i64) (i64.const 0))
    (func $read (local $ns i64) (local $ms i64)
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
        (local.set $ns (i64.load (i32.const 8)))
        (local.set $ms (call $uptime))
        (if (i32.or (i64.lt_u (local.get $ns) (global.get $ns)) (i64.lt_u (local.get $ms) (global.get $ms)))
            (then (call $log (i32.const 0) (i32.const 4)) unreachable))
        (global.set $ns (local.get $ns))
        (global.set $ms (local.get $ms)))
    (func (export "run") (local $waits i32) (local $reads i32)
        (loop $next
            (local.set $reads (i32.const 1000))
            (loop $again
                (call $read)
                (local.set $reads (i32.sub (local.get $reads) (i32.const 1)))
                (br_if $again (local.get $reads)))
            (call $wait (i32.const 3))
            (local.set $waits (i32.add (local.get $waits) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $waits) (i32.const 20))))
        (call $log (i32.const 4) (i32.const 2))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

#[test]
fn the_clocks_of_an_application_never_go_back() {
    let world = World::new();
    let (address, news) = serve(world.gateway(), Arc::new(Wanted::new(wat::parse_str(CLOCKS).unwrap(), &[])));
    let device = start(world.config("one", vec![address.to_string()])).unwrap();
    let line = loop {
        if let News::Logged(line) = news.recv_timeout(PATIENCE).expect("the application never said anything")
        {
            break line;
        }
    };
    assert_eq!(line, "ok");
    device.stop();
    device.wait().unwrap();
}

/// A pseudoterminal's other end, and the path of the device.
fn pseudoterminal() -> (File, PathBuf) {
    let other = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&other).unwrap();
    unlockpt(&other).unwrap();
    let name = ptsname(&other, Vec::new()).unwrap();
    (File::from(other), OsString::from_vec(name.into_bytes()).into())
}

#[test]
fn a_serial_device_wakes_the_application_that_reads_it() {
    let world = World::new();
    let serial = include_bytes!("../../../guests/prebuilt/serial.wasm").to_vec();
    let grant = UartGrant { name: "uart0", baud: 9_600, bytes_per_second: 1_000 };
    let wanted = Wanted::granted(serial, &["uart"], &[grant]);
    let (address, news) = serve(world.gateway(), Arc::new(wanted));
    let (mut other, path) = pseudoterminal();
    let mut config = world.config("one", vec![address.to_string()]);
    config.board.uarts = vec![path];
    let device = start(config).unwrap();
    until_running(&news);
    // What comes before the application listens is not kept; once it does, it says so when nobody speaks.
    let mut ready = [0; 7];
    other.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\r\n");
    let begun = Instant::now();
    other.write_all(b"ping\n").unwrap();
    let mut answer = [0; 3];
    other.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"4\r\n");
    // The read would wait for ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    device.stop();
    device.wait().unwrap();
    let mut config = world.config("one", vec![address.to_string()]);
    config.board.uarts = vec![PathBuf::from("/dev/null"); 11];
    assert!(matches!(start(config), Err(DeviceError::Uarts(11))));
}

#[test]
fn a_gateway_that_is_away_or_an_impostor_is_passed_over_for_the_next() {
    let (world, other, wanted) = (World::new(), World::new(), hello());
    // A port that nobody listens on, because it was just given back.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (impostor, refusals) = serve(other.gateway(), Arc::clone(&wanted));
    // A device's certificate does not make a gateway, even with the right root for clients.
    let as_device = server_config(Profile::Device, &world.device("two"), world.device_roots()).unwrap();
    let (device_as_gateway, more_refusals) = serve(as_device, Arc::clone(&wanted));
    let (address, news) = serve(world.gateway(), Arc::clone(&wanted));
    let gateways = [away, impostor, device_as_gateway, address].map(|address| address.to_string());
    let device = start(world.config("one", gateways.to_vec())).unwrap();
    until_running(&news);
    for refusals in [refusals, more_refusals] {
        assert!(matches!(refusals.recv_timeout(PATIENCE), Ok(News::Refused(_))));
    }
    assert!(device.progress().attempts_failed >= 3);
    device.stop();
    device.wait().unwrap();
}

#[test]
fn a_gateway_that_never_answers_is_given_up_for_the_next() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, news) = serve(world.gateway(), hello());
    let gateways = vec![silent.local_addr().unwrap().to_string(), address.to_string()];
    let mut config = world.config("one", gateways);
    config.connect_timeout = Duration::from_millis(200);
    let device = start(config).unwrap();
    until_running(&news);
    let problem = device.progress().last_failure.unwrap_or_default();
    assert!(problem.contains("no handshake within 200ms"), "{problem}");
    device.stop();
    device.wait().unwrap();
}

#[test]
fn frames_that_arrive_a_byte_at_a_time_are_the_same_frames() {
    let world = World::new();
    let (address, news) = serve_in_pieces(world.gateway(), hello(), 1);
    let device = start(world.config("one", vec![address.to_string()])).unwrap();
    until_running(&news);
    device.stop();
    device.wait().unwrap();
}

#[test]
fn a_device_needs_a_device_s_certificate_and_a_usable_address() {
    let world = World::new();
    let mut config = world.config("one", vec!["127.0.0.1:1".into()]);
    config.identity = world.authorities.issue_controller("wasmbed-system", "controller").unwrap().into();
    assert!(matches!(start(config), Err(DeviceError::NotADevice(_))));
    let mut config = world.config("one", vec!["127.0.0.1:1".into()]);
    config.identity = DeviceIdentity::Factory(world.device("one"));
    assert!(matches!(start(config), Err(DeviceError::NotAFactory(_))));
    let mut config = world.config("one", vec!["127.0.0.1:1".into()]);
    let token = "0a1b2c3d.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    config.identity = DeviceIdentity::Pairing { token, trust_domain: "No Domain".into() };
    assert!(matches!(start(config), Err(DeviceError::TrustDomain(_))));
    assert!(matches!(start(world.config("one", vec![])), Err(DeviceError::NoGateway)));
    assert!(matches!(start(world.config("one", vec!["gateway".into()])), Err(DeviceError::Gateway(_))));
}

#[test]
fn a_fleet_has_a_bound() {
    let issue = |_| Err("never asked".into());
    let fleet = fleet::start(FleetConfig::new(
        fleet::DEVICES_MAX + 1,
        Arc::new(issue),
        World::new().services_roots(),
        vec!["127.0.0.1:1".into()],
    ));
    assert!(matches!(fleet, Err(DeviceError::TooMany { devices: 10_001, max: 10_000 })));
}

fn fleet_runs(storage: FleetStorage, devices: usize, world: &World) {
    let (address, news) = serve(world.gateway(), hello());
    let folder = world.folder.path().join("pki");
    let authorities = Authorities::create_or_open(&folder, TRUST).unwrap();
    let issue = move |index: usize| {
        let identity = authorities.issue_device("default", &format!("simulated-{index}"));
        identity.map(Into::into).map_err(Into::into)
    };
    let mut config =
        FleetConfig::new(devices, Arc::new(issue), world.services_roots(), vec![address.to_string()]);
    config.threads = std::num::NonZeroUsize::new(2).unwrap();
    config.storage = storage;
    let fleet = fleet::start(config).unwrap();
    let started = std::time::Instant::now();
    while fleet.progress().applications_running < devices {
        assert!(started.elapsed() < PATIENCE && !fleet.is_finished(), "{:?}", fleet.progress());
        // The counts follow the reports closely, but not at once.
        let _ = news.recv_timeout(Duration::from_millis(10));
    }
    let progress = fleet.progress();
    assert_eq!((progress.started, progress.connected, progress.sessions), (devices, devices, devices));
    fleet.stop();
    fleet.wait().unwrap();
}

#[test]
fn a_fleet_in_memory_comes_up() {
    fleet_runs(FleetStorage::Memory, 40, &World::new());
}

#[test]
fn a_fleet_on_disk_comes_up_and_leaves_a_directory_for_each_device() {
    let world = World::new();
    let folder = world.folder.path().join("fleet");
    fleet_runs(FleetStorage::Files(folder.clone()), 10, &world);
    let exists = |name: &str| Path::new(&folder).join("default").join(name).join("state").exists();
    assert!(exists("simulated-0") && exists("simulated-9"));
}
