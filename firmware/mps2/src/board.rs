//! The drivers as the shared loop asks for them.

use core::marker::PhantomData;

use cortex_m::peripheral::NVIC;
use wasmbed_board::{Hardware, Memory, data::Board, smoltcp::wire::EthernetAddress};

use wasmbed_firmware_support::memory;

use crate::{
    Image, clock, flash::DataFlash, interrupt::Interrupt, lan9118::Lan9118, pins::Pins, serial, uart,
    watchdog,
};

/// The board with an image.
pub struct Mps2<I> {
    core: cortex_m::Peripherals,
    image: PhantomData<I>,
}

impl<I> Mps2<I> {
    /// With the processor's own peripherals.
    pub fn new(core: cortex_m::Peripherals) -> Self {
        Self { core, image: PhantomData }
    }
}

impl<I: Image> Hardware for Mps2<I> {
    type Network = Lan9118;
    type Flash = DataFlash<I>;
    type Peripherals = Pins<I>;

    const BOARD: &'static Board = I::BOARD;

    fn now_us() -> u64 {
        clock::now_us::<I>()
    }

    fn console(bytes: &[u8]) {
        uart::write::<I>(bytes);
    }

    fn feed_watchdog() {
        watchdog::feed::<I>();
    }

    /// FPGA images have no clock that runs without power.
    fn unix_s() -> Option<u64> {
        None
    }

    /// Nor have they a random source.
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
            if !network.has_frame() && !serial::take_news() {
                // SAFETY: no code relies on its being masked: its handler does nothing but mask it again.
                unsafe { NVIC::unmask(Interrupt(I::ETHERNET_INTERRUPT)) };
                clock::sleep_masked::<I>(&mut self.core.SYST, until_us);
            }
        });
    }

    fn memory() -> Memory {
        memory::usage()
    }
}
