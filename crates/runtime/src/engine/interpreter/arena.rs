//! The applications' memory: one region apart from the system's heap, of which each application has one block.
//!
//! How large a block has to be is known once its module is loaded. So loading gets the largest one that there is, up to
//! the application's quota, and gives back what it did not need.
#![allow(unsafe_code, reason = "the region, and the blocks in it")]

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::slice;

use crate::engine::lock::Lock;

/// Bytes of the numbers that a block consists of.
const UNIT: usize = size_of::<u64>();

/// The region, once taken, and who has what of it.
struct Region {
    start: Option<NonNull<u64>>,
    /// Taken from the system's allocator, which gets it back.
    allocated: bool,
    /// Blocks that are taken, by their beginning: first unit and number of units.
    blocks: Vec<(usize, usize)>,
}

// SAFETY: `start` is memory that this struct alone owns.
unsafe impl Send for Region {}

impl Region {
    /// The largest gap between blocks: its first unit and its length.
    fn largest_gap(&self, units: usize) -> (usize, usize) {
        let mut largest = (0, 0);
        let mut free_from = 0;
        for (first, length) in self.blocks.iter().copied().chain([(units, 0)]) {
            let gap = first - free_from;
            if gap > largest.1 {
                largest = (free_from, gap);
            }
            free_from = first + length;
        }
        largest
    }
}

struct Shared {
    units: usize,
    region: Lock<Region>,
}

impl Shared {
    fn layout(&self) -> Option<Layout> {
        Layout::array::<u64>(self.units).ok().filter(|layout| layout.size() > 0)
    }

    fn used_units(&self) -> usize {
        self.region.with(|region| region.blocks.iter().map(|(_, length)| length).sum())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let start = self.region.with(|region| region.start.take().filter(|_| region.allocated));
        if let (Some(start), Some(layout)) = (start, self.layout()) {
            // SAFETY: taken in `take_largest` with this layout; every block holds this struct alive.
            unsafe { dealloc(start.as_ptr().cast(), layout) };
        }
    }
}

/// Memory for the applications of one sandbox.
pub struct Arena(Arc<Shared>);

impl Arena {
    /// An arena of this size. The memory is taken when the first block is.
    pub fn new(bytes: usize) -> Arena {
        let region = Region { start: None, allocated: false, blocks: Vec::new() };
        Arena(Arc::new(Shared { units: bytes / UNIT, region: Lock::new(region) }))
    }

    /// An arena in memory of its own, which the system's allocator knows nothing of.
    pub fn within(memory: &'static mut [u8]) -> Arena {
        let skipped = memory.as_ptr().align_offset(align_of::<u64>()).min(memory.len());
        let (_, memory) = memory.split_at_mut(skipped);
        let units = memory.len() / UNIT;
        let region =
            Region { start: Some(NonNull::from(memory).cast()), allocated: false, blocks: Vec::new() };
        Arena(Arc::new(Shared { units, region: Lock::new(region) }))
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.0.used_units() * UNIT
    }

    /// Whether there is more than one gap between blocks, of which none could be had as a whole.
    pub(super) fn is_fragmented(&self) -> bool {
        let used: usize = self.0.used_units();
        self.0.region.with(|region| region.largest_gap(self.0.units).1) < self.0.units - used
    }

    /// Bytes that nobody has, perhaps in pieces.
    pub(super) fn free_bytes(&self) -> usize {
        (self.0.units - self.0.used_units()) * UNIT
    }

    /// The largest block that there is, up to this size.
    pub(super) fn take_largest(&self, bytes: usize) -> Option<Block> {
        let shared = &self.0;
        let (first, units) = shared.region.with(|region| {
            if region.start.is_none() {
                let layout = shared.layout()?;
                // SAFETY: the layout is not of size zero.
                region.start = Some(NonNull::new(unsafe { alloc_zeroed(layout) })?.cast());
                region.allocated = true;
            }
            let (first, gap) = region.largest_gap(shared.units);
            let units = gap.min(bytes / UNIT);
            if units == 0 {
                return None;
            }
            let at = region.blocks.partition_point(|(other, _)| *other < first);
            region.blocks.insert(at, (first, units));
            Some((first, units))
        })?;
        Some(Block { shared: shared.clone(), first, units })
    }
}

