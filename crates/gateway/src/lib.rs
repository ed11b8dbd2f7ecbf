//! The gateway process: one TLS 1.3 port for devices and controllers, sets and modules on disk, Device statuses in
//! Kubernetes.
//!
//! It may not decide: it moves bytes, files and calls, and `wasmbed_control::gateway` decides. It may not write a spec,
//! apart from creating the Device of a device that enrolls or joins and the request for its certificate.

#![forbid(unsafe_code)]

mod api;
mod authorization;
mod brokers;
mod certificates;
mod config;
mod core;
mod device;
mod error;
mod foreign;
mod handshakes;
mod hello;
mod id;
mod journal;
mod kubernetes;
mod listener;
mod metrics;
mod openapi;
mod outbox;
mod presence;
mod refusal;
mod signing;
mod store;
mod tls;
mod watch;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use wasmbed_api::{GATEWAY_COMPONENT, LEADER_LEASE};
use wasmbed_control::ObjectKey;
use wasmbed_kubernetes::{Caller, LeaseClient, Reviewer, bounded};

use crate::refusal::Refusals;

pub use config::{Config, Enrollment, Joining, Limits, MessageLimits, TlsFiles};
pub use error::Error;
pub use metrics::describe as describe_metrics;
pub use openapi::document as openapi;
pub use store::StoreError;

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmbed_control::{
    election::Hold,
    gateway::{self, Gateway, Restored, StoreOperation},
};
use wasmbed_telemetry::{Health, ProcessMetrics as _, serve_health};

use crate::{
    brokers::Brokers,
    certificates::Certificates,
    core::{Core, Work},
    handshakes::Handshakes,
    listener::{Listener, Shares},
    outbox::{Outbox, OutboxThread},
    presence::Presence,
    signing::Requests,
    store::{Store, WriterThread},
};

/// Where a started gateway listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Devices and controllers.
    pub server: SocketAddr,
    /// `/health`, `/ready`, `/metrics`.
    pub health: Option<SocketAddr>,
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub addresses: Addresses,
    run: tokio::task::JoinHandle<()>,
}

impl Handle {
    /// Waits until the gateway has stopped, which it does when the token that it was started with is cancelled: devices
    /// were notified, their statuses written, the Lease released.
    pub async fn wait(self) {
        if let Err(error) = self.run.await {
            tracing::error!(reason = "TaskPanicked", %error, "gateway task panicked");
        }
    }
}

/// Runs a gateway until `shutdown` is cancelled.
///
/// # Errors
/// It could not start.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    start(config, shutdown).await?.wait().await;
    Ok(())
}

