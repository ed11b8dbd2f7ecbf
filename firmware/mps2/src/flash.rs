//! The data flash: the board's 16 MB of PSRAM, which the emulator keeps in a file, under the rules of NOR flash.

use core::{cell::UnsafeCell, marker::PhantomData, slice};

use wasmbed_board::flash::{Medium, MediumError};

use crate::Image;

/// The data flash. There is one.
pub struct DataFlash<I> {
    cells: &'static [UnsafeCell<u8>],
    image: PhantomData<I>,
}

impl<I: Image> DataFlash<I> {
    /// The flash.
    ///
    /// # Safety
    /// It may be called once.
    pub unsafe fn new() -> Self {
        let start = I::BOARD.data_flash_start as *const UnsafeCell<u8>;
        // SAFETY: the image vouches for the memory, and the caller says that this is the only reference to it.
        let cells = unsafe { slice::from_raw_parts(start, I::BOARD.geometry.flash_bytes as usize) };
        Self { cells, image: PhantomData }
    }

    fn bytes_mut(&mut self, start: usize, count: usize) -> Result<&mut [u8], MediumError> {
        let end = start.checked_add(count).ok_or(MediumError::Bounds)?;
        let cells = self.cells.get(start..end).ok_or(MediumError::Bounds)?;
        // SAFETY: the cells are this value's alone, which is borrowed exclusively for as long as the slice lives.
        Ok(unsafe { slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), count) })
    }
}

impl<I: Image> Medium for DataFlash<I> {
    const ERASE_BYTES: usize = I::BOARD.geometry.erase_bytes as usize;
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
