//! How far a device's own epoch and revision are believed.
//!
//! Both grow by one, for each session and each change, so that a device that says much more than anybody can have given it
//! is broken or lies. Its numbers are then left alone: it is given the next epoch and the sets that there are, like a device
//! that says 0. Since devices refuse lower numbers than they hold, it is told its own epoch again, and its revisions are
//! counted from the one that it holds ([`Counted::base`]): the numbers in its storage change nothing for anybody else.

use wasmbed_protocol::Epoch;

use super::config::COUNTER_SLACK;

/// What is known of a device's counters when it says Hello.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Of Device.status, or of a session in this process.
    epoch: u64,
    /// Of Device.status, of a set, or of a session in this process.
    revision: u64,
    /// What this device's revisions were counted from so far.
    base: u64,
}

impl Known {
    /// Nothing but what the device's revisions were counted from so far.
    pub(super) fn counted_from(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// With an epoch and a revision that were seen together or apart; the highest of each counts.
    pub(super) fn seen(self, epoch: u64, revision: u64) -> Self {
        Self { epoch: self.epoch.max(epoch), revision: self.revision.max(revision), ..self }
    }
}

/// What a Hello's numbers amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Of the session.
    epoch: u64,
    acknowledged: u64,
    base: u64,
    revision: u64,
    complaint: Option<String>,
}

impl Counted {
    /// Of the session.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// The epoch that is acknowledged to the device.
    pub(super) fn acknowledged_epoch(&self) -> Epoch {
        Epoch(self.acknowledged)
    }

    /// The device's revisions less this are ours.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The revision that the device holds, as ours.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What was not believed, for people.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

/// Counts a Hello.
pub(super) fn plan_counters(known: Known, epoch: u64, revision: u64) -> Counted {
    let mut complaints = Vec::new();
    let within = |said: u64, known: u64| said <= known.saturating_add(COUNTER_SLACK);
    let next = |epoch: u64| epoch.saturating_add(1);
    let (given, acknowledged) = if within(epoch, known.epoch) {
        let given = next(epoch.max(known.epoch));
        (given, given)
    } else {
        complaints.push(format!("last epoch {epoch}, the last one here is {}", known.epoch));
        (next(known.epoch), epoch)
    };
    // Of those that it was given here none is beyond what is known here.
    let rebased = revision.checked_sub(known.base).filter(|counted| *counted <= known.revision);
    let (base, counted) = match rebased {
        _ if within(revision, known.revision) => (0, revision),
        Some(counted) => (known.base, counted),
        None => (revision, 0),
    };
    if base > 0 {
        complaints.push(format!("revision {revision}, the last one here is {}", known.revision));
    }
    let complaint = (!complaints.is_empty())
        .then(|| format!("the device says {}; it is answered as one that is new", complaints.join(" and ")));
    Counted { epoch: given, acknowledged, base, revision: counted, complaint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_to_the_slack_and_not_beyond() {
        let known = Known { epoch: 7, revision: 3, base: 0 };
        let counted = plan_counters(known, 7 + COUNTER_SLACK, 3 + COUNTER_SLACK);
        assert_eq!((counted.epoch, counted.acknowledged), (8 + COUNTER_SLACK, 8 + COUNTER_SLACK));
        assert_eq!((counted.base, counted.revision, counted.complaint), (0, 3 + COUNTER_SLACK, None));
        let counted = plan_counters(known, 8 + COUNTER_SLACK, 4 + COUNTER_SLACK);
        assert_eq!((counted.epoch, counted.acknowledged), (8, 8 + COUNTER_SLACK));
        assert_eq!((counted.base, counted.revision), (4 + COUNTER_SLACK, 0));
        assert!(counted.complaint.unwrap().contains("1048584"));
    }

    #[test]
    fn nothing_overflows() {
        let counted = plan_counters(Known::default(), u64::MAX, u64::MAX);
        assert_eq!((counted.epoch, counted.acknowledged, counted.revision), (1, u64::MAX, 0));
        let all = Known { epoch: u64::MAX, revision: u64::MAX, base: u64::MAX };
        assert_eq!(plan_counters(all, u64::MAX, u64::MAX).complaint, None);
    }
}
