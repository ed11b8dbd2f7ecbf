//! From the processor's start to the loop.

use alloc::string::String;

use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;
use wasmbed_board::{ResetReason, Start};
use wasmbed_firmware_cortex_m::{fault, guard};
use wasmbed_firmware_support::{heap, note, region::Region, register::Block, stack};

use crate::{
    Image,
    board::Mps2,
    clock,
    flash::DataFlash,
    interrupt::Interrupt,
    lan9118::{Lan9118, NotThere},
    pins::Pins,
    serial, uart, watchdog,
};

/// Longer than anything that the loop does at once, by far.
const WATCHDOG_MS: u32 = 8_000;

/// UARTs keep what came and send what is to go. Every other interrupt only ends a sleep; the next sleep unmasks it again.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    if let Ok(number) = u16::try_from(number)
        && !serial::handle(number)
    {
        NVIC::mask(Interrupt(number));
    }
}

/// Starts the drivers and runs the board, for ever.
///
/// # Safety
/// It may be called once, by the program's first function, which did nothing else; the regions are nobody else's.
pub unsafe fn start<I: Image, const HEAP_BYTES: usize, const ARENA_BYTES: usize>(
    heap_memory: &'static Region<HEAP_BYTES>,
    arena: &'static Region<ARENA_BYTES>,
) -> ! {
    // SAFETY: nothing came before this, says the contract.
    unsafe { stack::paint() };
    let mut core = cortex_m::Peripherals::take();
    if let Some(core) = &mut core {
        guard::arm(&mut core.MPU);
    }
    // SAFETY: this runs once.
    heap::start(unsafe { heap_memory.take() });
    // SAFETY: as above.
    let arena = unsafe { arena.take() };
    wasmbed_board::run(|| drivers::<I>(core, arena))
}

/// Starts the drivers.
fn drivers<I: Image>(core: Option<cortex_m::Peripherals>, arena: &'static mut [u8]) -> Start<Mps2<I>> {
    uart::start::<I>();
    fault::set_console(uart::write::<I>);
    clock::start::<I>();
    let (reset_reason, reset_detail) = note::take_reason().unwrap_or((ResetReason::PowerOn, String::new()));
    watchdog::arm::<I>(WATCHDOG_MS);
    // SAFETY: this runs once.
    let flash = unsafe { DataFlash::<I>::new() };
    // SAFETY: the image vouches for the address.
    let chip = unsafe { Block::new(I::ETHERNET) };
    match (Lan9118::start(chip), core) {
        (Ok(network), Some(core)) => Start {
            hardware: Mps2::<I>::new(core),
            network,
            flash,
            peripherals: Pins::<I>::new(),
            arena,
            reset_reason,
            reset_detail,
        },
        (Err(NotThere), _) => fault::end(note::Kind::Fault, format_args!("no LAN9118")),
        (_, None) => fault::end(note::Kind::Fault, format_args!("core peripherals were taken")),
    }
}
