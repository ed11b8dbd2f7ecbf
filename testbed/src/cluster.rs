//! A running control plane.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use wasmbed_pki::{ClusterAuthority, Identity};

use crate::{
    Folder, Kubectl, Port, Process, User, embedded, etcd,
    kubernetes::{self, Files},
};

/// How long a part may take until it serves. Generous: other tests share the processor.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a part is asked whether it serves.
const POLL: Duration = Duration::from_millis(50);

/// Who serves the Kubernetes API: what tests take as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlPlane {
    /// `wasmbed apiserver`.
    Embedded,
    /// kube-apiserver and etcd.
    Kubernetes,
}

/// How a control plane is to be, where a test wants it otherwise than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// etcd waits for the disk, as it does in production; for measurements. The embedded one always does.
    pub durable: bool,
    /// With kube-controller-manager: owner references are collected and deleted namespaces go.
    pub controller_manager: bool,
    /// It takes nothing over from an earlier one: what it makes at its first start is as old as it is.
    pub anew: bool,
}

/// A process of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// kube-apiserver or the embedded one.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// etcd.
    Etcd,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Etcd => "etcd",
        }
    }
}

/// A running control plane with Wasmbed's definitions, roles and the namespace of the system. Everything ends when it is
/// dropped.
#[derive(Debug)]
pub struct Cluster {
    plane: ControlPlane,
    options: Options,
    api: Port,
    etcd: Port,
    etcd_peers: Port,
    // In the order in which they are killed.
    processes: Mutex<BTreeMap<Part, Process>>,
    // Last, so that processes end before their folder goes.
    folder: Folder,
}

impl Cluster {
    /// One whose processes don't run yet.
    pub(crate) fn create(plane: ControlPlane, options: Options) -> Result<Self> {
        let folder = Folder::create("testbed")?;
        let authority = ClusterAuthority::create_or_open(folder.path())?;
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        authority.issue_server(&hosts)?.write(folder.path(), "apiserver")?;
        let (api, etcd, etcd_peers) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let processes = Mutex::default();
        Ok(Self { plane, options, api, etcd, etcd_peers, processes, folder })
    }

    /// Starts its processes and waits until they serve.
    pub(crate) async fn start_parts(&self) -> Result<()> {
        for part in self.parts() {
            self.start_part(part).await?;
        }
        Ok(())
    }

    /// Where etcd keeps its data.
    pub(crate) fn etcd_data(&self) -> PathBuf {
        self.dir().join(kubernetes::ETCD_DATA)
    }

    /// Which one it is.
    #[must_use]
    pub fn plane(&self) -> ControlPlane {
        self.plane
    }

