//! Token buckets: how much may happen at once, and how fast the allowance returns. Of log lines, Welcome says the rate.

/// The capacity of a bucket and the rate at which it refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Billionths of a token each millisecond, so that one token in minutes is a whole number too.
    billionths_per_ms: u64,
    burst: u64,
}

/// Billionths of a token.
const TOKEN: u64 = 1_000_000_000;

impl Rate {
    /// Capacity, tokens.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// `tokens` each second, at most `burst` at once.
    #[must_use]
    pub const fn per_second(tokens: u64, burst: u64) -> Self {
        Self { billionths_per_ms: tokens * (TOKEN / 1_000), burst }
    }

    /// One token every `ms` milliseconds, at most `burst` at once.
    #[must_use]
    pub const fn one_in_ms(ms: u64, burst: u64) -> Self {
        Self { billionths_per_ms: TOKEN / ms, burst }
    }
}

/// A bucket that starts full. It stores what was spent rather than what is left, so that it takes two numbers and a default
/// value is a full bucket; the rate is passed with each call.
///
/// ```
/// use wasmbed_protocol::rate::{Rate, TokenBucket};
///
/// // Ten tokens each second, two at once.
/// let rate = Rate::per_second(10, 2);
/// let mut bucket = TokenBucket::default();
/// assert!(bucket.take(0, rate, 1) && bucket.take(0, rate, 1));
/// assert!(!bucket.take(99, rate, 1));
/// assert_eq!(bucket.available_at_ms(rate, 1), 100);
/// assert!(bucket.take(100, rate, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    spent_billionths: u64,
    at_ms: u64,
}

impl TokenBucket {
    /// Adds the tokens for the time since the last call.
    pub fn refill(&mut self, now_ms: u64, rate: Rate) {
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(rate.billionths_per_ms);
        self.spent_billionths = self.spent_billionths.saturating_sub(earned);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// Whether `tokens` are available, as of the last refill.
    #[must_use]
    pub fn has(&self, rate: Rate, tokens: u64) -> bool {
        self.spent_billionths.saturating_add(tokens.saturating_mul(TOKEN)) <= rate.burst * TOKEN
    }

    /// Spends tokens, going into debt if necessary: for what has already happened.
    pub fn spend(&mut self, tokens: u64) {
        self.spent_billionths = self.spent_billionths.saturating_add(tokens.saturating_mul(TOKEN));
    }

    /// Gives back tokens that were spent.
    pub fn restore(&mut self, tokens: u64) {
        self.spent_billionths = self.spent_billionths.saturating_sub(tokens.saturating_mul(TOKEN));
    }

    /// Spends `tokens` if they are available.
    pub fn take(&mut self, now_ms: u64, rate: Rate, tokens: u64) -> bool {
        self.refill(now_ms, rate);
        let has = self.has(rate, tokens);
        if has {
            self.spend(tokens);
        }
        has
    }

    /// When `tokens` will be available if none is spent; a time in the past means now.
    #[must_use]
    pub fn available_at_ms(&self, rate: Rate, tokens: u64) -> u64 {
        let missing = self
            .spent_billionths
            .saturating_add(tokens.saturating_mul(TOKEN))
            .saturating_sub(rate.burst * TOKEN);
        self.at_ms.saturating_add(missing.div_ceil(rate.billionths_per_ms.max(1)))
    }

    /// Tokens spent and not refilled yet, rounded up, as of the last refill.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.spent_billionths.div_ceil(TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::per_second(50, 3);
        let mut bucket = TokenBucket::default();
        assert_eq!((0..10).filter(|_| bucket.take(0, rate, 1)).count(), 3);
        assert_eq!(bucket.available_at_ms(rate, 1), 20);
        assert!(!bucket.take(19, rate, 1));
        assert_eq!((0..10).filter(|_| bucket.take(60, rate, 1)).count(), 3, "no more than the burst");
    }

    #[test]
    fn slow_rates_and_debts_are_exact() {
        let rate = Rate::one_in_ms(300_000, 1);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(0, rate, 1));
        assert!(!bucket.take(299_999, rate, 1));
        // A millionth of a token is lost to rounding in five minutes.
        assert!(bucket.take(300_100, rate, 1));
        let fast = Rate::per_second(1_000, 10);
        let mut bucket = TokenBucket::default();
        bucket.spend(110);
        assert_eq!((bucket.available_at_ms(fast, 0), bucket.spent()), (100, 110));
        bucket.refill(105, fast);
        assert!(bucket.has(fast, 5) && !bucket.has(fast, 6));
        bucket.refill(50, fast);
        assert_eq!(bucket.available_at_ms(fast, 5), 105, "a clock that goes back earns nothing twice");
    }
}
