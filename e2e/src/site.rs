//! Several gateways and controllers around one control plane, each a process of its own, with a simulated fleet.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use wasmbed::machine::layout::Layout;
use wasmbed_api::{Application, Device, DeviceGateway, TargetDevices};
use wasmbed_pki::Identity;
use wasmbed_testbed::{
    Borrowed, Cluster, ControlPlane, Folder, Options, Port, Process, SYSTEM_NAMESPACE, User, wasmbed,
};

use crate::{application, device, wait::until};

/// Namespace of everything that tests apply.
const NAMESPACE: &str = "default";
/// Names of gateways, in the order in which they are started: two of those that the control plane knows as users.
pub const GATEWAYS: [&str; 2] = ["gw-1", "gw-2"];
/// Names of controllers, in the order in which they are started.
pub const CONTROLLERS: [&str; 2] = ["controller-1", "controller-2"];
/// How often a state that has no watch is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How a site is to be, where a test wants it otherwise than usual.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// How many gateways are started.
    pub gateways: usize,
    /// How many controllers are started.
    pub controllers: usize,
    /// Values of each gateway's configuration.
    pub gateway_set: Vec<String>,
    /// Values of each controller's configuration.
    pub controller_set: Vec<String>,
    /// Who serves what a process believes to be the Kubernetes API, by the process's name, where it is not the API itself.
    pub kubeconfigs: BTreeMap<String, PathBuf>,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            gateways: 1,
            controllers: 1,
            gateway_set: Vec::new(),
            controller_set: Vec::new(),
            kubeconfigs: BTreeMap::new(),
        }
    }
}

struct Gateway {
    port: Port,
    health: Port,
}

/// A control plane, gateways, controllers and devices. Everything ends when it is dropped.
pub struct Site {
    options: SiteOptions,
    layout: Layout,
    client: Client,
    gateways: BTreeMap<&'static str, Gateway>,
    healths: BTreeMap<&'static str, Port>,
    processes: BTreeMap<String, Process>,
    // Last, so that processes end before the control plane and what they write go.
    cluster: Borrowed,
    folder: Folder,
}

