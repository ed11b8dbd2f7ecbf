//! What these tests ask of Devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use futures::StreamExt as _;
use hyper::{Request, StatusCode, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;
use wasmbed_api::{Device, DeviceApplicationState, DevicePhase, DeviceStatus};
use wasmbed_e2e::Site;
use wasmbed_pki::{
    Identity,
    tls::{ClientParams, Profile, client_config, roots, server_name},
};

/// A Device's status, or that of one nobody has written.
pub(crate) fn status(device: &Device) -> DeviceStatus {
    device.status.clone().unwrap_or_default()
}

/// Whether it is connected to that gateway.
pub(crate) fn is_at(device: &Device, gateway: &str) -> bool {
    let status = status(device);
    status.phase == DevicePhase::Connected && status.gateway.as_deref() == Some(gateway)
}

/// Whether it is connected, and all its applications run and were never started again.
pub(crate) fn is_undisturbed(device: &Device, applications: usize) -> bool {
    let status = status(device);
    status.phase == DevicePhase::Connected
        && status.applications.len() == applications
        && status.applications.iter().all(|application| {
            application.state == DeviceApplicationState::Running && application.restarts == 0
        })
}

/// Epochs by name.
pub(crate) fn epochs(devices: &[Device]) -> BTreeMap<String, i64> {
    devices.iter().map(|device| (device.name_any(), status(device).epoch.unwrap_or(0))).collect()
}

/// Every phase that any Device was seen in since it began to look.
pub(crate) struct Phases {
    seen: Arc<Mutex<BTreeSet<(String, String)>>>,
    task: JoinHandle<()>,
}

impl Phases {
    /// Looks from now on, through every outage.
    pub(crate) fn watch(site: &Site) -> Self {
        let api = site.api::<Device>();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut devices =
                pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(device) = devices.next().await {
                // An API server that is away is what the tests are about.
                let Ok(device) = device else { continue };
                let phase = format!("{:?}", status(&device).phase);
                notes.lock().unwrap_or_else(PoisonError::into_inner).insert((device.name_any(), phase));
            }
        });
        Self { seen, task }
    }

    /// Names of the Devices that were seen in a phase.
    pub(crate) fn of(&self, phase: DevicePhase) -> Vec<String> {
        let phase = format!("{phase:?}");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(_, seen)| *seen == phase).map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a fleet with an application on each device and waits until it runs everywhere.
pub(crate) async fn settled(
    site: &mut Site,
    devices: usize,
    application: &str,
    wasm: &[u8],
) -> Result<Vec<Device>> {
    site.start_fleet(devices)?;
    connected(site, devices).await?;
    site.deploy(application, wasm).await?;
    site.complete(application, devices).await?;
    site.devices().await
}

/// Waits until so many devices are connected.
pub(crate) async fn connected(site: &Site, devices: usize) -> Result<()> {
    let all = |found: &[Device]| {
        found.iter().filter(|device| status(device).phase == DevicePhase::Connected).count() == devices
    };
    site.all_devices("Connected", all).await.map(drop)
}

/// Puts an empty list of sets to a gateway as that controller, in that term, and says how it was answered.
pub(crate) async fn put_sets(site: &Site, controller: &str, gateway: &str, term: i32) -> Result<StatusCode> {
    let files = site.layout().controller_identity(controller)?;
    let identity = Identity::read(&files.certificate, &files.key)?;
    let authorities = site.layout().authorities();
    let config = client_config(ClientParams {
        profile: Profile::Service,
        identity: &identity,
        roots: roots([authorities.services_root().clone()])?,
        trust_domain: authorities.trust_domain(),
        gateway: None,
        time: None,
    })?;
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(site.gateway_address(gateway)?).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server_name(), stream).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let body = json!({ "leader_term": term, "sets": [] }).to_string();
    let request =
        Request::put("/v1/sets").header("host", "gateway").header("content-type", "application/json");
    let answer = sender.send_request(request.body(body)?).await?;
    connection.abort();
    Ok(answer.status())
}
