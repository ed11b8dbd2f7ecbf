//! The history of one folder of objects, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;

/// Bounds of a [`EventLog`].
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Changes kept at most.
    pub events: usize,
    /// Bytes kept at most, lines for watches included; the newest change is kept whatever its size.
    pub bytes: usize,
}

/// The requested changes are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryExpired {
    /// The oldest revision after which all changes are kept.
    pub oldest: u64,
}

/// The latest changes of one folder, in order of revisions. Watches are cursors into it without a queue of their own: a
/// slow watch costs nothing and finds its history expired.
#[derive(Debug)]
pub struct EventLog {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    oldest: u64,
    bounds: History,
}

impl EventLog {
    /// An empty log that begins after `revision`.
    pub fn new(revision: u64, bounds: History) -> EventLog {
        EventLog { events: VecDeque::new(), bytes: 0, oldest: revision, bounds }
    }

    /// Adds a change with a revision above all before it.
    pub fn append(&mut self, event: Arc<Event>) {
        debug_assert!(self.events.back().is_none_or(|last| last.revision() < event.revision()));
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > self.bounds.events || self.bytes > self.bounds.bytes)
        {
            let Some(dropped) = self.events.pop_front() else { break };
            self.bytes -= dropped.bytes();
            self.oldest = dropped.revision();
        }
    }

    /// Up to `most` changes after `revision`, oldest first.
    pub fn since(&self, revision: u64, most: usize) -> Result<Vec<Arc<Event>>, HistoryExpired> {
        if revision < self.oldest {
            return Err(HistoryExpired { oldest: self.oldest });
        }
        let start = self.events.partition_point(|event| event.revision() <= revision);
        Ok(self.events.iter().skip(start).take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{EventLog, History, HistoryExpired};
    use crate::selector::Facets;
    use crate::store::event::{Change, Event, watch_line};

    fn event(revision: u64, bytes: usize) -> Arc<Event> {
        let ends = watch_line("ADDED", b"").len();
        Arc::new(Event::new(revision, Change::Added, &vec![0; bytes - ends], Facets::default()))
    }

    fn revisions(log: &EventLog, since: u64) -> Result<Vec<u64>, HistoryExpired> {
        log.since(since, 100).map(|events| events.iter().map(|event| event.revision()).collect())
    }

    #[test]
    fn a_log_drops_the_oldest_changes_and_reports_it() {
        let bytes = 4 * event(11, 40).bytes();
        let mut log = EventLog::new(10, History { events: 3, bytes });
        assert_eq!(revisions(&log, 10), Ok(vec![]));
        assert_eq!(revisions(&log, 9), Err(HistoryExpired { oldest: 10 }));
        for revision in [11, 13, 14] {
            log.append(event(revision, 40));
        }
        assert_eq!(revisions(&log, 10), Ok(vec![11, 13, 14]));
        assert_eq!(revisions(&log, 12), Ok(vec![13, 14]));
        log.append(event(20, 40));
        assert_eq!(revisions(&log, 10), Err(HistoryExpired { oldest: 11 }));
        assert_eq!(revisions(&log, 11), Ok(vec![13, 14, 20]));
        log.append(event(21, bytes));
        assert_eq!(revisions(&log, 20), Ok(vec![21]));
        assert_eq!(revisions(&log, 19), Err(HistoryExpired { oldest: 20 }));
        assert_eq!(log.since(20, 0).unwrap().len(), 0);
    }
}
