//! The MPS2 board with the AN385 image (Arm DAI 0385D): a Cortex-M3, as QEMU's `mps2-an385` emulates it. Where the image has what.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

mod image;

use cortex_m_rt::entry;
use wasmbed_board::data::MPS2_AN385;

use crate::image::An385;

wasmbed_firmware_support::memory!(MPS2_AN385);

#[entry]
fn main() -> ! {
    // SAFETY: this is the program's first function and runs once; the regions are named nowhere else.
    unsafe { wasmbed_firmware_mps2::start::<An385, _, _>(&HEAP_MEMORY, &ARENA) }
}
