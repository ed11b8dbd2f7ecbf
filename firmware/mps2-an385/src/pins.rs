//! The board's lights and buttons, behind FPGA registers (Arm DAI 0385D, section 4.5).
//!
//! | pin | what it is | use |
//! |---|---|---|
//! | 0, 1 | user lights 0 and 1 | written and read: 1 is lit |
//! | 2, 3 | user buttons 0 and 1 | read: 1 is pressed |

use wasmbed_board::{PeripheralError, Peripherals};
use wasmbed_firmware_support::register::Block;

// SAFETY: AN385 (Arm DAI 0385D, table 3-4) has these registers at this address.
const FPGA: Block = unsafe { Block::new(0x4002_8000) };
const LIGHTS: usize = 0x00;
const BUTTONS: usize = 0x08;

/// The pins.
pub struct Pins;

impl Peripherals for Pins {
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        match pin {
            0 | 1 => Ok(FPGA.read(LIGHTS) & 1 << pin != 0),
            2 | 3 => Ok(FPGA.read(BUTTONS) & 1 << (pin - 2) != 0),
            _ => Err(PeripheralError::NotFound),
        }
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        if pin > 1 {
            return Err(PeripheralError::NotFound);
        }
        let others = FPGA.read(LIGHTS) & !(1 << pin);
        FPGA.write(LIGHTS, others | u32::from(level) << pin);
        Ok(())
    }
}
