//! `module symbolize` and the trace of `module run`: from the bytes that a device names to files and lines of the module
//! that its author has.
#![allow(clippy::expect_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use wasmbed::commands::module::{
    SymbolizeError, Symbolized, Symbolizer, TracePlace, TrialOptions, pack, pack_for, places_in,
    try_out_traced,
};
use wasmbed_runtime::{
    AppId, Capabilities, FUNCTION_NAME_BYTES_MAX, Features, Interpreter, Limits, Program, Runtime,
    RuntimeConfig,
};

/// Made by rustc from `data/trap.rs`, with debug information.
const TRAP: &[u8] = include_bytes!("data/trap.wasm");
const SOURCE: &str = include_str!("data/trap.rs");

fn options() -> TrialOptions {
    TrialOptions {
        name: "test".into(),
        args: Vec::new(),
        env: Vec::new(),
        capabilities: Capabilities::NONE,
        limits: Limits { memory_bytes: 1 << 20, cpu_ms: 200 },
        lines_max: None,
        settings: vec![],
        skip_waits: true,
    }
}

fn trace(module: &[u8]) -> Vec<TracePlace> {
    try_out_traced(module, &options(), &mut Vec::new()).expect("it runs").1
}

/// The line of the source that has this text, once.
fn line(text: &str) -> String {
    let mut lines = SOURCE.lines().enumerate().filter(|(_, line)| line.contains(text));
    let (number, _) = lines.next().expect("the source has it");
    assert!(lines.next().is_none(), "{text} stands there once");
    format!("src/trap.rs:{}:", number + 1)
}

fn check(found: &[Symbolized]) {
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    let [read, measure, run] = found else { panic!("{shown:#?}") };
    let position = |found: &Symbolized, at: usize| found.sources[at].position.clone().unwrap_or_default();
    let functions: Vec<_> = read.sources.iter().filter_map(|source| source.function.as_deref()).collect();
    assert_eq!(functions.last(), Some(&"trap::read"), "{shown:#?}");
    assert!(functions.contains(&"trap::checked"), "an inlined function is one of its own: {shown:#?}");
    assert!(position(read, read.sources.len() - 1).starts_with(&line("checked(place) + 1")), "{shown:#?}");
    assert!(position(read, read.sources.len() - 2).starts_with(&line("read_volatile")), "{shown:#?}");
    assert!(position(measure, 0).starts_with(&line("sum += read(sensor)")), "{shown:#?}");
    assert!(position(run, 0).starts_with(&line("let sum = measure(")), "{shown:#?}");
    assert!(shown[0].contains("inlined into trap::read at src/trap.rs:"), "{shown:#?}");
}

#[test]
fn a_trace_of_the_packed_module_and_one_of_the_file_have_the_same_lines() {
    let packed = pack(TRAP).expect("it can be packed");
    let symbolizer = Symbolizer::read(TRAP).expect("it is a module");
    assert!(symbolizer.has_debug_information());
    let (of_packed, of_file) = (trace(&packed.bytes), trace(TRAP));
    assert_ne!(of_packed, of_file, "packing moves operators");
    check(&symbolizer.symbolize(&of_packed).expect("they are its places"));
    check(&symbolizer.symbolize(&of_file).expect("they are its places"));
}

#[test]
fn a_trace_of_another_module_is_refused() {
    let other = wat::parse_str(r#"(module (func (export "run") unreachable))"#).expect("it is valid");
    let symbolizer = Symbolizer::read(&other).expect("it is a module");
    let places = trace(&pack(TRAP).expect("it can be packed").bytes);
    let error = symbolizer.symbolize(&places).expect_err("they are not its places");
    assert!(matches!(&error, SymbolizeError::AnotherModule { file, packed, .. }
        if file.starts_with("sha256:") && packed.starts_with("sha256:")));
    assert!(error.to_string().contains(&places[0].to_string()), "{error}");
}

#[test]
fn names_serve_without_debug_information_and_what_packing_made_is_said() {
    let text = r#"(module (memory (export "memory") 1)
        (func $fill (param i32) (drop (i32.extend8_s (local.get 0)))
            (memory.fill (local.get 0) (i32.const 1) (i32.const 100)))
        (func (export "run") (call $fill (i32.const 70000))))"#;
    let module = wat::parse_str(text).expect("it is valid");
    let symbolizer = Symbolizer::read(&module).expect("it is a module");
    assert!(!symbolizer.has_debug_information());
    let shown = |module: &[u8]| -> Vec<String> {
        let found = symbolizer.symbolize(&trace(module)).expect("they are its places");
        found.iter().map(ToString::to_string).collect()
    };
    let of_file = shown(&module);
    assert!(of_file[0].starts_with("fill (function 0, offset 0x") && of_file[1].starts_with("function 1, "));
    let of_packed = shown(&pack_for(&module, Features::FIRST_DEVICES).expect("it can be packed").bytes);
    assert!(
        of_packed[0].starts_with("function 2, ") && of_packed[0].ends_with("(made by packing)"),
        "{of_packed:?}"
    );
    assert!(of_packed[1].starts_with("fill (function 0, "), "{of_packed:?}");
}

