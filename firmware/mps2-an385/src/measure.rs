//! Measures engines on this board, for `cargo run --package wasmbed-bench --bin boards`: the same start, memory map and profile as the
//! firmware.

#![no_std]
#![no_main]

mod image;

use cortex_m_rt::entry;
use wasmbed_board::data::MPS2_AN385;
use wasmbed_firmware_cortex_m::fault;
use wasmbed_firmware_measure::{Board, Modules};
use wasmbed_firmware_mps2::{Image, clock, uart};
use wasmbed_firmware_support::heap;

use crate::image::An385;

wasmbed_firmware_support::memory!(MPS2_AN385);

/// An instruction takes a nanosecond in QEMU, whatever the board's clock is.
const INSTRUCTIONS_PER_TICK: u64 = 1_000_000_000 / An385::CLOCK_HZ as u64;

impl Board for An385 {
    fn instructions() -> u64 {
        clock::ticks::<An385>() * INSTRUCTIONS_PER_TICK
    }

    fn write(bytes: &[u8]) {
        uart::write::<An385>(bytes);
    }
}

#[entry]
fn main() -> ! {
    uart::start::<An385>();
    fault::set_console(uart::write::<An385>);
    clock::start::<An385>();
    // The engine that devices run gets the memory of the heap, the others allocate from that of applications, which is larger.
    // SAFETY: this runs once.
    heap::start(unsafe { ARENA.take() });
    // SAFETY: this runs once.
    let block = unsafe { HEAP_MEMORY.take() };
    let flash = MPS2_AN385.data_flash_start as usize;
    // SAFETY: the board has the memory there, as long as its file says.
    let modules = unsafe { Modules::at(flash, MPS2_AN385.geometry.flash_bytes as usize) };
    wasmbed_firmware_measure::run::<An385>(block, modules);
    loop {
        cortex_m::asm::wfi();
    }
}
