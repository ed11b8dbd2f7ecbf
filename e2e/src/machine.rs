//! One machine with every role as a process of its own, so that each can be killed and started again.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use wasmbed::layout::{KubeUser, Layout, SYSTEM_NAMESPACE};
use wasmbed_api::{Application, Device, DevicePhase};
use wasmbed_pki::Identity;

use crate::{Kubectl, Process, device, process::wasmbed, wait::until};

/// Namespace of everything that tests apply.
const NAMESPACE: &str = "default";
/// Name of the gateway and of the controller.
const NAME: &str = "e2e";

/// How the gateway is to be, where a test wants it otherwise than usual.
#[derive(Clone, Debug, Default)]
pub struct GatewayOptions {
    /// Values of its configuration, for example `enrollment=open`.
    pub set: Vec<String>,
}

/// The roles of one machine. Everything ends when it is dropped.
pub struct Machine {
    api: SocketAddr,
    gateway: SocketAddr,
    gateway_health: SocketAddr,
    controller_health: SocketAddr,
    options: GatewayOptions,
    layout: Layout,
    processes: BTreeMap<String, Process>,
    client: Client,
    // Last, so that processes end before their folder goes.
    dir: TempDir,
}

impl Machine {
    /// Starts the Kubernetes API, a gateway and a controller, and waits until each serves.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(GatewayOptions::default()).await
    }

    /// The same with another gateway.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start_with(options: GatewayOptions) -> Result<Self> {
        let dir = tempfile::tempdir().context("can't make a folder")?;
        let layout = Layout::create_or_open(&dir.path().join("state"))?;
        // All at once, so that no port is given twice.
        let listeners = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = Vec::new();
        for listener in &listeners {
            ports.push(
                listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?.local_addr()?,
            );
        }
        drop(listeners);
        let [api, gateway, gateway_health, controller_health] = ports[..] else {
            unreachable!("four were bound")
        };
        layout.write_kubeconfig(api, KubeUser::Administrator)?;
        let client = client_of(&layout.kubeconfig()).await?;
        let processes = BTreeMap::new();
        let mut machine =
            Self { api, gateway, gateway_health, controller_health, options, layout, processes, client, dir };
        machine.start_apiserver()?;
        machine.ensure_namespace().await?;
        machine.start_gateway()?;
        machine.start_controller()?;
        Ok(machine)
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Authorities and files.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where devices and controllers reach the gateway.
    #[must_use]
    pub fn gateway_address(&self) -> SocketAddr {
        self.gateway
    }

    /// Where the gateway serves health and metrics.
    #[must_use]
    pub fn gateway_health(&self) -> SocketAddr {
        self.gateway_health
    }

    /// Where the controller serves health and metrics.
    #[must_use]
    pub fn controller_health(&self) -> SocketAddr {
        self.controller_health
    }

    /// A folder for a test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// kubectl as administrator.
    ///
    /// # Errors
    /// When there is no kubectl.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.layout.kubeconfig(), self.dir.path())
    }

    /// Starts the Kubernetes API and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_apiserver(&mut self) -> Result<()> {
        let identity = self.layout.apiserver_identity()?;
        let mut command = wasmbed(&["apiserver", "--listen", &self.api.to_string()])?;
        command.arg("--data-dir").arg(self.layout.apiserver_dir());
        command.arg("--cert-file").arg(identity.certificate).arg("--key-file").arg(identity.key);
        command.arg("--client-ca-file").arg(self.layout.cluster_root());
        self.keep("apiserver", command, "the Kubernetes API is served")
    }

    /// Starts the gateway and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_gateway(&mut self) -> Result<()> {
        let kubeconfig = self.layout.write_kubeconfig(self.api, KubeUser::Gateway(NAME))?;
        let identity = self.layout.gateway_identity(NAME)?;
        let mut command = wasmbed(&["gateway", "--name", NAME, "--host", "127.0.0.1"])?;
        command.arg("--port").arg(self.gateway.port().to_string()).arg("--kubeconfig").arg(kubeconfig);
        command.arg("--data-dir").arg(self.layout.gateway_dir());
        let files = [
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.devices_root()),
            ("tls.services_ca_file", self.layout.services_root()),
        ];
        for (key, path) in files {
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        command.arg("--set").arg(format!("health.port={}", self.gateway_health.port()));
        for value in &self.options.set {
            command.args(["--set", value]);
        }
        self.keep("gateway", command, "devices and controllers are served")
    }

    /// Starts the controller and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_controller(&mut self) -> Result<()> {
        let kubeconfig = self.layout.write_kubeconfig(self.api, KubeUser::Controller(NAME))?;
        let identity = self.layout.controller_identity(NAME)?;
        let mut command = wasmbed(&["controller", "--name", NAME])?;
        command.arg("--kubeconfig").arg(kubeconfig);
        let files = [
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.services_root()),
        ];
        for (key, path) in files {
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        command.arg("--set").arg(format!("health.port={}", self.controller_health.port()));
        self.keep("controller", command, "the controller runs")
    }

    /// Creates an approved Device with its key pinned, and starts it.
    ///
    /// # Errors
    /// When the object can't be created or the process not started.
    pub async fn add_device(&mut self, name: &str) -> Result<()> {
        self.create_device(name).await?;
        self.start_device(name)
    }

    /// Creates an approved Device with its key pinned, which nobody has seen yet.
    ///
    /// # Errors
    /// When the object can't be created.
    pub async fn create_device(&self, name: &str) -> Result<()> {
        let files = self.layout.device_identity(NAMESPACE, name)?;
        let identity = Identity::read(&files.certificate, &files.key)?;
        self.create(&device(name, &identity.public_key_base64())).await.map(|_| ())
    }

    /// Starts a device, or starts it again.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start_device(&mut self, name: &str) -> Result<()> {
        let identity = self.layout.device_identity(NAMESPACE, name)?;
        let mut command = wasmbed(&["device", "--gateway", &self.gateway.to_string()])?;
        command.arg("--cert-file").arg(identity.certificate).arg("--key-file").arg(identity.key);
        command
            .arg("--ca-file")
            .arg(self.layout.services_root())
            .arg("--data-dir")
            .arg(self.device_dir(name));
        let process = Process::start(command, name, self.dir.path())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Where a device keeps modules, state and data.
    #[must_use]
    pub fn device_dir(&self, name: &str) -> PathBuf {
        self.layout.devices_dir().join(name)
    }

    /// Kills a process by its role, or a device by its name, as a crash would.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.take(name)?.kill()
    }

    /// Stops a process by its role, or a device by its name.
    ///
    /// # Errors
    /// When it isn't running or doesn't stop.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let status = self.take(name)?.terminate()?;
        anyhow::ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// A running process by its role, or a device by its name.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        self.processes.get_mut(name).with_context(|| format!("{name} is not running"))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        self.api::<K>()
            .create(&PostParams::default(), object)
            .await
            .with_context(|| format!("can't create {}", object.name_any()))
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn merge<K>(&self, name: &str, change: serde_json::Value) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(change);
        self.api::<K>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("can't change {name}"))
    }

    /// Asks for an object's deletion.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("can't delete {name}"))?;
        Ok(())
    }

    /// Objects of a kind in the namespace of the tests.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Waits until an Application is as `wanted` says.
    ///
    /// # Errors
    /// With the Application as it was last, when the time is over.
    pub async fn application(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Application) -> bool,
    ) -> Result<Application> {
        until(&self.client, NAMESPACE, name, what, wanted).await
    }

    /// Waits until a Device is as `wanted` says.
    ///
    /// # Errors
    /// With the Device as it was last, when the time is over.
    pub async fn device(&self, name: &str, what: &str, wanted: impl Fn(&Device) -> bool) -> Result<Device> {
        until(&self.client, NAMESPACE, name, what, wanted).await
    }

    /// Waits until a Device is connected.
    ///
    /// # Errors
    /// With the Device as it was last, when the time is over.
    pub async fn connected(&self, name: &str) -> Result<Device> {
        self.device(name, "Connected", |device| phase(device) == DevicePhase::Connected).await
    }

    async fn ensure_namespace(&self) -> Result<()> {
        let metadata = ObjectMeta { name: Some(SYSTEM_NAMESPACE.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => created.map(|_| ()).context("can't create the namespace of the system"),
        }
    }

    fn keep(&mut self, name: &str, command: std::process::Command, ready: &str) -> Result<()> {
        let mut process = Process::start(command, name, self.dir.path())?;
        process.wait_for_line(ready, |line| line.contains(ready))?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    fn take(&mut self, name: &str) -> Result<Process> {
        self.processes.remove(name).with_context(|| format!("{name} is not running"))
    }
}

/// A Device's phase; Pending if nothing was ever written.
fn phase(device: &Device) -> DevicePhase {
    device.status.as_ref().map_or(DevicePhase::Pending, |status| status.phase)
}

async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("can't read the kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("can't make a client")
}