    /// Where the API is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// The processes that it consists of, in the order in which they start.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        match self.plane {
            ControlPlane::Embedded => vec![Part::ApiServer],
            ControlPlane::Kubernetes if self.options.controller_manager => {
                vec![Part::Etcd, Part::ApiServer, Part::ControllerManager]
            }
            ControlPlane::Kubernetes => vec![Part::Etcd, Part::ApiServer],
        }
    }

    /// Where logs, keys and kubeconfigs are; goes with the value.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a part that was killed or stopped, with the address and the data that it had, and waits until it serves.
    ///
    /// # Errors
    /// With what it printed, when it doesn't come up; when it runs already, or this control plane has no such part.
    pub async fn start_part(&self, part: Part) -> Result<()> {
        let command = self.command(part)?;
        match self.processes().entry(part) {
            Entry::Occupied(_) => bail!("{} runs already", part.name()),
            Entry::Vacant(place) => {
                place.insert(Process::start(command, part.name(), self.dir())?);
            }
        }
        self.served(part).await
    }

    /// Ends a part without a warning, as a crash would.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&self, part: Part) -> Result<()> {
        self.take(part)?.kill()
    }

    /// Has the API server forget what was before now: it crashes and comes back with an empty cache, and etcd, where there is one,
    /// compacts in between. Versions from before can't be read or watched any more.
    ///
    /// # Errors
    /// When a part doesn't do as it is told.
    pub async fn forget_history(&self) -> Result<()> {
        self.kill(Part::ApiServer)?;
        if self.plane == ControlPlane::Kubernetes {
            etcd::compact(self.etcd.address()).await?;
        }
        self.start_part(Part::ApiServer).await
    }

    /// Asks a part to end and waits until it has. kube-apiserver takes seconds: it lets requests finish.
    ///
    /// # Errors
    /// When it isn't running or doesn't end.
    pub async fn stop(&self, part: Part) -> Result<()> {
        let process = self.take(part)?;
        tokio::task::spawn_blocking(move || process.terminate()).await.context("the wait panicked")??;
        Ok(())
    }

    /// Reads from a part's process, for example its number or its memory.
    ///
    /// # Errors
    /// When it isn't running, or when `read` says so.
    pub fn with_process<T>(&self, part: Part, read: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        let mut processes = self.processes();
        read(processes.get_mut(&part).with_context(|| format!("{} is not running", part.name()))?)
    }

    /// A user's kubeconfig, mode 0600. The same file for the same user.
    ///
    /// # Errors
    /// When its certificate can't be issued or the file can't be written.
    pub fn kubeconfig(&self, user: &User) -> Result<PathBuf> {
        let path = self.dir().join(format!("{}.kubeconfig", user.file_stem()));
        if !path.exists() {
            let text = self.render_kubeconfig(user)?;
            wasmbed_pki::write_private(&path, text.as_bytes())
                .with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(path)
    }

    /// How a user reaches the API.
    ///
    /// # Errors
    /// When the kubeconfig can't be made or used.
    pub async fn config(&self, user: &User) -> Result<kube::Config> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)?).context("can't read a kubeconfig")?;
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("can't use a kubeconfig")
    }

    /// A user's client.
    ///
    /// # Errors
    /// When the kubeconfig can't be made or used.
    pub async fn client(&self, user: &User) -> Result<Client> {
        Client::try_from(self.config(user).await?).context("can't make a client")
    }

    /// A user's kubectl.
    ///
    /// # Errors
    /// When there is none.
    pub fn kubectl(&self, user: &User) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig(user)?, self.dir())
    }

    /// Applies manifests as administrator.
    ///
    /// # Errors
    /// With what kubectl said, when the API refused one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(&User::administrator())?.apply(manifests).map(drop)
    }

    /// Whether every part runs.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts().into_iter().all(|part| self.with_process(part, Process::check).is_ok())
    }

    fn command(&self, part: Part) -> Result<Command> {
        let files = Files { dir: self.dir(), api: &self.api, etcd: &self.etcd, etcd_peers: &self.etcd_peers };
        match (self.plane, part) {
            (ControlPlane::Embedded, Part::ApiServer) => embedded::apiserver(self.dir(), &self.api),
            (ControlPlane::Embedded, Part::ControllerManager | Part::Etcd) => {
                bail!("the embedded control plane has no {}", part.name())
            }
            (ControlPlane::Kubernetes, Part::ApiServer) => files.apiserver(),
            (ControlPlane::Kubernetes, Part::ControllerManager) => {
                files.controller_manager(&self.kubeconfig(&User::administrator())?)
            }
            (ControlPlane::Kubernetes, Part::Etcd) => files.etcd(self.options.durable),
        }
    }

    /// Waits until a part serves. kube-controller-manager has no address: what it does is what tells.
    async fn served(&self, part: Part) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let client = self.client(&User::administrator()).await?;
        loop {
            let said = match part {
                Part::ApiServer => {
                    let request = http::Request::get("/readyz").body(Vec::new()).context("a request")?;
                    client.request_text(request).await.map(drop).map_err(anyhow::Error::from)
                }
                Part::Etcd => {
                    let stream = tokio::net::TcpStream::connect(self.etcd.address()).await;
                    stream.map(drop).map_err(anyhow::Error::from)
                }
                Part::ControllerManager => Ok(()),
            };
            self.with_process(part, Process::check)?;
            match said {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let printed = self.with_process(part, |process| process.printed())?;
                    bail!("{} does not serve: {error:#}; it printed:\n{printed}", part.name())
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn take(&self, part: Part) -> Result<Process> {
        self.processes().remove(&part).with_context(|| format!("{} is not running", part.name()))
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Part, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// JSON, which is YAML.
    fn render_kubeconfig(&self, user: &User) -> Result<String> {
        let authority = ClusterAuthority::create_or_open(self.dir())?;
        let Identity { chain_pem, key_pem, .. } = &authority.issue_client(user.name(), user.group())?;
        let cluster = json!({
            "server": format!("https://{}", self.address()),
            "certificate-authority-data": STANDARD.encode(authority.certificate_pem()),
        });
        let credentials = json!({
            "client-certificate-data": STANDARD.encode(chain_pem),
            "client-key-data": STANDARD.encode(key_pem.as_bytes()),
        });
        let context = json!({ "cluster": "testbed", "user": user.name(), "namespace": "default" });
        serde_json::to_string_pretty(&json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "testbed", "cluster": cluster }],
            "users": [{ "name": user.name(), "user": credentials }],
            "contexts": [{ "name": "testbed", "context": context }],
            "current-context": "testbed",
        }))
        .context("can't write a kubeconfig")
    }
}
