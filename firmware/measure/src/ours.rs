//! The engine that devices run.

use wasmbed_engine::{Config, FunctionType, Imports, Instance, Loader, Progress, Value};
use wasmbed_firmware_support::stack;
use wasmbed_scan::{Scan, ScanLimits};

use crate::common::{Board, Engine, Step, counted, say};

/// As a device gives it to an application that asks for nothing.
const STACK_SLOTS: u32 = 2_048;
const MEMORY_BYTES: u32 = 16_384;
const TABLE_GROWTH: u32 = 64;
/// Work of one step where all of it is counted, and of one step as devices do it.
const WHOLE: u32 = 100_000;
const STEP: u32 = 100;

/// Offers whatever is asked for: loading is what is measured.
struct Everything;

impl Imports for Everything {
    fn find(&self, _: &str, _: &str, _: FunctionType<'_>) -> Option<u16> {
        Some(0)
    }
}

pub(crate) struct Ours<'m>(Instance<'m>);

const CONFIG: Config =
    Config { stack_slots: STACK_SLOTS, memory_bytes: MEMORY_BYTES, table_growth: TABLE_GROWTH };

impl<'m> Ours<'m> {
    pub(crate) fn load(block: &'m mut [u64], module: &[u8]) -> Result<Self, &'static str> {
        let mut source = module;
        let mut loader = Loader::new(block, &source, CONFIG).ok_or("no room for the loader")?;
        while loader.step(&mut source, &Everything, WHOLE).map_err(|_| "a module is refused")?
            == Progress::More
        {}
        loader.finish().map(Self).ok_or("no room for the call stack")
    }
}

/// Loads a module in steps, as devices do; instructions of the longest one.
fn longest_step<B: Board>(block: &mut [u64], module: &[u8]) -> Result<u64, &'static str> {
    let mut source = module;
    let mut loader = Loader::new(block, &source, CONFIG).ok_or("no room for the loader")?;
    let mut most = 0;
    loop {
        let (stepped, instructions) = counted::<B, _>(|| loader.step(&mut source, &Everything, STEP));
        most = most.max(instructions);
        if stepped.map_err(|_| "a module is refused")? == Progress::Done {
            break;
        }
    }
    let (finished, instructions) = counted::<B, _>(|| loader.finish());
    finished.ok_or("no room for the call stack")?;
    Ok(most.max(instructions))
}

/// Native stack that a step of loading takes, or its end; the loader itself lies elsewhere, as on devices.
fn stack_of_loading(block: &mut [u64], mut module: &[u8]) -> Result<usize, &'static str> {
    let mut loader = Loader::new(block, &module, CONFIG).ok_or("no room for the loader")?;
    let mut progress = Ok(Progress::More);
    let stepping = stack::used_by(|| {
        while progress == Ok(Progress::More) {
            progress = loader.step(&mut module, &Everything, WHOLE);
        }
    });
    progress.map_err(|_| "a module is refused")?;
    let mut finished = None;
    let finishing = stack::used_by(|| finished = loader.finish());
    finished.ok_or("no room for the call stack")?;
    Ok(stepping.max(finishing))
}

/// Scans a module as devices do; instructions in all, and of the longest step.
fn scan<B: Board>(module: &[u8]) -> Result<(u64, u64), &'static str> {
    let limits = ScanLimits { entry_required: false, ..ScanLimits::default() };
    let (mut scan, mut all, mut most) = (Scan::new(&limits), 0, 0);
    loop {
        let (stepped, instructions) = counted::<B, _>(|| scan.step(module, STEP));
        (all, most) = (all + instructions, most.max(instructions));
        if stepped.map_err(|_| "the scan refuses a module")?.is_some() {
            return Ok((all, most));
        }
    }
}

/// Says what it takes to scan and to load a module.
pub(crate) fn load<B: Board>(block: &mut [u64], name: &str, module: &[u8]) -> Result<(), &'static str> {
    let (loaded, instructions) = counted::<B, _>(|| Ours::load(block, module));
    let (code_bytes, held) = match loaded {
        Ok(Ours(instance)) => (instance.code_bytes(), instance.bytes()),
        Err(error) => {
            say!(B, "load module={name} error: {error}");
            return Err(error);
        }
    };
    let stack_bytes = stack_of_loading(block, module)?;
    let load_step = longest_step::<B>(block, module)?;
    let (scan, scan_step) = scan::<B>(module)?;
    say!(
        B,
        "load module={name} bytes={} instructions={instructions} translated={code_bytes} held={held} stack={stack_bytes} \
         load_step={load_step} scan={scan} scan_step={scan_step}",
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
