//! The MPS2 board with the AN385 image (Arm DAI 0385D): a Cortex-M3 at 25 MHz, as QEMU's `mps2-an385` emulates it. Memory map
//! and drivers.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod clock;
mod flash;
mod interrupt;
mod lan9118;
mod pins;
mod uart;
mod watchdog;

use alloc::string::String;

use cortex_m::peripheral::NVIC;
use cortex_m_rt::{entry, exception};
use wasmbed_board::{ResetReason, Start, data::MPS2_AN385};

use wasmbed_firmware_cortex_m::{fault, guard};
use wasmbed_firmware_support::{heap, note, stack};

use crate::{board::Mps2An385, flash::DataFlash, interrupt::Interrupt, lan9118::Lan9118, pins::Pins};

wasmbed_firmware_support::memory!(MPS2_AN385);

/// Longer than anything that the loop does at once, by far.
const WATCHDOG_MS: u32 = 8_000;

/// Every interrupt only ends a sleep; the next sleep unmasks it again.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    if let Ok(number) = u16::try_from(number) {
        NVIC::mask(Interrupt(number));
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: nothing came before this.
    unsafe { stack::paint() };
    let mut core = cortex_m::Peripherals::take();
    if let Some(core) = &mut core {
        guard::arm(&mut core.MPU);
    }
    // SAFETY: this runs once.
    heap::start(unsafe { HEAP_MEMORY.take() });
    uart::start();
    fault::set_console(uart::write);
    clock::start();
    let (reset_reason, reset_detail) = note::take_reason().unwrap_or((ResetReason::PowerOn, String::new()));
    watchdog::arm(WATCHDOG_MS);
    // SAFETY: this runs once.
    let flash = unsafe { DataFlash::new() };
    // SAFETY: this runs once.
    let arena = unsafe { ARENA.take() };
    match (Lan9118::start(), core) {
        (Ok(network), Some(core)) => wasmbed_board::run(Start {
            hardware: Mps2An385 { core },
            network,
            flash,
            peripherals: Pins,
            arena,
            reset_reason,
            reset_detail,
        }),
        (Err(lan9118::NotThere), _) => fault::end(note::Kind::Fault, format_args!("no LAN9118")),
        (_, None) => fault::end(note::Kind::Fault, format_args!("core peripherals were taken")),
    }
}
