//! The board's lights and its button (UM2407, sections 6.5 and 6.6).
//!
//! | pin | what it is | use |
//! |---|---|---|
//! | 0, 1, 2 | LD1 green, LD2 yellow, LD3 red | written and read: 1 is lit |
//! | 3 | B1, the blue button | read: 1 is pressed |

use stm32h7xx_hal::gpio::{Input, Output, PB0, PB14, PC13, PE1, PinState, PushPull};
use wasmbed_board::{PeripheralError, Peripherals};

/// The pins.
pub struct Pins {
    pub green: PB0<Output<PushPull>>,
    pub yellow: PE1<Output<PushPull>>,
    pub red: PB14<Output<PushPull>>,
    pub button: PC13<Input>,
}

impl Peripherals for Pins {
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        match pin {
            0 => Ok(self.green.is_set_high()),
            1 => Ok(self.yellow.is_set_high()),
            2 => Ok(self.red.is_set_high()),
            3 => Ok(self.button.is_high()),
            _ => Err(PeripheralError::NotFound),
        }
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        let state = PinState::from(level);
        match pin {
            0 => self.green.set_state(state),
            1 => self.yellow.set_state(state),
            2 => self.red.set_state(state),
            _ => return Err(PeripheralError::NotFound),
        }
        Ok(())
    }
}
