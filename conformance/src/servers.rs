//! The two servers: the embedded one in this process, and the real one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wasmbed_apiserver::{Config, Limits, Policy, ServerTls};
use wasmbed_pki::{ClusterAuthority, Identity};
use wasmbed_testbed::{Cluster, ControlPlane, Options, Part, User as Account};

use crate::client::Server;
use crate::corpus::User;

/// How long a definition may take until its kind is served.
const ESTABLISHED: Duration = Duration::from_secs(30);
/// Between two looks at it.
const POLL: Duration = Duration::from_millis(50);

/// The definitions both servers get: Wasmbed's own, and one with every type of list and map for the tests.
///
/// # Errors
/// When one can't be read.
pub fn definitions() -> Result<Vec<Value>> {
    let mut definitions: Vec<Value> =
        wasmbed_api::crds().iter().map(serde_json::to_value).collect::<serde_json::Result<_>>()?;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/samples.yaml");
    definitions.push(serde_saphyr::from_str(&std::fs::read_to_string(sample)?)?);
    Ok(definitions)
}

/// The embedded server, with a temporary folder.
pub struct Embedded {
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
    authority: ClusterAuthority,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Embedded {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it can't start.
    pub async fn start() -> Result<Embedded> {
        Embedded::start_in(tempfile::tempdir()?, ([127, 0, 0, 1], 0).into()).await
    }

    async fn start_in(folder: TempDir, listen: SocketAddr) -> Result<Embedded> {
        let authority = ClusterAuthority::create_or_open(&folder.path().join("pki"))?;
        let identity = authority.issue_server(&["127.0.0.1".to_owned()])?;
        let config = Config {
            data_dir: folder.path().join("store"),
            encryption_keys: None,
            audit_log: None,
            listen,
            tls: ServerTls { certificates: identity.chain(), key: identity.key() },
            client_roots: vec![authority.certificate().clone()],
            definitions: definitions()?,
            policy: Policy::standard()?,
            limits: Limits::default(),
        };
        let server = wasmbed_apiserver::start(config).await?;
        let address = server.address();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        for user in User::ALL {
            let (name, group) = user.subject();
            let identity = authority.issue_client(name, group)?;
            write_kubeconfig(folder.path(), user, address, authority.certificate_pem(), &identity)?;
        }
        Ok(Embedded { address, folder, authority, stop, task })
    }

    /// A user's kubeconfig.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        kubeconfig_path(self.folder.path(), user)
    }

    /// Its users' clients.
    ///
    /// # Errors
    /// When a kubeconfig can't be used, which would be a bug.
    pub async fn server(&self) -> Result<Server> {
        Server::new("embedded", |user| self.kubeconfig(user)).await
    }

