//! A list that is a slice when it is written and a view of the frame when it was read.

use core::fmt;

use crate::{error::DecodeError, reader::Reader};

/// How one item of a [`List`] is read back from a frame that was checked as a whole.
pub trait Item<'a>: Copy + fmt::Debug {
    /// Reads one item.
    #[doc(hidden)]
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

/// Items of a message, without allocation.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Source<'a, T>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Slice(&'a [T]),
    Frame { items: &'a [u8], count: usize },
}

impl<'a, T> List<'a, T> {
    /// A list without items.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Source::Slice(&[]))
    }

    /// A list to be written.
    #[must_use]
    pub const fn new(items: &'a [T]) -> Self {
        Self(Source::Slice(items))
    }

    /// A list within a frame; every item has been decoded once.
    pub(crate) const fn from_frame(items: &'a [u8], count: usize) -> Self {
        Self(Source::Frame { items, count })
    }

    /// Number of items.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Slice(items) => items.len(),
            Source::Frame { count, .. } => count,
        }
    }

    /// Whether there are no items.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// The items in their order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let source = self.0;
        let mut reader = match source {
            Source::Slice(_) => Reader::new(&[]),
            Source::Frame { items, .. } => Reader::new(items),
        };
        (0..self.len()).map_while(move |index| match source {
            Source::Slice(items) => items.get(index).copied(),
            Source::Frame { .. } => T::read(&mut reader).ok(),
        })
    }
}

impl<'a, T> Default for List<'a, T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a>> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
