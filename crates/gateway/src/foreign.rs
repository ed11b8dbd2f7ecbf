//! Certificates of other authorities. What they claim is not proven, so no Device shows them: whoever makes a certificate of his
//! own could write into any Device. The gateway's log and metrics have each, the DeviceGateway an Event now and then, and the
//! device that was refused has the reason in its own log.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use wasmbed_api::{ReasonCode, kind};
use wasmbed_control::{
    ObjectKey,
    kubernetes::{Event, Regarding},
};

/// An Event at most so often, however many come: strangers write nothing to the Kubernetes API beyond that.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    untold: u64,
    last: Option<IpAddr>,
    told_at: Option<Instant>,
}

impl Foreign {
    pub(crate) fn note(&self, peer: IpAddr) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.untold = seen.untold.saturating_add(1);
        seen.last = Some(peer);
    }

    /// The message of the next Event, if it is time for one.
    pub(crate) fn take(&self, now: Instant) -> Option<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seen.told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= TOLD_EVERY);
        let last = seen.last.filter(|_| due && seen.untold > 0)?;
        seen.told_at = Some(now);
        let count = std::mem::take(&mut seen.untold);
        Some(format!(
            "{count} connections with a certificate of another authority were refused since this was last told, the last one \
             from {last}; the names in such certificates are not proven"
        ))
    }
}

/// An Event about a DeviceGateway; the UID is empty if it is not known.
pub(crate) fn event(unix_ms: u64, gateway: ObjectKey, uid: String, message: String) -> Event {
    let regarding = Regarding { kind: kind::DEVICE_GATEWAY, key: gateway, uid };
    Event { regarding, warning: true, reason: ReasonCode::ForeignCertificate, message, unix_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_come_they_are_told_of_now_and_then() {
        let foreign = Foreign::default();
        let now = Instant::now();
        assert_eq!(foreign.take(now), None);
        foreign.note(IpAddr::from([10, 0, 0, 1]));
        assert!(foreign.take(now).unwrap().starts_with("1 connections"));
        for _ in 0..10_000 {
            foreign.note(IpAddr::from([10, 0, 0, 2]));
        }
        assert_eq!(foreign.take(now + TOLD_EVERY / 2), None);
        let told = foreign.take(now + TOLD_EVERY).unwrap();
        assert!(told.starts_with("10000 connections") && told.contains("10.0.0.2"), "{told}");
        assert_eq!(foreign.take(now + 2 * TOLD_EVERY), None);
    }
}
