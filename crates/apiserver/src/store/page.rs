//! Reading many objects, a page at a time.

use std::ops::ControlFlow;

use super::{Read, StorageError};
use crate::kinds::Kind;
use crate::selector::Selection;

/// Which objects to read.
#[derive(Clone, Copy, Debug)]
pub struct Pager<'a> {
    /// Those that match.
    pub selection: &'a Selection,
    /// Those after this key.
    pub after: Option<&'a str>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Some objects, in key order.
#[derive(Debug, Default)]
pub struct Page {
    /// Each object's JSON as stored.
    pub objects: Vec<Vec<u8>>,
    /// The key to go on after, if there are more.
    pub next: Option<String>,
    /// How many more, where that is known without looking into them.
    pub remaining: Option<usize>,
}

/// Is given an object's key, what is stored, and whether it matches.
pub type Visitor<'v> = dyn FnMut(&str, &[u8], bool) -> ControlFlow<()> + 'v;

impl Pager<'_> {
    /// Reads a page.
    pub fn read(&self, kind: &Kind, tables: &dyn Read) -> Result<Page, StorageError> {
        let mut page = Page::default();
        if let (Some(name), Some(namespace), None) =
            (self.selection.name(), &self.selection.namespace, self.after)
        {
            let object = tables.get(&kind.key(namespace, name))?;
            page.objects.extend(object.filter(|object| self.selection.fits(kind, object)));
            return Ok(page);
        }
        let everything = self.selection.is_everything();
        let mut last = String::new();
        let mut more = 0usize;
        tables.scan(&kind.prefix(self.selection.namespace.as_deref()), self.after, &mut |key, object| {
            if !everything && !self.selection.fits(kind, object) {
                return ControlFlow::Continue(());
            }
            if self.limit.is_some_and(|limit| page.objects.len() >= limit) {
                more += 1;
                // Counting what is left costs a walk over keys; looking into objects for it would cost too much.
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

    /// Visits the objects in key order, also those that don't match; says whether it came to the end.
    pub fn visit(
        &self,
        kind: &Kind,
        tables: &dyn Read,
        visit: &mut Visitor<'_>,
    ) -> Result<bool, StorageError> {
        let everything = self.selection.is_everything();
        let mut ended = true;
        tables.scan(&kind.prefix(self.selection.namespace.as_deref()), self.after, &mut |key, object| {
            let flow = visit(key, object, everything || self.selection.fits(kind, object));
            ended = flow.is_continue();
            flow
        })?;
        Ok(ended)
    }
}
