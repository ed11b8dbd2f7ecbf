//! Certificates that were refused, and how long they are to wait.

use std::collections::BTreeMap;

use crate::gateway::{
    certification::CertificateHash,
    config::{JOIN_REFUSALS_MAX, JOIN_RETRY},
};

/// Refusals of joining clients. Of so many certificates that memory has a bound, those are remembered that wait longest.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_certificate: BTreeMap<CertificateHash, Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    /// How often since it last succeeded.
    times: u32,
    until_ms: u64,
}

impl Refusals {
    /// A certificate is refused; gives how long it is to wait, at least `retry_after_ms`.
    pub(super) fn refuse(&mut self, now_ms: u64, certificate: CertificateHash, retry_after_ms: u32) -> u32 {
        let times = self.by_certificate.get(&certificate).map_or(0, |refused| refused.times);
        let pause_ms = JOIN_RETRY.pause_ms(times).max(u64::from(retry_after_ms));
        if !self.by_certificate.contains_key(&certificate) && self.by_certificate.len() >= JOIN_REFUSALS_MAX {
            let soonest = self.by_certificate.iter().min_by_key(|(_, refused)| refused.until_ms);
            if let Some(soonest) = soonest.map(|(certificate, _)| *certificate) {
                self.by_certificate.remove(&soonest);
            }
        }
        let refused = Refused { times: times.saturating_add(1), until_ms: now_ms.saturating_add(pause_ms) };
        self.by_certificate.insert(certificate, refused);
        u32::try_from(pause_ms).unwrap_or(u32::MAX)
    }

    /// How long a certificate still has to wait; none if it need not.
    pub(super) fn wait_ms(&self, now_ms: u64, certificate: &CertificateHash) -> Option<u32> {
        let left_ms = self.by_certificate.get(certificate)?.until_ms.checked_sub(now_ms)?;
        u32::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0)
    }

    /// A certificate's device got what it asked for.
    pub(super) fn forget(&mut self, certificate: &CertificateHash) {
        self.by_certificate.remove(certificate);
    }

    /// Forgets what has waited for so long that its next refusal would be a first one.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let longest_ms = JOIN_RETRY.pause_ms(u32::MAX);
        self.by_certificate.retain(|_, refused| now_ms < refused.until_ms.saturating_add(longest_ms));
    }

    pub(super) fn len(&self) -> usize {
        self.by_certificate.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(number: usize) -> CertificateHash {
        CertificateHash::of(&number.to_be_bytes())
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_end_with_success() {
        let (mut refusals, mut now) = (Refusals::default(), 0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let pause = refusals.refuse(now, certificate(1), 0);
            assert_eq!(refusals.wait_ms(now, &certificate(1)), Some(pause));
            assert_eq!(refusals.wait_ms(now, &certificate(2)), None);
            now += u64::from(pause);
            assert_eq!(refusals.wait_ms(now, &certificate(1)), None);
            pauses.push(pause);
        }
        assert_eq!(pauses[..3], [15_000, 30_000, 60_000]);
        assert_eq!(pauses[9], 3_600_000);
        refusals.forget(&certificate(1));
        assert_eq!(refusals.refuse(now, certificate(1), 300_000), 300_000, "as long as its reason asks for");
    }

    #[test]
    fn memory_is_bounded_and_who_waits_longest_is_kept() {
        let mut refusals = Refusals::default();
        refusals.refuse(0, certificate(0), 3_000_000);
        for number in 1..2 * JOIN_REFUSALS_MAX {
            refusals.refuse(0, certificate(number), 0);
        }
        assert_eq!(refusals.len(), JOIN_REFUSALS_MAX);
        assert!(refusals.wait_ms(0, &certificate(0)).is_some());
        refusals.sweep(10_000_000);
        assert_eq!(refusals.len(), 0);
    }
}
