//! How far the messages of a device's applications were taken, so that none is stored twice.
//!
//! A device sends what was not acknowledged again, in each new session. Its messages are identified by its start and their sequence,
//! which ascends for each application: what is at or below the last one taken of that start was taken. A device that lost its
//! storage counts its starts anew; what is drawn at each tells them apart.

use std::collections::VecDeque;

use wasmbed_protocol::ApplicationUid;

use super::super::config::{MESSAGE_APPLICATIONS_MAX, MESSAGE_STARTS_MAX};

/// A start of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Its number.
    pub boot: u64,
    /// Drawn at the start; 0 if the device did not say.
    pub id: u64,
}

/// Of the applications of one device, the one that was heard last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(VecDeque<(ApplicationUid, VecDeque<(Start, u64)>)>);

impl Places {
    /// Whether a message was taken before.
    pub(super) fn has(&self, uid: ApplicationUid, start: Start, sequence: u64) -> bool {
        let starts = self.0.iter().find(|(known, _)| *known == uid).map(|(_, starts)| starts);
        starts.is_some_and(|starts| starts.iter().any(|(known, last)| *known == start && sequence <= *last))
    }

    /// A message is taken.
    pub(super) fn note(&mut self, uid: ApplicationUid, start: Start, sequence: u64) {
        let index = self.0.iter().position(|(known, _)| *known == uid);
        let mut entry = match index {
            // Most devices have one application, or hear one of them many times.
            Some(index) if index + 1 == self.0.len() => self.0.pop_back(),
            Some(index) => self.0.remove(index),
            None => None,
        }
        .unwrap_or_default();
        entry.0 = uid;
        match entry.1.iter_mut().find(|(known, _)| *known == start) {
            Some((_, last)) => *last = (*last).max(sequence),
            None => {
                if entry.1.len() >= MESSAGE_STARTS_MAX {
                    entry.1.pop_front();
                }
                entry.1.push_back((start, sequence));
            }
        }
        if self.0.len() >= MESSAGE_APPLICATIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ApplicationUid, &VecDeque<(Start, u64)>)> {
        self.0.iter().map(|(uid, starts)| (*uid, starts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(uid: u8) -> ApplicationUid {
        ApplicationUid([uid; 16])
    }

    fn start(boot: u64) -> Start {
        Start { boot, id: 9 }
    }

    #[test]
    fn what_was_taken_of_a_start_was_taken_and_nothing_else() {
        let mut places = Places::default();
        places.note(uid(1), start(5), 10);
        assert!(places.has(uid(1), start(5), 10) && places.has(uid(1), start(5), 1));
        assert!(
            !places.has(uid(1), start(5), 11)
                && !places.has(uid(1), start(4), 1)
                && !places.has(uid(2), start(5), 1)
        );
        // What was kept over a start comes before what is new, and both come again.
        places.note(uid(1), start(6), 2);
        assert!(
            places.has(uid(1), start(5), 10)
                && places.has(uid(1), start(6), 2)
                && !places.has(uid(1), start(6), 3)
        );
        // A device that lost its counter begins with lower numbers.
        places.note(uid(1), start(1), 1);
        assert!(places.has(uid(1), start(1), 1) && places.has(uid(1), start(6), 2));
        assert!(!places.has(uid(1), Start { boot: 6, id: 8 }, 1), "another start of the same number");
        places.note(uid(1), start(6), 1);
        assert!(places.has(uid(1), start(6), 2), "it does not go back");
    }

    #[test]
    fn starts_and_applications_are_bounded_and_the_quiet_ones_go() {
        let mut places = Places::default();
        for boot in 0..100 {
            places.note(uid(0), start(boot), 1);
        }
        assert_eq!(places.0[0].1.len(), MESSAGE_STARTS_MAX);
        for application in 1..=200 {
            places.note(uid(application), start(1), 1);
            places.note(uid(1), start(1), u64::from(application));
        }
        assert_eq!(places.len(), MESSAGE_APPLICATIONS_MAX);
        assert!(
            places.has(uid(1), start(1), 200)
                && places.has(uid(200), start(1), 1)
                && !places.has(uid(2), start(1), 1)
        );
    }
}
