//! Being taken out of service: an order is judged, everything is erased, and a proof of that is kept and sent.
//!
//! ```text
//!   Decommission --> judged by the board --no--> Error Refused
//!                         | yes: applications stop, the set is forgotten
//!                         v
//!   Listing --> Removing: data, modules --> Erasing their bytes --> Signing --> Keeping the proof in the identity record
//!                                                                                   |
//!      Decommissioned is sent: at once, at each session's start, every 30 s  <------+
//!                         | Goodbye or Reject with the reason Decommissioned
//!                         v
//!   the key leaves the record --> its bytes are erased --> so is a provisioned key --> at rest
//! ```
//! Before the proof is kept a cut forgets the order: it comes again with the next session, and all of this begins anew. From then
//! on the identity record says where it is; see [`crate::identity`].

use alloc::{string::String, vec::Vec};

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{DeviceUid, Nonce};
use wasmbed_statement::{Erased, Proof};

use crate::{
    backoff::STATE,
    storage::{Done, Outcome, StorageError},
};

/// Between two sendings of a proof.
pub const PROOF_INTERVAL_MS: u64 = 30_000;
/// Between two orders that are judged: a small board needs a second of computing for each.
pub const ORDER_PAUSE_MS: u64 = 10_000;
/// Attempts to erase, after which the proof says that it did not succeed, or the device rests without it.
pub(crate) const ERASE_ATTEMPTS: u32 = 5;

/// What an order that was judged good asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The Device that is meant.
    pub device_uid: DeviceUid,
    /// What the proof has to repeat.
    pub nonce: Nonce,
}

/// A proof with the order that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptProof {
    pub(crate) ordered: Ordered,
    pub(crate) bytes: Vec<u8>,
}

/// Orders on their way to the board. At most one waits, and it is the last that came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    waiting: Option<Vec<u8>>,
    /// It is with the board.
    is_asked: bool,
    not_before_ms: u64,
    /// SHA-256 of the last one that was judged, and why it was refused.
    judged: Option<([u8; 32], Option<String>)>,
}

/// What is to be done about an order that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is to be judged.
    Waits,
    /// It was judged good before.
    Known,
    /// It was refused before.
    Refused(String),
}

impl Orders {
    pub(crate) fn take(&mut self, order: &[u8]) -> Taken {
        let digest: [u8; 32] = Sha256::digest(order).into();
        match &self.judged {
            Some((known, None)) if *known == digest => Taken::Known,
            Some((known, Some(why))) if *known == digest => Taken::Refused(why.clone()),
            Some(_) | None => {
                self.waiting = Some(order.to_vec());
                Taken::Waits
            }
        }
    }

    /// Whether the board is to judge [`order`](Self::order) now; it then answers before anything else is asked.
    pub(crate) fn poll_ask(&mut self, now_ms: u64) -> bool {
        let due = self.timeout().is_some_and(|at_ms| at_ms <= now_ms);
        self.is_asked |= due;
        due
    }

    pub(crate) fn order(&self) -> &[u8] {
        self.waiting.as_deref().filter(|_| self.is_asked).unwrap_or_default()
    }

    /// The board has judged it. False if nothing was asked.
    pub(crate) fn handle_judged(&mut self, refused: Option<&str>, now_ms: u64) -> bool {
        let Some(order) = self.waiting.take_if(|_| self.is_asked) else { return false };
        self.is_asked = false;
        self.not_before_ms = now_ms.saturating_add(ORDER_PAUSE_MS);
        self.judged = Some((Sha256::digest(&order).into(), refused.map(String::from)));
        true
    }

    /// A session begins: what was judged before it may be judged otherwise now, with another certificate or at another time.
    pub(crate) fn forget(&mut self) {
        self.judged = None;
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        self.waiting.as_ref().filter(|_| !self.is_asked).map(|_| self.not_before_ms)
    }
}

/// Where the erasing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What there is is read anew: what could not be removed before is tried again.
    Listing,
    Removing,
    Erasing,
    Signing,
    /// The proof is with the board.
    SigningNow,
    /// The proof is on its way to storage.
    Keeping,
}

/// Everything of this device but its identity is erased.
///
/// Contract: an operation that its owner began for [`Step::Listing`] or [`Step::Erasing`] is answered with
/// [`handle_listed`](Self::handle_listed) or [`handle_erased`](Self::handle_erased) before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Erasing {
    ordered: Ordered,
    erased: Erased,
    step: Step,
    failures: u32,
    retry_at_ms: Option<u64>,
}

impl Erasing {
    pub(crate) fn new(ordered: Ordered) -> Self {
        Self { ordered, erased: Erased::ALL, step: Step::Listing, failures: 0, retry_at_ms: None }
    }

    pub(crate) fn ordered(&self) -> Ordered {
        self.ordered
    }

