//! The controller process: it watches the Kubernetes API, hands what it sees to [`wasmbed_control::fleet`], and carries
//! out what that decides: sets and modules to gateways, statuses, Events and finalizers to Kubernetes.
//!
//! It may not decide anything about placement, fit, revisions or statuses, and may not talk to devices.

#![forbid(unsafe_code)]

mod audit;
mod certificates;
mod client;
mod clock;
mod config;
mod decommission;
mod driver;
mod election;
mod error;
mod input;
mod kubernetes;
mod logins;
mod metrics;
mod requests;
mod stream;
mod watch;

pub use config::{
    Config, GatewayConfig, HealthConfig, LeaseConfig, ReconciliationConfig, TlsFiles, ValuesKey,
};
pub use error::Error;
pub use metrics::describe as describe_metrics;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, mpsc, watch as channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{CONTROLLER_COMPONENT, LEADER_LEASE};
use wasmbed_control::{
    ObjectKey,
    fleet::{Fleet, FleetConfig},
    kubernetes::WriteOutcome,
};
use wasmbed_kubernetes::{Caller, LeaseClient, Reviewer, bounded};
use wasmbed_telemetry::{Health, ProcessMetrics as _, serve_health};

use client::GatewayClient;
use clock::{Clock, milliseconds};
use driver::{Driver, Reachable};
use election::Election;
use metrics::{Metrics, Operation};

/// A controller that runs.
pub struct Handle {
    /// Where health and metrics are served.
    pub health: SocketAddr,
    join: JoinHandle<Result<(), Error>>,
}

impl Handle {
    /// Waits for the end: after `shutdown` was cancelled, or because a part failed.
    pub async fn wait(self) -> Result<(), Error> {
        self.join.await.unwrap_or_else(|error| Err(Error::Task(error.to_string())))
    }
}

/// Starts a controller and returns once its health port is bound. `shutdown` ends it: it gives up leadership first.
///
/// # Errors
/// The configuration can't be used or the health port can't be bound.
pub fn start(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<Handle, Error>> {
    // Boxed, so that all of it is compiled with this crate and not once more with each program that starts it.
    Box::pin(bind_and_start(config, shutdown))
}

async fn bind_and_start(config: Config, shutdown: CancellationToken) -> Result<Handle, Error> {
    let certificates = certificates::open(&config.tls)?;
    let client = GatewayClient::new(&config, Arc::clone(&certificates))?;
    let kube = kube::Client::try_from(bounded(config.kube.clone()))?;
    let caller = Caller::new(kube.clone(), CONTROLLER_COMPONENT, config.name.as_str());
    let address = config.health.listen;
    let listen_failed = |source| Error::Listen { address, source };
    let listener = wasmbed_telemetry::listen(address).map_err(listen_failed)?;
    let health_address = listener.local_addr().map_err(listen_failed)?;

    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let health = Health::starting(&["kubernetes", "watches"]);
    let (sender, inputs) = mpsc::channel(input::INPUTS_MAX);
    let (term_wanted, wanted) = channel::channel(None);
    let (lead_sender, lead) = channel::channel(None);
    let changed = Arc::new(Notify::new());
    let election = Election {
        lease: LeaseClient::new(
            caller.clone(),
            ObjectKey::new(config.system_namespace.as_str(), LEADER_LEASE),
        ),
        holder: config.name.clone(),
        config: config.lease.clone(),
        wanted,
        changed: Arc::clone(&changed),
        lead: lead_sender,
        inputs: sender.clone(),
    };
    let asked = metrics.clone();
    let reviewer = Reviewer::new(kube.clone(), move |outcome, took| {
        let failed = !matches!(outcome, WriteOutcome::Done(_));
        asked.observe(Operation::ReviewAccess, took.as_secs_f64(), failed);
    });
    let logins =
        logins::Logins { caller: caller.clone(), reviewer, metrics: metrics.clone(), lead: lead.clone() };
    let logins = logins::follow(kube.clone(), logins, shutdown.clone());
    let watches = watch::follow(
        kube,
        config.namespace.clone(),
        config.system_namespace.clone(),
        sender.clone(),
        changed,
    );
    let driver = Driver {
        fleet: Fleet::new(fleet_config(&config)),
        clock: Clock::new(),
        client,
        certificates: Arc::clone(&certificates),
        signed: Arc::default(),
        caller,
        metrics,
        health: health.clone(),
        inputs,
        sender,
        term_wanted,
        lead,
        streams: BTreeMap::new(),
        reachable: Reachable::default(),
        timeout_ms: 0,
        trust_domain: config.trust_domain.clone(),
    };
    let path = config.health.path.clone();
    let join = tokio::spawn(async move {
        // The election outlives the loop, so that leadership is given up only once nothing is sent any more.
        let stop_election = CancellationToken::new();
        let election = tokio::spawn(election.run(stop_election.clone()));
        let watches = tokio::spawn(watches);
        let logins = tokio::spawn(logins);
        let renewals = tokio::spawn(certificates::follow(certificates, shutdown.clone()));
        let stop_server = shutdown.clone();
        let server = tokio::spawn(async move {
            serve_health(listener, health, Arc::new(registry), &path, stop_server).await
        });
        driver.run(shutdown).await;
        watches.abort();
        logins.abort();
        renewals.abort();
        stop_election.cancel();
        election.await.map_err(|error| Error::Task(format!("election: {error}")))?;
        let served = server.await.map_err(|error| Error::Task(format!("health: {error}")))?;
        served.map_err(|source| Error::Listen { address, source })
    });
    Ok(Handle { health: health_address, join })
}

/// Runs a controller until `shutdown`.
///
/// # Errors
/// As [`start`], or a part of it failed.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    start(config, shutdown).await?.wait().await
}

fn fleet_config(config: &Config) -> FleetConfig {
    let reconciliation = &config.reconciliation;
    FleetConfig {
        resync_interval_ms: milliseconds(reconciliation.interval).max(1_000),
        retries_max: reconciliation.max_retries,
        backoff_multiplier: reconciliation.backoff_multiplier,
        lease_grace_ms: milliseconds(config.lease.gateway_grace),
        lease_watch_silence_ms: milliseconds(config.lease.renew).saturating_mul(2),
        values_key: config.values_key.clone(),
        ..FleetConfig::default()
    }
}
