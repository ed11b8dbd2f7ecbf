//! Pauses between attempts, as `max_retries` and `backoff_multiplier` ask for them.
//!
//! ```text
//! ready --fail--> pausing --time--> ready ... --fail, attempts used up--> given up --interval or change--> ready
//! ```

use super::config::FleetConfig;
use crate::backoff::Backoff;

/// The attempts at one gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Retry {
    failures: u32,
    until_ms: u64,
    message: String,
    given_up: bool,
}

impl Retry {
    /// Whether an attempt may be made.
    pub(super) fn is_ready(&self, now_ms: u64) -> bool {
        !self.given_up && now_ms >= self.until_ms
    }

    /// When an attempt may be made, if it is time that it waits for.
    pub(super) fn timeout(&self, now_ms: u64) -> Option<u64> {
        (!self.given_up && self.until_ms > now_ms).then_some(self.until_ms)
    }

    /// The last failure, if there was no success since.
    pub(super) fn failure(&self) -> Option<&str> {
        (self.failures > 0).then_some(self.message.as_str())
    }

    /// Whether all attempts are used up.
    pub(super) const fn has_given_up(&self) -> bool {
        self.given_up
    }

    pub(super) fn fail(&mut self, now_ms: u64, config: &FleetConfig, message: String) {
        let backoff =
            Backoff::new(config.retry_base_ms, config.backoff_multiplier, config.resync_interval_ms);
        let pause_ms = backoff.pause_ms(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.until_ms = now_ms.saturating_add(pause_ms);
        self.given_up = self.failures > config.retries_max;
        self.message = message;
    }

    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// An interval has passed, or something changed: all attempts are there again.
    pub(super) fn renew(&mut self) {
        if self.given_up {
            *self = Self { message: std::mem::take(&mut self.message), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_the_multiplier_until_the_attempts_are_used_up() {
        let config = FleetConfig { retries_max: 3, backoff_multiplier: 2.0, ..FleetConfig::default() };
        let mut retry = Retry::default();
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000] {
            retry.fail(now, &config, "no connection".to_owned());
            assert!(!retry.is_ready(now + pause - 1));
            assert_eq!(retry.timeout(now), Some(now + pause));
            now += pause;
            assert!(retry.is_ready(now));
        }
        retry.fail(now, &config, "no connection".to_owned());
        assert!(retry.has_given_up() && !retry.is_ready(u64::MAX) && retry.timeout(now).is_none());
        assert_eq!(retry.failure(), Some("no connection"));
        retry.renew();
        assert!(retry.is_ready(now));
        retry.succeed();
        assert_eq!(retry.failure(), None);
    }

    #[test]
    fn a_pause_is_never_longer_than_the_interval() {
        let config = FleetConfig { retries_max: 100, backoff_multiplier: 10.0, ..FleetConfig::default() };
        let mut retry = Retry::default();
        for _ in 0..50 {
            retry.fail(0, &config, String::new());
        }
        assert_eq!(retry.timeout(0), Some(config.resync_interval_ms));
    }
}
