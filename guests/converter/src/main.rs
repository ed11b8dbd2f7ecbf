//! Reads two inputs of a MAX1110, an analog-to-digital converter, once a second. Needs the capability `spi`, and the chip select
//! `spi1.0`.
#![no_std]
#![no_main]

use core::time::Duration;

use embedded_hal::spi::{Operation, SpiDevice};
use wasmbed_guest::{entry, log, spi::Chip, wait};

entry!(main);

const PAUSE: Duration = Duration::from_secs(1);

fn main() {
    let mut converter = Max1110(Chip::new(1, 0));
    loop {
        match (converter.read(0), converter.read(1)) {
            (Ok(first), Ok(second)) => log!("inputs: {first} {second}"),
            (Err(error), _) | (_, Err(error)) => log!("converter: {error}"),
        }
        wait(PAUSE);
    }
}

/// A driver that knows nothing of Wasmbed (Maxim 19-1194): single-ended, unipolar, with the chip's own clock.
struct Max1110<D>(D);

impl<D: SpiDevice> Max1110<D> {
    const START: u8 = 0x80;
    const UNIPOLAR: u8 = 0x08;
    const SINGLE_ENDED: u8 = 0x04;
    const ON: u8 = 0x02;
    /// A conversion takes 55 us at most.
    const CONVERSION_NS: u32 = 60_000;

    /// An input, 0 to 7, in steps of a 256th of the reference.
    fn read(&mut self, input: u8) -> Result<u8, D::Error> {
        // The lowest bit of the input's number is the highest of the three.
        let select = (input & 1) << 6 | (input & 6) << 3;
        let control = Self::START | select | Self::UNIPOLAR | Self::SINGLE_ENDED | Self::ON;
        let mut answer = [0; 2];
        self.0.transaction(&mut [
            Operation::Write(&[control]),
            Operation::DelayNs(Self::CONVERSION_NS),
            Operation::Read(&mut answer),
        ])?;
        // Two zeros, eight bits, zeros.
        Ok(answer[0] << 2 | answer[1] >> 6)
    }
}
