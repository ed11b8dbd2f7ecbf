//! A device that is taken out of service over real TLS, with real keys, sockets and files.

#![cfg(test)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod gateway;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use gateway::{ScriptedGateway, Wanted};
use rustls::{ServerConnection, StreamOwned};
use wasmbed_device::{DeviceConfig, DeviceError, DeviceIdentity, start};
use wasmbed_pki::{
    Authorities, DeviceKey, Identity, is_signed_by,
    statement::{Erased, Order, SignedProof},
    tls::{Profile, roots, server_config},
};
use wasmbed_protocol::{DeviceUid, Nonce};

const TRUST: &str = "wasmbed.test";
const DEVICE: &str = "spiffe://wasmbed.test/ns/default/device/one";
const UID: DeviceUid = DeviceUid([7; 16]);
const NONCE: Nonce = Nonce([9; 16]);
/// Far more than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the gateway saw.
#[derive(Default)]
struct Seen {
    has_run: bool,
    proof: Option<Vec<u8>>,
    refusal: Option<String>,
}

struct World {
    authorities: Authorities,
    device: Identity,
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Seen>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open(&folder.path().join("pki"), TRUST).unwrap();
        let device = authorities.issue_device("default", "one").unwrap();
        fs::write(folder.path().join("device.key"), &device.key_pem).unwrap();
        Self { authorities, device, folder, seen: Arc::default() }
    }

    fn order(&self, signer: &Identity) -> Vec<u8> {
        let certificates = signer.chain();
        let chain: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
        let key = DeviceKey::of(signer).unwrap();
        let order = Order { device: DEVICE, device_uid: UID, nonce: NONCE };
        order.sign(&chain, |message| key.sign(message)).unwrap()
    }

    /// A gateway with this order and one application; its address.
    fn serve(&self, order: Vec<u8>) -> String {
        let hosts = ["127.0.0.1".to_owned()];
        let identity = self.authorities.issue_gateway("wasmbed-system", "gateway", &hosts).unwrap();
        let devices = roots([self.authorities.devices_root().clone()]).unwrap();
        let config = server_config(Profile::Device, &identity, devices).unwrap();
        let module = include_bytes!("../../../guests/prebuilt/counter.wasm").to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::clone(&self.seen);
        thread::spawn(move || {
            let wanted = Wanted::new(module, &["key-value"]);
            for (epoch, stream) in (1..).zip(listener.incoming()) {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let mut gateway = ScriptedGateway::new(&wanted, 5, epoch);
                gateway.order = Some(&order);
                let mut buffer = [0; 8_192];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let answer = gateway.handle(&buffer[..length]);
                    if stream.write_all(&answer).and_then(|()| stream.flush()).is_err() {
                        break;
                    }
                    let mut seen = seen.lock().unwrap();
                    seen.has_run |= gateway.is_running();
                    seen.proof = seen.proof.take().or(gateway.proof.take());
                    seen.refusal = seen.refusal.take().or(gateway.refusal.take());
                }
            }
        });
        address
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("device.key")
    }

    fn config(&self, gateway: String, key_file: Option<PathBuf>) -> DeviceConfig {
        let Identity { chain_pem, key_pem, .. } = &self.device;
        let identity = Identity::from_pem(chain_pem, key_pem).unwrap();
        let roots = vec![self.authorities.services_root().clone()];
        let mut config = DeviceConfig::new(
            DeviceIdentity::Operational(identity),
            roots,
            vec![gateway],
            self.folder.path().join("data"),
        );
        config.key_file = key_file;
        config
    }

    fn until(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) {
        let since = Instant::now();
        while !condition(&self.seen.lock().unwrap()) {
            assert!(since.elapsed() < PATIENCE, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The device's files, without the lock.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("data").join("storage")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

#[test]
fn a_device_proves_erases_its_key_and_its_process_ends() {
    let world = World::new();
    let controller = world.authorities.issue_controller("wasmbed-system", "one").unwrap();
    let gateway = world.serve(world.order(&controller));
    let device = start(world.config(gateway.clone(), Some(world.key_file()))).unwrap();
    // Nobody asks it to end.
    device.wait().unwrap();
    let seen = world.seen.lock().unwrap();
    assert!(seen.has_run, "it was at work before");
    let signed = seen.proof.clone().unwrap();
    let signed = SignedProof::decode(&signed).unwrap();
    let key = world.device.facts().public_key.clone();
    signed.verify(|message, given| is_signed_by(&key, message, given).then_some(()).ok_or(())).unwrap();
    let proof = signed.proof();
    assert_eq!((proof.device_uid, proof.nonce, proof.erased), (UID, NONCE, Erased::ALL));
    assert!(!world.key_file().exists(), "its key is gone");
    assert_eq!(world.files(), ["identity", "state"]);
    // Whoever still has the key can't bring this device back with it.
    let since = Instant::now();
    start(world.config(gateway, None)).unwrap().wait().unwrap();
    assert!(since.elapsed() < PATIENCE, "it ends at once");
}

#[test]
fn an_order_of_a_gateway_is_refused_and_changes_nothing() {
    let world = World::new();
    let hosts = ["127.0.0.1".to_owned()];
    let signer = world.authorities.issue_gateway("wasmbed-system", "hostile", &hosts).unwrap();
    let gateway = world.serve(world.order(&signer));
    let device = start(world.config(gateway, Some(world.key_file()))).unwrap();
    world.until("it refuses", |seen| seen.refusal.is_some());
    let refusal = world.seen.lock().unwrap().refusal.clone().unwrap();
    assert!(refusal.contains("signer's certificate"), "{refusal}");
    assert_eq!(device.progress().applications_running, 1, "it runs on");
    device.stop();
    device.wait().unwrap();
    assert!(world.key_file().exists() && world.files().len() > 2);
}

#[test]
fn a_key_that_can_not_be_erased_is_said_and_tried_again() {
    let world = World::new();
    let controller = world.authorities.issue_controller("wasmbed-system", "one").unwrap();
    let gateway = world.serve(world.order(&controller));
    // A folder can't be written over as a file.
    let folder = world.folder.path().join("folder");
    fs::create_dir(&folder).unwrap();
    start(world.config(gateway.clone(), Some(folder))).unwrap().wait().unwrap();
    assert!(world.key_file().exists());
    let ended: Result<(), DeviceError> = start(world.config(gateway, Some(world.key_file()))).unwrap().wait();
    ended.unwrap();
    assert!(!world.key_file().exists(), "the next start went on");
}
