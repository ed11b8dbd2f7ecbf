//! What a board gives: drivers, and nothing that decides.

use smoltcp::{phy, wire::EthernetAddress};
use wasmbed_board_data::Board;
use wasmbed_flash::Medium;
use wasmbed_supervisor::platform::Peripherals;

/// The drivers of one board. What has no state of its own, or guards it itself, is a function without `self`, so that
/// the parts of the loop need not share a value.
pub trait Hardware {
    /// The network controller. smoltcp asks it for Ethernet frames.
    type Network: phy::Device;
    /// The data flash.
    type Flash: Medium;
    /// Pins, sensors and buses.
    type Peripherals: Peripherals;

    /// What the board's file says of it. [`Hardware::Peripherals`] has the pins and the buses that stand there.
    const BOARD: &'static Board;

    /// Microseconds since the start; never goes back.
    fn now_us() -> u64;
    /// Writes to the console. May wait for the controller.
    fn console(bytes: &[u8]);
    /// Starts the watchdog's count again; nothing on a board without one.
    fn feed_watchdog();
    /// The board's clock: seconds since 1970-01-01T00:00:00Z; none if it has no clock or the clock was never set.
    fn unix_s() -> Option<u64>;
    /// Random bytes of the hardware; false if the board has no source. They are mixed into the seed of a generator, once
    /// for each start.
    fn entropy(&mut self, seed: &mut [u8; 32]) -> bool;
    /// The network controller's own address.
    fn address(network: &Self::Network) -> EthernetAddress;
    /// Frames that the controller counted as damaged, dropped or not sent since the start; none if it doesn't count.
    fn frames_lost(network: &Self::Network) -> Option<u32> {
        let _ = network;
        None
    }
    /// Sleeps until something happens, at the latest until this moment of [`Hardware::now_us`]. Returning early does no harm;
    /// a frame that waits in the controller is something that happened.
    fn idle(&mut self, network: &mut Self::Network, until_us: u64);
    /// What the system's memory held at most since the start.
    fn memory() -> Memory;
}

/// Use of a board's own memory, apart from the applications' arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the system's heap.
    pub heap_bytes: usize,
    /// The most of it that was in use at once.
    pub heap_peak_bytes: usize,
    /// Bytes of the stack.
    pub stack_bytes: usize,
    /// The most of it that was in use at once.
    pub stack_peak_bytes: usize,
}
