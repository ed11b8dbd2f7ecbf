//! What must differ from all before it, kept in order while a section is read: it is found by halves, and no choice of
//! types or names makes that more work.

use super::Loader;
use super::state::Order;
use crate::reader::Failed;

impl Loader<'_> {
    /// Makes room for so many.
    pub(crate) fn begin_order(&mut self, count: u32) -> Result<(), Failed> {
        let high = self.region.high();
        let place = self.region.take_high::<u32>(count as usize);
        self.order = Order { place: self.room(place)?, count: 0, high };
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn end_order(&mut self) {
        self.region.give_back_high(self.order.high);
    }

    /// Those so far.
    pub(crate) fn ordered(&self) -> &[u32] {
        self.region.slice::<u32>(self.order.place, self.order.count as usize)
    }

    /// Puts one in its place. Those behind it move, at most some thousands of bytes: less work than the search for as many as a
    /// device lets pass, which a tree would not save.
    pub(crate) fn insert(&mut self, at: usize, item: u32) {
        let count = self.order.count as usize;
        self.work += (count - at) as u32 / 128;
        let ordered = self.region.slice_mut::<u32>(self.order.place, count + 1);
        ordered.copy_within(at..count, at + 1);
        ordered[at] = item;
        self.order.count += 1;
    }
}
