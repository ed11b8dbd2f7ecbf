//! The I2C buses: Arm's SBCon, which lets software drive and read two open-drain lines (the serial bus interface of Arm DUI 0224).

use core::{convert::Infallible, marker::PhantomData};

use embedded_hal::{
    delay::DelayNs,
    digital::{ErrorType, InputPin, OutputPin},
};
use wasmbed_board::i2c::BitBanged;
use wasmbed_firmware_support::register::Block;

use crate::{Image, clock};

/// Read: the lines' levels.
const LEVELS: usize = 0x00;
/// Written ones let go of a line.
const SET: usize = 0x00;
/// Written ones pull it.
const CLEAR: usize = 0x04;
const SCL: u32 = 1 << 0;
const SDA: u32 = 1 << 1;

/// One of them.
pub(crate) type Bus<I> = BitBanged<Line, Line, Spin<I>>;

/// All buses, both lines of each let go of.
pub(crate) fn buses<I: Image>() -> [Bus<I>; 2] {
    let mut index = 0;
    I::I2C.map(|address| {
        // SAFETY: the image vouches for the address.
        let registers = unsafe { Block::new(address) };
        let clock_hz = I::BOARD.i2c.get(index).map_or(100_000, |bus| bus.clock_hz);
        index += 1;
        BitBanged::new(Line(registers, SCL), Line(registers, SDA), Spin(PhantomData), clock_hz)
    })
}

/// A line of a bus.
pub(crate) struct Line(Block, u32);

impl ErrorType for Line {
    type Error = Infallible;
}

impl InputPin for Line {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.read(LEVELS) & self.1 != 0)
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.read(LEVELS) & self.1 == 0)
    }
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.write(CLEAR, self.1);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.write(SET, self.1);
        Ok(())
    }
}

/// Waits for parts of a clock of the bus, watching the timer.
pub(crate) struct Spin<I>(PhantomData<I>);

impl<I: Image> DelayNs for Spin<I> {
    fn delay_ns(&mut self, ns: u32) {
        let ticks = u64::from(ns) * u64::from(I::CLOCK_HZ / 1_000) / 1_000_000 + 1;
        let end = clock::ticks::<I>() + ticks;
        while clock::ticks::<I>() < end {}
    }
}