/// One application's part of an arena.
pub(super) struct Block {
    shared: Arc<Shared>,
    first: usize,
    units: usize,
}

impl Block {
    pub(super) fn bytes(&self) -> usize {
        self.units * UNIT
    }

    /// Its memory.
    ///
    /// # Safety
    /// What is made of it is gone before the block is, nobody else asks for it in the meantime, and behind a smaller size
    /// that the block was given nothing is used any more.
    pub(super) unsafe fn memory(&mut self) -> &'static mut [u64] {
        let start = self.shared.region.with(|region| region.start);
        match start {
            // SAFETY: the units are within the region and this block's alone; the rest is the caller's.
            Some(start) => unsafe { slice::from_raw_parts_mut(start.as_ptr().add(self.first), self.units) },
            None => &mut [],
        }
    }

    /// Where it begins in the arena.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Moves the block's bounds down, to where the one before it ends; answers where its memory is to be from now on, or
    /// `None` if it is there already. Blocks are moved in the order in which they lie.
    pub(super) fn move_down(&mut self) -> Option<NonNull<u64>> {
        let first = self.first;
        let (to, start) = self.shared.region.with(|region| {
            let at = region.blocks.iter().position(|(other, _)| *other == first)?;
            let to = match at.checked_sub(1).and_then(|before| region.blocks.get(before)) {
                Some((before, length)) => before + length,
                None => 0,
            };
            region.blocks.get_mut(at)?.0 = to;
            Some((to, region.start?))
        })?;
        self.first = to;
        // SAFETY: within the region.
        (to != first).then(|| unsafe { start.add(to) })
    }

    /// Keeps so many bytes and gives the rest back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT).min(self.units);
        self.units = units;
        let first = self.first;
        self.shared.region.with(|region| {
            if let Some(block) = region.blocks.iter_mut().find(|(other, _)| *other == first) {
                block.1 = units;
            }
        });
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let first = self.first;
        self.shared.region.with(|region| region.blocks.retain(|(other, _)| *other != first));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn memory_of_the_boards_own_is_used_within_its_bounds() {
        let memory = vec![0xa5; 8_192].leak();
        let bounds = memory.as_ptr_range();
        // From an odd address on, as a linker may place it.
        let arena = Arena::within(&mut memory[1..]);
        let mut block = arena.take_largest(usize::MAX).unwrap();
        // SAFETY: used while the block is there.
        let taken = unsafe { block.memory() }.as_ptr_range();
        assert!(bounds.contains(&taken.start.cast()) && taken.end.cast() <= bounds.end);
        assert_eq!(arena.used_bytes(), 8_184);
        assert!(arena.take_largest(usize::MAX).is_none());
    }

    #[test]
    fn what_is_given_back_is_taken_again_and_the_largest_gap_first() {
        let arena = Arena::new(8_000);
        let mut blocks: Vec<Block> = (0..4).map(|_| arena.take_largest(2_000).unwrap()).collect();
        assert!(arena.take_largest(8).is_none());
        blocks[1].shrink(800);
        drop(blocks.remove(2));
        assert_eq!((arena.used_bytes(), arena.free_bytes()), (4_800, 3_200));
        let again = arena.take_largest(usize::MAX).unwrap();
        assert_eq!(again.bytes(), 3_200, "what two neighbours gave back is one gap");
    }

    #[test]
    fn an_arena_without_memory_refuses_every_block() {
        assert!(Arena::new(0).take_largest(8).is_none());
        assert!(Arena::within(&mut []).take_largest(8).is_none());
    }
}
