//! What time it is for certificates, on a board that may have no clock.
//!
//! | the board has | a certificate is checked at |
//! |---|---|
//! | a clock that runs (RTC) | the clock's time |
//! | none | the latest of: the floor, what two gateways agree on, the `notBefore` of the chain that is shown |
//!
//! The *floor* is the latest `notBefore` of a gateway that was verified: the authority signed it, so that moment is past.
//! It alone is stored. A `notBefore` of the chain that is shown counts for that chain alone: without a clock nobody is
//! refused for being new.
//!
//! A gateway's own clock is only a claim. It counts within the validity of that gateway's certificate, in RAM, and on its own
//! refuses nobody: it takes a second gateway that is as late before a certificate counts as expired. So one wrong clock
//! can't lock a board out, and a newer claim of the same gateway replaces its older one.

use alloc::string::String;

use crate::peer::Gateway;

/// Gateways whose claims are kept: more than a device is given addresses of in practice.
const HEARD_MAX: usize = 4;

/// The board's knowledge of the time.
///
/// Times of the world are seconds since 1970-01-01T00:00:00Z; `now_ms` is the board's own monotonic clock.
#[derive(Debug, Default)]
pub struct Time {
    floor: u64,
    rtc: Option<Reading>,
    heard: [Option<Heard>; HEARD_MAX],
}

/// A clock that was read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    unix_ms: u64,
    at_ms: u64,
}

impl Reading {
    fn at(self, now_ms: u64) -> u64 {
        self.unix_ms.saturating_add(now_ms.saturating_sub(self.at_ms)) / 1_000
    }
}

#[derive(Debug)]
struct Heard {
    id: String,
    reading: Reading,
    not_before: u64,
    not_after: u64,
}

impl Heard {
    fn at(&self, now_ms: u64) -> Option<u64> {
        Some(self.reading.at(now_ms)).filter(|time| (self.not_before..=self.not_after).contains(time))
    }
}

/// What certificates are checked with during one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// From a clock that runs.
    Known(u64),
    /// It is at least so late.
    AtLeast(u64),
}

impl Moment {
    /// When a chain is checked of which the latest `notBefore` is this.
    pub(crate) fn for_chain(self, not_before: u64) -> u64 {
        match self {
            Self::Known(now) => now,
            Self::AtLeast(past) => past.max(not_before),
        }
    }
}

