//! The drivers as the shared loop asks for them.

use cortex_m::peripheral::NVIC;
use wasmbed_board::{
    Hardware, Memory,
    data::{Board, MPS2_AN385},
    smoltcp::wire::EthernetAddress,
};

use wasmbed_firmware_support::memory;

use crate::{clock, flash::DataFlash, interrupt::ETHERNET, lan9118::Lan9118, pins::Pins, uart, watchdog};

/// The board.
pub struct Mps2An385 {
    pub core: cortex_m::Peripherals,
}

impl Hardware for Mps2An385 {
    type Network = Lan9118;
    type Flash = DataFlash;
    type Peripherals = Pins;

    const BOARD: &'static Board = &MPS2_AN385;

    fn now_us() -> u64 {
        clock::now_us()
    }

    fn console(bytes: &[u8]) {
        uart::write(bytes);
    }

    fn feed_watchdog() {
        watchdog::feed();
    }

    /// The FPGA image has no clock that runs without power.
    fn unix_s() -> Option<u64> {
        None
    }

    /// Nor has it a random source.
    fn entropy(&mut self, _: &mut [u8; 32]) -> bool {
        false
    }

    fn address(network: &Lan9118) -> EthernetAddress {
        network.address()
    }

    fn frames_lost(network: &Lan9118) -> Option<u32> {
        Some(network.faults().frames())
    }

    fn idle(&mut self, network: &mut Lan9118, until_us: u64) {
        cortex_m::interrupt::free(|_| {
            if !network.has_frame() {
                // SAFETY: no code relies on its being masked: its handler does nothing but mask it again.
                unsafe { NVIC::unmask(ETHERNET) };
                clock::sleep_masked(&mut self.core.SYST, until_us);
            }
        });
    }

    fn memory() -> Memory {
        memory::usage()
    }
}
