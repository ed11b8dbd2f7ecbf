//! Runs of blocks that hold modules, and where a new one goes.

use alloc::vec::Vec;
use core::ops::Range;

/// A module's bytes: its first block within the modules' region, and how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

impl Run {
    pub(crate) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.start.to_le_bytes());
        bytes[4..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (start, length) = bytes.split_at_checked(4)?;
        Some(Self {
            start: u32::from_le_bytes(start.try_into().ok()?),
            length: u32::from_le_bytes(length.try_into().ok()?),
        })
    }

    /// The blocks it takes, one at least; `None` if it leaves the region.
    pub(crate) fn blocks(self, erase_bytes: u32, region: u32) -> Option<Range<u32>> {
        let count = self.length.div_ceil(erase_bytes).max(1);
        let end = self.start.checked_add(count)?;
        (end <= region).then_some(self.start..end)
    }
}

/// Finds a place for `needed` blocks, better for `wanted`, next after `cursor`, so that all blocks are used in turn. Where
/// `reserved` ranges grow, nothing is placed as long as there is another place.
pub(crate) fn place(
    region: u32,
    taken: &[Range<u32>],
    reserved: &[Range<u32>],
    cursor: u32,
    needed: u32,
    wanted: u32,
) -> Option<u32> {
    let mut avoided = taken.to_vec();
    avoided.extend_from_slice(reserved);
    let spacious = next_fit(&gaps(region, &avoided), cursor, wanted);
    let tight = || next_fit(&gaps(region, &avoided), cursor, needed);
    // Between runs that may still grow: not directly after one, where it would be in the way at once.
    let crowded = || {
        let largest = gaps(region, taken).into_iter().max_by_key(|gap| gap.len())?;
        let room = largest.end - largest.start;
        (room >= needed).then(|| largest.start + (room - needed) / 2)
    };
    spacious.or_else(tight).or_else(crowded)
}

fn next_fit(gaps: &[Range<u32>], cursor: u32, blocks: u32) -> Option<u32> {
    let fits = |gap: &Range<u32>, from: u32| {
        let start = gap.start.max(from);
        (start < gap.end && gap.end - start >= blocks).then_some(start)
    };
    let after = gaps.iter().find_map(|gap| fits(gap, cursor));
    after.or_else(|| gaps.iter().find_map(|gap| fits(gap, 0)))
}

fn gaps(region: u32, taken: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut taken = taken.to_vec();
    taken.sort_unstable_by_key(|range| range.start);
    let (mut gaps, mut at) = (Vec::new(), 0);
    for range in taken {
        if range.start > at {
            gaps.push(at..range.start.min(region));
        }
        at = at.max(range.end);
    }
    if at < region {
        gaps.push(at..region);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u32, end: u32) -> Range<u32> {
        start..end
    }

    #[test]
    fn places_come_in_turn_and_keep_clear_of_what_grows() {
        assert_eq!(place(10, &[], &[], 0, 1, 3), Some(0));
        assert_eq!(place(10, &[], &[], 4, 1, 3), Some(4));
        assert_eq!(place(10, &[], &[], 9, 1, 3), Some(0), "it wraps where the rest is too short");
        assert_eq!(place(10, &[at(0, 1), at(5, 6)], &[at(0, 4)], 0, 1, 3), Some(6));
        assert_eq!(place(10, &[at(0, 1)], &[at(0, 10)], 0, 1, 3), Some(5), "in the middle of what is left");
        assert_eq!(place(4, &[at(0, 2), at(3, 4)], &[], 0, 2, 3), None);
        assert_eq!(place(2, &[at(0, 2)], &[], 0, 1, 1), None);
    }
}
