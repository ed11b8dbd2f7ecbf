//! The history of one folder of objects, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use crate::selector::{Facets, Selection};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It wasn't there before.
    Added,
    /// It was.
    Modified,
    /// It is gone.
    Deleted,
}

impl Change {
    /// As a watch names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// A watch's line about an object: `{"type":"ADDED","object":{…}}` and a line feed.
pub fn watch_line(ty: &str, object: &[u8]) -> Bytes {
    let (before, after) = watch_line_ends(ty);
    let mut line = BytesMut::with_capacity(before.len() + object.len() + after.len());
    line.put_slice(before.as_bytes());
    line.put_slice(object);
    line.put_slice(after);
    line.freeze()
}

/// What stands before and after the object in its line.
pub fn watch_line_ends(ty: &str) -> (String, &'static [u8]) {
    (format!("{{\"type\":\"{ty}\",\"object\":"), b"}\n")
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// Revision that the change made.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// The object's JSON after it; of a deletion its last state.
    pub object: Bytes,
    /// What selectors see of it now.
    pub facets: Facets,
    /// What they saw before.
    pub previous: Option<Facets>,
    /// The object before it, at this change's revision: what a selection that it leaves is shown.
    pub before: Option<Bytes>,
    /// The change as a watch tells of it; `object` is a part of it.
    line: Bytes,
    /// The same in other forms, for as long as the change is kept; as many as there are forms.
    forms: Mutex<Vec<(u8, Change, Bytes)>>,
}

impl Event {
    /// A change that is not yet in a log.
    pub fn new(revision: u64, change: Change, object: &[u8], facets: Facets) -> Event {
        let line = watch_line(change.as_str(), object);
        let (before, after) = watch_line_ends(change.as_str());
        let object = line.slice(before.len()..line.len() - after.len());
        Event {
            revision,
            change,
            object,
            facets,
            previous: None,
            before: None,
            line,
            forms: Mutex::default(),
        }
    }

    fn bytes(&self) -> usize {
        self.line.len() + self.before.as_ref().map_or(0, Bytes::len)
    }

    /// The line of a watch that is shown `change` of the stored object. All of them share it.
    pub fn line(&self, change: Change) -> Bytes {
        if change == self.change {
            return self.line.clone();
        }
        watch_line(change.as_str(), self.shown(change))
    }

    /// The line in another form, made by the first watch that needs it and shared with the rest.
    pub fn line_in<E>(
        &self,
        form: u8,
        change: Change,
        make: impl FnOnce(&Bytes) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, line)) = forms.iter().find(|known| (known.0, known.1) == (form, change)) {
            return Ok(line.clone());
        }
        let line = watch_line(change.as_str(), &make(self.shown(change))?);
        forms.push((form, change, line.clone()));
        Ok(line)
    }

    /// The object as a selection that sees `change` is shown it.
    pub fn shown(&self, change: Change) -> &Bytes {
        match (change, self.change, &self.before) {
            (Change::Deleted, Change::Modified, Some(before)) => before,
            (_, _, _) => &self.object,
        }
    }

    /// What happened as far as a selection is concerned: an object that moves into it appears, one that moves out goes.
    pub fn seen_by(&self, selection: &Selection) -> Option<Change> {
        if selection.is_everything() && selection.namespace.is_none() {
            return Some(self.change);
        }
        let before = self.previous.as_ref().is_some_and(|facets| selection.matches(facets));
        let after = self.change != Change::Deleted && selection.matches(&self.facets);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
        }
    }
}

/// Bounds of a [`Log`].
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Changes kept at most.
    pub events: usize,
    /// Bytes of objects kept at most; the newest change is kept whatever its size.
    pub bytes: usize,
}

/// The changes asked for are not all there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryExpired {
    /// The oldest revision from which one can still follow.
    pub oldest: u64,
}

/// The latest changes in one folder. Watchers are cursors into it: none has a queue of its own, so a slow one costs
/// nothing and finds its history expired.
#[derive(Debug)]
pub struct Log {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    oldest: u64,
    bounds: History,
}

impl Log {
    /// Empty: what happened up to `revision` isn't known.
    pub fn new(revision: u64, bounds: History) -> Log {
        Log { events: VecDeque::new(), bytes: 0, oldest: revision, bounds }
    }

    /// Adds a change; revisions only grow.
    pub fn append(&mut self, event: Arc<Event>) {
        debug_assert!(self.events.back().is_none_or(|last| last.revision < event.revision));
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > self.bounds.events || self.bytes > self.bounds.bytes)
        {
            let Some(dropped) = self.events.pop_front() else { break };
            self.bytes -= dropped.bytes();
            self.oldest = dropped.revision;
        }
    }

    /// Up to `most` changes after `revision`, oldest first.
    pub fn since(&self, revision: u64, most: usize) -> Result<Vec<Arc<Event>>, HistoryExpired> {
        if revision < self.oldest {
            return Err(HistoryExpired { oldest: self.oldest });
        }
        let start = self.events.partition_point(|event| event.revision <= revision);
        Ok(self.events.iter().skip(start).take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Change, Event, History, HistoryExpired, Log, watch_line};
    use crate::selector::Facets;

    fn event(revision: u64, bytes: usize) -> Arc<Event> {
        let ends = watch_line("ADDED", b"").len();
        Arc::new(Event::new(revision, Change::Added, &vec![0; bytes - ends], Facets::default()))
    }

    fn revisions(log: &Log, since: u64) -> Result<Vec<u64>, HistoryExpired> {
        log.since(since, 100).map(|events| events.iter().map(|event| event.revision).collect())
    }

    #[test]
    fn a_log_forgets_from_the_front_and_says_so() {
        let mut log = Log::new(10, History { events: 3, bytes: 400 });
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
        log.append(event(21, 380));
        assert_eq!(revisions(&log, 20), Ok(vec![21]));
        assert_eq!(revisions(&log, 19), Err(HistoryExpired { oldest: 20 }));
        assert_eq!(log.since(20, 0).unwrap().len(), 0);
    }

    #[test]
    fn watches_of_one_form_share_a_line() {
        let event = Event::new(1, Change::Added, b"{\"a\":1}", Facets::default());
        assert_eq!(event.object, "{\"a\":1}");
        assert_eq!(event.line(Change::Added), "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n");
        assert_eq!(event.line(Change::Added).as_ptr(), event.line(Change::Added).as_ptr());
        let made =
            |form| event.line_in(form, Change::Modified, |_| Ok::<_, ()>(bytes::Bytes::from("{}"))).unwrap();
        assert_eq!(made(1), "{\"type\":\"MODIFIED\",\"object\":{}}\n");
        assert_eq!(made(1).as_ptr(), made(1).as_ptr());
        assert_ne!(made(1).as_ptr(), made(2).as_ptr());
    }
}
