//! The drivers as the shared loop asks for them.

use stm32h7xx_hal::rng::{Rng, RngCore};
use wasmbed_board::{
    Hardware, Memory,
    data::{Board, NUCLEO_H743ZI2},
    smoltcp::wire::EthernetAddress,
};
use wasmbed_firmware_support::memory;

use crate::{clock, console, flash::DataFlash, network::Network, pins::Pins, watchdog};

/// The board.
pub struct Nucleo {
    pub core: cortex_m::Peripherals,
    pub random: Rng,
}

impl Hardware for Nucleo {
    type Network = Network;
    type Flash = DataFlash;
    type Peripherals = Pins;

    const BOARD: &'static Board = &NUCLEO_H743ZI2;

    fn now_us() -> u64 {
        clock::now_us()
    }

    fn console(bytes: &[u8]) {
        console::write(bytes);
    }

    fn feed_watchdog() {
        watchdog::feed();
    }

    /// The board comes without a battery for the clock.
    fn unix_s() -> Option<u64> {
        None
    }

    fn entropy(&mut self, seed: &mut [u8; 32]) -> bool {
        self.random.fill(seed).is_ok()
    }

    fn address(network: &Network) -> EthernetAddress {
        network.address()
    }

    fn idle(&mut self, network: &mut Network, until_us: u64) {
        cortex_m::interrupt::free(|_| {
            if !network.take_news() {
                clock::sleep_masked(&mut self.core.SYST, until_us);
            }
        });
    }

    fn memory() -> Memory {
        memory::usage()
    }
}
