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

/// After a failure of the Kubernetes API.
pub(crate) const API_BACKOFF: Backoff = Backoff::doubling(API_PAUSE_MS_MIN, API_PAUSE_MS_MAX);
/// The first pause at most.
pub(crate) const API_PAUSE_MS_MIN: u64 = 250;
/// The longest pause, but for what an answer asks for.
pub(crate) const API_PAUSE_MS_MAX: u64 = 15_000;
/// The longest pause that a 429 can ask for.
const RETRY_AFTER_MS_MAX: u64 = 60_000;

/// When calls to the Kubernetes API may be made again after some failed. Failures of calls that were under way together count once.
///
/// Each pause has equal jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015): half of the back-off's and
/// anything up to the other half, so that those who met the same outage do not come back at once.
#[derive(Debug)]
pub(crate) struct ApiPause {
    failures: u32,
    until_ms: u64,
    /// Jitter follows from it.
    random: u64,
}

impl ApiPause {
    /// Those with other seeds have other pauses.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { failures: 0, until_ms: 0, random: seed }
    }

    /// No call is made before this.
    pub(crate) const fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whether the last answers were failures.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The API answered.
    pub(crate) const fn succeed(&mut self) {
        self.failures = 0;
        self.until_ms = 0;
    }

    /// The API failed or asked for patience.
    pub(crate) fn fail(&mut self, now_ms: u64, retry_after_ms: u64) {
        if now_ms >= self.until_ms {
            let most_ms = API_BACKOFF.pause_ms(self.failures);
            let half_ms = most_ms / 2;
            let pause_ms = half_ms + self.next_random() % (most_ms - half_ms + 1);
            self.until_ms = now_ms.saturating_add(pause_ms);
            self.failures = self.failures.saturating_add(1);
        }
        let asked_ms = retry_after_ms.min(RETRY_AFTER_MS_MAX);
        self.until_ms = self.until_ms.max(now_ms.saturating_add(asked_ms));
    }

    /// splitmix64 (G. Steele et al., OOPSLA 2014).
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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

    /// The pauses after so many failures, one after the other.
    fn pauses(seed: u64, failures: usize) -> Vec<u64> {
        let mut pause = ApiPause::new(seed);
        let mut now_ms = 0;
        let mut next = || {
            pause.fail(now_ms, 0);
            let pause_ms = pause.until_ms() - now_ms;
            now_ms = pause.until_ms();
            pause_ms
        };
        std::iter::repeat_with(&mut next).take(failures).collect()
    }

    #[test]
    fn pauses_of_the_api_grow_within_their_bounds_and_differ_by_seed() {
        for seed in 0..100 {
            for (earlier, pause_ms) in pauses(seed, 12).into_iter().enumerate() {
                let most_ms = (API_PAUSE_MS_MIN << earlier).min(API_PAUSE_MS_MAX);
                assert!((most_ms / 2..=most_ms).contains(&pause_ms), "{seed} {earlier} {pause_ms}");
            }
        }
        let last: std::collections::BTreeSet<u64> = (0..100).map(|seed| pauses(seed, 9)[8]).collect();
        assert!(last.len() > 90, "{last:?}");
    }

    #[test]
    fn failures_of_calls_under_way_together_count_once_and_an_answer_ends_the_pause() {
        let mut pause = ApiPause::new(1);
        pause.fail(0, 0);
        let until_ms = pause.until_ms();
        pause.fail(until_ms - 1, 0);
        assert_eq!(pause.until_ms(), until_ms);
        pause.fail(until_ms - 1, 5_000);
        assert_eq!(pause.until_ms(), until_ms + 4_999, "what an answer asks for is kept");
        pause.fail(until_ms - 1, u64::MAX);
        assert_eq!(pause.until_ms(), until_ms - 1 + RETRY_AFTER_MS_MAX);
        assert!(pause.is_failing());
        pause.succeed();
        assert!(!pause.is_failing() && pause.until_ms() == 0);
    }
}
