//! The console: CMSDK APB UART 0 (Arm DDI 0479D, section 4.3), 115,200 baud, sending only.

use wasmbed_firmware_support::register::Block;

use crate::clock::CLOCK_HZ;

// SAFETY: AN385 (Arm DAI 0385D, table 3-4) has UART 0 at this address.
const UART: Block = unsafe { Block::new(0x4000_4000) };
const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CONTROL: usize = 0x08;
const BAUD_DIVIDER: usize = 0x10;
const STATE_FULL: u32 = 1;
const CONTROL_SEND: u32 = 1;
const BAUD: u32 = 115_200;

/// Switches it on.
pub fn start() {
    UART.write(BAUD_DIVIDER, CLOCK_HZ / BAUD);
    UART.write(CONTROL, CONTROL_SEND);
}

/// Sends bytes and waits for each: a byte takes 87 µs, and whoever reads them sees the last words before a reset.
pub fn write(bytes: &[u8]) {
    for byte in bytes {
        while UART.read(STATE) & STATE_FULL != 0 {}
        UART.write(DATA, u32::from(*byte));
    }
}
