//! Token buckets: what an identity may cost, and how fast it earns that again.

/// Tokens that a bucket holds at most, and how fast it fills again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Billionths of a token each millisecond, so that one token in minutes is a whole number too.
    billionths_per_ms: u64,
    burst: u64,
}

/// Billionths of a token.
const TOKEN: u64 = 1_000_000_000;

impl Rate {
    /// What a bucket holds at most.
    pub(crate) const fn burst(self) -> u64 {
        self.burst
    }

    /// So many tokens each second.
    pub(crate) const fn per_second(tokens: u64, burst: u64) -> Self {
        Self { billionths_per_ms: tokens * (TOKEN / 1_000), burst }
    }

    /// One token after each span of so many milliseconds.
    pub(crate) const fn one_in_ms(ms: u64, burst: u64) -> Self {
        Self { billionths_per_ms: TOKEN / ms, burst }
    }
}

/// A bucket that begins full. It keeps what was spent and not what is left, so that it costs its owner no more than two
/// numbers and the rate stands with whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    spent_billionths: u64,
    at_ms: u64,
}

impl Bucket {
    /// Earns what the time since the last call brought.
    pub(crate) fn refill(&mut self, rate: Rate, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(rate.billionths_per_ms);
        self.spent_billionths = self.spent_billionths.saturating_sub(earned);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// Whether there are so many tokens, as of the last refill.
    pub(crate) fn has(&self, rate: Rate, tokens: u64) -> bool {
        self.spent_billionths.saturating_add(tokens.saturating_mul(TOKEN)) <= rate.burst * TOKEN
    }

    /// Spends tokens, also those that are not there yet: for what has happened already.
    pub(crate) fn spend(&mut self, tokens: u64) {
        self.spent_billionths = self.spent_billionths.saturating_add(tokens.saturating_mul(TOKEN));
    }

    /// Spends so many tokens if they are there.
    pub(crate) fn take(&mut self, rate: Rate, tokens: u64, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        let has = self.has(rate, tokens);
        if has {
            self.spend(tokens);
        }
        has
    }

    /// When there will be so many tokens if none is spent; times that have passed stand for now.
    pub(crate) fn at(&self, rate: Rate, tokens: u64) -> u64 {
        let missing = self
            .spent_billionths
            .saturating_add(tokens.saturating_mul(TOKEN))
            .saturating_sub(rate.burst * TOKEN);
        self.at_ms.saturating_add(missing.div_ceil(rate.billionths_per_ms.max(1)))
    }

    /// Whole tokens that are spent and not earned again, as of the last refill.
    pub(crate) fn spent(&self) -> u64 {
        self.spent_billionths.div_ceil(TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::per_second(50, 3);
        let mut bucket = Bucket::default();
        assert_eq!((0..10).filter(|_| bucket.take(rate, 1, 0)).count(), 3);
        assert_eq!(bucket.at(rate, 1), 20);
        assert!(!bucket.take(rate, 1, 19));
        assert_eq!((0..10).filter(|_| bucket.take(rate, 1, 60)).count(), 3, "no more than the burst");
    }

    #[test]
    fn slow_rates_and_debts_are_exact() {
        let rate = Rate::one_in_ms(300_000, 1);
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, 1, 0));
        assert!(!bucket.take(rate, 1, 299_999));
        // A millionth of a token is lost to rounding in five minutes.
        assert!(bucket.take(rate, 1, 300_100));
        let fast = Rate::per_second(1_000, 10);
        let mut bucket = Bucket::default();
        bucket.spend(110);
        assert_eq!((bucket.at(fast, 0), bucket.spent()), (100, 110));
        bucket.refill(fast, 105);
        assert!(bucket.has(fast, 5) && !bucket.has(fast, 6));
        bucket.refill(fast, 50);
        assert_eq!(bucket.at(fast, 5), 105, "a clock that goes back earns nothing twice");
    }
}
