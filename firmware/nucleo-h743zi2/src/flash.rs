//! The data flash: the second bank. The processor executes from the first one, so an erase doesn't stop it.
//!
//! Its error correction covers words of 32 bytes. Reading one of which the write was interrupted is a bus fault, so what
//! can't be read is found out at the start, with faults switched off, and remembered.

use alloc::{boxed::Box, vec};
use core::{arch::asm, ops::Range};

use cortex_m::peripheral::SCB;
use stm32h7xx_hal::{flash::LockedFlashBank, pac::FLASH};
use wasmbed_board::{
    data::NUCLEO_H743ZI2,
    flash::{Medium, MediumError},
};

/// Bytes of a word that the error correction covers, and of a sector.
const WORD_BYTES: usize = 32;
const SECTOR_BYTES: usize = NUCLEO_H743ZI2.geometry.erase_bytes as usize;
/// Armv7-M, B3.2.8: data accesses that fault in handlers of the highest priorities read something.
const CCR_IGNORE_BUS_FAULTS: u32 = 1 << 8;

/// The data flash.
pub struct DataFlash {
    bank: LockedFlashBank,
    /// A bit for each word that can't be read.
    unreadable: Box<[u32]>,
}

impl DataFlash {
    /// The flash, after a look at each of its words.
    pub fn new(bank: LockedFlashBank, scb: &mut SCB) -> Self {
        let words = bank.len() / WORD_BYTES;
        let mut flash = Self { bank, unreadable: vec![0; words.div_ceil(32)].into_boxed_slice() };
        for word in 0..words {
            if !is_word_readable(flash.bank.address() + word * WORD_BYTES, scb) {
                flash.mark(word..word + 1, true);
            }
        }
        flash
    }

    fn mark(&mut self, words: Range<usize>, unreadable: bool) {
        for word in words {
            if let Some(bits) = self.unreadable.get_mut(word / 32) {
                let bit = 1 << (word % 32);
                *bits = if unreadable { *bits | bit } else { *bits & !bit };
            }
        }
    }
}

/// Reads a word with bus faults switched off, and asks the flash controller what it thought of it.
fn is_word_readable(address: usize, scb: &mut SCB) -> bool {
    // SAFETY: the processor has the controller there; the bits that are written only forget an error.
    let controller = unsafe { &*FLASH::ptr() };
    let bank = controller.bank2();
    // SAFETY: it changes what faults do, for as long as this function runs.
    unsafe { scb.ccr.modify(|bits| bits | CCR_IGNORE_BUS_FAULTS) };
    // SAFETY: nothing waits for an interrupt meanwhile.
    unsafe { asm!("cpsid f", "dsb", "isb") };
    // SAFETY: the address is within the bank, and what a fault would do is switched off.
    unsafe { (address as *const u32).read_volatile() };
    cortex_m::asm::dsb();
    let failed = bank.sr.read().dbeccerr().bit_is_set();
    bank.ccr.write(|bits| bits.clr_dbeccerr().set_bit());
    // SAFETY: as it was.
    unsafe { asm!("cpsie f", "dsb", "isb") };
    // SAFETY: as it was.
    unsafe { scb.ccr.modify(|bits| bits & !CCR_IGNORE_BUS_FAULTS) };
    !failed
}

impl Medium for DataFlash {
    const ERASE_BYTES: usize = SECTOR_BYTES;
    const WRITE_BYTES: usize = WORD_BYTES;

    fn mapped(&self) -> &[u8] {
        self.bank.read_all()
    }

    fn is_readable(&self, range: Range<u32>) -> bool {
        let words = range.start as usize / WORD_BYTES..(range.end as usize).div_ceil(WORD_BYTES);
        let mut words = words;
        words.all(|word| self.unreadable.get(word / 32).is_some_and(|bits| bits & 1 << (word % 32) == 0))
    }

    fn erase(&mut self, block: u32) -> Result<(), MediumError> {
        let sector = u8::try_from(block).map_err(|_| MediumError::Bounds)?;
        let first = block as usize * (SECTOR_BYTES / WORD_BYTES);
        let words = first..first + SECTOR_BYTES / WORD_BYTES;
        self.mark(words.clone(), true);
        let erased = self.bank.unlocked().erase_sector(sector);
        erased.map_err(|_| MediumError::Failed("the sector was not erased"))?;
        self.mark(words, false);
        Ok(())
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MediumError> {
        let start = offset as usize;
        let end = start.checked_add(bytes.len()).ok_or(MediumError::Bounds)?;
        if !start.is_multiple_of(WORD_BYTES) || !bytes.len().is_multiple_of(WORD_BYTES) {
            return Err(MediumError::Bounds);
        }
        let until = u32::try_from(end).map_err(|_| MediumError::Bounds)?;
        let space = self.mapped().get(start..end).ok_or(MediumError::Bounds)?;
        if !self.is_readable(offset..until) || space.iter().any(|old| *old != 0xff) {
            return Err(MediumError::NotErased);
        }
        let words = start / WORD_BYTES..end / WORD_BYTES;
        self.mark(words.clone(), true);
        let written = self.bank.unlocked().program(start, bytes.iter());
        written.map_err(|_| MediumError::Failed("the controller reports an error"))?;
        self.mark(words, false);
        if self.mapped().get(start..end) != Some(bytes) {
            return Err(MediumError::Failed("what was written reads differently"));
        }
        Ok(())
    }
}
