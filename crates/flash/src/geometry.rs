//! How a board's data flash is divided.

use core::{fmt, ops::Range};

use crate::Medium;

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

/// Why a geometry does not fit a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The medium's erase block or write unit is another one.
    Blocks,
    /// The regions need more bytes than there are, or one is too small.
    Size,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocks => "the flash has other erase blocks or write units than the board's table says",
            Self::Size => "the flash is smaller than the board's table says",
        })
    }
}

impl core::error::Error for GeometryError {}

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
    pub(crate) const fn modules_block(&self) -> u32 {
        self.identity_blocks + self.segment_blocks * self.segments
    }

    /// Where a segment's bytes are.
    pub(crate) const fn segment(&self, segment: u32) -> Range<u32> {
        let start = (self.identity_blocks + segment * self.segment_blocks) * self.erase_bytes;
        start..start + self.segment_bytes()
    }

    pub(crate) fn check<M: Medium>(&self, medium: &M) -> Result<(), GeometryError> {
        let unit = M::WRITE_BYTES;
        if !unit.is_power_of_two()
            || unit > crate::medium::WRITE_BYTES_MAX
            || M::ERASE_BYTES != self.erase_bytes as usize
            || M::ERASE_BYTES % crate::medium::WRITE_BYTES_MAX != 0
        {
            return Err(GeometryError::Blocks);
        }
        let blocks = u64::from(self.modules_block()) + u64::from(self.module_blocks);
        let fits = blocks * u64::from(self.erase_bytes) <= medium.mapped().len() as u64;
        if fits && self.segments >= 2 && self.segment_blocks >= 1 && self.module_blocks >= 1 {
            Ok(())
        } else {
            Err(GeometryError::Size)
        }
    }
}

/// Boards that firmware exists for.
pub mod boards {
    use super::Geometry;

    const KIB: u32 = 1_024;

    /// QEMU `virt`: the second bank of CFI flash.
    pub const RISCV32_VIRT: Geometry = Geometry {
        erase_bytes: 256 * KIB,
        identity_blocks: 1,
        segment_blocks: 1,
        segments: 4,
        module_blocks: 123,
        module_bytes_max: 1_024 * KIB,
        flash_bytes: 32_768 * KIB,
    };

    /// QEMU `mps2-an385`: the lower half of its 16 MiB of PSRAM plays flash of 4 KiB blocks.
    pub const MPS2_AN385: Geometry = Geometry {
        erase_bytes: 4 * KIB,
        identity_blocks: 8,
        segment_blocks: 48,
        segments: 4,
        module_blocks: 1_848,
        module_bytes_max: 1_024 * KIB,
        flash_bytes: 16_384 * KIB,
    };

    /// ST's NUCLEO-H743ZI2: the second bank of the processor's own flash, 1 MiB; execution from the first.
    pub const NUCLEO_H743ZI2: Geometry = Geometry {
        erase_bytes: 128 * KIB,
        identity_blocks: 1,
        segment_blocks: 1,
        segments: 2,
        module_blocks: 5,
        module_bytes_max: 256 * KIB,
        flash_bytes: 1_024 * KIB,
    };

    /// Names and geometries, as `wasmbed device --board` takes them.
    pub const ALL: [(&str, Geometry); 3] =
        [("riscv32-virt", RISCV32_VIRT), ("mps2-an385", MPS2_AN385), ("nucleo-h743zi2", NUCLEO_H743ZI2)];

    /// The geometry of a board.
    #[must_use]
    pub fn find(board: &str) -> Option<Geometry> {
        ALL.into_iter().find(|(name, _)| *name == board).map(|(_, geometry)| geometry)
    }
}
