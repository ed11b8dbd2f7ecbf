//! One machine with every role as a process of its own, so that each can be killed and started again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use wasmbed::machine::layout::{IdentityFiles, Layout, TRUST_DOMAIN};
use wasmbed_api::{Application, Device, DevicePhase};
use wasmbed_pki::{FactoryAuthority, Identity};
use wasmbed_testbed::{Borrowed, Cluster, ControlPlane, Folder, Kubectl, Port, Process, User, wasmbed};

use crate::{SmallDisk, device, turn::BOARD, wait::until};

/// Namespace of everything that tests apply.
const NAMESPACE: &str = "default";
/// Name of the gateway and of the controller.
const NAME: &str = "e2e";

/// The signer's user in the Kubernetes API.
const SIGNER: &str = "signer:e2e";

/// How the gateway is to be, where a test wants it otherwise than usual.
#[derive(Clone, Debug, Default)]
pub struct GatewayOptions {
    /// Values of its configuration, for example `enrollment=open`.
    pub set: Vec<String>,
    /// Whether it has no key for values of Secrets.
    pub keyless: bool,
}

/// The roles of one machine, each a process with its own rights in the Kubernetes API. Everything ends when it is dropped.
pub struct Machine {
    gateway: Port,
    gateway_health: Port,
    controller_health: Port,
    options: GatewayOptions,
    controller_set: Vec<String>,
    layout: Layout,
    processes: BTreeMap<String, Process>,
    client: Client,
    cluster: Borrowed,
    // Last, so that processes end before their folder goes.
    folder: Folder,
}

