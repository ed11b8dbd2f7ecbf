//! The running roles, and the order in which they stop.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmbed_apiserver::AuditLog;
use wasmbed_device::{
    BoardConfig, DeviceIdentity,
    fleet::{self, FleetConfig, FleetStorage},
};
use wasmbed_pki::read_certificates;

use super::boards::Board;
use crate::{
    config::{
        ControllerSection, GatewaySection, HealthSection, Kubernetes, Server, SignerIssuer, SignerOperators,
        SignerSection, Tls,
    },
    machine::{
        layout::{IdentityFiles, KubeUser, Layout},
        provision::Chosen,
    },
    processes,
};

/// Name of the one gateway, of the one controller and of the one signer.
const NAME: &str = "local";

/// Where a gateway listens.
pub(super) struct GatewayAddresses {
    pub(super) server: SocketAddr,
    pub(super) health: SocketAddr,
}

/// What runs, in the order in which it started; it stops in the opposite order, so that each says its last words to
/// something that still listens.
#[derive(Default)]
pub(super) struct Roles {
    running: Vec<Role>,
    followers: CancellationToken,
    ended: CancellationToken,
}

struct Role {
    name: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Roles {
    pub(super) async fn start_apiserver(
        &mut self,
        layout: &Layout,
        listen: SocketAddr,
        secret_namespaces: &[String],
    ) -> Result<SocketAddr> {
        let IdentityFiles { certificate, key } = layout.apiserver_identity()?;
        let store = processes::apiserver::StoreFiles {
            folder: layout.apiserver_dir(),
            encryption_keys: None,
            audit_log: Some(AuditLog::new(layout.audit_log())),
            secret_namespaces: secret_namespaces.to_vec(),
        };
        let files = processes::apiserver::TlsFiles { certificate, key, client_roots: layout.cluster_root() };
        let shutdown = CancellationToken::new();
        let server = processes::apiserver::start(store, listen, files, shutdown.clone())
            .await
            .with_context(|| port_advice("the Kubernetes API", listen, "--apiserver-port"))?;
        let address = server.address();
        let asked = shutdown.clone().cancelled_owned();
        self.keep("Kubernetes API", shutdown, async move {
            server.run(asked).await;
            Ok(())
        });
        Ok(address)
    }

    pub(super) async fn start_gateway(
        &mut self,
        layout: &Layout,
        api: SocketAddr,
        listen: SocketAddr,
        health: SocketAddr,
    ) -> Result<GatewayAddresses> {
        let identity = layout.gateway_identity(NAME)?;
        let section = GatewaySection {
            name: Some(NAME.to_owned()),
            data_dir: layout.gateway_dir(),
            data_key_file: Some(layout.data_key("gateway")?),
            tls: Tls {
                cert_file: identity.certificate,
                key_file: identity.key,
                ca_file: layout.devices_root(),
                services_ca_file: Some(layout.services_root()),
                operators_ca_file: Some(layout.operators_root()),
                factory_ca_file: Some(layout.factory_root()),
            },
            server: Server { host: listen.ip().to_string(), port: listen.port(), ..Server::default() },
            health: health_at(health),
            kubernetes: Kubernetes {
                kubeconfig: Some(layout.write_kubeconfig(api, KubeUser::Gateway(NAME))?),
            },
            ..GatewaySection::default()
        };
        let shutdown = CancellationToken::new();
        let gateway = wasmbed_gateway::start(processes::gateway::configure(section).await?, shutdown.clone())
            .await
            .with_context(|| port_advice("the gateway", listen, "--gateway-port or --gateway-health-port"))?;
        let addresses = GatewayAddresses {
            server: gateway.addresses.server,
            health: gateway.addresses.health.context("the gateway serves no health")?,
        };
        self.keep("gateway", shutdown, async move {
            gateway.wait().await;
            Ok(())
        });
        Ok(addresses)
    }

    pub(super) async fn start_controller(
        &mut self,
        layout: &Layout,
        api: SocketAddr,
        health: SocketAddr,
    ) -> Result<SocketAddr> {
        let identity = layout.controller_identity(NAME)?;
        let section = ControllerSection {
            name: Some(NAME.to_owned()),
            data_key_file: Some(layout.data_key("controller")?),
            tls: Tls {
                cert_file: identity.certificate,
                key_file: identity.key,
                ca_file: layout.services_root(),
                services_ca_file: None,
                operators_ca_file: None,
                factory_ca_file: None,
            },
            health: health_at(health),
            kubernetes: Kubernetes {
                kubeconfig: Some(layout.write_kubeconfig(api, KubeUser::Controller(NAME))?),
            },
            ..ControllerSection::default()
        };
        let shutdown = CancellationToken::new();
        let controller =
            wasmbed_controller::start(processes::controller::configure(section).await?, shutdown.clone())
                .await
                .with_context(|| port_advice("the controller", health, "--controller-health-port"))?;
        let address = controller.health;
        self.keep("controller", shutdown, async move { Ok(controller.wait().await?) });
        Ok(address)
    }

    pub(super) async fn start_signer(
        &mut self,
        layout: &Layout,
        api: SocketAddr,
        health: SocketAddr,
    ) -> Result<SocketAddr> {
        let issuer =
            |files: IdentityFiles| SignerIssuer { cert_file: files.certificate, key_file: files.key };
        let section = SignerSection {
            name: Some(NAME.to_owned()),
            trust_domain: layout.authorities().trust_domain().to_owned(),
            issuer: issuer(layout.devices_issuing()),
            operators: SignerOperators {
                issuer: Some(issuer(layout.operators_issuing())),
                services_ca_file: layout.services_root(),
                ..SignerOperators::default()
            },
            devices_ca_file: layout.devices_root(),
            factory_ca_file: Some(layout.factory_root()),
            health: health_at(health),
            kubernetes: Kubernetes {
                kubeconfig: Some(layout.write_kubeconfig(api, KubeUser::Signer(NAME))?),
            },
            ..SignerSection::default()
        };
        let shutdown = CancellationToken::new();
        let signer = wasmbed_signer::start(processes::signer::configure(section).await?, shutdown.clone())
            .await
            .with_context(|| port_advice("the signer", health, "--signer-health-port"))?;
        let address = signer.health;
        self.keep("signer", shutdown, async move { Ok(signer.wait().await?) });
        Ok(address)
    }

    /// Starts the named devices, each with its own identity and files.
    pub(super) fn start_devices(
        &mut self,
        layout: &Layout,
        identities: Vec<DeviceIdentity>,
        gateway: SocketAddr,
    ) -> Result<()> {
        let roots = read_certificates(&layout.services_root())?;
        let devices = identities.len();
        let identities = Mutex::new(identities.into_iter().map(Some).collect::<Vec<_>>());
        let issue: fleet::Issue = Arc::new(move |index| {
            let mut identities = identities.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(identities.get_mut(index).and_then(Option::take).ok_or("no such device")?)
        });
        let mut config = FleetConfig::new(devices, issue, roots, vec![gateway.to_string()]);
        config.storage = FleetStorage::Files(layout.devices_dir());
        config.board = BoardConfig::default();
        let fleet = fleet::start(config)?;
        let (shutdown, stop) = (CancellationToken::new(), fleet.stopper());
        let asked = shutdown.clone();
        self.keep("devices", shutdown, async move {
            let wait = tokio::task::spawn_blocking(move || fleet.wait());
            let mut wait = std::pin::pin!(wait);
            let ended = tokio::select! {
                ended = &mut wait => ended,
                () = asked.cancelled() => { stop.stop(); wait.await }
            };
            Ok(ended.context("the devices' waiter panicked")??)
        });
        Ok(())
    }

    /// Starts an emulated board with its files in a folder.
    pub(super) async fn start_board(
        &mut self,
        layout: &Layout,
        board: &Board,
        firmware: Option<PathBuf>,
        data_dir: PathBuf,
        identity: &DeviceIdentity,
        gateway: SocketAddr,
    ) -> Result<()> {
        let running = processes::board::Running::start(processes::board::Board {
            kind: board.kind,
            firmware,
            memory: None,
            data_dir,
            identity: Chosen::new(identity)?,
            services_roots: read_certificates(&layout.services_root())?,
            gateways: vec![gateway.to_string()],
        });
        let running = running.await.with_context(|| format!("can't start {}", board.name))?;
        let shutdown = CancellationToken::new();
        let asked = shutdown.clone();
        self.keep(&board.name, shutdown, async move { running.keep_running(&asked).await });
        Ok(())
    }

    /// Cancelled before the roles stop: for what only watches them.
    pub(super) fn followers(&self) -> CancellationToken {
        self.followers.clone()
    }

    /// Waits until a role ends by itself.
    pub(super) async fn any_ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops every role; the first error is told after all have stopped.
    pub(super) async fn stop(self) -> Result<()> {
        self.followers.cancel();
        let mut first = Ok(());
        for role in self.running.into_iter().rev() {
            role.shutdown.cancel();
            let ended = role.task.await.context("it panicked").flatten();
            first = first.and(ended.with_context(|| format!("{} failed", role.name)));
        }
        first
    }

    fn keep(
        &mut self,
        name: &str,
        shutdown: CancellationToken,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let (ended, asked, role) = (self.ended.clone(), shutdown.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let result = task.await;
            if !asked.is_cancelled() {
                tracing::error!(role, reason = "Ended", error = ?result.as_ref().err(), "a role ended by itself");
                ended.cancel();
            }
            result
        });
        self.running.push(Role { name: name.to_owned(), shutdown, task });
    }
}

fn health_at(address: SocketAddr) -> HealthSection {
    HealthSection { host: address.ip().to_string(), port: address.port(), ..HealthSection::default() }
}

fn port_advice(what: &str, address: SocketAddr, flag: &str) -> String {
    format!(
        "can't start {what} at {address} (if the port is taken, choose another with {flag}, or --free-ports)"
    )
}
