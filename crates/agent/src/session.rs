//! The session with a gateway.
//!
//! ```text
//!              +-------------------- handle_disconnected: pause, full jitter ------------------+
//!              v                                                                               |
//!   start -> Down --pause over: Connect--> Connecting --handle_connected--> Greeting --Hello--> Greeting (sent)
//!              ^                                |                              |                    |
//!              |                            too long                       too long             Welcome
//!              |                                v                              v                    v
//!              +---- handle_disconnected --- Closing <-- Reject, Goodbye, silence, bad frames -- Established
//! ```
//! With an identity that is not one of the fleet, Joining takes the place of Greeting: Join is sent instead of Hello, and it
//! ends in Closing whatever comes of it, never in Established; see [`crate::identity`].
//!
//! Any frame proves liveness. A heartbeat goes out every interval whatever else was sent, because it carries what the
//! device uses and because its answer is the frame that proves the gateway's liveness.

use wasmbed_protocol::{Closing, Epoch, MessageGroups, Sequence, Welcome};

use crate::{
    backoff::{RECONNECT, RECONNECT_RESET_MS},
    log::LogBudget,
};

/// A connection that is not made by then, handshake included, is given up: slow boards need a second for TLS.
pub const CONNECT_TIMEOUT_MS: u64 = 30_000;
/// A gateway that has not answered Hello by then is given up. It may have to ask the Kubernetes API first.
pub const WELCOME_TIMEOUT_MS: u64 = 20_000;
/// A link that does not report its end by then is taken for ended.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;
/// What a gateway may ask for; outside of it the nearest is taken, so that no gateway can silence a device.
pub const HEARTBEAT_INTERVAL_MS: core::ops::RangeInclusive<u64> = 50..=600_000;
/// No gateway keeps a device away for longer.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// Full jitter may draw nothing; a device that is refused at once must not spin.
pub const PAUSE_MS_MIN: u64 = 100;
/// Messages in a row that are newer than this firmware, after which a session is given up: its gateway speaks something else.
pub const BAD_FRAMES_MAX: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Down {
        retry_at_ms: u64,
    },
    Connecting {
        deadline_ms: u64,
    },
    Greeting {
        sent: bool,
        deadline_ms: u64,
    },
    /// The exchange has its own deadlines; this one is the last.
    Joining {
        deadline_ms: u64,
    },
    Established(Established),
    Closing {
        deadline_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Established {
    epoch: Epoch,
    since_ms: u64,
    interval_ms: u64,
    timeout_ms: u64,
    heard_ms: u64,
    heartbeat_due_ms: u64,
    heartbeat: Sequence,
    report: Sequence,
    log: LogBudget,
    /// What the gateway takes beyond the first messages.
    groups: MessageGroups,
}

impl Established {
    pub(crate) fn new(welcome: &Welcome, now_ms: u64) -> Self {
        let bounds = HEARTBEAT_INTERVAL_MS;
        let interval_ms = u64::from(welcome.heartbeat_interval_ms).clamp(*bounds.start(), *bounds.end());
        Self {
            epoch: welcome.epoch,
            since_ms: now_ms,
            interval_ms,
            // Two intervals at least: one lost answer is not silence.
            timeout_ms: u64::from(welcome.heartbeat_timeout_ms).max(2 * interval_ms),
            heard_ms: now_ms,
            heartbeat_due_ms: now_ms.saturating_add(interval_ms),
            heartbeat: Sequence(0),
            report: Sequence(0),
            log: LogBudget::new(welcome.log_bytes_per_second, now_ms),
            groups: welcome.groups.unwrap_or_default(),
        }
    }

    /// Whether the gateway takes messages of this group.
    pub(crate) fn takes(&self, group: MessageGroups) -> bool {
        self.groups.has(group)
    }

    pub(crate) fn handle_heard(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
    }

    pub(crate) fn heartbeat_due(&self, now_ms: u64) -> bool {
        self.heartbeat_due_ms <= now_ms
    }

    /// The next heartbeat's number; the one after it is due an interval later.
    pub(crate) fn take_heartbeat(&mut self, now_ms: u64) -> Sequence {
        self.heartbeat = self.heartbeat.next();
        self.heartbeat_due_ms = now_ms.saturating_add(self.interval_ms);
        self.heartbeat
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The next report's number.
    pub(crate) fn take_report(&mut self) -> Sequence {
        self.report = self.report.next();
        self.report
    }

    pub(crate) fn refill_log(&mut self, now_ms: u64) {
        self.log.refill(now_ms);
    }

    /// Whether a log line of so many bytes may be sent.
    pub(crate) fn allows_line(&self, bytes: usize) -> bool {
        self.log.allows(bytes)
    }

    /// When such a line may be sent; none if never.
    pub(crate) fn line_at(&self, bytes: usize) -> Option<u64> {
        self.log.ready_at(bytes)
    }

    /// Such a line is sent.
    pub(crate) fn spend_line(&mut self, bytes: usize) {
        self.log.spend(bytes);
    }

    fn silence_at(&self) -> u64 {
        self.heard_ms.saturating_add(self.timeout_ms)
    }
}

/// What a timeout means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Nothing,
    /// The pause is over.
    Connect,
    /// It took too long, or nothing was heard.
    Close,
    /// The link never reported its end.
    Gone,
}

impl Session {
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> Expired {
        match self {
            Self::Down { retry_at_ms } if *retry_at_ms <= now_ms => {
                *self = Self::Connecting { deadline_ms: now_ms.saturating_add(CONNECT_TIMEOUT_MS) };
                Expired::Connect
            }
            Self::Connecting { deadline_ms }
            | Self::Greeting { deadline_ms, .. }
            | Self::Joining { deadline_ms }
                if *deadline_ms <= now_ms =>
            {
                Expired::Close
            }
            Self::Established(established) if established.silence_at() <= now_ms => Expired::Close,
            Self::Closing { deadline_ms } if *deadline_ms <= now_ms => Expired::Gone,
            Self::Down { .. }
            | Self::Connecting { .. }
            | Self::Greeting { .. }
            | Self::Joining { .. }
            | Self::Established(_)
            | Self::Closing { .. } => Expired::Nothing,
        }
    }

    pub(crate) fn timeout(&self) -> u64 {
        match self {
            Self::Down { retry_at_ms } => *retry_at_ms,
            Self::Connecting { deadline_ms }
            | Self::Greeting { deadline_ms, .. }
            | Self::Joining { deadline_ms }
            | Self::Closing { deadline_ms } => *deadline_ms,
            Self::Established(established) => established.silence_at().min(established.heartbeat_due_ms),
        }
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        match self {
            Self::Established(established) => Some(established),
            Self::Down { .. }
            | Self::Connecting { .. }
            | Self::Greeting { .. }
            | Self::Joining { .. }
            | Self::Closing { .. } => None,
        }
    }
}

/// When to try again after a session, or an attempt at one, ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reconnect {
    failures: u32,
    retry_after_ms: u64,
}

