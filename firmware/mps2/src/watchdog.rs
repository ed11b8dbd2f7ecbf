//! CMSDK APB watchdog (Arm DDI 0479D, section 4.6): the first timeout is a non-maskable interrupt, the second a reset.

use wasmbed_firmware_support::register::Block;

use crate::Image;

const LOAD: usize = 0x00;
const CONTROL: usize = 0x08;
const INTERRUPT_CLEAR: usize = 0x0c;
const LOCK: usize = 0xc00;
const UNLOCK: u32 = 0x1acc_e551;
const CONTROL_INTERRUPT_AND_RESET: u32 = 0b11;

const fn watchdog<I: Image>() -> Block {
    // SAFETY: the image vouches for the address.
    unsafe { Block::new(I::WATCHDOG) }
}

/// Arms it: without [`feed`] for this long the NMI comes, after twice as long the reset.
pub fn arm<I: Image>(timeout_ms: u32) {
    let ticks = timeout_ms.saturating_mul(I::CLOCK_HZ / 1_000);
    watchdog::<I>().write(LOCK, UNLOCK);
    watchdog::<I>().write(LOAD, ticks);
    watchdog::<I>().write(CONTROL, CONTROL_INTERRUPT_AND_RESET);
    watchdog::<I>().write(LOCK, 0);
}

/// Starts the count again.
pub fn feed<I: Image>() {
    watchdog::<I>().write(LOCK, UNLOCK);
    watchdog::<I>().write(INTERRUPT_CLEAR, 1);
    watchdog::<I>().write(LOCK, 0);
}
