//! `kill -9` of a device's process, again and again, under load: it always comes back and nothing it stored is lost.

#![cfg(test)]

mod gateway;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use gateway::{ScriptedGateway, Wanted};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wasmbed_device::{DeviceConfig, start};
use wasmbed_pki::{
    Authorities, Identity, read_certificates,
    tls::{Profile, roots, server_config},
};

const FOLDER: &str = "WASMBED_KILL_FOLDER";
const ADDRESS: &str = "WASMBED_KILL_ADDRESS";
const PATIENCE: Duration = Duration::from_secs(60);
const KILLS: u64 = 12;

/// Not a test of its own: the process that is killed.
fn be_the_device(folder: &Path, gateway: String) {
    let (chain, key) = Identity::files(folder, "device");
    let identity = Identity::read(&chain, &key).unwrap();
    let roots = read_certificates(&folder.join("root.crt")).unwrap();
    start(DeviceConfig::new(identity, roots, vec![gateway], folder.join("data"))).unwrap().wait().unwrap();
}

/// Killed at the latest when the test gives it up.
struct Device(Child);

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended by itself; the test then fails for want of counts.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn spawn(folder: &Path, address: SocketAddr) -> Device {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_device_that_is_killed_at_any_moment_loses_nothing"])
        .env(FOLDER, folder)
        .env(ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Device(child)
}

/// Passes on the numbers that the application has stored, session after session, and whether it was reported as running.
fn serve(config: Arc<ServerConfig>, wanted: Wanted, listener: TcpListener) -> mpsc::Receiver<(u64, bool)> {
    let (news, counts) = mpsc::channel();
    thread::spawn(move || {
        for (epoch, stream) in listener.incoming().enumerate() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut gateway = ScriptedGateway::new(&wanted, 5, epoch as u64 + 1);
            let mut buffer = [0; 8_192];
            // A session ends when its device is killed.
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let answer = gateway.handle(&buffer[..length]);
                let _ = stream.write_all(&answer).and_then(|()| stream.flush());
                let running = gateway.is_running();
                for line in gateway.lines.drain(..) {
                    if let Some(count) = line.strip_prefix("count ").and_then(|count| count.parse().ok())
                        && news.send((count, running)).is_err()
                    {
                        return;
                    }
                }
            }
        }
    });
    counts
}

#[test]
fn a_device_that_is_killed_at_any_moment_loses_nothing() {
    if let (Some(folder), Ok(address)) = (std::env::var_os(FOLDER), std::env::var(ADDRESS)) {
        return be_the_device(Path::new(&folder), address);
    }
    let folder = tempfile::tempdir().unwrap();
    let authorities = Authorities::create_or_open(&folder.path().join("pki"), "wasmbed.test").unwrap();
    authorities.issue_device("default", "killed").unwrap().write(folder.path(), "device").unwrap();
    std::fs::write(folder.path().join("root.crt"), authorities.services_root_pem()).unwrap();
    let identity = authorities.issue_gateway("wasmbed-system", "gateway", &[]).unwrap();
    let device_roots = roots([authorities.devices_root().clone()]).unwrap();
    let config = server_config(Profile::Device, &identity, device_roots).unwrap();
    let module = include_bytes!("../../../guests/prebuilt/counter.wasm").to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = serve(config, Wanted::new(module, &["key-value"]), listener);

    let mut largest = 0;
    let mut check = |count: u64| {
        assert!(count > largest, "{largest} was stored, and then {count} came");
        largest = count;
    };
    for kill in 0..KILLS {
        let _device = spawn(folder.path(), address);
        // A little later each time: while it starts, connects, downloads, stores, runs.
        while let Ok((count, _)) = counts.recv_timeout(Duration::from_millis(kill * 25)) {
            check(count);
        }
    }
    let _device = spawn(folder.path(), address);
    loop {
        let (count, running) = counts.recv_timeout(PATIENCE).expect("the device never came back");
        check(count);
        if running {
            break;
        }
    }
}
