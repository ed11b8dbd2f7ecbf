//! The MPS2 board with the AN385 image (Arm DAI 0385D): a Cortex-M3, as QEMU's `mps2-an385` emulates it. Where the image has what.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use wasmbed_board::data::{Board, MPS2_AN385};
use wasmbed_firmware_mps2::Image;

wasmbed_firmware_support::memory!(MPS2_AN385);

struct An385;

// SAFETY: the addresses and the interrupt are those of Arm DAI 0385D, tables 3-1, 3-3 and 3-4; the linker puts nothing into the PSRAM.
unsafe impl Image for An385 {
    const BOARD: &'static Board = &MPS2_AN385;
    const CLOCK_HZ: u32 = 25_000_000;
    const TIMER: usize = 0x4000_2000;
    const UART: usize = 0x4000_4000;
    const WATCHDOG: usize = 0x4000_8000;
    const FPGA_IO: usize = 0x4002_8000;
    const ETHERNET: usize = 0x4020_0000;
    const ETHERNET_INTERRUPT: u16 = 13;
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the program's first function and runs once; the regions are named nowhere else.
    unsafe { wasmbed_firmware_mps2::start::<An385, _, _>(&HEAP_MEMORY, &ARENA) }
}