    /// Stops and starts on the same port and disk.
    ///
    /// # Errors
    /// When it can't.
    pub async fn restart(self) -> Result<Embedded> {
        self.stop.cancel();
        self.task.await?;
        drop(self.authority);
        Embedded::start_in(self.folder, self.address).await
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// An embedded server that its clients can restart, which drops its history.
pub struct Forgetting(Mutex<Option<Embedded>>);

impl Forgetting {
    /// Holds it.
    #[must_use]
    pub fn new(embedded: Embedded) -> Arc<Forgetting> {
        Arc::new(Forgetting(Mutex::new(Some(embedded))))
    }

    /// Its users' clients.
    ///
    /// # Errors
    /// When a kubeconfig can't be used, which would be a bug.
    pub async fn server(self: &Arc<Forgetting>) -> Result<Server> {
        let server = match self.0.lock().await.as_ref() {
            Some(embedded) => embedded.server().await?,
            None => bail!("it is stopped"),
        };
        let this = Arc::clone(self);
        Ok(server.forgetting(Box::new(move || {
            let this = Arc::clone(&this);
            async move {
                let mut held = this.0.lock().await;
                let embedded = held.take().context("it is stopped")?;
                *held = Some(embedded.restart().await?);
                Ok(())
            }
            .boxed()
        })))
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn stop(&self) -> Result<()> {
        match self.0.lock().await.take() {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

/// kube-apiserver, etcd and kube-controller-manager, with the same definitions and rights.
pub struct Real {
    cluster: Cluster,
}

impl Real {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't start, or doesn't take the definitions.
    pub async fn start() -> Result<Real> {
        // Answers tell how old objects are, and those of the other are as old as it is.
        let options = Options { controller_manager: true, anew: true, ..Options::default() };
        let cluster = Cluster::start_with(ControlPlane::Kubernetes, options).await?;
        let client = cluster.client(&account(User::Admin)).await?;
        let api: kube::Api<kube::core::DynamicObject> = kube::Api::all_with(client, &definition_resource());
        for definition in definitions()? {
            let name = definition["metadata"]["name"].as_str().context("a definition has a name")?.to_owned();
            match api.create(&kube::api::PostParams::default(), &serde_json::from_value(definition)?).await {
                // Wasmbed's own are there already.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => {
                    other.with_context(|| format!("{name} can't be defined"))?;
                }
            }
            established(&api, &name).await?;
        }
        Ok(Real { cluster })
    }

    /// A user's kubeconfig.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn kubeconfig(&self, user: User) -> Result<PathBuf> {
        self.cluster.kubeconfig(&account(user))
    }

    /// Its users' clients.
    ///
    /// # Errors
    /// When a kubeconfig can't be made or used.
    pub async fn server(&self) -> Result<Server> {
        let paths: BTreeMap<User, PathBuf> =
            User::ALL.into_iter().map(|user| Ok((user, self.kubeconfig(user)?))).collect::<Result<_>>()?;
        Server::new("kube-apiserver", |user| paths.get(&user).cloned().unwrap_or_default()).await
    }

    /// Its users' clients, for cases that have it forget its history.
    ///
    /// # Errors
    /// When a kubeconfig can't be made or used.
    pub async fn forgetting(self: &Arc<Real>) -> Result<Server> {
        let real = Arc::clone(self);
        Ok(self.server().await?.forgetting(Box::new(move || {
            let real = Arc::clone(&real);
            async move { real.cluster.forget_history().await }.boxed()
        })))
    }

    /// Stops its API server and starts it again on the same port and disk.
    ///
    /// # Errors
    /// When it can't.
    pub async fn restart(&self) -> Result<()> {
        self.cluster.stop(Part::ApiServer).await?;
        self.cluster.start_part(Part::ApiServer).await
    }
}

fn account(user: User) -> Account {
    let (name, group) = user.subject();
    Account::new(name, group)
}

fn definition_resource() -> kube::core::ApiResource {
    let kind = kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    kube::core::ApiResource::from_gvk(&kind)
}

/// Waits until a kind is served.
async fn established(api: &kube::Api<kube::core::DynamicObject>, name: &str) -> Result<()> {
    let served = |object: kube::core::DynamicObject| {
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    };
    let since = std::time::Instant::now();
    while !served(api.get(name).await?) {
        anyhow::ensure!(since.elapsed() < ESTABLISHED, "{name} isn't served after {ESTABLISHED:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn kubeconfig_path(folder: &Path, user: User) -> PathBuf {
    folder.join(format!("{}.kubeconfig", format!("{user:?}").to_lowercase()))
}

fn write_kubeconfig(
    folder: &Path,
    user: User,
    address: SocketAddr,
    authority: &str,
    identity: &Identity,
) -> Result<()> {
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    identity.write(folder, "client")?;
    let (certificate, key) = Identity::files(folder, "client");
    let read = |path: PathBuf| std::fs::read(&path).with_context(|| format!("can't read {}", path.display()));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "conformance",
        "clusters": [{"name": "conformance", "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": base64(authority.as_bytes()),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": base64(&read(certificate)?), "client-key-data": base64(&read(key)?),
        }}],
        "contexts": [{"name": "conformance", "context": {"cluster": "conformance", "user": "user"}}],
    });
    Ok(std::fs::write(kubeconfig_path(folder, user), config.to_string())?)
}
