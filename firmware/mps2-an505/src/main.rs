//! The MPS2 board with the AN505 image (Arm DAI 0505B): a Cortex-M33, as QEMU's `mps2-an505` emulates it. Where the image has what.
//! All runs in the processor's secure state, in which it starts; everything that can be secure or not is secure after a reset.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use wasmbed_board::data::{Board, MPS2_AN505};
use wasmbed_firmware_mps2::Image;

wasmbed_firmware_support::memory!(MPS2_AN505);

struct An505;

// SAFETY: the addresses and the interrupts are those that QEMU's hw/arm/mps2-tz.c and hw/arm/armsse.c give the peripherals, with bit 28
// set, which makes them secure; the linker puts nothing into the PSRAM.
unsafe impl Image for An505 {
    const BOARD: &'static Board = &MPS2_AN505;
    const CLOCK_HZ: u32 = 20_000_000;
    const TIMER: usize = 0x5000_2000;
    const UART: usize = 0x5020_0000;
    const WATCHDOG: usize = 0x5008_1000;
    const FPGA_IO: usize = 0x5030_2000;
    const I2C: [usize; 2] = [0x5020_c000, 0x5020_d000];
    const SPI: [usize; 2] = [0x5020_a000, 0x5020_b000];
    const UARTS: [(usize, [u16; 2]); 2] = [(0x5020_3000, [38, 39]), (0x5020_4000, [40, 41])];
    const ETHERNET: usize = 0x5200_0000;
    const ETHERNET_INTERRUPT: u16 = 48;
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the program's first function and runs once; the regions are named nowhere else.
    unsafe { wasmbed_firmware_mps2::start::<An505, _, _>(&HEAP_MEMORY, &ARENA) }
}