impl Reconnect {
    /// The gateway asked for a pause.
    pub(crate) fn handle_closing(&mut self, closing: &Closing<'_>) {
        self.retry_after_ms = u64::from(closing.retry_after_ms).min(RETRY_AFTER_MS_MAX);
    }

    /// The gateway answered a Join, in so many milliseconds if it said so.
    pub(crate) fn handle_refused(&mut self, retry_after_ms: u32) {
        self.retry_after_ms = u64::from(retry_after_ms).min(RETRY_AFTER_MS_MAX);
    }

    /// The attempt came to what it was made for, though to no session: it was no failure.
    pub(crate) fn note_progress(&mut self) {
        self.failures = 0;
    }

    /// A session ends; one that lasted long enough resets the count of failures.
    pub(crate) fn note_end(&mut self, ended: &Session, now_ms: u64) {
        if ended.established().is_some_and(|s| now_ms.saturating_sub(s.since_ms) >= RECONNECT_RESET_MS) {
            self.failures = 0;
        }
    }

    /// The pause before the next attempt: never less than the gateway asked for, and spread beyond it.
    pub(crate) fn plan_pause(&mut self, random: u32) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let asked = core::mem::take(&mut self.retry_after_ms);
        asked.saturating_add(RECONNECT.jittered_ms(self.failures, random).max(PAUSE_MS_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmbed_protocol::CloseReason;

    fn welcome() -> Welcome {
        Welcome {
            epoch: Epoch(1),
            unix_ms: 0,
            heartbeat_interval_ms: 10_000,
            heartbeat_timeout_ms: 30_000,
            log_bytes_per_second: 0,
            desired_known: true,
            groups: None,
        }
    }

    #[test]
    fn silence_ends_a_session_and_any_frame_prolongs_it() {
        let mut session = Session::Established(Established::new(&welcome(), 0));
        assert_eq!(session.handle_timeout(29_999), Expired::Nothing);
        if let Session::Established(established) = &mut session {
            established.handle_heard(25_000);
        }
        assert_eq!(session.handle_timeout(54_999), Expired::Nothing);
        assert_eq!(session.handle_timeout(55_000), Expired::Close);
    }

    #[test]
    fn a_gateway_cannot_ask_for_absurd_heartbeats() {
        let hasty = Welcome { heartbeat_interval_ms: 0, heartbeat_timeout_ms: 0, ..welcome() };
        let established = Established::new(&hasty, 0);
        assert_eq!((established.interval_ms, established.timeout_ms), (50, 100));
    }

    #[test]
    fn retry_after_is_the_least_and_is_used_once() {
        let mut reconnect = Reconnect::default();
        let closing = Closing { reason: CloseReason::Overloaded, retry_after_ms: 7_000, detail: "" };
        reconnect.handle_closing(&closing);
        assert_eq!(reconnect.plan_pause(0), 7_000 + PAUSE_MS_MIN);
        assert_eq!(reconnect.plan_pause(u32::MAX), 2_000);
        reconnect.handle_closing(&Closing { retry_after_ms: u32::MAX, ..closing });
        assert_eq!(reconnect.plan_pause(0), RETRY_AFTER_MS_MAX + PAUSE_MS_MIN);
    }

    #[test]
    fn a_session_that_stood_begins_again_with_the_shortest_pause() {
        let mut reconnect = Reconnect::default();
        for _ in 0..10 {
            reconnect.plan_pause(0);
        }
        assert_eq!(reconnect.plan_pause(u32::MAX), 60_000);
        let established = Session::Established(Established::new(&welcome(), 0));
        reconnect.note_end(&established, RECONNECT_RESET_MS);
        assert_eq!(reconnect.plan_pause(u32::MAX), 1_000);
    }
}
