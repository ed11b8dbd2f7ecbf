//! When who is sent away is to come again: after those who are ahead, one after the other, at the pace at which certificates are
//! handed out.

use super::claims::Claim;
use crate::gateway::{
    certification::CertificateHash,
    config::{
        JOIN_BUSY, JOIN_EACH_MS_MAX, JOIN_EACH_MS_MIN, JOIN_TURN_MS_MAX, PACE_WINDOW_MS, RETRY_APPROVAL_MS,
        RETRY_SOON_MS,
    },
};

/// The pace, and until when others were told to stay away.
#[derive(Debug)]
pub(super) struct Turns {
    /// Between two certificates.
    each_ms: u64,
    /// Since when enough wait without a pause that the pace can be seen, and how many had theirs since.
    counted: Option<(u64, u64)>,
    /// Of those who are expected: when the last of them is to come.
    expected_ms: u64,
    /// Of all others: however many they are, nobody who is expected waits for them.
    others_ms: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { each_ms: JOIN_EACH_MS_MIN, counted: None, expected_ms: 0, others_ms: 0 }
    }
}

impl Turns {
    /// One has its certificate, and so many have a claim to theirs.
    pub(super) fn handed_out(&mut self, now_ms: u64, claims: usize) {
        self.measure(now_ms, claims);
        if let Some((_, count)) = &mut self.counted {
            *count += 1;
        }
    }

    fn measure(&mut self, now_ms: u64, claims: usize) {
        let Some((since_ms, count)) = self.counted.filter(|_| claims >= JOIN_BUSY) else {
            self.counted = Some((now_ms, 0)).filter(|_| claims >= JOIN_BUSY);
            return;
        };
        let span_ms = now_ms.saturating_sub(since_ms);
        if span_ms >= PACE_WINDOW_MS {
            let each_ms = span_ms.checked_div(count).unwrap_or(JOIN_EACH_MS_MAX);
            self.each_ms = u64::midpoint(self.each_ms, each_ms.clamp(JOIN_EACH_MS_MIN, JOIN_EACH_MS_MAX));
            self.counted = Some((now_ms, 0));
        }
    }

    /// After how many milliseconds one is to come again that has this claim, while so many are ahead that have one.
    pub(super) fn next_ms(
        &mut self,
        now_ms: u64,
        claims: usize,
        claim: Claim,
        certificate: &CertificateHash,
    ) -> u32 {
        self.measure(now_ms, claims);
        let expected = claim >= Claim::Expected;
        let (told_ms, least_ms) = if expected {
            (&mut self.expected_ms, RETRY_SOON_MS)
        } else {
            (&mut self.others_ms, RETRY_APPROVAL_MS)
        };
        let served_ms = now_ms.saturating_add((claims as u64).saturating_mul(self.each_ms));
        let at_ms = served_ms.max(*told_ms).saturating_add(self.each_ms);
        let last_ms = now_ms.saturating_add(JOIN_TURN_MS_MAX);
        *told_ms = at_ms.min(last_ms);
        let wait_ms = if at_ms <= last_ms { at_ms - now_ms } else { spread_ms(certificate) };
        u32::try_from(wait_ms).unwrap_or(u32::MAX).max(least_ms)
    }
}

/// Beyond the longest time, anything from half of it: each certificate has a time of its own.
fn spread_ms(certificate: &CertificateHash) -> u64 {
    let [.., a, b, c, d] = certificate.0;
    JOIN_TURN_MS_MAX / 2 + u64::from(u32::from_be_bytes([a, b, c, d])) % (JOIN_TURN_MS_MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn certificate(number: u32) -> CertificateHash {
        CertificateHash::of(&number.to_be_bytes())
    }

    #[test]
    fn who_is_sent_away_comes_one_after_the_other_behind_those_who_are_ahead() {
        let mut turns = Turns::default();
        let mut next = |claim| turns.next_ms(1_000, 100, claim, &certificate(1));
        let ahead_ms = 100 * JOIN_EACH_MS_MIN as u32;
        for number in 1..=50 {
            assert_eq!(next(Claim::Expected), ahead_ms + number * JOIN_EACH_MS_MIN as u32);
        }
        // Strangers do not make those wait who are expected.
        for _ in 0..10_000 {
            assert!(u64::from(next(Claim::None)) <= JOIN_TURN_MS_MAX);
        }
        assert_eq!(next(Claim::Issued), ahead_ms + 51 * JOIN_EACH_MS_MIN as u32);
        assert_eq!(Turns::default().next_ms(0, 0, Claim::Expected, &certificate(1)), RETRY_SOON_MS);
        assert_eq!(Turns::default().next_ms(0, 0, Claim::Person, &certificate(1)), RETRY_APPROVAL_MS);
    }

    #[test]
    fn nobody_stays_away_for_longer_than_the_longest_time_and_not_all_come_at_once() {
        let mut turns = Turns::default();
        let told: BTreeSet<u32> = (0..20_000)
            .map(|number| turns.next_ms(0, 400, Claim::Expected, &certificate(number)))
            .filter(|wait_ms| u64::from(*wait_ms) >= JOIN_TURN_MS_MAX / 2)
            .collect();
        assert!(told.len() > 15_000);
        assert!(told.iter().all(|wait_ms| u64::from(*wait_ms) <= JOIN_TURN_MS_MAX));
    }

    #[test]
    fn the_pace_is_what_was_seen_while_enough_waited() {
        let mut turns = Turns::default();
        for number in 0..200 {
            turns.handed_out(number * 400, JOIN_BUSY);
        }
        assert!(turns.each_ms.abs_diff(400) < 20, "{}", turns.each_ms);
        // Who comes while nobody waits says nothing of the pace.
        for number in 0..200 {
            turns.handed_out(80_000 + number * 5_000, 1);
        }
        assert!(turns.each_ms.abs_diff(400) < 20, "{}", turns.each_ms);
        // A signer that is away is seen, too.
        for number in 0..20 {
            turns.next_ms(1_080_000 + number * PACE_WINDOW_MS, 400, Claim::Expected, &certificate(1));
        }
        assert!(turns.each_ms > JOIN_EACH_MS_MAX - 20);
    }
}
