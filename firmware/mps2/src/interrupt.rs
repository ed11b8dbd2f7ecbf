//! The board's interrupts.

use cortex_m::interrupt::InterruptNumber;

/// An interrupt by its number.
#[derive(Clone, Copy)]
pub(crate) struct Interrupt(pub(crate) u16);

// SAFETY: the numbers come from the interrupt controller itself or from an image, so that it has them.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}
