//! Time since the start, and sleep: TIM2 counts microseconds, SysTick wakes.

use core::cell::Cell;

use cortex_m::{
    interrupt::Mutex,
    peripheral::{SYST, syst::SystClkSource},
};
use stm32h7xx_hal::{
    pac::TIM2,
    prelude::*,
    rcc::{CoreClocks, rec},
};
use wasmbed_firmware_cortex_m::sleep;

/// The processor's clock.
pub(crate) const CORE_MHZ: u32 = 400;
/// The clock of the buses and of Ethernet.
pub(crate) const BUS_MHZ: u32 = 200;
/// The external clock of SysTick is an eighth of the processor's (RM0433, section 8.5.8): 24 bits of it are 335 ms.
const SLEEP_TICKS_PER_US: u64 = (CORE_MHZ / 8) as u64;

/// The count when it was last read, widened; the hardware's 32 bits wrap after 71 minutes, and a sleep ends within 1 s.
static SEEN: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));

/// Starts counting, for ever.
pub fn start(timer: TIM2, peripheral: rec::Tim2, clocks: &CoreClocks) {
    // The timer goes on when the value that configured it is gone.
    let _ = timer.tick_timer(1.MHz(), peripheral, clocks);
}

/// Microseconds since the start.
pub fn now_us() -> u64 {
    cortex_m::interrupt::free(|section| {
        let seen = SEEN.borrow(section);
        // SAFETY: the processor has the timer there; reading its counter changes nothing.
        let timer = unsafe { &*TIM2::ptr() };
        let elapsed = timer.cnt.read().bits().wrapping_sub(seen.get() as u32);
        seen.set(seen.get() + u64::from(elapsed));
        seen.get()
    })
}

/// Sleeps until an interrupt is pending, at the latest `until_us`. Interrupts must be masked.
pub fn sleep_masked(systick: &mut SYST, until_us: u64) {
    let ticks = until_us.saturating_sub(now_us()).saturating_mul(SLEEP_TICKS_PER_US);
    sleep::sleep_masked(systick, SystClkSource::External, ticks);
}
