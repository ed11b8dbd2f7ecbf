//! The independent watchdog: clocked by itself, and no program stops it again.

use stm32h7xx_hal::{independent_watchdog::IndependentWatchdog, pac::IWDG, prelude::*};

/// Arms it: without [`feed`] for this long the processor is reset.
pub fn arm(watchdog: IWDG, timeout_ms: u32) {
    IndependentWatchdog::new(watchdog).start(timeout_ms.millis());
}

/// Starts the count again.
pub fn feed() {
    // SAFETY: the processor has the watchdog there; writing the key does nothing but this.
    let watchdog = unsafe { &*IWDG::ptr() };
    watchdog.kr.write(|bits| bits.key().reset());
}
