//! How a board's data flash is divided.

use core::ops::Range;

/// Sizes of the regions; the same numbers for who provisions a board and for its firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of an erase block.
    pub erase_bytes: u32,
    /// Blocks of the identity.
    pub identity_blocks: u32,
    /// Blocks of one segment of the records' log. All records together fit one segment.
    pub segment_blocks: u32,
    /// Segments, two at least; more spread the wear of records.
    pub segments: u32,
    /// Blocks for modules.
    pub module_blocks: u32,
    /// The largest module, bytes.
    pub module_bytes_max: u32,
    /// Bytes of the whole data flash, used or not: the size of an emulator's file.
    pub flash_bytes: u32,
}

impl Geometry {
    /// Bytes of the identity region, which begins at 0.
    #[must_use]
    pub const fn identity_bytes(&self) -> u32 {
        self.identity_blocks * self.erase_bytes
    }

    /// Bytes of one segment of the log.
    #[must_use]
    pub const fn segment_bytes(&self) -> u32 {
        self.segment_blocks * self.erase_bytes
    }

    /// Bytes for records and modules: what a device reports as its flash.
    #[must_use]
    pub const fn storage_bytes(&self) -> u32 {
        (self.segment_blocks * self.segments + self.module_blocks) * self.erase_bytes
    }

    /// The first block of the modules.
    #[must_use]
    pub const fn modules_block(&self) -> u32 {
        self.identity_blocks + self.segment_blocks * self.segments
    }

    /// Where a segment's bytes are.
    #[must_use]
    pub const fn segment(&self, segment: u32) -> Range<u32> {
        let start = (self.identity_blocks + segment * self.segment_blocks) * self.erase_bytes;
        start..start + self.segment_bytes()
    }
}
