//! What ends a run that can't go on: a panic, a trap, the watchdog. Each leaves a note and resets the machine.

use core::{
    fmt::{Arguments, Write},
    panic::PanicInfo,
};

use wasmbed_board::data::GUARD_BYTES;
use wasmbed_firmware_support::note::{self, Kind, Note};

use crate::uart;

/// QEMU's test device: what is written there ends or resets the machine.
const TEST: *mut u32 = 0x0010_0000 as *mut u32;
const TEST_RESET: u32 = 0x7777;
/// `mcause` of the machine timer's interrupt.
const CAUSE_TIMER: u32 = 1 << 31 | 7;

/// Writes down why and starts the machine again.
pub fn end(kind: Kind, why: Arguments<'_>) -> ! {
    riscv::interrupt::disable();
    let mut note = Note::new(kind);
    // It takes what fits, always.
    let _ = note.write_fmt(why);
    uart::write(b"ERROR reset detail=\"");
    uart::write(note.text().as_bytes());
    uart::write(b"\"\n");
    note::keep(note);
    // SAFETY: the machine has the device there.
    unsafe { TEST.write_volatile(TEST_RESET) };
    loop {
        riscv::asm::wfi();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(Kind::Panic, format_args!("{info}"))
}

/// The trap vector comes here on a fresh stack.
#[unsafe(no_mangle)]
extern "C" fn trapped(cause: u32, address: u32, value: u32) -> ! {
    let guard = &raw const _guard as u32;
    if cause == CAUSE_TIMER {
        end(Kind::Watchdog, format_args!("watchdog, busy at {address:#010x}"));
    }
    if (guard..guard + GUARD_BYTES).contains(&value) {
        end(Kind::Fault, format_args!("stack overflow at {address:#010x}"));
    }
    end(Kind::Fault, format_args!("trap {cause:#x} at {address:#010x}, value {value:#010x}"))
}

unsafe extern "C" {
    static _guard: u32;
}
