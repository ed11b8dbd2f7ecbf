//! What applications reach: the board's lights and buttons, behind FPGA registers (Arm DAI 0385D, section 4.5; the other
//! images have the same registers).
//!
//! | pin | what it is | use |
//! |---|---|---|
//! | 0, 1 | user lights 0 and 1 | written and read: 1 is lit |
//! | 2, 3 | user buttons 0 and 1 | read: 1 is pressed |
//!
//! And the I2C buses, the SPI buses and the UARTs.

use core::marker::PhantomData;

use wasmbed_board::{
    PeripheralError, Peripherals,
    bus::Controller,
    uart::{Port, Serial},
};
use wasmbed_firmware_support::register::Block;

use crate::{
    Image,
    i2c::{self, Bus},
    serial::{self, Uart},
    spi::{self, Chips},
};

const LIGHTS: usize = 0x00;
const BUTTONS: usize = 0x08;

/// The pins, the buses and the UARTs.
pub struct Pins<I> {
    registers: Block,
    buses: [Bus<I>; 2],
    chips: [Chips; 2],
    uarts: [Serial<Uart<I>>; 2],
    image: PhantomData<I>,
}

impl<I: Image> Pins<I> {
    /// The pins, the buses and the UARTs of the image.
    pub fn new() -> Self {
        // SAFETY: the image vouches for the address.
        let registers = unsafe { Block::new(I::FPGA_IO) };
        Self {
            registers,
            buses: i2c::buses(),
            chips: spi::buses::<I>(),
            uarts: serial::uarts(),
            image: PhantomData,
        }
    }
}

impl<I: Image> Peripherals for Pins<I> {
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        match pin {
            0 | 1 => Ok(self.registers.read(LIGHTS) & 1 << pin != 0),
            2 | 3 => Ok(self.registers.read(BUTTONS) & 1 << (pin - 2) != 0),
            _ => Err(PeripheralError::NotFound),
        }
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        if pin > 1 {
            return Err(PeripheralError::NotFound);
        }
        let others = self.registers.read(LIGHTS) & !(1 << pin);
        self.registers.write(LIGHTS, others | u32::from(level) << pin);
        Ok(())
    }

    fn i2c(&mut self, bus: u8) -> Option<&mut dyn Controller> {
        self.buses.get_mut(usize::from(bus)).map(|bus| bus as &mut dyn Controller)
    }

    fn spi(&mut self, bus: u8) -> Option<&mut dyn Controller> {
        self.chips.get_mut(usize::from(bus)).map(|bus| bus as &mut dyn Controller)
    }

    fn uart(&mut self, port: u8) -> Option<&mut dyn Port> {
        self.uarts.get_mut(usize::from(port)).map(|uart| uart as &mut dyn Port)
    }
}
