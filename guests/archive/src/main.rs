//! Keeps a count in a flash chip (W25Q32JV, or one that is like it), and adds to it each time that it starts. Needs the capability
//! `spi`, and the chip select `spi0.0`.
#![no_std]
#![no_main]

use core::{convert::Infallible, time::Duration};

use embedded_hal::digital::{ErrorType, OutputPin};
use w25q32jv::{Error, SECTOR_SIZE, W25q32jv};
use wasmbed_guest::{
    entry, log,
    spi::{self, Chip},
    wait,
};

entry!(main);

const PAUSE: Duration = Duration::from_secs(60);

/// A line of the chip that is wired to high.
struct High;

impl ErrorType for High {
    type Error = Infallible;
}

impl OutputPin for High {
    fn set_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn main() {
    match count() {
        Ok(count) => log!("starts: {count}"),
        Err(Error::SpiError(error)) => log!("flash: {error}"),
        Err(_) => log!("flash: it did not take what was written"),
    }
    loop {
        wait(PAUSE);
    }
}

fn count() -> Result<u32, Error<spi::Error, Infallible>> {
    let mut flash = W25q32jv::new(Chip::new(0, 0), High, High)?;
    let mut bytes = [0; 4];
    flash.read(0, &mut bytes)?;
    // An erased chip has ones everywhere.
    let count = u32::from_le_bytes(bytes).wrapping_add(1).max(1);
    flash.erase_range(0, SECTOR_SIZE)?;
    flash.write_blocking(0, &count.to_le_bytes())?;
    Ok(count)
}
