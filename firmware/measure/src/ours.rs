//! The engine that devices run.

use wasmbed_engine::{Config, FunctionType, Imports, Instance, Loader, Progress, Value};
use wasmbed_firmware_support::stack;

use crate::common::{Board, Engine, Step, counted, say};

/// As a device gives it to an application that asks for nothing.
const STACK_SLOTS: u32 = 2_048;
const MEMORY_BYTES: u32 = 16_384;
const TABLE_GROWTH: u32 = 64;
/// Work of one step of loading, as devices do it.
const WORK: u32 = 100_000;

/// Offers whatever is asked for: loading is what is measured.
struct Everything;

impl Imports for Everything {
    fn find(&self, _: &str, _: &str, _: FunctionType<'_>) -> Option<u16> {
        Some(0)
    }
}

pub(crate) struct Ours<'m>(Instance<'m>);

impl<'m> Ours<'m> {
    pub(crate) fn load(block: &'m mut [u64], module: &[u8]) -> Result<Self, &'static str> {
        let config =
            Config { stack_slots: STACK_SLOTS, memory_bytes: MEMORY_BYTES, table_growth: TABLE_GROWTH };
        let mut source = module;
        let mut loader = Loader::new(block, &source, config).ok_or("no room for the loader")?;
        while loader.step(&mut source, &Everything, WORK).map_err(|_| "a module is refused")?
            == Progress::More
        {}
        loader.finish().map(Self).ok_or("no room for the call stack")
    }
}

/// Says what it takes to load a module.
pub(crate) fn load<B: Board>(block: &mut [u64], name: &str, module: &[u8]) -> Result<(), &'static str> {
    let (loaded, instructions) = counted::<B, _>(|| Ours::load(block, module));
    let (code_bytes, held) = match loaded {
        Ok(Ours(instance)) => (instance.code_bytes(), instance.bytes()),
        Err(error) => {
            say!(B, "load module={name} error: {error}");
            return Err(error);
        }
    };
    let stack_bytes = stack::used_by(|| {
        // It was loaded a moment ago.
        let _ = Ours::load(block, module);
    });
    say!(
        B,
        "load module={name} bytes={} instructions={instructions} translated={code_bytes} held={held} stack={stack_bytes}",
        module.len()
    );
    Ok(())
}

impl Engine for Ours<'_> {
    const NAME: &'static str = "wasmbed";

    fn start(&mut self, kernel: &str, amount: u32) -> Result<(), &'static str> {
        self.0.call(kernel, &[Value::I32(amount as i32)]).map_err(|_| "a kernel can't be called")
    }

    // A call, as it is in the firmware: its registers are saved and restored in each slice.
    #[inline(never)]
    fn step(&mut self, fuel: u32) -> Result<Step, &'static str> {
        match self.0.step(fuel).0 {
            wasmbed_engine::Step::OutOfFuel => Ok(Step::OutOfFuel),
            wasmbed_engine::Step::Done => match self.0.results().next() {
                Some(Value::I32(sum)) => Ok(Step::Done(sum as u32)),
                _ => Err("a result of another type"),
            },
            _ => Err("a kernel trapped"),
        }
    }
}
