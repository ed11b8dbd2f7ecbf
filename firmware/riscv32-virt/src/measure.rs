//! Measures engines on this machine, for `cargo run --package wasmbed-bench --bin boards`: the same start, memory map and profile as the
//! firmware.

#![no_std]
#![no_main]

mod fault;
mod start;
mod uart;

use core::arch::asm;

use wasmbed_board::data::RISCV32_VIRT;
use wasmbed_firmware_measure::{Board, Modules};
use wasmbed_firmware_support::heap;

wasmbed_firmware_support::memory!(RISCV32_VIRT);

struct Riscv32Virt;

impl Board for Riscv32Virt {
    fn instructions() -> u64 {
        loop {
            let (high, low, high_again): (u32, u32, u32);
            // SAFETY: reading counters changes nothing.
            unsafe {
                asm!(
                    "rdinstreth {0}", "rdinstret {1}", "rdinstreth {2}",
                    out(reg) high, out(reg) low, out(reg) high_again,
                    options(nomem, nostack),
                );
            }
            if high == high_again {
                return u64::from(high) << 32 | u64::from(low);
            }
        }
    }

    fn write(bytes: &[u8]) {
        uart::write(bytes);
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // The engine that devices run gets the memory of the heap, the others allocate from that of applications, which is larger.
    // SAFETY: this runs once.
    heap::start(unsafe { ARENA.take() });
    // SAFETY: this runs once.
    let block = unsafe { HEAP_MEMORY.take() };
    let flash = RISCV32_VIRT.data_flash_start as usize;
    // SAFETY: the machine has the flash there, as long as the board's file says.
    let modules = unsafe { Modules::at(flash, RISCV32_VIRT.geometry.flash_bytes as usize) };
    wasmbed_firmware_measure::run::<Riscv32Virt>(block, modules);
    loop {
        riscv::asm::wfi();
    }
}
