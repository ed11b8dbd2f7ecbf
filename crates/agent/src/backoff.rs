//! How long to wait before something is tried again.

/// Exponential growth between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure, milliseconds.
    pub first_ms: u64,
    /// At most, milliseconds.
    pub max_ms: u64,
}

/// A restart costs no download and no scheduling, so the first comes sooner than a kubelet's (10 s); the bound and the
/// reset after a good run are the kubelet's, because people know them.
pub const RESTART: Backoff = Backoff { first_ms: 1_000, max_ms: 300_000 };
/// An application that ran this long before it ended begins again with the shortest pause (kubelet: 10 min).
pub const RESTART_RESET_MS: u64 = 600_000;
/// Between two attempts to reach a gateway. The bound keeps a fleet that lost its gateway visible again within a minute.
pub const RECONNECT: Backoff = Backoff { first_ms: 1_000, max_ms: 60_000 };
/// A session that lasted this long begins again with the shortest pause.
pub const RECONNECT_RESET_MS: u64 = 30_000;
/// For assignments and modules that did not come or were wrong.
pub const PULL: Backoff = Backoff { first_ms: 2_000, max_ms: 300_000 };
/// For a state record that could not be written.
pub const STATE: Backoff = Backoff { first_ms: 1_000, max_ms: 60_000 };
/// For a certificate that was not renewed. A gateway answers a device once a minute, and weeks are left.
pub const RENEW: Backoff = Backoff { first_ms: 120_000, max_ms: 3_600_000 };
/// For a module that did not fit in memory or storage: worth another try when others have let go of theirs.
pub const ROOM: Backoff = Backoff { first_ms: 5_000, max_ms: 300_000 };

impl Backoff {
    /// The pause after so many failures in a row, the first being number 1; without jitter.
    #[must_use]
    pub const fn delay_ms(self, failures: u32) -> u64 {
        let shift = if failures == 0 { 0 } else { failures - 1 };
        if shift >= 32 {
            return self.max_ms;
        }
        let delay = self.first_ms.saturating_mul(1 << shift);
        if delay > self.max_ms { self.max_ms } else { delay }
    }

    /// Full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015): anything from nothing to
    /// [`Backoff::delay_ms`].
    #[must_use]
    pub const fn jittered_ms(self, failures: u32, random: u32) -> u64 {
        let delay = self.delay_ms(failures);
        (((delay as u128 + 1) * random as u128) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_the_first_to_the_bound() {
        let delays: alloc::vec::Vec<u64> = (0..12).map(|failures| RESTART.delay_ms(failures)).collect();
        assert_eq!(
            delays,
            [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]
        );
        assert_eq!(RESTART.delay_ms(u32::MAX), 300_000);
    }

    #[test]
    fn jitter_covers_everything_up_to_the_delay() {
        assert_eq!(RECONNECT.jittered_ms(3, 0), 0);
        assert_eq!(RECONNECT.jittered_ms(3, u32::MAX), 4_000);
        assert_eq!(RECONNECT.jittered_ms(3, u32::MAX / 2), 2_000);
    }
}
