//! Wall clocks, which may be wrong. A device has none of its own: it has its gateway's, as the last Welcome or heartbeat said it.

use wasmbed_control::Now;

/// When the simulation begins: 2027-01-15T08:00:00Z.
const UNIX_MS: u64 = 1_800_000_000_000;

/// The clocks of one machine. The wall clock may be any time ahead of the true time or behind it; the monotonic one, which all intervals are
/// measured with, takes no notice of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    ahead_ms: i64,
}

impl Clock {
    /// Sets the wall clock so far ahead of the true time, or behind it if negative.
    pub(crate) fn set_ahead(&mut self, ahead_ms: i64) {
        self.ahead_ms = ahead_ms;
    }

    /// What the two clocks show at a moment of the simulation.
    pub(crate) fn now(self, now_ms: u64) -> Now {
        Now { ms: now_ms, unix_ms: UNIX_MS.saturating_add(now_ms).saturating_add_signed(self.ahead_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_jumps_and_the_monotonic_one_goes_on() {
        let mut clock = Clock::default();
        assert_eq!(clock.now(5), Now { ms: 5, unix_ms: UNIX_MS + 5 });
        clock.set_ahead(1_000);
        assert_eq!(clock.now(6), Now { ms: 6, unix_ms: UNIX_MS + 1_006 });
        clock.set_ahead(-7);
        assert_eq!(clock.now(7), Now { ms: 7, unix_ms: UNIX_MS });
    }
}
