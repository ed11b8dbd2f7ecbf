//! Where the image has what.

use wasmbed_board::data::{Board, MPS2_AN385};
use wasmbed_firmware_mps2::Image;

pub(crate) struct An385;

// SAFETY: the addresses and the interrupts are those of Arm DAI 0385D, tables 3-1, 3-3 and 3-4; the linker puts nothing into the PSRAM.
unsafe impl Image for An385 {
    const BOARD: &'static Board = &MPS2_AN385;
    const CLOCK_HZ: u32 = 25_000_000;
    const TIMER: usize = 0x4000_2000;
    const UART: usize = 0x4000_4000;
    const WATCHDOG: usize = 0x4000_8000;
    const FPGA_IO: usize = 0x4002_8000;
    const I2C: [usize; 2] = [0x4002_9000, 0x4002_a000];
    const SPI: [usize; 2] = [0x4002_6000, 0x4002_7000];
    const UARTS: [(usize, [u16; 2]); 2] = [(0x4000_7000, [18, 19]), (0x4000_9000, [20, 21])];
    const ETHERNET: usize = 0x4020_0000;
    const ETHERNET_INTERRUPT: u16 = 13;
}