/// Starts a gateway, which listens when this returns. It does not wait for the Kubernetes API.
///
/// # Errors
/// It could not start.
pub fn start(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<Handle, Error>> {
    // Boxed, so that all of it is compiled with this crate and not once more with each program that starts it.
    Box::pin(bind_and_start(config, shutdown))
}

async fn bind_and_start(config: Config, shutdown: CancellationToken) -> Result<Handle, Error> {
    let certificates = Certificates::open(&config)?;
    let Disk { opened, opened_outbox, restored } = open_disk(&config)?;
    let id = id::open(&config.data_dir)
        .map_err(|source| StoreError::Io { path: config.data_dir.clone(), source })?;
    let shares = Shares::claim(&config.limits, config.max_connections);
    let listener = bind(config.listen)?;
    let health_listener = config.health_listen.map(bind).transpose()?;
    let addresses = Addresses {
        server: local_address(&listener, config.listen)?,
        health: health_listener
            .as_ref()
            .zip(config.health_listen)
            .map(|(listener, asked)| local_address(listener, asked))
            .transpose()?,
    };
    let client = kube::Client::try_from(bounded(config.kube.clone())).map_err(Box::new)?;
    let caller = Caller::new(client.clone(), GATEWAY_COMPONENT, config.name.as_str());

    let mut registry = Registry::default();
    let metrics = metrics::Metrics::registered(&mut registry);
    let registry = Arc::new(registry);
    let boot_id = uuid::Uuid::new_v4().simple().to_string();
    let decisions = decisions(&config, shares.sessions(), &boot_id);
    let condition = opened.condition.clone();
    let core = Arc::new(Core::new(metrics.clone(), |now| {
        let mut gateway = Gateway::new(now, decisions, restored);
        gateway.handle_hold(now, &Hold::Unread);
        gateway
    }));
    let stored = Arc::clone(&core);
    let on_stored: store::OnStored =
        Box::new(move |id, result| stored.with(|gateway, now| gateway.handle_stored(now, id, result)));
    let (store, writer) = opened.start(on_stored)?;
    let (outbox, outbox_writer) = start_outbox(opened_outbox, &core)?;
    let health = Health::starting(&["kubernetes", "lease"]);
    let bounds = shares.clone();
    let handshakes = Handshakes::new(move || bounds.handshakes());
    let foreign = Arc::<foreign::Foreign>::default();
    let address = config.advertise.clone().unwrap_or_else(|| presence::advertised(addresses.server));
    tracing::info!(gateway = config.name, address, boot_id, id, "gateway listens");
    say_where_secrets_are_kept(&config, &metrics);
    let refusals = Arc::new(Refusals::new());
    let running = Running {
        listener: Arc::new(Listener {
            core: Arc::clone(&core),
            metrics: metrics.clone(),
            handshakes: Arc::clone(&handshakes),
            shares: shares.clone(),
            limits: config.limits,
            trust_domain: config.trust_domain.clone(),
            certificates: Arc::clone(&certificates),
            api: api::Api::new(
                Arc::clone(&core),
                (store.clone(), outbox.clone()),
                metrics.clone(),
                LeaseClient::new(caller.clone(), ObjectKey::new(config.namespace.as_str(), LEADER_LEASE)),
                reviewer(client.clone(), metrics.clone()),
                config.limits.api_connections_max,
                Arc::clone(&refusals),
            ),
            refusals,
            foreign: Arc::clone(&foreign),
        }),
        presence: Presence {
            caller: caller.with_timeout(presence::CALL_TIMEOUT),
            core: Arc::clone(&core),
            metrics: metrics.clone(),
            handshakes,
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            address,
            id,
            boot_id: boot_id.clone(),
            shares,
            foreign,
            health: health.clone(),
            disk: condition,
        },
        core,
        store,
        writer,
        outbox,
        outbox_writer,
        requests: Requests::new(client.clone(), &config.trust_domain),
        client,
        caller,
        metrics,
        health: health.clone(),
        name: config.name,
        namespaces: config.namespaces,
        boot_id,
        shutdown_timeout: config.limits.shutdown_timeout,
        certificates,
        certificates_interval: config.limits.certificates_interval,
    };
    let health_server = health_listener.map(|listener| (listener, health, registry));
    let run = tokio::spawn(running.run(listener, health_server, shutdown));
    Ok(Handle { addresses, run })
}

/// Opened, before its threads run.
struct Disk {
    opened: store::Opened,
    opened_outbox: Option<outbox::Opened>,
    restored: Restored,
}

fn open_disk(config: &Config) -> Result<Disk, StoreError> {
    let mut opened = store::open(&config.data_dir, config.data_key.as_deref())?;
    let mut restored = std::mem::take(&mut opened.restored);
    let mut opened_outbox = config.messages.map(|_| outbox::open(&config.data_dir)).transpose()?;
    if let Some(outbox) = &mut opened_outbox {
        restored.messages = std::mem::take(&mut outbox.restored);
    }
    Ok(Disk { opened, opened_outbox, restored })
}

fn start_outbox(
    opened: Option<outbox::Opened>,
    core: &Arc<Core>,
) -> Result<(Option<Outbox>, Option<OutboxThread>), StoreError> {
    let Some(opened) = opened else { return Ok((None, None)) };
    let written = Arc::clone(core);
    let (outbox, thread) = opened.start(Box::new(move |result| {
        written.with(|gateway, now| gateway.handle_outbox_written(now, result));
    }))?;
    Ok((Some(outbox), Some(thread)))
}

fn say_where_secrets_are_kept(config: &Config, metrics: &metrics::Metrics) {
    metrics.set_sealed(config.data_key.is_some());
    if config.data_key.is_none() {
        tracing::info!(
            gateway = config.name,
            "gateway.data_key_file is not set: sets with values of Secrets are kept in memory only, and come back from a controller after a restart"
        );
    }
}

fn decisions(config: &Config, sessions_max: usize, boot_id: &str) -> gateway::Config {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    gateway::Config {
        name: config.name.clone(),
        boot_id: boot_id.to_owned(),
        namespaces: config.namespaces.clone(),
        enrollment: config.enrollment,
        joining_namespace: config.joining.namespace.clone(),
        pending_max: config.joining.pending_max,
        read_request: Some(signing::read_request),
        heartbeat_interval_ms: millis(config.heartbeat_interval),
        heartbeat_timeout_ms: millis(config.heartbeat_timeout),
        sessions_max,
        writes_per_second: config.writes_per_second,
        writes_burst: config
            .writes_burst
            .unwrap_or_else(|| gateway::config::writes_burst(config.max_connections)),
        modules_bytes_max: config.limits.modules_bytes_max,
        messages: config.messages,
    }
}

/// Who asks what people may do.
fn reviewer(client: kube::Client, metrics: metrics::Metrics) -> Reviewer {
    Reviewer::new(client, move |outcome, took| {
        metrics.kubernetes("review_access", kubernetes::name_of(outcome), took);
    })
}

fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    listener::bind(address).map_err(|source| Error::Listen { address, source })
}

fn local_address(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen { address: asked, source })
}