/// What a running module takes of a device's memory.
fn memory_bytes(module: &[u8]) -> u64 {
    let id = AppId([1; 16]);
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::hosted());
    let limits = options().limits;
    let program =
        Program { name: "test", module, limits, args: &[], env: &[], capabilities: Capabilities::NONE };
    runtime.load(id, &program).expect("it runs");
    runtime.usage(id).expect("it is there").memory_bytes
}

#[test]
fn names_that_are_kept_are_those_a_device_has_a_use_for() {
    let packed = pack(TRAP).expect("it can be packed");
    let named = pack(TRAP).and_then(|packed| packed.with_names(TRAP)).expect("it can be packed");
    let kept = named.names.expect("they were asked for");
    assert_eq!(named.bytes.len(), packed.bytes.len() + kept.bytes);
    assert!(named.bytes.starts_with(&packed.bytes));
    let report = named.report();
    let line = format!("names      of {} functions: {} of these bytes", kept.functions, kept.bytes);
    assert!(report.lines().any(|found| found == line), "{report}");

    let mut names = std::collections::BTreeMap::new();
    for payload in wasmparser::Parser::new(0).parse_all(&named.bytes) {
        if let wasmparser::Payload::CustomSection(section) = payload.expect("it is valid")
            && let wasmparser::KnownCustom::Name(parts) = section.as_known()
        {
            for part in parts {
                let wasmparser::Name::Function(map) = part.expect("it is valid") else {
                    panic!("other names")
                };
                names.extend(
                    map.into_iter().map(|naming| naming.expect("it is valid")).map(|n| (n.index, n.name)),
                );
            }
        }
    }
    assert_eq!(names.len(), kept.functions as usize);
    assert!(
        names.values().all(|name| !name.is_empty() && name.len() <= FUNCTION_NAME_BYTES_MAX),
        "{names:?}"
    );
    let places = trace(&named.bytes);
    assert_eq!(places, trace(&packed.bytes), "nothing else moves");
    let told: Vec<_> = places.iter().filter_map(|place| names.get(&place.function?).copied()).collect();
    assert!(told.starts_with(&["trap::read", "trap::measure"]), "{told:?}");

    check(&Symbolizer::read(TRAP).expect("it is a module").symbolize(&places).expect("they are its places"));
    assert_eq!(memory_bytes(&named.bytes), memory_bytes(&packed.bytes));
    assert_eq!(pack(&named.bytes).expect("it can be packed").bytes, packed.bytes, "dropped unless asked for");
    let none =
        pack(&packed.bytes).and_then(|again| again.with_names(&packed.bytes)).expect("it can be packed");
    assert_eq!(none.bytes, packed.bytes);
    assert!(none.report().contains("there are no names to keep"), "{}", none.report());
}

#[test]
fn places_are_found_in_what_devices_write() {
    let place = |function, offset| TracePlace { function: Some(function), offset };
    let line = "trapped: unreachable executed at a::function b (function 12, offset 0x1a3), called by function 7 (offset \
                0x2f0), run (function 3), function 0, and 3 more";
    let expected = [place(12, Some(0x1a3)), place(7, Some(0x2f0)), place(3, None), place(0, None)];
    assert_eq!(places_in(line), expected);
    assert_eq!(places_in("a function that is none, function 99999999999, function"), []);
}

fn wasmbed(arguments: &[&str], input: &str) -> (String, String, bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wasmbed"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[test]
fn the_commands_print_functions_and_lines() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/trap.wasm");
    let (_, complaint, succeeded) = wasmbed(&["module", "run", file, "--memory-limit", "1Mi"], "");
    assert!(!succeeded && complaint.contains("memory access out of bounds"), "{complaint}");
    assert!(
        complaint.contains("trap::read") && complaint.contains(&line("sum += read(sensor)")),
        "{complaint}"
    );
    let places = trace(&pack(TRAP).expect("it can be packed").bytes);
    let log = format!("board 2 lines\ntrapped: at {}, called by {}\n\u{1b}[2J\n", places[0], places[1]);
    let (shown, complaint, succeeded) = wasmbed(&["module", "symbolize", file], &log);
    assert!(succeeded, "{complaint}");
    assert!(shown.contains("trap::read") && shown.contains(&line("sum += read(sensor)")), "{shown}");
    let offset = format!("{:#x}", places[1].offset.unwrap_or_default());
    let (shown, _, _) = wasmbed(&["module", "symbolize", file, "--offset", &offset], "");
    assert!(shown.contains(&line("sum += read(sensor)")), "{shown}");
    let (_, complaint, succeeded) = wasmbed(&["module", "symbolize", file], "nothing\n");
    assert!(!succeeded && complaint.contains("no trace in standard input"), "{complaint}");
}