    /// What is to be done now; none while it waits.
    pub(crate) fn step(&self) -> Option<Step> {
        self.retry_at_ms.is_none().then_some(self.step)
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        self.retry_at_ms
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        self.retry_at_ms = self.retry_at_ms.filter(|at_ms| *at_ms > now_ms);
    }

    /// True if it was in vain so often that it is given up.
    fn fail(&mut self, now_ms: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let enough = self.failures >= ERASE_ATTEMPTS;
        if enough {
            self.failures = 0;
        } else {
            self.retry_at_ms = Some(now_ms.saturating_add(STATE.delay_ms(self.failures)));
        }
        enough
    }

    fn go_on(&mut self, step: Step) {
        (self.step, self.failures) = (step, 0);
    }

    /// Storage told what there is, or could not: then nobody knows what is left. Answers whether it failed for good.
    pub(crate) fn handle_listed(&mut self, is_known: bool, now_ms: u64) -> bool {
        let failed = !is_known && self.fail(now_ms);
        if failed {
            self.erased = Erased::default();
        }
        if is_known || failed {
            self.go_on(Step::Removing);
        }
        failed
    }

    /// Something could not be removed: the proof does not claim it.
    pub(crate) fn note_left(&mut self, kind: Erased) {
        self.erased = Erased(self.erased.0 & !kind.0);
    }

    /// Nothing is there any more.
    pub(crate) fn handle_removed(&mut self) {
        if self.step == Step::Removing {
            self.go_on(Step::Erasing);
        }
    }

    /// Answers whether it failed for good.
    pub(crate) fn handle_erased(&mut self, outcome: &Outcome, now_ms: u64) -> bool {
        match outcome {
            Ok(Done::Erased { left: true }) => self.failures = 0,
            Ok(Done::Erased { left: false }) => self.go_on(Step::Signing),
            Ok(_) | Err(_) if self.fail(now_ms) => {
                self.erased = Erased::default();
                self.go_on(Step::Signing);
                return true;
            }
            Ok(_) | Err(_) => {}
        }
        false
    }

    /// What is to be signed now, once.
    pub(crate) fn poll_sign(&mut self) -> Option<Proof> {
        if self.step()? != Step::Signing {
            return None;
        }
        self.step = Step::SigningNow;
        let Ordered { device_uid, nonce } = self.ordered;
        Some(Proof { device_uid, nonce, erased: self.erased })
    }

    /// The board signed it: the proof to keep. Or it could not, and is asked again later.
    pub(crate) fn handle_signed(&mut self, signed: Option<Vec<u8>>, now_ms: u64) -> Option<KeptProof> {
        if self.step != Step::SigningNow {
            return None;
        }
        if let Some(bytes) = signed {
            self.go_on(Step::Keeping);
            return Some(KeptProof { ordered: self.ordered, bytes });
        }
        self.step = Step::Signing;
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = Some(now_ms.saturating_add(STATE.delay_ms(self.failures)));
        None
    }

    /// Whether the proof is on its way to storage.
    pub(crate) fn keeps(&self) -> bool {
        self.step == Step::Keeping
    }
}

/// The end: after the proof was acknowledged, what is left of the key is erased.
///
/// Contract: as of [`Erasing`]; [`handle_done`](Self::handle_done) answers what [`plan`](Self::plan) asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    step: EndStep,
    failures: u32,
    retry_at_ms: Option<u64>,
}

/// What is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndStep {
    /// The bytes of the key that the record had.
    Bytes,
    /// The key that was provisioned.
    Provisioned,
    /// To write down that nothing is left.
    Record,
    /// It is on its way to storage.
    Writing,
    /// Nothing, or it can't be done.
    Over,
}

impl Ending {
    pub(crate) fn new(step: EndStep) -> Self {
        Self { step, failures: 0, retry_at_ms: None }
    }

    /// What is to be done now; none while it waits.
    pub(crate) fn plan(&self) -> Option<EndStep> {
        self.retry_at_ms.is_none().then_some(self.step)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.step == EndStep::Over
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        self.retry_at_ms
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        self.retry_at_ms = self.retry_at_ms.filter(|at_ms| *at_ms > now_ms);
    }

    pub(crate) fn go_on(&mut self, step: EndStep) {
        *self = Self::new(step);
    }

