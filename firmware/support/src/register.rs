//! Words of the address space that are registers.

/// A block of 32-bit registers at a fixed address.
#[derive(Clone, Copy)]
pub struct Block {
    base: usize,
}

impl Block {
    /// The block at `base`.
    ///
    /// # Safety
    /// `base` is the start of a peripheral's registers, of which `offset` in the other calls names existing ones.
    pub const unsafe fn new(base: usize) -> Self {
        Self { base }
    }

    /// Reads the register at an offset in bytes.
    pub fn read(self, offset: usize) -> u32 {
        // SAFETY: whoever made the block vouches for the addresses; they are aligned, and no Rust object lies there.
        unsafe { ((self.base + offset) as *const u32).read_volatile() }
    }

    /// Writes the register at an offset in bytes.
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { ((self.base + offset) as *mut u32).write_volatile(value) }
    }
}