/// All that runs.
struct Running {
    listener: Arc<Listener>,
    presence: Presence,
    core: Arc<Core>,
    store: Store,
    writer: WriterThread,
    outbox: Option<Outbox>,
    outbox_writer: Option<OutboxThread>,
    client: kube::Client,
    requests: Requests,
    caller: Caller,
    metrics: metrics::Metrics,
    health: Health,
    name: String,
    namespaces: BTreeSet<String>,
    boot_id: String,
    shutdown_timeout: Duration,
    certificates: Arc<Certificates>,
    certificates_interval: Duration,
}

impl Running {
    async fn run(
        self,
        listener: TcpListener,
        health: Option<(TcpListener, Health, Arc<Registry>)>,
        shutdown: CancellationToken,
    ) {
        // Two steps: first no device is admitted any more and all are notified, then what writes to Kubernetes ends.
        let (accepting, telling) = (CancellationToken::new(), CancellationToken::new());
        let (connections, services) = (TaskTracker::new(), TaskTracker::new());
        services.spawn(self.drive(telling.clone()));
        services.spawn(Brokers::say(Arc::clone(&self.core), self.caller.clone(), telling.clone()));
        services.spawn(watch::follow(
            self.client.clone(),
            self.namespaces,
            Arc::clone(&self.core),
            self.health,
            telling.clone(),
        ));
        let (interval, metrics) = (self.certificates_interval, self.metrics.clone());
        services.spawn(self.certificates.follow(interval, metrics, telling.clone()));
        let saying = tokio::spawn(self.presence.run(telling.clone()));
        if let Some((listener, health, registry)) = health {
            let stop = telling.clone();
            services.spawn(async move {
                if let Err(error) = serve_health(listener, health, registry, "/health", stop).await {
                    tracing::error!(reason = "HealthFailed", %error, "the health port failed");
                }
            });
        }
        let accept = tokio::spawn(self.listener.run(listener, connections.clone(), accepting.clone()));

        shutdown.cancelled().await;
        tracing::info!(gateway = self.name, "gateway stops");
        accepting.cancel();
        let _ = accept.await;
        self.core.with(|gateway, now| gateway.handle_shutdown(now));
        connections.close();
        let drained = async {
            connections.wait().await;
            let mut poll = tokio::time::interval(Duration::from_millis(10));
            while !self.core.read(|gateway, _| gateway.is_drained()) {
                poll.tick().await;
            }
        };
        if tokio::time::timeout(self.shutdown_timeout, drained).await.is_err() {
            tracing::warn!(
                gateway = self.name,
                reason = "ShutdownTimeout",
                "shutdown timed out with unwritten statuses; they are written after restart"
            );
        }
        telling.cancel();
        services.close();
        let ended = async {
            let _ = saying.await;
            services.wait().await;
        };
        let _ = tokio::time::timeout(self.shutdown_timeout, ended).await;
        // Last, so that the folder is free when this returns.
        if let Some(outbox) = self.outbox_writer {
            outbox.stop().await;
        }
        self.writer.stop().await;
        tracing::info!(gateway = self.name, "gateway stopped");
    }

    /// The driver: calls and storage, as the decisions ask for them.
    fn drive(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let (core, store, caller) = (Arc::clone(&self.core), self.store.clone(), self.caller.clone());
        let outbox = self.outbox.clone();
        let (boot_id, metrics): (Arc<str>, _) = (self.boot_id.as_str().into(), self.metrics.clone());
        let requests = self.requests.clone();
        let brokers = self
            .outbox
            .clone()
            .map(|outbox| Brokers::new(Arc::clone(&self.core), outbox, &self.name, stop.clone()));
        async move {
            let driven = Arc::clone(&core);
            let carry_out = move |work: Work| {
                for call in work.certificates {
                    let (core, requests, metrics) = (Arc::clone(&core), requests.clone(), metrics.clone());
                    tokio::spawn(async move {
                        let outcome = requests.execute(call.what, &metrics).await;
                        core.with(|gateway, now| gateway.handle_certificate_answer(now, call.id, outcome));
                    });
                }
                for write in work.writes {
                    let (core, caller) = (Arc::clone(&core), caller.clone());
                    let (boot_id, metrics) = (Arc::clone(&boot_id), metrics.clone());
                    tokio::spawn(async move {
                        let outcome = kubernetes::execute(&caller, &boot_id, &write, &metrics).await;
                        core.with(|gateway, now| gateway.handle_write_result(now, write.id, outcome));
                    });
                }
                if let Some((outbox, write)) = outbox.as_ref().zip(work.outbox) {
                    outbox.start(write);
                }
                for start in work.brokers {
                    if let Some(brokers) = &brokers {
                        brokers.start(start);
                    }
                }
                for operation in work.store {
                    if let StoreOperation::LoadModule { digest } = operation {
                        let (core, store) = (Arc::clone(&core), store.clone());
                        tokio::spawn(async move {
                            let bytes = store.read_module(digest).await;
                            core.with(|gateway, now| gateway.handle_module_loaded(now, digest, bytes));
                        });
                    } else {
                        store.start(operation);
                    }
                }
            };
            driven.drive(stop, carry_out).await;
        }
    }
}
