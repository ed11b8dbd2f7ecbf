//! QEMU's RISC-V machine `virt` with a 32-bit processor and 512 KiB of memory, executing in place from flash. Memory map,
//! drivers, traps.
//!
//! It may not hold logic that a host test could run.

#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod fault;
mod flash;
mod network;
mod start;
mod uart;
mod virtio;

use alloc::string::String;

use wasmbed_board::{
    Hardware, Memory, NoPeripherals, ResetReason, Start,
    data::{Board, RISCV32_VIRT},
    smoltcp::wire::EthernetAddress,
};
use wasmbed_firmware_support::{heap, memory, note, stack};

use crate::{clock::WATCHDOG_MS, flash::DataFlash, network::Network};

wasmbed_firmware_support::memory!(RISCV32_VIRT);

/// Goldfish's clock: nanoseconds since 1970; reading the low word keeps the high one for the next read.
const RTC_LOW: *const u32 = 0x0010_1000 as *const u32;
const RTC_HIGH: *const u32 = 0x0010_1004 as *const u32;

struct Riscv32Virt;

impl Hardware for Riscv32Virt {
    type Network = Network;
    type Flash = DataFlash;
    type Peripherals = NoPeripherals;

    const BOARD: &'static Board = &RISCV32_VIRT;

    fn now_us() -> u64 {
        clock::now_us()
    }

    fn console(bytes: &[u8]) {
        uart::write(bytes);
    }

    fn feed_watchdog() {
        clock::arm(WATCHDOG_MS);
    }

    fn unix_s() -> Option<u64> {
        // SAFETY: the machine has the register there.
        let low = unsafe { RTC_LOW.read_volatile() };
        // SAFETY: as above.
        let high = unsafe { RTC_HIGH.read_volatile() };
        Some((u64::from(high) << 32 | u64::from(low)) / 1_000_000_000)
    }

    fn entropy(&mut self, seed: &mut [u8; 32]) -> bool {
        virtio::entropy(seed)
    }

    fn address(network: &Network) -> EthernetAddress {
        network.address()
    }

    fn frames_lost(network: &Network) -> Option<u32> {
        Some(network.lost())
    }

    fn idle(&mut self, network: &mut Network, until_us: u64) {
        clock::sleep(until_us, || network.has_frame());
    }

    fn memory() -> Memory {
        memory::usage()
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: nothing came before this.
    unsafe { stack::paint() };
    // SAFETY: this runs once.
    heap::start(unsafe { HEAP_MEMORY.take() });
    wasmbed_board::run(start)
}

/// Starts the drivers.
fn start() -> Start<Riscv32Virt> {
    let (reset_reason, reset_detail) = note::take_reason().unwrap_or((ResetReason::PowerOn, String::new()));
    clock::arm(WATCHDOG_MS);
    // SAFETY: this runs once.
    let flash = unsafe { DataFlash::new() };
    // SAFETY: this runs once.
    let arena = unsafe { ARENA.take() };
    match Network::start() {
        Ok(network) => Start {
            hardware: Riscv32Virt,
            network,
            flash,
            peripherals: NoPeripherals,
            arena,
            reset_reason,
            reset_detail,
        },
        Err(network::NotThere) => fault::end(note::Kind::Fault, format_args!("no virtio network device")),
    }
}