impl Machine {
    /// Starts the Kubernetes API, a gateway and a controller, and waits until each serves.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start(plane: ControlPlane) -> Result<Self> {
        Self::start_with(plane, GatewayOptions::default()).await
    }

    /// The same with another gateway.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start_with(plane: ControlPlane, options: GatewayOptions) -> Result<Self> {
        let cluster = Cluster::shared(plane).await?;
        let folder = Folder::create("e2e")?;
        let layout = Layout::create_or_open(&folder.path().join("state"))?;
        let client = cluster.client(&User::administrator()).await?;
        std::fs::copy(cluster.kubeconfig(&User::administrator())?, layout.kubeconfig())
            .context("can't copy a kubeconfig")?;
        let mut machine = Self {
            gateway: Port::reserve()?,
            gateway_health: Port::reserve()?,
            controller_health: Port::reserve()?,
            options,
            controller_set: Vec::new(),
            layout,
            processes: BTreeMap::new(),
            client,
            cluster,
            folder,
        };
        machine.start_gateway()?;
        machine.start_controller()?;
        Ok(machine)
    }

    /// The control plane, whose parts can be killed and started again.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
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
        self.gateway.address()
    }

    /// Where the gateway serves health and metrics.
    #[must_use]
    pub fn gateway_health(&self) -> SocketAddr {
        self.gateway_health.address()
    }

    /// Where the controller serves health and metrics.
    #[must_use]
    pub fn controller_health(&self) -> SocketAddr {
        self.controller_health.address()
    }

    /// A folder for a test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator's identity at gateways, in a folder that `wasmbed logs --pki` takes: for machines without a signer.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn operator_pki(&self) -> Result<PathBuf> {
        let files = self.layout.operator_identity()?;
        Ok(files.certificate.with_file_name(""))
    }

    /// kubectl as administrator.
    ///
    /// # Errors
    /// When there is no kubectl.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.layout.kubeconfig(), self.folder.path())
    }

    /// Starts the gateway and waits until it serves. Its process is called `gateway`.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_gateway(&mut self) -> Result<()> {
        let command = self.gateway_command(&self.layout.gateway_dir())?;
        self.keep("gateway", command, "devices and controllers are served")
    }

    /// The same, with its data on a disk of its own.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_gateway_on(&mut self, disk: &SmallDisk) -> Result<()> {
        let command = self.gateway_command(&disk.path().join("gateway"))?;
        self.keep("gateway", disk.mount(&command), "devices and controllers are served")
    }

    fn gateway_command(&self, data_dir: &Path) -> Result<Command> {
        let identity = self.layout.gateway_identity(NAME)?;
        let mut command = wasmbed(&["gateway", "--name", NAME, "--host", "127.0.0.1"])?;
        command.arg("--port").arg(self.gateway.number().to_string());
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig(&User::gateway(NAME))?);
        command.arg("--data-dir").arg(data_dir);
        let files = [
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.devices_root()),
            ("tls.services_ca_file", self.layout.services_root()),
            ("tls.operators_ca_file", self.layout.operators_root()),
        ];
        for (key, path) in files {
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        if !self.options.keyless {
            let key = self.layout.data_key("gateway")?;
            command.arg("--set").arg(format!("data_key_file={}", key.display()));
        }
        command.arg("--set").arg(format!("health.port={}", self.gateway_health.number()));
        for value in &self.options.set {
            command.args(["--set", value]);
        }
        Ok(command)
    }

    /// Starts a signer, for devices and for people, and in place of the gateway that runs one that lets devices of a factory join;
    /// answers the factory.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub fn start_signer(&mut self) -> Result<FactoryAuthority> {
        self.start_signer_alone(&[])?;
        let pki = self.layout.dir().join("pki");
        let (roots, _) = Identity::files(&pki, "factory-root");
        self.options.set.push(format!("tls.factory_ca_file={}", roots.display()));
        self.stop("gateway")?;
        self.start_gateway()?;
        Ok(FactoryAuthority::create_or_open(&pki, TRUST_DOMAIN)?)
    }

    /// Starts a signer with these values of its configuration, or starts it again. Its process is called `signer`.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_signer_alone(&mut self, set: &[&str]) -> Result<()> {
        let pki = self.layout.dir().join("pki");
        let (certificate, key) = Identity::files(&pki, "devices-issuing");
        let people = self.layout.operators_issuing();
        let mut command = wasmbed(&["signer", "--name", NAME])?;
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig(&User::new(SIGNER, "wasmbed:signers"))?);
        let files = [
            ("issuer.cert_file", certificate),
            ("issuer.key_file", key),
            ("devices_ca_file", self.layout.devices_root()),
            ("factory_ca_file", self.layout.factory_root()),
            ("operators.issuer.cert_file", people.certificate),
            ("operators.issuer.key_file", people.key),
            ("operators.services_ca_file", self.layout.services_root()),
        ];
        for (name, path) in files {
            command.arg("--set").arg(format!("{name}={}", path.display()));
        }
        command.arg("--set").arg(format!("health.port={}", Port::reserve()?.number()));
        command.args(set.iter().flat_map(|value| ["--set", value]));
        self.keep("signer", command, "the signer runs")
    }

    /// Starts the controller and waits until it serves. Its process is called `controller`.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_controller(&mut self) -> Result<()> {
        let identity = self.layout.controller_identity(NAME)?;
        let mut command = wasmbed(&["controller", "--name", NAME])?;
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig(&User::controller(NAME))?);
        let files = [
            ("data_key_file", self.layout.data_key("controller")?),
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.services_root()),
        ];
        for (key, path) in files {
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        command.arg("--set").arg(format!("health.port={}", self.controller_health.number()));
        for value in &self.controller_set {
            command.args(["--set", value]);
        }
        self.keep("controller", command, "the controller runs")
    }

    /// Values of the controller's configuration from its next start on.
    pub fn set_controller(&mut self, values: &[&str]) {
        self.controller_set = values.iter().map(|value| (*value).to_owned()).collect();
    }

    /// Starts a device that has nothing but the identity that a factory gave it.
    ///
    /// # Errors
    /// When the identity can't be written or the process not started.
    pub fn start_factory_device(&mut self, name: &str, identity: &Identity) -> Result<()> {
        let folder = self.folder.path().join("factory").join(name);
        identity.write(&folder, "factory")?;
        let (certificate, key) = Identity::files(&folder, "factory");
        let mut command = self.bare_device_command(&self.device_dir(name))?;
        command.arg("--factory-cert-file").arg(certificate).arg("--factory-key-file").arg(key);
        let process = Process::start(command, name, self.folder.path())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Starts a device that has nothing but a pairing token.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start_paired_device(&mut self, name: &str, token: &str) -> Result<()> {
        let mut command = self.bare_device_command(&self.device_dir(name))?;
        command.env("WASMBED_DEVICE_PAIRING_TOKEN", token);
        let process = Process::start(command, name, self.folder.path())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
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
        self.start_device_as(name, &identity)
    }

    /// Starts a device with this identity under another name than its own: a clone, or one of another namespace or authority.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start_device_as(&mut self, name: &str, identity: &IdentityFiles) -> Result<()> {
        let command = self.device_command(identity, &self.device_dir(name))?;
        let process = Process::start(command, name, self.folder.path())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// The same, with its data on a disk of its own.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start_device_on(&mut self, name: &str, disk: &SmallDisk) -> Result<()> {
        let identity = self.layout.device_identity(NAMESPACE, name)?;
        let command = self.device_command(&identity, &disk.path().join(name))?;
        let process = Process::start(disk.mount(&command), name, self.folder.path())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    fn device_command(&self, identity: &IdentityFiles, data_dir: &Path) -> Result<Command> {
        let mut command = self.bare_device_command(data_dir)?;
        command.arg("--cert-file").arg(&identity.certificate).arg("--key-file").arg(&identity.key);
        Ok(command)
    }

    fn bare_device_command(&self, data_dir: &Path) -> Result<Command> {
        let mut command = wasmbed(&["device", "--gateway", &self.gateway.address().to_string()])?;
        command.arg("--ca-file").arg(self.layout.services_root()).arg("--data-dir").arg(data_dir);
        if let Some(board) = std::env::var_os(BOARD) {
            command.arg("--board").arg(board);
        }
        Ok(command)
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
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// Kills the whole control plane, as a crash of its machine would.
    ///
    /// # Errors
    /// When a part of it isn't running.
    pub fn kill_control_plane(&self) -> Result<()> {
        self.cluster.parts().into_iter().rev().try_for_each(|part| self.cluster.kill(part))
    }

    /// Stops the whole control plane.
    ///
    /// # Errors
    /// When a part of it isn't running or doesn't stop.
    pub async fn stop_control_plane(&self) -> Result<()> {
        for part in self.cluster.parts().into_iter().rev() {
            self.cluster.stop(part).await?;
        }
        Ok(())
    }

    /// Starts the whole control plane after it was killed or stopped, and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub async fn start_control_plane(&self) -> Result<()> {
        for part in self.cluster.parts() {
            self.cluster.start_part(part).await?;
        }
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

    /// Waits until a Device is connected, and sees that it is of the kind that was started.
    ///
    /// # Errors
    /// With the Device as it was last, when the time is over.
    pub async fn connected(&self, name: &str) -> Result<Device> {
        let connected = |device: &Device| phase(device) == DevicePhase::Connected;
        let device = self.device(name, "Connected", connected).await?;
        let facts = device.status.as_ref().and_then(|status| status.facts.as_ref());
        let board = facts.map(|facts| facts.board.as_str());
        let wanted = std::env::var(BOARD).unwrap_or_else(|_| "linux".to_owned());
        ensure!(board == Some(wanted.as_str()), "{name} says that it is {board:?}, not {wanted}");
        Ok(device)
    }

    fn keep(&mut self, name: &str, command: std::process::Command, ready: &str) -> Result<()> {
        let mut process = Process::start(command, name, self.folder.path())?;
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
