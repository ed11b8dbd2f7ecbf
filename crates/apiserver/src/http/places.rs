//! Places for connections: those in their handshake, those without a certificate, and those of users.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use wasmbed_telemetry::OpenFiles;
use wasmbed_telemetry::places::{GivesWay, LEAVING_MAX, PlaceLimits, Places, Stay};

use crate::config::Limits;

/// Connections beyond a bound that are kept for a moment to answer 429.
const REJECTED: PlaceLimits = PlaceLimits { total: 32, each: 8 };
/// How long they may last.
pub(super) const REJECTED_STAY: Stay =
    Stay { idle: Duration::from_secs(5), request: Duration::from_secs(5), life: Duration::from_secs(10) };

/// Places for connections, apart for each state of authentication.
pub(super) struct Bounds {
    limits: Limits,
    files: OpenFiles,
    pub(super) handshakes: Places<IpAddr>,
    pub(super) anonymous: Places<IpAddr>,
    pub(super) users: Places<Arc<str>>,
    pub(super) rejected: Places<Arc<str>>,
    /// Name under which log lines about refused connections are counted; no user has this name.
    pub(super) refusals: Arc<str>,
}

impl Bounds {
    pub(super) fn new(limits: &Limits, owner: &str) -> Bounds {
        Bounds {
            files: OpenFiles::claim(owner, Bounds::files(limits)),
            limits: limits.clone(),
            handshakes: Places::new(GivesWay::Any),
            anonymous: Places::new(GivesWay::Any),
            users: Places::new(GivesWay::Idle),
            rejected: Places::new(GivesWay::Any),
            refusals: "\0refused".into(),
        }
    }

    /// One for each connection that may be open at once.
    fn files(limits: &Limits) -> usize {
        // Connections that gave way may take a moment to close, in each of the four groups.
        let leaving = 4 * LEAVING_MAX;
        limits.connections_max + limits.handshakes_max + limits.unauthenticated_max + REJECTED.total + leaving
    }

    /// A bound, reduced to the open files that the process is allowed.
    fn shrunk(&self, total: usize, each: usize) -> PlaceLimits {
        let (allowed, wanted) = (self.files.allowed(), Bounds::files(&self.limits));
        let shrink = |bound: usize| (bound * allowed / wanted).clamp(1, bound.max(1));
        PlaceLimits { total: shrink(total), each: shrink(each) }
    }

    pub(super) fn handshake_limits(&self) -> PlaceLimits {
        self.shrunk(self.limits.handshakes_max, self.limits.handshakes_per_source_max)
    }

    pub(super) fn anonymous_limits(&self) -> PlaceLimits {
        self.shrunk(self.limits.unauthenticated_max, self.limits.unauthenticated_per_source_max)
    }

    pub(super) fn user_limits(&self) -> PlaceLimits {
        self.shrunk(self.limits.connections_max, self.limits.connections_per_user_max)
    }

    pub(super) fn rejected_limits(&self) -> PlaceLimits {
        self.shrunk(REJECTED.total, REJECTED.each)
    }
}
