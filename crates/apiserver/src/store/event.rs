//! Changes of objects, encoded once for all watches.

use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use crate::selector::{Facets, Selection};

/// Type of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is new.
    Added,
    /// The object existed.
    Modified,
    /// The object is removed.
    Deleted,
}

impl Change {
    /// `type` of a watch event.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// One line of a watch: `{"type":"ADDED","object":{…}}` and a line feed.
pub fn watch_line(ty: &str, object: &[u8]) -> Bytes {
    let (before, after) = watch_line_ends(ty);
    let mut line = BytesMut::with_capacity(before.len() + object.len() + after.len());
    line.put_slice(before.as_bytes());
    line.put_slice(object);
    line.put_slice(after);
    line.freeze()
}

/// The text before and after the object in a watch's line.
pub fn watch_line_ends(ty: &str) -> (String, &'static [u8]) {
    (format!("{{\"type\":\"{ty}\",\"object\":"), b"}\n")
}

/// Bytes of lines in other forms that a change may keep beyond the length of its own line: a row of a table repeats the
/// metadata of a small object.
const FORMS_BYTES_SPARE: usize = 2_048;

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    revision: u64,
    change: Change,
    /// A slice of `line`.
    object: Bytes,
    facets: Facets,
    previous: Option<Facets>,
    before: Option<Bytes>,
    line: Bytes,
    /// Lines in other forms, while the change is kept; together no longer than [`Event::forms_bytes_max`].
    forms: Mutex<Vec<(u8, Change, Bytes)>>,
}

impl Event {
    /// The change that made `revision`: the object's JSON after it (of a deletion its last state), and what selectors see of
    /// it.
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

    /// Adds what selectors saw before the change, and the object before it at this revision: selections that it leaves are
    /// shown that one.
    #[must_use]
    pub fn with_previous(self, facets: Option<Facets>, object: Option<Bytes>) -> Event {
        Event { previous: facets, before: object, ..self }
    }

    /// Revision that the change made.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Type of the change.
    pub fn change(&self) -> Change {
        self.change
    }

    /// The object's JSON after the change; of a deletion its last state.
    pub fn object(&self) -> &Bytes {
        &self.object
    }

    /// Memory that it takes at most, bytes: the same from its begin to its end, whichever forms are asked for.
    pub(super) fn bytes(&self) -> usize {
        let facets = [Some(&self.facets), self.previous.as_ref()];
        let facets: usize = facets.into_iter().flatten().map(Facets::bytes).sum();
        let before = self.before.as_ref().map_or(0, Bytes::len);
        self.line.len() + before + facets + self.forms_bytes_max()
    }

    fn forms_bytes_max(&self) -> usize {
        self.line.len() + FORMS_BYTES_SPARE
    }

    /// The line for watches that see it as `change` of the stored object. They share it.
    pub fn line(&self, change: Change) -> Bytes {
        if change == self.change {
            return self.line.clone();
        }
        watch_line(change.as_str(), self.shown(change))
    }

    /// The line in another form, encoded by the first watch that needs it and shared by the rest. Forms for which there is no
    /// room are encoded by each.
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
        let kept: usize = forms.iter().map(|(_, _, line)| line.len()).sum();
        if kept + line.len() <= self.forms_bytes_max() {
            forms.push((form, change, line.clone()));
        }
        Ok(line)
    }

    /// The object that selections which see it as `change` are shown.
    pub fn shown(&self, change: Change) -> &Bytes {
        match (change, self.change, &self.before) {
            (Change::Deleted, Change::Modified, Some(before)) => before,
            (_, _, _) => &self.object,
        }
    }

    /// The change as a selection sees it: an object that enters it is added, one that leaves it deleted.
    pub fn seen_by(&self, selection: &Selection) -> Option<Change> {
        if selection.is_everything() && selection.namespace().is_none() {
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

#[cfg(test)]
mod tests {
    use super::{Change, Event};
    use crate::selector::Facets;

    #[test]
    fn watches_of_one_form_share_a_line() {
        let event = Event::new(1, Change::Added, b"{\"a\":1}", Facets::default());
        assert_eq!(event.object(), "{\"a\":1}");
        assert_eq!(event.line(Change::Added), "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n");
        assert_eq!(event.line(Change::Added).as_ptr(), event.line(Change::Added).as_ptr());
        let made =
            |form| event.line_in(form, Change::Modified, |_| Ok::<_, ()>(bytes::Bytes::from("{}"))).unwrap();
        assert_eq!(made(1), "{\"type\":\"MODIFIED\",\"object\":{}}\n");
        assert_eq!(made(1).as_ptr(), made(1).as_ptr());
        assert_ne!(made(1).as_ptr(), made(2).as_ptr());
    }

    #[test]
    fn what_a_change_takes_is_known_from_its_begin() {
        let event = Event::new(1, Change::Added, b"{\"a\":1}", Facets::default());
        let before = event.bytes();
        let make = |form: u8, length: usize| {
            let object = bytes::Bytes::from(vec![b' '; length]);
            event.line_in(form, Change::Added, |_| Ok::<_, ()>(object)).unwrap()
        };
        assert_eq!(make(1, 1_000).as_ptr(), make(1, 1_000).as_ptr());
        assert_ne!(make(2, 2_000).as_ptr(), make(2, 2_000).as_ptr(), "there is no room for both");
        let kept: usize = event.forms.lock().unwrap().iter().map(|(_, _, line)| line.len()).sum();
        assert!(kept + event.line.len() <= before);
        assert_eq!(event.bytes(), before);
    }
}
