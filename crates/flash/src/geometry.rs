//! Whether a geometry fits a medium.

use core::fmt;

use wasmbed_board_data::Geometry;

use crate::Medium;

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

/// That the geometry's blocks are the medium's, and that its regions fit.
pub(crate) fn check<M: Medium>(geometry: &Geometry, medium: &M) -> Result<(), GeometryError> {
    let unit = M::WRITE_BYTES;
    if !unit.is_power_of_two()
        || unit > crate::medium::WRITE_BYTES_MAX
        || M::ERASE_BYTES != geometry.erase_bytes as usize
        || M::ERASE_BYTES % crate::medium::WRITE_BYTES_MAX != 0
    {
        return Err(GeometryError::Blocks);
    }
    let blocks = u64::from(geometry.modules_block()) + u64::from(geometry.module_blocks);
    let fits = blocks * u64::from(geometry.erase_bytes) <= medium.mapped().len() as u64;
    if fits && geometry.segments >= 2 && geometry.segment_blocks >= 1 && geometry.module_blocks >= 1 {
        Ok(())
    } else {
        Err(GeometryError::Size)
    }
}
