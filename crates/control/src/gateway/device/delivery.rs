//! The desired set of one device, from the controller that puts it to the device that holds it.
//!
//! ```text
//! offer ─ Store ─> stage ── on its way to the disk ──> end_staging, then take if it got there ──> held, given to the device
//! ```
//!
//! Invariant, which [`Delivery::check`] names: no set has a revision above the highest one seen.

use std::sync::Arc;

use wasmbed_protocol::{ApplicationUid, Revision};

use crate::gateway::{config::COUNTER_SLACK, counters::Counted, sets::Set};

/// The sets of one device and the revisions seen.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Delivery {
    held: Option<Arc<Set>>,
    /// A newer set on its way to the disk.
    staged: Option<Arc<Set>>,
    /// Highest revision seen from the device, held, or on its way to the disk.
    seen: u64,
    /// What the device's revisions are counted from; see [`crate::gateway::counters`].
    base: u64,
}

/// What becomes of a set that a controller puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Offer {
    /// It goes to the disk.
    Store,
    /// It is the one held.
    Held,
    /// Its revision, which is held, identifies a different set.
    Taken,
    /// A higher revision was seen, this one.
    Lower(u64),
}

impl Delivery {
    /// With the set that the disk holds.
    pub(super) fn restored(set: Option<Set>) -> Self {
        let seen = set.as_ref().map_or(0, Set::revision);
        Self { held: set.map(Arc::new), seen, ..Self::default() }
    }

    /// What becomes of this set.
    pub(in crate::gateway) fn offer(&self, set: &Set) -> Offer {
        if let Some(newest) = self.newest()
            && newest.revision() == set.revision()
            && self.seen == set.revision()
        {
            return match (newest.same_content(set), &self.staged) {
                (false, _) => Offer::Taken,
                // It is not on the disk yet, so this call must wait for it too.
                (true, Some(_)) => Offer::Store,
                (true, None) => Offer::Held,
            };
        }
        if set.revision() < self.seen { Offer::Lower(self.seen) } else { Offer::Store }
    }

    /// A set is on its way to the disk.
    pub(in crate::gateway) fn stage(&mut self, set: &Arc<Set>) {
        debug_assert!(set.revision() >= self.seen, "a set of a lower revision was not refused");
        self.seen = self.seen.max(set.revision());
        self.staged = Some(Arc::clone(set));
    }

    /// A set is not on its way to the disk any more, whether it got there or not. A newer one may be.
    pub(in crate::gateway) fn end_staging(&mut self, set: &Arc<Set>) {
        self.staged.take_if(|staged| Arc::ptr_eq(staged, set));
    }

    /// A set is on the disk; false if a newer one got there before.
    pub(in crate::gateway) fn take(&mut self, set: Arc<Set>) -> bool {
        debug_assert!(set.revision() <= self.seen, "a set that was not staged here is taken");
        let newer = self.held.as_ref().is_some_and(|held| held.revision() > set.revision());
        if !newer {
            self.held = Some(set);
        }
        !newer
    }

    /// A session begins, whose revision counts as `counted`; `written` is the one of Device.status.
    pub(super) fn begin(&mut self, counted: &Counted, written: u64) {
        self.base = counted.base();
        // A device that was let go of forgets its revision: an older set may not take its place.
        self.seen = self.seen.max(counted.revision()).max(written);
    }

    /// A report's revision in the gateway's count, if it is within `limit` or what was set here.
    pub(super) fn count(&mut self, reported: Revision, limit: u64) -> Option<u64> {
        let counted = reported.0.checked_sub(self.base);
        let counted = counted.filter(|revision| *revision <= limit.max(self.seen));
        self.seen = self.seen.max(counted.unwrap_or(0));
        counted
    }

    /// Reports of a session that begins now count up to this revision.
    pub(super) fn limit(&self) -> u64 {
        self.seen.saturating_add(COUNTER_SLACK)
    }

    /// The set that the device is given.
    pub(in crate::gateway) fn held(&self) -> Option<&Set> {
        self.held.as_deref()
    }

    /// The set that the disk has or is to have.
    pub(in crate::gateway) fn newest(&self) -> Option<&Set> {
        self.staged.as_deref().or(self.held())
    }

    /// Whether the set may be given to the device: it is not older than what the device holds.
    pub(in crate::gateway) fn is_known(&self) -> bool {
        self.held().is_some_and(|set| set.revision() >= self.seen)
    }

    /// Highest revision seen.
    pub(in crate::gateway) fn seen(&self) -> u64 {
        self.seen
    }

    /// What is added to a revision for the device.
    pub(in crate::gateway) fn base(&self) -> u64 {
        self.base
    }

    /// What the set calls an application.
    pub(super) fn name(&self, uid: &ApplicationUid) -> Option<Arc<str>> {
        self.held()?.application(uid).cloned()
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let revisions = [self.held(), self.newest()].into_iter().flatten().map(Set::revision);
        if revisions.max().unwrap_or(0) > self.seen {
            return Err("a set has a higher revision than any seen");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ObjectKey,
        gateway::{
            counters::{Known, plan_counters},
            sets::Bodies,
        },
        gateway_api::DeviceSet,
    };

    fn set(revision: u64) -> Arc<Set> {
        let set = DeviceSet { device: ObjectKey::new("n", "a"), revision, assignments: Vec::new() };
        Arc::new(Bodies::default().parse_set(&set).unwrap())
    }

    #[test]
    fn a_set_is_given_out_once_it_is_on_the_disk_and_no_older_one_after_it() {
        let mut delivery = Delivery::default();
        let (first, second) = (set(1), set(2));
        assert_eq!(delivery.offer(&first), Offer::Store);
        delivery.stage(&first);
        assert!(!delivery.is_known() && delivery.held().is_none());
        assert_eq!(delivery.offer(&first), Offer::Store, "a second caller waits for the disk too");
        delivery.stage(&second);
        delivery.end_staging(&first);
        assert!(delivery.take(Arc::clone(&first)) && !delivery.is_known(), "a newer one is on its way");
        delivery.end_staging(&second);
        assert!(delivery.take(second) && delivery.is_known());
        assert!(!delivery.take(first));
        assert_eq!(delivery.offer(&set(2)), Offer::Held);
        assert_eq!(delivery.offer(&set(1)), Offer::Lower(2));
        assert_eq!(delivery.check(), Ok(()));
    }

    #[test]
    fn reports_count_from_the_base_up_to_the_limit() {
        let mut delivery = Delivery::default();
        let base = COUNTER_SLACK + 100;
        delivery.begin(&plan_counters(Known::counted_from(base), 0, base), 7);
        assert_eq!((delivery.seen(), delivery.base()), (7, base));
        assert_eq!(delivery.count(Revision(base - 1), 9), None);
        assert_eq!(delivery.count(Revision(base + 9), 9), Some(9));
        assert_eq!((delivery.count(Revision(base + 10), 9), delivery.seen()), (None, 9));
    }
}
