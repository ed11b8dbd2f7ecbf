//! The data flash: the machine's second bank of CFI flash, two chips of 16 bits side by side, Intel's command set (JEDEC
//! JEP137B, set 1). Code executes from the first bank, so this one may be busy.

use core::slice;

use wasmbed_board::{
    data::RISCV32_VIRT,
    flash::{Medium, MediumError},
};

const START: usize = RISCV32_VIRT.data_flash_start as usize;
const BYTES: usize = RISCV32_VIRT.geometry.flash_bytes as usize;

/// The same command to both chips.
const fn both(command: u32) -> u32 {
    command << 16 | command
}

const READ: u32 = both(0xff);
const PROGRAM: u32 = both(0x40);
const ERASE: u32 = both(0x20);
const CONFIRM: u32 = both(0xd0);
const CLEAR_STATUS: u32 = both(0x50);
const READY: u32 = both(0x80);
/// Erase failed, program failed, voltage too low, block locked.
const FAULTS: u32 = both(0x3a);
/// Looks at the status before a chip counts as stuck: far beyond an erase.
const ATTEMPTS_MAX: u32 = 50_000_000;

/// The data flash. There is one, and between calls it reads as memory.
pub struct DataFlash(());

impl DataFlash {
    /// The flash.
    ///
    /// # Safety
    /// It may be called once.
    pub unsafe fn new() -> Self {
        let mut flash = Self(());
        // A reset in the middle of a command leaves the chips in it.
        flash.command(0, CLEAR_STATUS);
        flash.command(0, READ);
        flash
    }

    fn command(&mut self, offset: usize, value: u32) {
        // SAFETY: callers stay within the bank, aligned; nothing borrows `mapped` while `self` is borrowed exclusively.
        unsafe { ((START + offset) as *mut u32).write_volatile(value) }
    }

    fn finish(&mut self, offset: usize) -> Result<(), MediumError> {
        for _ in 0..ATTEMPTS_MAX {
            // SAFETY: within the bank, aligned; chips in command mode answer their status.
            let status = unsafe { ((START + offset) as *const u32).read_volatile() };
            if status & READY == READY {
                return if status & FAULTS == 0 { Ok(()) } else { Err(MediumError::Failed("status")) };
            }
        }
        Err(MediumError::Failed("it never became ready"))
    }

    /// Back to memory, whatever came before.
    fn read_again(&mut self, offset: usize, result: Result<(), MediumError>) -> Result<(), MediumError> {
        if result.is_err() {
            self.command(offset, CLEAR_STATUS);
        }
        self.command(offset, READ);
        result
    }
}

impl Medium for DataFlash {
    const ERASE_BYTES: usize = RISCV32_VIRT.geometry.erase_bytes as usize;
    const WRITE_BYTES: usize = 4;

    fn mapped(&self) -> &[u8] {
        // SAFETY: the bank is there and reads as memory between calls; what changes it takes `&mut self`.
        unsafe { slice::from_raw_parts(START as *const u8, BYTES) }
    }

    fn erase(&mut self, block: u32) -> Result<(), MediumError> {
        let start = (block as usize).checked_mul(Self::ERASE_BYTES).filter(|start| *start < BYTES);
        let start = start.ok_or(MediumError::Bounds)?;
        crate::clock::arm(crate::clock::WATCHDOG_MS);
        self.command(start, ERASE);
        self.command(start, CONFIRM);
        let erased = self.finish(start);
        self.read_again(start, erased)
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MediumError> {
        let start = offset as usize;
        let (words, rest) = bytes.as_chunks::<4>();
        if !start.is_multiple_of(Self::WRITE_BYTES) || !rest.is_empty() {
            return Err(MediumError::Bounds);
        }
        let space = start.checked_add(bytes.len()).and_then(|end| self.mapped().get(start..end));
        if space.ok_or(MediumError::Bounds)?.iter().any(|old| *old != 0xff) {
            return Err(MediumError::NotErased);
        }
        let mut result = Ok(());
        for (index, word) in words.iter().enumerate() {
            let at = start + index * Self::WRITE_BYTES;
            self.command(at, PROGRAM);
            self.command(at, u32::from_le_bytes(*word));
            result = self.finish(at);
            if result.is_err() {
                break;
            }
        }
        self.read_again(start, result)?;
        let written = self.mapped().get(start..start + bytes.len());
        if written == Some(bytes) { Ok(()) } else { Err(MediumError::Failed("it reads otherwise")) }
    }
}
