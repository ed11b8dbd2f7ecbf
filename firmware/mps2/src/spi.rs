//! The SPI buses: Arm's PL022 (Arm DDI 0194H), and the chip selects of the shields, which are bits of an FPGA register (`MISC` in Arm DAI
//! 0385D, section 4.5): the controller's own would let go of the chip between two words.

use embedded_hal_nb::{
    nb,
    spi::{ErrorKind, ErrorType, FullDuplex},
};
use wasmbed_board::spi::{Device, Lines, Words};
use wasmbed_firmware_support::register::Block;

use crate::Image;

const CONTROL_0: usize = 0x00;
const CONTROL_1: usize = 0x04;
const DATA: usize = 0x08;
const STATUS: usize = 0x0c;
const PRESCALE: usize = 0x10;
/// Words of eight bits in Motorola's format.
const CONTROL_0_WORDS: u32 = 7;
const CONTROL_0_MODE_SHIFT: u32 = 6;
const CONTROL_0_RATE_SHIFT: u32 = 8;
const CONTROL_1_ENABLE: u32 = 1 << 1;
const STATUS_SENDS: u32 = 1 << 1;
const STATUS_RECEIVED: u32 = 1 << 2;
/// Words that wait in either direction.
const WORDS_MAX: usize = 8;
/// The prescaler is even, and what divides further at most this.
const RATE_MAX: u32 = 256;
const PRESCALE_MAX: u32 = 254;

/// Of the FPGA register: a chip is selected while its bit is 0.
const MISC: usize = 0x4c;
const SHIELD_0: u32 = 1 << 8;
const SHIELD_1: u32 = 1 << 9;

/// One of them.
pub(crate) type Chips = Words<Pl022>;

/// All buses, no chip selected.
pub(crate) fn buses<I: Image>() -> [Chips; 2] {
    let [first, second] = I::SPI;
    [(0, first, SHIELD_0), (1, second, SHIELD_1)].map(|(number, address, select)| {
        // SAFETY: the image vouches for the address.
        let registers = unsafe { Block::new(address) };
        // SAFETY: and for this one; only the bit of this chip select changes.
        let fpga = unsafe { Block::new(I::FPGA_IO) };
        let fastest_hz =
            I::BOARD.spi.iter().find(|chip| chip.bus == number).map_or(1_000_000, |chip| chip.clock_hz);
        Words::new(Pl022 { registers, fpga, select, clock_hz: I::CLOCK_HZ, fastest_hz })
    })
}

/// The controller of a bus.
pub(crate) struct Pl022 {
    registers: Block,
    fpga: Block,
    select: u32,
    clock_hz: u32,
    fastest_hz: u32,
}

impl Lines for Pl022 {
    fn select(&mut self, device: Device) -> bool {
        let wanted_hz = device.clock_khz.saturating_mul(1_000).clamp(1, self.fastest_hz);
        let divider = self.clock_hz.div_ceil(wanted_hz);
        let prescale = divider.div_ceil(2 * RATE_MAX).max(1) * 2;
        if device.chip_select != 0 || prescale > PRESCALE_MAX {
            return false;
        }
        let rate = divider.div_ceil(prescale) - 1;
        // The mode has the polarity above the phase, the register the phase above the polarity.
        let mode = u32::from(device.mode & 1) << 1 | u32::from(device.mode >> 1 & 1);
        self.registers.write(CONTROL_1, 0);
        self.registers.write(PRESCALE, prescale);
        self.registers
            .write(CONTROL_0, rate << CONTROL_0_RATE_SHIFT | mode << CONTROL_0_MODE_SHIFT | CONTROL_0_WORDS);
        self.registers.write(CONTROL_1, CONTROL_1_ENABLE);
        for _ in 0..WORDS_MAX {
            if self.registers.read(STATUS) & STATUS_RECEIVED == 0 {
                break;
            }
            self.registers.read(DATA);
        }
        self.fpga.write(MISC, self.fpga.read(MISC) & !self.select);
        true
    }

    fn release(&mut self) {
        self.fpga.write(MISC, self.fpga.read(MISC) | self.select);
    }
}

impl ErrorType for Pl022 {
    type Error = ErrorKind;
}

impl FullDuplex<u8> for Pl022 {
    fn read(&mut self) -> nb::Result<u8, ErrorKind> {
        if self.registers.read(STATUS) & STATUS_RECEIVED == 0 {
            return Err(nb::Error::WouldBlock);
        }
        Ok(self.registers.read(DATA) as u8)
    }

    fn write(&mut self, word: u8) -> nb::Result<(), ErrorKind> {
        if self.registers.read(STATUS) & STATUS_SENDS == 0 {
            return Err(nb::Error::WouldBlock);
        }
        self.registers.write(DATA, word.into());
        Ok(())
    }
}
