//! Which leader a gateway listens to.
//!
//! Terms only rise: a set of a lower term than one seen is refused. A term above every one seen has to be that of the
//! leader's Lease, so that a client with a controller's certificate cannot shut all controllers out by making one up.

use super::input::Refused;
use crate::{election::TERM_MAX, gateway_api::Refusal};

/// The leader terms that a gateway knows.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// The highest term of which sets were taken; at most [`TERM_MAX`].
    highest: u64,
    /// The highest term that is known to be on the disk: only that one may be confirmed without another write.
    stored: u64,
    /// `leaseTransitions` of the leader's Lease as it was last read; 0 before.
    lease_term: u64,
    /// Why the Lease could not be read the last time.
    lease_error: Option<String>,
}

impl Fence {
    /// With the term that the disk holds. False if that is the highest possible one: no leader could rise above it, so it
    /// is forgotten.
    pub(super) fn restore(term: u64) -> (Self, bool) {
        let usable = term < TERM_MAX;
        (Self { highest: if usable { term } else { 0 }, stored: term, ..Self::default() }, usable)
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether the leader's Lease has to be read before sets of this term are checked.
    pub(super) fn needs_lease(&self, term: u64) -> bool {
        term <= TERM_MAX && term > self.highest && term > self.lease_term
    }

    pub(super) fn handle_lease(&mut self, term: u64) {
        self.lease_term = term;
        self.lease_error = None;
    }

    pub(super) fn handle_lease_failed(&mut self, error: String) {
        self.lease_error = Some(error);
    }

    /// Whether sets of this term may be taken.
    pub(super) fn check(&self, term: u64) -> Result<(), Refused> {
        let refusal =
            |reason: &str, message| Refusal { reason: reason.to_owned(), message, leader_term: None };
        if term > TERM_MAX {
            let message = format!("leader term {term} is beyond {TERM_MAX}, the highest one");
            return Err(Refused::Invalid(refusal("TermOutOfRange", message)));
        }
        if term < self.highest {
            let message = format!("leader term {term} is lower than {}, seen before", self.highest);
            let refusal = refusal("Fenced", message);
            return Err(Refused::Fenced(Refusal { leader_term: Some(self.highest), ..refusal }));
        }
        if !self.needs_lease(term) {
            return Ok(());
        }
        Err(match &self.lease_error {
            Some(error) => {
                let message = format!("the leader's Lease can't be read: {error}; try again");
                Refused::Unavailable(refusal("LeaseUnread", message))
            }
            None => {
                let known = self.lease_term;
                let message =
                    format!("leader term {term} is above {known}, leaseTransitions of the leader's Lease");
                Refused::Invalid(refusal("TermNotGiven", message))
            }
        })
    }

    /// Sets of this term, which [`Fence::check`] let pass, are taken.
    pub(super) fn accept(&mut self, term: u64) {
        debug_assert!((self.highest..=TERM_MAX).contains(&term), "term {term} was not checked");
        self.highest = term;
    }

    /// Whether the disk holds this term.
    pub(super) fn is_stored(&self, term: u64) -> bool {
        self.stored == term
    }

    pub(super) fn handle_stored(&mut self, term: u64) {
        self.stored = self.stored.max(term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(fence: &Fence, term: u64) -> Option<String> {
        match fence.check(term) {
            Ok(()) => None,
            Err(Refused::Fenced(refusal) | Refused::Invalid(refusal) | Refused::Unavailable(refusal)) => {
                Some(refusal.reason)
            }
        }
    }

    #[test]
    fn terms_rise_as_the_lease_does_and_no_faster() {
        let (mut fence, usable) = Fence::restore(5);
        assert!(usable && !fence.needs_lease(5) && fence.needs_lease(6) && fence.is_stored(5));
        assert_eq!(reason(&fence, 4).as_deref(), Some("Fenced"));
        assert_eq!(reason(&fence, 6).as_deref(), Some("TermNotGiven"));
        fence.handle_lease_failed("away".to_owned());
        assert_eq!(reason(&fence, 6).as_deref(), Some("LeaseUnread"));
        assert_eq!(reason(&fence, 5), None);
        fence.handle_lease(6);
        assert_eq!(reason(&fence, 6), None);
        fence.accept(6);
        assert_eq!(reason(&fence, 5).as_deref(), Some("Fenced"));
        assert!(!fence.is_stored(6));
        fence.handle_stored(6);
        assert!(fence.is_stored(6));
        assert_eq!(reason(&fence, TERM_MAX + 1).as_deref(), Some("TermOutOfRange"));
    }

    #[test]
    fn a_term_on_disk_that_none_can_rise_above_is_forgotten() {
        let (fence, usable) = Fence::restore(TERM_MAX);
        assert!(!usable);
        assert_eq!(fence.highest(), 0);
    }
}
