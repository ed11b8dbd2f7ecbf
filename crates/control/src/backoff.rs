//! Pauses that grow with each failure in a row.

/// The pauses after repeated failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    first_ms: u64,
    multiplier: f64,
    longest_ms: u64,
}

impl Backoff {
    /// Each pause is twice the one before.
    #[must_use]
    pub const fn doubling(first_ms: u64, longest_ms: u64) -> Self {
        Self { first_ms, multiplier: 2.0, longest_ms }
    }

    /// Each pause is `multiplier` times the one before; a multiplier below 1 counts as 1.
    #[must_use]
    pub const fn new(first_ms: u64, multiplier: f64, longest_ms: u64) -> Self {
        Self { first_ms, multiplier: multiplier.max(1.0), longest_ms }
    }

    /// The pause after a failure that `earlier` failures preceded without a success in between.
    #[must_use]
    pub fn pause_ms(self, earlier: u32) -> u64 {
        let factor = self.multiplier.powi(i32::try_from(earlier).unwrap_or(i32::MAX));
        // A float beyond the range becomes the largest integer.
        ((self.first_ms as f64 * factor) as u64).min(self.longest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_the_multiplier_up_to_the_longest() {
        let pauses = |backoff: Backoff| [0, 1, 2, 3, u32::MAX].map(|earlier| backoff.pause_ms(earlier));
        assert_eq!(pauses(Backoff::doubling(250, 1_500)), [250, 500, 1_000, 1_500, 1_500]);
        assert_eq!(pauses(Backoff::new(100, 3.0, 1_000)), [100, 300, 900, 1_000, 1_000]);
        assert_eq!(pauses(Backoff::new(100, 0.5, 1_000)), [100; 5]);
    }
}
