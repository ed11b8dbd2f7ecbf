//! What a board says of itself after it went wrong. A debugger sends it off its way; the image is the one that ships.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSymbol as _};
use wasmbed_api::{Device, DevicePhase};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, prepare, read_to},
    fixtures,
};
use wasmbed_emulator::{Debugger, Emulator, Kind, Options};

each_board!(
    a_panic_is_told_after_the_reset,
    a_stack_that_overflows_faults_and_is_told_after_the_reset,
    a_loop_that_never_ends_is_bitten_by_the_watchdog,
);

/// Bytes that the system's heap never has, so that who asks for them panics; a power of two, as an alignment is.
const TOO_MANY_BYTES: u32 = 1 << 30;

/// A processor as the debugger numbers its registers, and small programs for it.
struct Processor {
    counter: u8,
    /// Of the first two arguments.
    arguments: [u8; 2],
    /// Calls itself for ever and keeps something on the stack each time.
    recursion: &'static [u8],
    /// Lets interrupts come, and loops for ever.
    endless: &'static [u8],
}

const RISC_V: Processor = Processor {
    counter: 32,
    arguments: [10, 11],
    // addi sp, sp, -16; sw ra, 0(sp); jal ra, -8
    recursion: &[0x41, 0x11, 0x06, 0xc0, 0xef, 0xf0, 0xdf, 0xff],
    // csrsi mstatus, 8; j .
    endless: &[0x73, 0x60, 0x04, 0x30, 0x6f, 0x00, 0x00, 0x00],
};

const THUMB: Processor = Processor {
    counter: 15,
    arguments: [0, 1],
    // push {lr}; bl -2
    recursion: &[0x00, 0xb5, 0xff, 0xf7, 0xfd, 0xff],
    // cpsie i; b .
    endless: &[0x62, 0xb6, 0xfe, 0xe7],
};

fn processor(kind: Kind) -> &'static Processor {
    if kind.board().target.starts_with("riscv32") { &RISC_V } else { &THUMB }
}

/// Addresses of a firmware's symbols.
struct Symbols(Vec<u8>);

impl Symbols {
    fn read(firmware: &Path) -> Result<Self> {
        Ok(Self(std::fs::read(firmware)?))
    }

    /// Where the one function is whose mangled name has these parts.
    fn function(&self, parts: &[&str]) -> Result<u32> {
        let file = object::File::parse(&*self.0)?;
        let mut found = file.symbols().filter(|symbol| {
            let name = symbol.name().unwrap_or_default();
            symbol.kind() == object::SymbolKind::Text && parts.iter().all(|part| name.contains(part))
        });
        let function = found.next().with_context(|| format!("the firmware has no {parts:?}"))?;
        ensure!(found.next().is_none(), "the firmware has more than one {parts:?}");
        // The lowest bit of an Arm address says Thumb.
        Ok(u32::try_from(function.address())? & !1)
    }

    /// Where code can lie that is in nobody's way: in the applications' memory, which holds none here.
    fn unused_memory(&self) -> Result<u32> {
        let file = object::File::parse(&*self.0)?;
        let arena = file.symbols().find(|symbol| symbol.name().is_ok_and(|name| name.contains("5ARENA")));
        let arena = arena.context("the firmware has no arena")?;
        Ok(u32::try_from(arena.address() + arena.size())? - 4_096)
    }
}

/// Sends a board that is connected off its way; afterwards its Device gives the reason of the reset in these words.
fn derail(
    kind: Kind,
    words: &[&str],
    derail: impl FnOnce(&Processor, &Symbols, &mut Debugger) -> Result<()>,
) -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare(kind, &machine, &machine.gateway_address().to_string())?;
        let symbols = Symbols::read(&options.firmware)?;
        let board = Emulator::start(&Options { debugger: true, ..options })?;
        let connected = |device: &Device| {
            device.status.as_ref().map(|status| status.phase) == Some(DevicePhase::Connected)
        };
        let first = machine.device(NAME, "Connected", connected).await?;
        machine.create(&application("ticker", &fixtures::ticker("tick", 1_000), &[NAME])).await?;
        read_to(&board, "APP default/ticker: tick")?;
        {
            let mut debugger = board.debugger().context("it was started with one")?;
            // Once in each round of the board's loop, with nothing masked.
            debugger.break_at(symbols.function(&["supervisor", "Supervisor", "10run_slices17h"])?)?;
            derail(processor(kind), &symbols, &mut debugger)?;
            debugger.resume()?;
        }
        read_to(&board, "ERROR reset detail=")?;
        read_to(&board, "APP default/ticker: tick")?;
        let epoch = |device: &Device| device.status.as_ref().and_then(|status| status.epoch);
        let again = |device: &Device| connected(device) && epoch(device) > epoch(&first);
        let device = machine.device(NAME, "connected again", again).await?;
        let facts = device.status.and_then(|status| status.facts);
        let reason = facts.and_then(|facts| facts.reset_reason).unwrap_or_default();
        ensure!(words.iter().all(|words| reason.contains(words)), "{reason:?}");
        Ok(())
    })
}

fn a_panic_is_told_after_the_reset(kind: Kind) -> Result<()> {
    derail(kind, &["Panic: ", "memory allocation of 1073741824 bytes"], |processor, symbols, debugger| {
        // Size and alignment, whichever of them the compiler puts first.
        debugger.set_register(processor.arguments[0], TOO_MANY_BYTES)?;
        debugger.set_register(processor.arguments[1], TOO_MANY_BYTES)?;
        Ok(debugger.set_register(processor.counter, symbols.function(&["handle_alloc_error"])?)?)
    })
}

fn a_stack_that_overflows_faults_and_is_told_after_the_reset(kind: Kind) -> Result<()> {
    derail(kind, &["Panic: stack overflow"], |processor, symbols, debugger| {
        let at = symbols.unused_memory()?;
        debugger.write_memory(at, processor.recursion)?;
        Ok(debugger.set_register(processor.counter, at)?)
    })
}

fn a_loop_that_never_ends_is_bitten_by_the_watchdog(kind: Kind) -> Result<()> {
    derail(kind, &["Watchdog: watchdog, busy at 0x"], |processor, symbols, debugger| {
        let at = symbols.unused_memory()?;
        debugger.write_memory(at, processor.endless)?;
        Ok(debugger.set_register(processor.counter, at)?)
    })
}
