//! Time since the start, and sleep: the first half of the dual timer counts (Arm DDI 0479D, section 4.5), SysTick wakes.

use core::cell::Cell;

use cortex_m::{
    interrupt::Mutex,
    peripheral::{SYST, syst::SystClkSource},
};
use wasmbed_firmware_cortex_m::sleep;
use wasmbed_firmware_support::register::Block;

use crate::Image;

const LOAD: usize = 0x00;
const VALUE: usize = 0x04;
const CONTROL: usize = 0x08;
const CONTROL_ENABLE_32_BITS: u32 = 0x82;

/// The count when it was last read, widened; the hardware's 32 bits wrap after 171 s at 25 MHz, and a sleep ends within 1.
static SEEN: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));

const fn timer<I: Image>() -> Block {
    // SAFETY: the image vouches for the address.
    unsafe { Block::new(I::TIMER) }
}

const fn ticks_per_us<I: Image>() -> u64 {
    (I::CLOCK_HZ / 1_000_000) as u64
}

/// Starts counting.
pub fn start<I: Image>() {
    timer::<I>().write(LOAD, u32::MAX);
    timer::<I>().write(CONTROL, CONTROL_ENABLE_32_BITS);
}

/// Counts of the clock since the start.
pub fn ticks<I: Image>() -> u64 {
    cortex_m::interrupt::free(|section| {
        let seen = SEEN.borrow(section);
        // It counts down from the highest value.
        let now = !timer::<I>().read(VALUE);
        let elapsed = now.wrapping_sub(seen.get() as u32);
        seen.set(seen.get() + u64::from(elapsed));
        seen.get()
    })
}

/// Microseconds since the start.
pub fn now_us<I: Image>() -> u64 {
    ticks::<I>() / ticks_per_us::<I>()
}

/// Sleeps until an interrupt is pending, at the latest `until_us`, and at most for 671 ms at 25 MHz. Interrupts must be masked, as
/// [`sleep::sleep_masked`] says.
pub fn sleep_masked<I: Image>(systick: &mut SYST, until_us: u64) {
    let ticks = until_us.saturating_sub(now_us::<I>()).saturating_mul(ticks_per_us::<I>());
    sleep::sleep_masked(systick, SystClkSource::Core, ticks);
}