    /// Storage did [`EndStep::Bytes`] or [`EndStep::Provisioned`]; `has_provisioned` says whether the latter follows. Answers
    /// why it is given up, if it is: then it is tried again at the next start.
    pub(crate) fn handle_done(
        &mut self,
        outcome: &Outcome,
        has_provisioned: bool,
        now_ms: u64,
    ) -> Option<String> {
        match (self.step, outcome) {
            (EndStep::Bytes, Ok(Done::Erased { left: true })) => self.failures = 0,
            (EndStep::Bytes, Ok(Done::Erased { left: false })) => {
                self.go_on(if has_provisioned { EndStep::Provisioned } else { EndStep::Record });
            }
            (EndStep::Provisioned, Ok(Done::Written)) => self.go_on(EndStep::Record),
            (_, outcome) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= ERASE_ATTEMPTS {
                    self.go_on(EndStep::Over);
                    return Some(match outcome {
                        Err(error) => error.describe(),
                        Ok(_) => StorageError::Missing.describe(),
                    });
                }
                self.retry_at_ms = Some(now_ms.saturating_add(STATE.delay_ms(self.failures)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const ORDERED: Ordered = Ordered { device_uid: DeviceUid([1; 16]), nonce: Nonce([2; 16]) };

    #[test]
    fn an_order_is_judged_once_and_another_one_after_a_pause() {
        let mut orders = Orders::default();
        assert_eq!((orders.take(b"one"), orders.timeout()), (Taken::Waits, Some(0)));
        assert!(orders.poll_ask(5) && !orders.poll_ask(5));
        assert_eq!(orders.order(), b"one");
        assert!(orders.handle_judged(Some("why"), 5));
        assert_eq!(orders.take(b"one"), Taken::Refused("why".into()));
        assert_eq!(orders.take(b"two"), Taken::Waits);
        assert!(!orders.poll_ask(5 + ORDER_PAUSE_MS - 1) && orders.order().is_empty());
        // The last one that came is the one that counts.
        assert_eq!(orders.take(b"three"), Taken::Waits);
        assert!(orders.poll_ask(5 + ORDER_PAUSE_MS));
        assert_eq!(orders.order(), b"three");
        assert!(orders.handle_judged(None, 20_000) && !orders.handle_judged(None, 20_000));
        assert_eq!(orders.take(b"three"), Taken::Known);
        orders.forget();
        assert_eq!(orders.take(b"three"), Taken::Waits);
    }

    #[test]
    fn what_could_not_be_erased_is_not_claimed() {
        let failed = Err(StorageError::Failed("bad block".into()));
        let mut erasing = Erasing::new(ORDERED);
        assert_eq!(erasing.step(), Some(Step::Listing));
        erasing.handle_listed(true, 0);
        erasing.note_left(Erased::MODULES);
        erasing.handle_removed();
        for left in [true, true, false] {
            assert_eq!(erasing.step(), Some(Step::Erasing));
            assert!(!erasing.handle_erased(&Ok(Done::Erased { left }), 0));
        }
        let proof = erasing.poll_sign().unwrap();
        assert_eq!((proof.erased.0, erasing.poll_sign()), (5, None));

        let mut erasing = Erasing { step: Step::Erasing, ..Erasing::new(ORDERED) };
        let mut now_ms = 0;
        while !erasing.handle_erased(&failed, now_ms) {
            assert_eq!(erasing.step(), None);
            now_ms = erasing.timeout().unwrap();
            erasing.handle_timeout(now_ms);
        }
        assert_eq!(now_ms, 1_000 + 2_000 + 4_000 + 8_000);
        assert_eq!(erasing.poll_sign().unwrap().erased, Erased::default());
    }

    #[test]
    fn a_proof_that_was_not_signed_is_asked_for_again() {
        let mut erasing = Erasing { step: Step::Signing, ..Erasing::new(ORDERED) };
        assert!(erasing.poll_sign().is_some());
        for _ in 0..3 {
            assert_eq!(erasing.handle_signed(None, 0), None);
            assert_eq!(erasing.poll_sign(), None);
            erasing.handle_timeout(u64::MAX);
            assert!(erasing.poll_sign().is_some());
        }
        let kept = erasing.handle_signed(Some(vec![7; 512]), 0).unwrap();
        assert_eq!((kept.ordered, kept.bytes.len(), erasing.keeps()), (ORDERED, 512, true));
    }

    #[test]
    fn the_key_is_given_up_only_when_storage_fails_for_long() {
        let failed = Err(StorageError::Failed("bad block".into()));
        let mut ending = Ending::new(EndStep::Bytes);
        let mut now_ms = 0;
        let problem = loop {
            if let Some(problem) = ending.handle_done(&failed, true, now_ms) {
                break problem;
            }
            assert_eq!(ending.plan(), None);
            now_ms = ending.timeout().unwrap();
            ending.handle_timeout(now_ms);
        };
        assert_eq!((problem.as_str(), now_ms, ending.is_over()), ("bad block", 15_000, true));
        let mut ending = Ending::new(EndStep::Bytes);
        for (done, has_provisioned, next) in [
            (Done::Erased { left: true }, true, EndStep::Bytes),
            (Done::Erased { left: false }, true, EndStep::Provisioned),
            (Done::Written, true, EndStep::Record),
        ] {
            assert_eq!(ending.handle_done(&Ok(done), has_provisioned, 0), None);
            assert_eq!(ending.plan(), Some(next));
        }
    }
}
