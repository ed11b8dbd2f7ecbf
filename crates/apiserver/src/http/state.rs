//! What all connections share.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::read::Snapshots;
use super::shares::{Lines, Pool, Share};
use super::watch::LargeObjects;
use crate::access::{Policy, User};
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

/// The client of a connection.
pub(super) struct Client {
    /// `None` without a certificate.
    pub(super) user: Option<User>,
    /// The user's name; empty without one.
    pub(super) name: Arc<str>,
    /// Where it is.
    pub(super) address: IpAddr,
}

/// An authenticated client.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) client: &'a Client,
    pub(super) user: &'a User,
}