impl Time {
    /// With the floor that the board stored, 0 if it never stored one.
    #[must_use]
    pub fn new(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The moment that is past for certain; what the board stores.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The board's clock was read, or has no time. A clock behind the floor has lost its battery and does not count.
    pub fn set_rtc(&mut self, unix: Option<u64>, now_ms: u64) {
        self.rtc = unix.map(|unix| Reading { unix_ms: unix.saturating_mul(1_000), at_ms: now_ms });
    }

    /// A verified gateway has sent its time. A time outside of its certificate's validity is ignored.
    pub fn handle_gateway_time(&mut self, unix_ms: u64, now_ms: u64, gateway: &Gateway) {
        let heard = Heard {
            id: gateway.id.clone(),
            reading: Reading { unix_ms, at_ms: now_ms },
            not_before: gateway.not_before,
            not_after: gateway.not_after,
        };
        let same = self.heard.iter().position(|slot| slot.as_ref().is_some_and(|known| known.id == heard.id));
        if heard.at(now_ms).is_none() {
            // It withdrew its earlier claim.
            if let Some(index) = same {
                self.heard[index] = None;
            }
            return;
        }
        // The one that was heard longest ago makes room.
        let index = same.or_else(|| self.heard.iter().position(Option::is_none)).unwrap_or_else(|| {
            let age = |index: &usize| self.heard[*index].as_ref().map_or(0, |known| known.reading.at_ms);
            (0..HEARD_MAX).min_by_key(age).unwrap_or(0)
        });
        self.heard[index] = Some(heard);
    }

    /// A gateway was verified. Returns the floor to store if it rose.
    pub fn handle_verified(&mut self, gateway: &Gateway) -> Option<u64> {
        (gateway.not_before > self.floor).then(|| {
            self.floor = gateway.not_before;
            self.floor
        })
    }

    /// The time as well as it is known: the board's clock, else the gateway that was heard last; none before one was.
    #[must_use]
    pub fn now(&self, now_ms: u64) -> Option<u64> {
        self.clock(now_ms).or_else(|| {
            let latest = self.heard.iter().flatten().max_by_key(|heard| heard.reading.at_ms)?;
            latest.at(now_ms)
        })
    }

    /// What certificates that were issued earlier are held to: it is this late for certain. None if nothing is known.
    #[must_use]
    pub fn at_least(&self, now_ms: u64) -> Option<u64> {
        let (Moment::Known(now) | Moment::AtLeast(now)) = self.moment(now_ms);
        (now > 0).then_some(now)
    }

    pub(crate) fn moment(&self, now_ms: u64) -> Moment {
        if let Some(now) = self.clock(now_ms) {
            return Moment::Known(now);
        }
        // The second latest: at least one other gateway is as late.
        let (mut first, mut second) = (0, 0);
        for time in self.heard.iter().flatten().filter_map(|heard| heard.at(now_ms)) {
            if time > first {
                (first, second) = (time, first);
            } else {
                second = second.max(time);
            }
        }
        Moment::AtLeast(self.floor.max(second))
    }

    fn clock(&self, now_ms: u64) -> Option<u64> {
        self.rtc.map(|rtc| rtc.at(now_ms)).filter(|&now| now >= self.floor)
    }
}

#[cfg(test)]
mod tests {
    use std::{format, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    const YEAR: u64 = 31_536_000;

    fn gateway(name: u8, not_before: u64) -> Gateway {
        Gateway {
            id: format!("spiffe://t/ns/n/gateway/{name}"),
            not_before,
            not_after: not_before + YEAR,
            anchor: 0,
        }
    }

    fn accepts(time: &Time, now_ms: u64, gateway: &Gateway) -> bool {
        let at = time.moment(now_ms).for_chain(gateway.not_before);
        (gateway.not_before..=gateway.not_after).contains(&at)
    }

    #[test]
    fn an_rtc_is_the_time_and_refuses_both_ways() {
        let mut time = Time::new(1_000);
        time.set_rtc(Some(5_000), 0);
        assert_eq!(time.now(2_000), Some(5_002));
        assert!(!accepts(&time, 0, &gateway(1, 5_001)));
        assert!(accepts(&time, 1_000, &gateway(1, 5_001)));
        time.set_rtc(Some(5_001 + YEAR + 1), 0);
        assert!(!accepts(&time, 0, &gateway(1, 5_001)));
    }

    #[test]
    fn an_rtc_without_a_battery_is_none() {
        let mut time = Time::new(1_000);
        time.set_rtc(Some(999), 0);
        assert_eq!(time.now(0), None);
        assert!(accepts(&time, 0, &gateway(1, 5_000)));
    }

    #[test]
    fn what_is_older_than_the_floor_is_refused_without_any_clock() {
        let mut time = Time::new(0);
        assert_eq!(time.handle_verified(&gateway(1, 2 * YEAR)), Some(2 * YEAR));
        assert_eq!(time.handle_verified(&gateway(1, 2 * YEAR)), None);
        assert!(!accepts(&time, 0, &gateway(2, YEAR - 1)));
        assert!(accepts(&time, 0, &gateway(2, YEAR)));
    }

    #[test]
    fn two_gateways_that_agree_expire_a_third() {
        let mut time = Time::new(0);
        let (first, second, old) = (gateway(1, 2 * YEAR), gateway(2, 2 * YEAR), gateway(3, YEAR));
        let late = (2 * YEAR + 100) * 1_000;
        time.handle_gateway_time(late, 0, &first);
        assert!(accepts(&time, 0, &old));
        assert_eq!(time.now(0), Some(2 * YEAR + 100));
        time.handle_gateway_time(late, 0, &second);
        assert!(!accepts(&time, 0, &old));
        // The same words by one gateway twice are one word.
        let mut time = Time::new(0);
        time.handle_gateway_time(late, 0, &first);
        time.handle_gateway_time(late, 5, &first);
        assert!(accepts(&time, 5, &old));
    }

    #[test]
    fn a_gateway_speaks_within_its_certificate_alone() {
        let mut time = Time::new(0);
        let one = gateway(1, YEAR);
        time.handle_gateway_time((YEAR - 1) * 1_000, 0, &one);
        assert_eq!(time.now(0), None);
        time.handle_gateway_time(2 * YEAR * 1_000, 0, &one);
        assert_eq!(time.now(0), Some(2 * YEAR));
        assert_eq!(time.now(1_000), None);
    }

    proptest! {
        /// Whatever one gateway says, and however often, every gateway that was acceptable before is so after it.
        #[test]
        fn one_wrong_gateway_clock_locks_nobody_out(
            floor in 0..2 * YEAR,
            honest in proptest::collection::vec((0u8..6, YEAR..3 * YEAR), 0..4),
            liar_from in 0..3 * YEAR,
            words in proptest::collection::vec(0..5 * YEAR, 1..6),
            shown_from in 0..4 * YEAR,
            now_ms in 0u64..1_000_000,
        ) {
            // All that is honest is heard at one true time, which lies within the certificates of those who say it.
            let truth = 3 * YEAR;
            let mut time = Time::new(floor);
            for (name, from) in &honest {
                time.handle_gateway_time(truth * 1_000, 0, &gateway(*name, *from));
            }
            let honest_ids = honest.iter().map(|(name, _)| *name).collect::<std::collections::BTreeSet<_>>().len();
            let shown = gateway(9, shown_from);
            let before = accepts(&time, now_ms, &shown);
            for word in words {
                time.handle_gateway_time(word * 1_000, 0, &gateway(7, liar_from));
            }
            let truly_valid = shown_from + YEAR > truth + now_ms / 1_000;
            if honest_ids == 0 {
                prop_assert_eq!(accepts(&time, now_ms, &shown), before);
            } else if before && truly_valid {
                prop_assert!(accepts(&time, now_ms, &shown));
            }
        }

        /// Without a clock a newer certificate is never refused, whatever was heard before.
        #[test]
        fn a_newer_certificate_is_never_refused_without_a_clock(
            floor in 0..3 * YEAR,
            heard in proptest::collection::vec((any::<u8>(), 0..3 * YEAR, 0..4 * YEAR), 0..8),
            later in 0..9 * YEAR,
        ) {
            let mut time = Time::new(floor);
            for (name, from, word) in heard {
                let gateway = gateway(name, from);
                time.handle_verified(&gateway);
                time.handle_gateway_time(word * 1_000, 0, &gateway);
            }
            let Moment::AtLeast(past) = time.moment(0) else { panic!("no clock was set") };
            prop_assert!(accepts(&time, 0, &gateway(1, past + later)));
        }

        /// The floor rises to what the authority signed and to nothing else.
        #[test]
        fn only_a_verified_not_before_raises_the_floor(
            events in proptest::collection::vec((any::<bool>(), 0..3 * YEAR, any::<u64>(), any::<u64>()), 0..16),
        ) {
            let mut time = Time::new(7);
            let mut signed = Vec::from([7]);
            for (verified, from, word, now_ms) in events {
                let gateway = gateway(1, from);
                if verified {
                    signed.push(from);
                    time.handle_verified(&gateway);
                } else {
                    time.handle_gateway_time(word, now_ms, &gateway);
                    time.set_rtc(Some(word / 1_000), now_ms);
                }
                prop_assert_eq!(Some(&time.floor()), signed.iter().max());
            }
        }
    }
}
