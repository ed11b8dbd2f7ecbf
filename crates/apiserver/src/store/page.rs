//! Lists, a page at a time.

use std::ops::ControlFlow;

use super::storage::{Read, StorageError};
use crate::kinds::Kind;
use crate::selector::Selection;

/// Which objects to read.
#[derive(Clone, Copy, Debug)]
pub struct Pager<'a> {
    /// Objects that match.
    pub selection: &'a Selection,
    /// Objects after this key.
    pub after: Option<&'a str>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// Some objects, in key order.
#[derive(Debug, Default)]
pub struct Page {
    /// Each object's JSON as stored.
    pub objects: Vec<Vec<u8>>,
    /// The key to continue after, if there are more.
    pub next: Option<String>,
    /// Number of further objects, if it is known without decoding them.
    pub remaining: Option<usize>,
}

/// Called with an object's key, its stored JSON, and whether it matches.
pub type Visitor<'v> = dyn FnMut(&str, &[u8], bool) -> ControlFlow<()> + 'v;

impl Pager<'_> {
    /// Reads a page.
    pub fn read(&self, kind: &Kind, tables: &dyn Read) -> Result<Page, StorageError> {
        let mut page = Page::default();
        if let (Some(name), Some(namespace), None) =
            (self.selection.name(), self.selection.namespace(), self.after)
        {
            let object = tables.get(&kind.key(namespace, name))?;
            page.objects.extend(object.filter(|object| self.selection.fits(kind, object)));
            return Ok(page);
        }
        let everything = self.selection.is_everything();
        let mut last = String::new();
        let mut more = 0usize;
        tables.scan(&kind.prefix(self.selection.namespace()), self.after, &mut |key, object| {
            if !everything && !self.selection.fits(kind, object) {
                return ControlFlow::Continue(());
            }
            if self.limit.is_some_and(|limit| page.objects.len() >= limit) {
                more += 1;
                // Counting keys is cheap; decoding objects to count matches is not.
                return if everything { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            }
            page.objects.push(object.to_vec());
            if self.limit == Some(page.objects.len()) {
                last = key.to_owned();
            }
            ControlFlow::Continue(())
        })?;
        if more > 0 {
            page.next = Some(last);
            page.remaining = everything.then_some(more);
        }
        Ok(page)
    }

    /// Visits all objects in key order, including those that don't match. Returns whether it reached the end.
    pub fn visit(
        &self,
        kind: &Kind,
        tables: &dyn Read,
        visit: &mut Visitor<'_>,
    ) -> Result<bool, StorageError> {
        let everything = self.selection.is_everything();
        let mut ended = true;
        tables.scan(&kind.prefix(self.selection.namespace()), self.after, &mut |key, object| {
            let flow = visit(key, object, everything || self.selection.fits(kind, object));
            ended = flow.is_continue();
            flow
        })?;
        Ok(ended)
    }
}
