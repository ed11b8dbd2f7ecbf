//! Sleep with an end: SysTick wakes.

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_rt::exception;

/// SysTick counts 24 bits.
const TICKS_MAX: u64 = 0x00ff_ffff;

/// Sleeps until an interrupt is pending, at most so many ticks of the clock, and no more than SysTick counts. Interrupts must be
/// masked: one that came since the caller looked for work then still ends the sleep.
pub fn sleep_masked(systick: &mut SYST, clock: SystClkSource, ticks: u64) {
    if ticks == 0 {
        return;
    }
    systick.set_clock_source(clock);
    systick.set_reload(ticks.min(TICKS_MAX) as u32);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
    cortex_m::asm::dsb();
    cortex_m::asm::wfi();
    systick.disable_counter();
}

/// Its being pending was all it had to do.
#[exception]
fn SysTick() {}
