//! What ends a run that can't go on: a panic, a fault, a board's watchdog. Each leaves a note and resets the board.

use core::{
    arch::naked_asm,
    cell::Cell,
    fmt::{Arguments, Write},
    panic::PanicInfo,
};

use cortex_m::{interrupt::Mutex, peripheral::SCB};
use wasmbed_firmware_support::note::{self, Kind, Note};

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Why a fault was taken (Armv7-M, B3.2.15 and B3.2.16).
const CONFIGURABLE_FAULT_STATUS: *const u32 = 0xe000_ed28 as *const u32;
/// In it: a stack limit was reached (Armv8-M, UFSR.STKOF); Armv7-M never sets it.
const STACK_OVERFLOW: u32 = 1 << 20;
/// Words that the processor puts on the stack; the return address is the seventh.
const FRAME_WORDS: usize = 8;
const FRAME_RETURN_ADDRESS: usize = 6;

/// Writes bytes to a board's console and returns when they are out.
pub type Console = fn(&[u8]);

/// Where the last words go.
static CONSOLE: Mutex<Cell<Console>> = Mutex::new(Cell::new(|_| {}));

/// Says where the last words go; before that they are only noted.
pub fn set_console(console: Console) {
    cortex_m::interrupt::free(|section| CONSOLE.borrow(section).set(console));
}

/// Writes down why and starts the board again.
pub fn end(kind: Kind, why: Arguments<'_>) -> ! {
    cortex_m::interrupt::disable();
    let mut note = Note::new(kind);
    // It takes what fits, always.
    let _ = note.write_fmt(why);
    let console = cortex_m::interrupt::free(|section| CONSOLE.borrow(section).get());
    console(b"ERROR reset detail=\"");
    console(note.text().as_bytes());
    console(b"\"\n");
    note::keep(note);
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(Kind::Panic, format_args!("{info}"))
}

/// The vectors point here. The stack may be what is broken: the rest runs on a fresh one.
#[unsafe(naked)]
#[unsafe(export_name = "HardFault")]
unsafe extern "C" fn hard_fault() -> ! {
    naked_asm!(
        "mov r0, sp",
        "ldr r1, ={top}",
        "mov sp, r1",
        "b {rest}",
        top = sym _stack_start,
        rest = sym faulted,
    )
}

/// The same for the non-maskable interrupt, which a board's watchdog takes before it resets, if it has one that does.
#[unsafe(naked)]
#[unsafe(export_name = "NonMaskableInt")]
unsafe extern "C" fn non_maskable_interrupt() -> ! {
    naked_asm!(
        "mov r0, sp",
        "ldr r1, ={top}",
        "mov sp, r1",
        "b {rest}",
        top = sym _stack_start,
        rest = sym starved,
    )
}

extern "C" fn faulted(frame: *const u32) -> ! {
    // SAFETY: the processor has this register; reading it changes nothing.
    let status = unsafe { CONFIGURABLE_FAULT_STATUS.read_volatile() };
    match interrupted_at(frame).filter(|_| status & STACK_OVERFLOW == 0) {
        Some(address) => end(Kind::Fault, format_args!("fault {status:#010x} at {address:#010x}")),
        None => end(Kind::Fault, format_args!("stack overflow, fault {status:#010x}")),
    }
}

extern "C" fn starved(frame: *const u32) -> ! {
    match interrupted_at(frame) {
        Some(address) => end(Kind::Watchdog, format_args!("watchdog, busy at {address:#010x}")),
        None => end(Kind::Watchdog, format_args!("watchdog, stack overflow")),
    }
}

/// Where it was, from the frame that the processor wrote; none if the frame is not on the stack.
fn interrupted_at(frame: *const u32) -> Option<u32> {
    let stack = &raw const _stack_end as usize..&raw const _stack_start as usize;
    let end = frame as usize + FRAME_WORDS * 4;
    if !stack.contains(&(frame as usize)) || end > stack.end {
        return None;
    }
    // SAFETY: the checks above say that the whole frame is within the stack.
    let address = unsafe { frame.add(FRAME_RETURN_ADDRESS) };
    // SAFETY: it is memory. This handler's own frames are at the stack's top; if they overwrote the word, a message says a
    // wrong number.
    Some(unsafe { address.read_volatile() })
}