impl Site {
    /// Starts a control plane, gateways and controllers, and waits until each serves.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start(plane: ControlPlane, options: SiteOptions) -> Result<Self> {
        Self::start_at(Cluster::shared(plane).await?, options).await
    }

    /// The same with a control plane that waits for the disk, for measurements.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start_durable(plane: ControlPlane, options: SiteOptions) -> Result<Self> {
        let durable = Options { durable: true, ..Options::default() };
        Self::start_at(Cluster::start_with(plane, durable).await?, options).await
    }

    /// Starts gateways and controllers beside a control plane.
    ///
    /// # Errors
    /// With what a process printed, when it doesn't come up.
    pub async fn start_at(cluster: impl Into<Borrowed>, options: SiteOptions) -> Result<Self> {
        let cluster = cluster.into();
        ensure!(options.gateways <= GATEWAYS.len() && options.controllers <= CONTROLLERS.len(), "too many");
        let folder = Folder::create("site")?;
        let layout = Layout::create_or_open(&folder.path().join("state"))?;
        let client = cluster.client(&User::administrator()).await?;
        let (processes, gateways, healths) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut site = Self { options, layout, client, gateways, healths, processes, cluster, folder };
        for name in GATEWAYS.into_iter().take(site.options.gateways) {
            site.gateways.insert(name, Gateway { port: Port::reserve()?, health: Port::reserve()? });
            site.start_gateway(name)?;
        }
        for name in CONTROLLERS.into_iter().take(site.options.controllers) {
            site.healths.insert(name, Port::reserve()?);
            site.start_controller(name)?;
        }
        Ok(site)
    }

    /// The control plane.
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

    /// Where a gateway is reached.
    ///
    /// # Errors
    /// When there is no such gateway.
    pub fn gateway_address(&self, name: &str) -> Result<SocketAddr> {
        Ok(self.gateways.get(name).with_context(|| format!("no gateway {name}"))?.port.address())
    }

    /// The holder of a gateway's Lease, from its data directory.
    ///
    /// # Errors
    /// When it never started.
    pub fn gateway_id(&self, name: &str) -> Result<String> {
        let path = self.layout.dir().join(name).join("id");
        Ok(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
    }

    /// Starts another process under a gateway's name, with a port and a data directory of its own, and gives its health port.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_namesake(&mut self, name: &str, process: &str) -> Result<Port> {
        let (port, health) = (Port::reserve()?, Port::reserve()?);
        let command = self.gateway(name, process, &port, &health)?;
        self.keep(process, command, "devices and controllers are served")?;
        Ok(health)
    }

    /// Where a gateway or a controller serves health and metrics.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn health(&self, name: &str) -> Result<SocketAddr> {
        let gateway = self.gateways.get(name).map(|gateway| &gateway.health);
        let port = gateway.or_else(|| self.healths.get(name)).with_context(|| format!("no {name}"))?;
        Ok(port.address())
    }

    /// Starts a gateway, or starts it again, and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_gateway(&mut self, name: &str) -> Result<()> {
        let gateway = self.gateways.get(name).with_context(|| format!("no gateway {name}"))?;
        let command = self.gateway(name, name, &gateway.port, &gateway.health)?;
        self.keep(name, command, "devices and controllers are served")
    }

    fn gateway(&self, name: &str, folder: &str, port: &Port, health: &Port) -> Result<std::process::Command> {
        let identity = self.layout.gateway_identity(name)?;
        let mut command = wasmbed(&["gateway", "--name", name, "--host", "127.0.0.1"])?;
        command.arg("--port").arg(port.number().to_string());
        command.arg("--data-dir").arg(self.layout.dir().join(folder));
        command.args(["--enrollment", "open"]);
        let files = [
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.devices_root()),
            ("tls.services_ca_file", self.layout.services_root()),
            ("tls.operators_ca_file", self.layout.operators_root()),
        ];
        let health = format!("health.port={}", health.number());
        self.configure(&mut command, name, &User::gateway(name), files, &health, &self.options.gateway_set)?;
        Ok(command)
    }

    /// Starts a controller, or starts it again, and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up.
    pub fn start_controller(&mut self, name: &str) -> Result<()> {
        let health = self.healths.get(name).with_context(|| format!("no controller {name}"))?;
        let identity = self.layout.controller_identity(name)?;
        let mut command = wasmbed(&["controller", "--name", name])?;
        let files = [
            ("tls.cert_file", identity.certificate),
            ("tls.key_file", identity.key),
            ("tls.ca_file", self.layout.services_root()),
        ];
        let health = format!("health.port={}", health.number());
        let set = &self.options.controller_set;
        self.configure(&mut command, name, &User::controller(name), files, &health, set)?;
        self.keep(name, command, "the controller runs")
    }

    fn configure(
        &self,
        command: &mut std::process::Command,
        name: &str,
        user: &User,
        files: impl IntoIterator<Item = (&'static str, PathBuf)>,
        health: &str,
        set: &[String],
    ) -> Result<()> {
        let kubeconfig = self.options.kubeconfigs.get(name).cloned();
        let kubeconfig = kubeconfig.map_or_else(|| self.cluster.kubeconfig(user), Ok)?;
        command.arg("--kubeconfig").arg(kubeconfig);
        for (key, path) in files {
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        for value in [health].into_iter().chain(set.iter().map(String::as_str)) {
            command.args(["--set", value]);
        }
        Ok(())
    }

    /// Starts a simulated fleet under the name `fleet`. Each device knows all gateways and begins with another one.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_fleet(&mut self, devices: usize) -> Result<()> {
        let mut command = wasmbed(&["simulate", "--devices", &devices.to_string()])?;
        command.arg("--pki").arg(self.layout.dir().join("pki"));
        for gateway in self.gateways.values() {
            command.arg("--gateway").arg(gateway.port.address().to_string());
        }
        let process = Process::start(command, "fleet", self.dir())?;
        self.processes.insert("fleet".to_owned(), process);
        Ok(())
    }

    /// Creates an approved Device and starts it under its name. It knows the gateways that are named, in that order.
    ///
    /// # Errors
    /// When the object can't be created or the process not started.
    pub async fn add_device(&mut self, name: &str, gateways: &[&str]) -> Result<()> {
        let files = self.layout.device_identity(NAMESPACE, name)?;
        let identity = Identity::read(&files.certificate, &files.key)?;
        self.create(&device(name, &identity.public_key_base64())).await?;
        self.start_device(name, gateways)
    }

    /// Starts a device, or starts it again. It knows the gateways that are named, in that order.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start_device(&mut self, name: &str, gateways: &[&str]) -> Result<()> {
        let files = self.layout.device_identity(NAMESPACE, name)?;
        let mut command = wasmbed(&["device"])?;
        for gateway in gateways {
            command.arg("--gateway").arg(self.gateway_address(gateway)?.to_string());
        }
        command.arg("--cert-file").arg(files.certificate).arg("--key-file").arg(files.key);
        command.arg("--ca-file").arg(self.layout.services_root());
        command.arg("--data-dir").arg(self.layout.devices_dir().join(name));
        let process = Process::start(command, name, self.dir())?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Kills a process by its name, as a crash would.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.take(name)?.kill()
    }

    /// Asks a process to end and waits until it has.
    ///
    /// # Errors
    /// When it isn't running or doesn't stop.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let status = self.take(name)?.terminate()?;
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// A running process by its name.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        self.processes.get_mut(name).with_context(|| format!("{name} is not running"))
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        self.processes.contains_key(name)
    }

    /// Creates an object. An API server that is about to come back is waited for.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let created = self.api::<K>().create(&PostParams::default(), object).await;
        created.with_context(|| format!("can't create {}", object.name_any()))
    }

    /// Merges a change into the status of an object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn merge_status<K>(&self, name: &str, change: &serde_json::Value) -> Result<K, kube::Error>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>().patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await
    }

    /// Deploys a module to all devices of the namespace.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn deploy(&self, name: &str, wasm: &[u8]) -> Result<()> {
        let mut object = application(name, wasm, &[]);
        object.spec.target_devices =
            Some(TargetDevices { selector: Some(LabelSelector::default()), ..TargetDevices::default() });
        self.create(&object).await.map(drop)
    }

    /// Objects of a kind in the namespace of the tests.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// All Devices as they are now.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn devices(&self) -> Result<Vec<Device>> {
        Ok(self.api::<Device>().list(&ListParams::default()).await.context("can't list Devices")?.items)
    }

    /// Waits until the Devices are as `wanted` says, and returns them. An API server that does not answer is asked again.
    ///
    /// # Errors
    /// With the Devices' statuses as they were last, when the time is over.
    pub async fn all_devices(&self, what: &str, wanted: impl Fn(&[Device]) -> bool) -> Result<Vec<Device>> {
        let mut last = Vec::new();
        let search = async {
            loop {
                if let Ok(devices) = self.devices().await {
                    if wanted(&devices) {
                        return devices;
                    }
                    last = devices;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(crate::TIMEOUT, search).await {
            Ok(devices) => Ok(devices),
            Err(_) => {
                let mut lines = Vec::new();
                for device in &last {
                    let status = device.status.clone().unwrap_or_default();
                    let applications = serde_json::to_string(&status.applications)?;
                    let (phase, gateway, epoch) = (status.phase, status.gateway, status.epoch);
                    lines.push(format!(
                        "{}: {phase:?} at {gateway:?} in epoch {epoch:?}, {applications}",
                        device.name_any()
                    ));
                }
                // A fleet's devices are alike: the last ones are enough to see what is wrong.
                let lines = lines.split_off(lines.len().saturating_sub(20));
                anyhow::bail!("{} Devices never came to {what}; they were:\n{}", last.len(), lines.join("\n"))
            }
        }
    }

    /// Waits until a Device is as `wanted` says.
    ///
    /// # Errors
    /// With the Device as it was last, when the time is over.
    pub async fn device(&self, name: &str, what: &str, wanted: impl Fn(&Device) -> bool) -> Result<Device> {
        until(&self.client, NAMESPACE, name, what, wanted).await
    }

    /// Waits until a DeviceGateway is as `wanted` says.
    ///
    /// # Errors
    /// With the DeviceGateway as it was last seen, when the time is over.
    pub async fn device_gateway(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&DeviceGateway) -> bool,
    ) -> Result<DeviceGateway> {
        until(&self.client, SYSTEM_NAMESPACE, name, what, wanted).await
    }

    /// Waits until an Application runs on this many devices and on all that it targets.
    ///
    /// # Errors
    /// With the Application as it was last, when the time is over.
    pub async fn complete(&self, name: &str, devices: usize) -> Result<Application> {
        until(&self.client, NAMESPACE, name, "Complete", |application: &Application| {
            let generation = application.metadata.generation;
            application.status.as_ref().is_some_and(|status| {
                let complete = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
                    condition.type_ == "Complete" && condition.status == "True"
                };
                status.observed_generation == generation
                    && usize::try_from(status.counts.running) == Ok(devices)
                    && status.conditions.iter().any(complete)
            })
        })
        .await
    }

    /// The leader's Lease as it is now.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn leader_lease(&self) -> Result<LeaseSpec> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let lease = leases.get("wasmbed-controller").await.context("can't read the leader's Lease")?;
        lease.spec.context("a Lease without a spec")
    }

    /// Waits until a controller that `wanted` accepts leads, and returns its name and its term.
    ///
    /// # Errors
    /// With the Lease as it was last, when the time is over.
    pub async fn leader(&self, wanted: impl Fn(&str) -> bool) -> Result<(String, i32)> {
        let held = |spec: &LeaseSpec| {
            let holder =
                spec.holder_identity.clone().filter(|holder| !holder.is_empty() && wanted(holder))?;
            Some((holder, spec.lease_transitions?))
        };
        let lease =
            until(&self.client, SYSTEM_NAMESPACE, "wasmbed-controller", "another holder", |lease: &Lease| {
                lease.spec.as_ref().and_then(held).is_some()
            })
            .await?;
        lease.spec.as_ref().and_then(held).context("the Lease has a holder")
    }

    /// Requests that the API server answered and that were no reads, by resource, since it started.
    ///
    /// # Errors
    /// When its metrics can't be read.
    pub async fn writes(&self) -> Result<Vec<(String, f64)>> {
        let request = http::Request::get("/metrics").body(Vec::new()).context("a request")?;
        let text = self.client.request_text(request).await.context("can't read the API server's metrics")?;
        // The names of kube-apiserver and of the embedded one.
        let series = ["apiserver_request_total{", "wasmbed_apiserver_requests_total{"];
        let label = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_lowercase)
        };
        let mut writes = Vec::new();
        for line in text.lines().filter(|line| series.iter().any(|series| line.starts_with(series))) {
            let verb = label(line, "verb").unwrap_or_default();
            if ["post", "put", "patch", "apply", "create", "update", "delete", "deletecollection"]
                .contains(&verb.as_str())
            {
                let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
                let resource = label(line, "resource").unwrap_or_default();
                writes.push((resource, count.with_context(|| format!("no number in {line}"))?));
            }
        }
        Ok(writes)
    }

    /// Heartbeats that the gateways have heard since they started.
    ///
    /// # Errors
    /// When a gateway's metrics can't be read.
    pub async fn heartbeats(&self) -> Result<f64> {
        let mut heard = 0.0;
        for gateway in self.gateways.values() {
            heard += crate::metric(gateway.health.address(), "wasmbed_gateway_heartbeats_total").await?;
        }
        Ok(heard)
    }

    /// A folder for logs.
    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn keep(&mut self, name: &str, command: std::process::Command, ready: &str) -> Result<()> {
        let mut process = Process::start(command, name, self.dir())?;
        process.wait_for_line(ready, |line| line.contains(ready))?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    fn take(&mut self, name: &str) -> Result<Process> {
        self.processes.remove(name).with_context(|| format!("{name} is not running"))
    }
}
