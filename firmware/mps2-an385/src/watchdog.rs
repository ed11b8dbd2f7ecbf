//! CMSDK APB watchdog (Arm DDI 0479D, section 4.6): the first timeout is a non-maskable interrupt, the second a reset.

use wasmbed_firmware_support::register::Block;

use crate::clock::CLOCK_HZ;

// SAFETY: AN385 (Arm DAI 0385D, table 3-4) has the watchdog at this address.
const WATCHDOG: Block = unsafe { Block::new(0x4000_8000) };
const LOAD: usize = 0x00;
const CONTROL: usize = 0x08;
const INTERRUPT_CLEAR: usize = 0x0c;
const LOCK: usize = 0xc00;
const UNLOCK: u32 = 0x1acc_e551;
const CONTROL_INTERRUPT_AND_RESET: u32 = 0b11;

/// Arms it: without [`feed`] for this long the NMI comes, after twice as long the reset.
pub fn arm(timeout_ms: u32) {
    let ticks = timeout_ms.saturating_mul(CLOCK_HZ / 1_000);
    WATCHDOG.write(LOCK, UNLOCK);
    WATCHDOG.write(LOAD, ticks);
    WATCHDOG.write(CONTROL, CONTROL_INTERRUPT_AND_RESET);
    WATCHDOG.write(LOCK, 0);
}

/// Starts the count again.
pub fn feed() {
    WATCHDOG.write(LOCK, UNLOCK);
    WATCHDOG.write(INTERRUPT_CLEAR, 1);
    WATCHDOG.write(LOCK, 0);
}
