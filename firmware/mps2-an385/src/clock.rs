//! Time since the start, and sleep: the first half of the dual timer counts (Arm DDI 0479D, section 4.5), SysTick wakes.

use core::cell::Cell;

use cortex_m::{
    interrupt::Mutex,
    peripheral::{SYST, syst::SystClkSource},
};
use wasmbed_firmware_cortex_m::sleep;
use wasmbed_firmware_support::register::Block;

/// The processor's clock and that of its peripherals.
pub(crate) const CLOCK_HZ: u32 = 25_000_000;
// SAFETY: AN385 (Arm DAI 0385D, table 3-4) has the dual timer at this address.
const TIMER: Block = unsafe { Block::new(0x4000_2000) };
const LOAD: usize = 0x00;
const VALUE: usize = 0x04;
const CONTROL: usize = 0x08;
const CONTROL_ENABLE_32_BITS: u32 = 0x82;
const TICKS_PER_US: u64 = (CLOCK_HZ / 1_000_000) as u64;

/// The count when it was last read, widened; the hardware's 32 bits wrap after 171 s, and a sleep ends within 1.
static SEEN: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));

/// Starts counting.
pub fn start() {
    TIMER.write(LOAD, u32::MAX);
    TIMER.write(CONTROL, CONTROL_ENABLE_32_BITS);
}

/// The count, 25 a microsecond.
pub fn ticks() -> u64 {
    cortex_m::interrupt::free(|section| {
        let seen = SEEN.borrow(section);
        // It counts down from the highest value.
        let now = !TIMER.read(VALUE);
        let elapsed = now.wrapping_sub(seen.get() as u32);
        seen.set(seen.get() + u64::from(elapsed));
        seen.get()
    })
}

/// Microseconds since the start.
pub fn now_us() -> u64 {
    ticks() / TICKS_PER_US
}

/// Sleeps until an interrupt is pending, at the latest `until_us`, and at most 671 ms. Interrupts must be masked, as
/// [`sleep::sleep_masked`] says.
pub fn sleep_masked(systick: &mut SYST, until_us: u64) {
    let ticks = until_us.saturating_sub(now_us()).saturating_mul(TICKS_PER_US);
    sleep::sleep_masked(systick, SystClkSource::Core, ticks);
}
