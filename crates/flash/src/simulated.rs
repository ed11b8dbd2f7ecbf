//! Flash in memory that keeps NOR's rules and loses power at any write, with the write torn.

use alloc::{collections::BTreeMap, vec, vec::Vec};
use core::ops::Range;

use crate::{Medium, MediumError};

const NO_POWER: &str = "no power";

/// What a test puts into units that an interrupted operation left half done.
#[derive(Clone, Copy, Debug)]
pub enum Torn {
    /// What the operation wanted, as if it had ended.
    Wanted,
    /// As if it had not begun, on erased flash.
    Blank,
    /// Anything.
    Random,
}

/// Flash of `BLOCKS × ERASE` bytes, given at run time, with write units of `WRITE` bytes.
#[derive(Clone, Debug)]
pub struct Simulated<const ERASE: usize, const WRITE: usize> {
    bytes: Vec<u8>,
    /// Writes and erases that still succeed before power is lost in the next one.
    pub cut_after: Option<u32>,
    /// Writes and erases fail from now on, and leave anything, while power stays: the host's disk is full, or the chip is worn out.
    pub failing: bool,
    /// Decides how far a torn write got.
    pub seed: u64,
    /// Writes and erases so far.
    pub operations: u32,
    /// Erases of each block.
    pub erases: Vec<u32>,
    without_power: bool,
    /// Units of which an interrupted write or erase left neither the old nor the new, and what the new was.
    torn: BTreeMap<usize, Vec<u8>>,
    /// Breaches of the rules: units written twice, addresses not aligned.
    pub violations: u32,
}

impl<const ERASE: usize, const WRITE: usize> Simulated<ERASE, WRITE> {
    /// Blank flash.
    #[must_use]
    pub fn new(blocks: u32) -> Self {
        Self::with(vec![0xFF; blocks as usize * ERASE])
    }

    /// Flash with something in it, whole blocks.
    #[must_use]
    pub fn with(bytes: Vec<u8>) -> Self {
        let erases = vec![0; bytes.len() / ERASE];
        Self {
            bytes,
            cut_after: None,
            failing: false,
            seed: 1,
            operations: 0,
            erases,
            without_power: false,
            torn: BTreeMap::new(),
            violations: 0,
        }
    }

    /// Power comes back.
    pub fn power_on(&mut self) {
        self.without_power = false;
        self.cut_after = None;
    }

    /// Whether power was lost.
    #[must_use]
    pub fn has_lost_power(&self) -> bool {
        self.without_power
    }

    /// For damage done by a test.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Puts other bytes where an interrupted operation left some: whoever reads them sees something else now.
    pub fn replace_torn(&mut self, with: Torn) {
        for (unit, wanted) in self.torn.clone() {
            for (index, wanted) in wanted.into_iter().enumerate() {
                self.bytes[unit * WRITE + index] = match with {
                    Torn::Wanted => wanted,
                    Torn::Blank => 0xFF,
                    Torn::Random => self.next_random() as u8,
                };
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What this operation is interrupted by, if it is.
    fn interruption(&mut self) -> Result<Option<&'static str>, MediumError> {
        if self.without_power {
            return Err(MediumError::Failed(NO_POWER));
        }
        self.operations += 1;
        match &mut self.cut_after {
            Some(0) => {
                self.without_power = true;
                return Ok(Some(NO_POWER));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.failing.then_some("no space left on device"))
    }

    /// Tears: the first part is done, the second not, and between them some bits are; or bits are done anywhere.
    fn tear(&mut self, start: usize, target: &[u8]) {
        let manner = self.next_random() % 4;
        let done = self.next_random() as usize % (target.len() + 1);
        let before = self.bytes[start..start + target.len()].to_vec();
        for (index, wanted) in target.iter().enumerate() {
            let random = self.next_random() as u8;
            let mask = match manner {
                0 => 0,
                1 => random,
                _ if index < done => 0xFF,
                _ if index < done + WRITE => random,
                _ => 0,
            };
            let old = self.bytes[start + index];
            self.bytes[start + index] = (old & !mask) | (wanted & mask);
        }
        for (unit, target) in target.chunks(WRITE).enumerate() {
            let at = start + unit * WRITE;
            let now = &self.bytes[at..at + WRITE];
            if now != target && now != &before[unit * WRITE..(unit + 1) * WRITE] {
                self.torn.insert(at / WRITE, target.to_vec());
            }
        }
    }
}

impl<const ERASE: usize, const WRITE: usize> Medium for Simulated<ERASE, WRITE> {
    const ERASE_BYTES: usize = ERASE;
    const WRITE_BYTES: usize = WRITE;

    fn mapped(&self) -> &[u8] {
        &self.bytes
    }

    fn is_readable(&self, range: Range<u32>) -> bool {
        let units = range.start as usize / WRITE..(range.end as usize).div_ceil(WRITE);
        units.is_empty() || self.torn.range(units).next().is_none()
    }

    fn erase(&mut self, block: u32) -> Result<(), MediumError> {
        let start = block as usize * ERASE;
        if start + ERASE > self.bytes.len() {
            self.violations += 1;
            return Err(MediumError::Bounds);
        }
        self.erases[block as usize] += 1;
        if let Some(why) = self.interruption()? {
            self.tear(start, &vec![0xFF; ERASE]);
            return Err(MediumError::Failed(why));
        }
        self.bytes[start..start + ERASE].fill(0xFF);
        self.torn.retain(|unit, _| !(start / WRITE..(start + ERASE) / WRITE).contains(unit));
        Ok(())
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MediumError> {
        let start = offset as usize;
        let aligned = start.is_multiple_of(WRITE) && bytes.len().is_multiple_of(WRITE);
        if !aligned || bytes.is_empty() || start + bytes.len() > self.bytes.len() {
            self.violations += 1;
            return Err(MediumError::Bounds);
        }
        if self.bytes[start..start + bytes.len()].iter().any(|byte| *byte != 0xFF) {
            self.violations += 1;
            return Err(MediumError::NotErased);
        }
        if let Some(why) = self.interruption()? {
            self.tear(start, bytes);
            return Err(MediumError::Failed(why));
        }
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}
