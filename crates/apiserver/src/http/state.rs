//! What all connections share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::client::Client;
use super::read::Snapshots;
use super::shares::{Lines, Pool, Share};
use super::watch::LargeObjects;
use crate::access::Policy;
use crate::config::Limits;
use crate::store::Store;
use crate::telemetry::Metrics;

/// The store and everything with a bound.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) requests: Arc<Pool>,
    pub(super) watches: Arc<Pool>,
    pub(super) bodies: Arc<Pool>,
    pub(super) answers: Arc<Pool>,
    pub(super) large: Arc<LargeObjects>,
    pub(super) lines: Lines,
    pub(super) audit: Audit,
    pub(super) shutdown: CancellationToken,
}

impl State {
    /// The client's share of the memory of bodies.
    pub(super) fn bodies<'a>(&'a self, client: &'a Client) -> Share<'a> {
        Share { pool: &self.bodies, user: &client.name }
    }
}
