//! The data flash: the board's 16 MB of PSRAM, which the emulator keeps in a file, under the rules of NOR flash.

use core::{cell::UnsafeCell, slice};

use wasmbed_board::{
    data::MPS2_AN385,
    flash::{Medium, MediumError},
};

const START: usize = MPS2_AN385.data_flash_start as usize;
const BYTES: usize = MPS2_AN385.geometry.flash_bytes as usize;

/// The data flash. There is one.
pub struct DataFlash {
    cells: &'static [UnsafeCell<u8>],
}

impl DataFlash {
    /// The flash.
    ///
    /// # Safety
    /// It may be called once.
    pub unsafe fn new() -> Self {
        // SAFETY: AN385 has that much memory there, no section of the program lies in it, and the caller says that this is
        // the only reference to it.
        let cells = unsafe { slice::from_raw_parts(START as *const UnsafeCell<u8>, BYTES) };
        Self { cells }
    }

    fn bytes_mut(&mut self, start: usize, count: usize) -> Result<&mut [u8], MediumError> {
        let end = start.checked_add(count).ok_or(MediumError::Bounds)?;
        let cells = self.cells.get(start..end).ok_or(MediumError::Bounds)?;
        // SAFETY: the cells are this value's alone, which is borrowed exclusively for as long as the slice lives.
        Ok(unsafe { slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), count) })
    }
}

impl Medium for DataFlash {
    const ERASE_BYTES: usize = MPS2_AN385.geometry.erase_bytes as usize;
    const WRITE_BYTES: usize = 4;

    fn mapped(&self) -> &[u8] {
        // SAFETY: what changes the bytes takes `&mut self`, so that none of it runs while this borrow lives.
        unsafe { slice::from_raw_parts(self.cells.as_ptr().cast(), self.cells.len()) }
    }

    fn erase(&mut self, block: u32) -> Result<(), MediumError> {
        let start = (block as usize).checked_mul(Self::ERASE_BYTES).ok_or(MediumError::Bounds)?;
        self.bytes_mut(start, Self::ERASE_BYTES)?.fill(0xff);
        Ok(())
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MediumError> {
        let start = offset as usize;
        if !start.is_multiple_of(Self::WRITE_BYTES) || !bytes.len().is_multiple_of(Self::WRITE_BYTES) {
            return Err(MediumError::Bounds);
        }
        let space = self.bytes_mut(start, bytes.len())?;
        if space.iter().any(|old| *old != 0xff) {
            return Err(MediumError::NotErased);
        }
        space.copy_from_slice(bytes);
        Ok(())
    }
}
