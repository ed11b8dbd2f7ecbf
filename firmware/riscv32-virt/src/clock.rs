//! Time since the start, sleep, and the watchdog: the core-local interruptor's timer at 10 MHz (QEMU's `virt`, hw/riscv/virt.c).
//!
//! The machine has no watchdog device, so the timer's interrupt is one: while the board works it is armed for the moment at
//! which the loop must have fed it; while it sleeps, masked, the same timer only wakes it. A program that masks interrupts
//! for ever escapes it, which a watchdog of its own hardware would not let pass.

use core::sync::atomic::{AtomicU32, Ordering};

use riscv::register::{mie, mstatus};
use wasmbed_firmware_support::register::Block;

/// Until the watchdog resets the board: longer than anything that the loop does in one go, by far.
pub(crate) const WATCHDOG_MS: u32 = 8_000;
// SAFETY: the machine has the interruptor at this address.
const CLINT: Block = unsafe { Block::new(0x0200_0000) };
const COMPARE_LOW: usize = 0x4000;
const COMPARE_HIGH: usize = 0x4004;
const TIME_LOW: usize = 0xbff8;
const TIME_HIGH: usize = 0xbffc;
const TICKS_PER_US: u64 = 10;

/// When the watchdog bites, in milliseconds since the start, which wrap after 49 days; a bite is armed 8 s ahead.
static BITE_MS: AtomicU32 = AtomicU32::new(0);

fn ticks() -> u64 {
    loop {
        let high = CLINT.read(TIME_HIGH);
        let low = CLINT.read(TIME_LOW);
        if CLINT.read(TIME_HIGH) == high {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

fn compare(ticks: u64) {
    // Never for a moment less than both the old and the new value (privileged architecture 1.12, 3.2.1).
    CLINT.write(COMPARE_LOW, u32::MAX);
    CLINT.write(COMPARE_HIGH, (ticks >> 32) as u32);
    CLINT.write(COMPARE_LOW, ticks as u32);
}

/// Microseconds since the machine was powered on.
pub fn now_us() -> u64 {
    ticks() / TICKS_PER_US
}

/// Without another call within this long the timer's trap is taken.
pub fn arm(timeout_ms: u32) {
    let now_ms = now_us() / 1_000;
    BITE_MS.store((now_ms as u32).wrapping_add(timeout_ms), Ordering::Relaxed);
    compare_bite(now_ms);
    // SAFETY: the one handler is for this interrupt.
    unsafe { mie::set_mtimer() };
    // SAFETY: nothing relies on interrupts being masked: a trap never returns.
    unsafe { mstatus::set_mie() };
}

fn compare_bite(now_ms: u64) {
    let left_ms = BITE_MS.load(Ordering::Relaxed).wrapping_sub(now_ms as u32);
    compare((now_ms + u64::from(left_ms)) * 1_000 * TICKS_PER_US);
}

/// Sleeps until `until_us` or until an external interrupt is pending. What `look` finds before it sleeps prevents it.
pub fn sleep(until_us: u64, look: impl FnOnce() -> bool) {
    riscv::interrupt::free(|| {
        if look() || until_us <= now_us() {
            return;
        }
        compare(until_us.saturating_mul(TICKS_PER_US));
        // SAFETY: interrupts are masked: it only ends the sleep.
        unsafe { mie::set_mext() };
        riscv::asm::wfi();
        // SAFETY: as it was.
        unsafe { mie::clear_mext() };
        compare_bite(now_us() / 1_000);
    });
}
