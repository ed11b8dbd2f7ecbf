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
mod lan9118;
mod pins;
mod uart;
mod watchdog;

use alloc::string::String;

use cortex_m::{interrupt::InterruptNumber, peripheral::NVIC};
use cortex_m_rt::{entry, exception};
use wasmbed_board::{ResetReason, Start};

use wasmbed_firmware_cortex_m::{fault, guard};
use wasmbed_firmware_support::{heap::CountingHeap, note, region::Region, stack};

use crate::{board::Mps2An385, flash::DataFlash, lan9118::Lan9118, pins::Pins};

/// The processor's clock and that of its peripherals.
const CLOCK_HZ: u32 = 25_000_000;
/// Longer than anything that the loop does at once, by far.
const WATCHDOG_MS: u32 = 8_000;

/// Bytes of the system's heap.
const HEAP_BYTES: usize = 160 * 1_024;
/// Bytes of all applications together: what 1 MiB leaves beside the heap, the stack (96 KiB) and 64 KiB for all else.
const ARENA_BYTES: usize = 704 * 1_024;

#[global_allocator]
static HEAP: CountingHeap = CountingHeap::empty();

#[unsafe(link_section = ".uninit.heap")]
static HEAP_MEMORY: Region<HEAP_BYTES> = Region::new();

#[unsafe(link_section = ".uninit.arena")]
static ARENA: Region<ARENA_BYTES> = Region::new();

/// An interrupt by its number.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the numbers come from the interrupt controller itself or from AN385's table 3-3, so that it has them.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// AN385, table 3-3.
const ETHERNET: Interrupt = Interrupt(13);

/// Every interrupt only ends a sleep; whoever sleeps next lets it through again.
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
    HEAP.start(unsafe { HEAP_MEMORY.take() });
    uart::start();
    fault::set_console(uart::write);
    clock::start();
    let (reset_reason, reset_detail) = match note::take() {
        Some(note) => (note.reason(), note.text().into()),
        None => (ResetReason::PowerOn, String::new()),
    };
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
