//! The monotonic clock of applications.

/// The loop counts milliseconds and the timer microseconds from another moment, so a reading is the loop's time and what the
/// timer has counted since. Adding that up anew in each round would drop what the loop's time cuts off, a different part of a
/// millisecond each time, and the clock would go back between two rounds. So it goes on from its last reading instead, and
/// only follows the loop's time where the two are a millisecond or more apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Reading when the timer showed `timer_us`.
    base_us: u64,
    timer_us: Option<u64>,
    /// The last reading; no later one is below it.
    last_us: u64,
}

impl Clock {
    /// A round begins.
    pub(crate) fn begin(&mut self, now_ms: u64, timer_us: u64) {
        let loop_us = now_ms.saturating_mul(1_000);
        let since_us = self.timer_us.map_or(0, |before| timer_us.saturating_sub(before));
        let running_us = self.base_us.saturating_add(since_us);
        self.base_us = running_us.clamp(loop_us, loop_us.saturating_add(999)).max(self.last_us);
        self.timer_us = Some(timer_us);
    }

    /// Microseconds on the loop's clock.
    pub(crate) fn read(&mut self, timer_us: u64) -> u64 {
        let since_us = self.timer_us.map_or(0, |before| timer_us.saturating_sub(before));
        self.last_us = self.base_us.saturating_add(since_us).max(self.last_us);
        self.last_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small steps that follow from a number (Knuth's multiplier).
    fn steps(seed: u64) -> impl Iterator<Item = u64> {
        (1..).map(move |n: u64| n.wrapping_mul(seed | 1).wrapping_mul(2_654_435_761) >> 20 & 0xfff)
    }

    #[test]
    fn one_clock_behind_both_is_read_as_it_runs() {
        let (mut clock, mut now_us, mut behind_us) = (Clock::default(), 12_345_678, 999);
        let mut steps = steps(7);
        let origin_us = 12_000_000;
        for _ in 0..10_000 {
            now_us += steps.next().unwrap();
            clock.begin(now_us / 1_000, now_us - origin_us);
            for _ in 0..3 {
                now_us += steps.next().unwrap() / 10;
                let behind = now_us - clock.read(now_us - origin_us);
                assert!(behind <= behind_us, "{behind} µs behind, and it was {behind_us} before");
                behind_us = behind;
            }
        }
    }

    #[test]
    fn it_never_goes_back_whatever_the_two_do() {
        let (mut clock, mut last_us) = (Clock::default(), 0);
        let (mut a, mut b) = (steps(3), steps(11));
        let (mut now_ms, mut timer_us) = (5, 1 << 40);
        for round in 0..10_000_u64 {
            // The timer stands still, runs too fast, or goes back.
            timer_us = match round / 1_000 % 3 {
                0 => timer_us,
                1 => timer_us + b.next().unwrap() * 10,
                _ => timer_us - 1_000,
            };
            now_ms += a.next().unwrap() % 3;
            clock.begin(now_ms, timer_us);
            let read_us = clock.read(timer_us + round % 2);
            assert!(read_us >= last_us && read_us >= now_ms * 1_000);
            last_us = read_us;
        }
    }
}
