//! The console: CMSDK APB UART 0 (Arm DDI 0479D, section 4.3), 115,200 baud, sending only.

use wasmbed_firmware_support::register::Block;

use crate::Image;

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CONTROL: usize = 0x08;
const BAUD_DIVIDER: usize = 0x10;
const STATE_FULL: u32 = 1;
const CONTROL_SEND: u32 = 1;
const BAUD: u32 = 115_200;

const fn uart<I: Image>() -> Block {
    // SAFETY: the image vouches for the address.
    unsafe { Block::new(I::UART) }
}

/// Switches it on.
pub fn start<I: Image>() {
    uart::<I>().write(BAUD_DIVIDER, I::CLOCK_HZ / BAUD);
    uart::<I>().write(CONTROL, CONTROL_SEND);
}

/// Sends bytes and waits for each: a byte takes 87 µs, and whoever reads them sees the last words before a reset.
pub fn write<I: Image>(bytes: &[u8]) {
    for byte in bytes {
        while uart::<I>().read(STATE) & STATE_FULL != 0 {}
        uart::<I>().write(DATA, u32::from(*byte));
    }
}
