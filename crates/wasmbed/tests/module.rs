//! `module check`, `module run` and `module info`, and the committed samples: accepted by a device's scan, small, and
//! saying what their sources say.
#![allow(clippy::expect_used, reason = "helpers of tests")]

use std::path::PathBuf;

use wasmbed::commands::module::{CheckOptions, Findings, Info, TrialEnd, TrialOptions, check, pack, try_out};
use wasmbed_api::DeviceFacts;
use wasmbed_control::fleet::{ModuleFacts, plan_room};
use wasmbed_runtime::engine::Engine;
use wasmbed_runtime::{
    AppId, Capabilities, Capability, Ending, Exceeded, Interpreter, Limits, Program, Runtime, RuntimeConfig,
};

fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../guests/prebuilt/{name}.wasm"));
    std::fs::read(&path).expect("the sample is committed")
}

fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's module is valid")
}

const BOARD: CheckOptions =
    CheckOptions { memory_limit_bytes: 65_536, device_memory_bytes: 384 * 1_024, capabilities: None };

fn options() -> TrialOptions {
    TrialOptions {
        name: "test".into(),
        args: Vec::new(),
        env: Vec::new(),
        capabilities: Capabilities::NONE,
        limits: Limits { memory_bytes: 65_536, cpu_ms: 200 },
        lines_max: None,
        settings: vec![],
        skip_waits: true,
    }
}

fn run(module: &[u8], options: &TrialOptions) -> (Vec<String>, anyhow::Result<TrialEnd>) {
    let mut out = Vec::new();
    let end = try_out(module, options, &mut out);
    let text = String::from_utf8(out).expect("the log is text");
    (text.lines().map(str::to_string).collect(), end)
}

#[test]
fn the_samples_are_accepted_and_small() {
    for (name, bytes_max) in
        [("hello", 6_000), ("sensor-loop", 8_000), ("counter", 7_000), ("hello-c", 1_000)]
    {
        let bytes = sample(name);
        assert!(bytes.len() <= bytes_max, "{name} has {} bytes", bytes.len());
        assert_eq!(check(&bytes, &BOARD).refused, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn ten_rust_samples_fit_a_small_board() {
    for name in ["hello", "sensor-loop", "counter"] {
        let tenth = CheckOptions { device_memory_bytes: BOARD.device_memory_bytes / 10, ..BOARD };
        assert_eq!(check(&sample(name), &tenth).refused, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn hello_says_hello_and_stays() {
    for (name, lines) in [
        ("hello", ["hello from a WebAssembly module", "still here after 10 s", "still here after 20 s"]),
        ("hello-c", ["hello from C", "hello again, 1", "hello again, 2"]),
    ] {
        let (log, end) = run(&sample(name), &TrialOptions { lines_max: Some(3), ..options() });
        assert_eq!(log, lines);
        assert_eq!(end.expect("it runs"), TrialEnd::Stopped);
    }
}

/// A module with this in a section that declares settings.
fn declaring(schema: &str) -> Vec<u8> {
    let mut bytes = module(r#"(module (func (export "run")))"#);
    let name = b"wasmbed.settings";
    bytes.extend([0, u8::try_from(1 + name.len() + schema.len()).expect("it is short"), name.len() as u8]);
    bytes.extend(name);
    bytes.extend(schema.bytes());
    bytes
}

#[test]
fn settings_are_shown_and_outlive_packing() {
    let packed = pack(&sample("beacon")).expect("it can be packed");
    let findings = check(&packed.bytes, &BOARD);
    assert_eq!(findings.refused, Vec::<String>::new());
    let shown: Vec<_> = findings.notes.iter().filter(|note| note.starts_with("setting")).collect();
    assert_eq!(
        shown,
        [
            "setting `interval_ms`: int 100..3600000, default 1000, reported",
            "setting `label`: text ..16, default beacon, reported",
            "setting `lit`: bool, default true",
        ]
    );
    assert_eq!(pack(&packed.bytes).expect("it can be packed").bytes, packed.bytes);

    let wrong = declaring("a int = 1\nb int = x\n");
    let section = "section `wasmbed.settings`: line 2: the default is not of the type, or outside its range";
    assert_eq!(check(&wrong, &BOARD).refused, [section]);
    assert_eq!(pack(&wrong).expect_err("it is no schema").to_string(), section);
    let facts = ModuleFacts::analyze(&wrong).needs.expect_err("it is no schema");
    assert!(facts.message.contains("line 2"), "{}", facts.message);
}

#[test]
fn a_module_runs_with_values_of_its_settings() {
    let settings =
        vec![("label".to_owned(), "hello".to_owned()), ("interval_ms".to_owned(), "250".to_owned())];
    let (log, end) = run(&sample("beacon"), &TrialOptions { lines_max: Some(2), settings, ..options() });
    assert_eq!(log, ["hello 1, every 250 ms", "hello 2, every 250 ms"]);
    assert_eq!(end.expect("it runs"), TrialEnd::Stopped);
    for (name, value, expected) in [
        ("interval_ms", "5", "setting `interval_ms` is int 100..3600000, which '5' is not"),
        ("colour", "red", "the module declares no setting `colour`"),
    ] {
        let settings = vec![(name.to_owned(), value.to_owned())];
        let (_, end) = run(&sample("beacon"), &TrialOptions { settings, ..options() });
        assert_eq!(end.expect_err("it is refused").to_string(), expected);
    }
}

#[test]
fn the_counter_counts_where_it_may() {
    let granted = Capabilities::NONE.with(Capability::KeyValue);
    let (log, _) =
        run(&sample("counter"), &TrialOptions { lines_max: Some(3), capabilities: granted, ..options() });
    assert_eq!(log, ["starting at 0", "count 1", "count 2"]);
    let (_, end) = run(&sample("counter"), &options());
    let message = end.expect_err("it is refused").to_string();
    assert!(message.contains("'key-value'"), "{message}");
}

#[test]
fn the_sensor_loop_survives_a_board_without_sensors() {
    let granted = Capabilities::NONE.with(Capability::Sensor).with(Capability::Gpio);
    let (log, _) =
        run(&sample("sensor-loop"), &TrialOptions { lines_max: Some(2), capabilities: granted, ..options() });
    assert_eq!(log, ["sensor 0: not found", "sensor 0: not found"]);
}

#[test]
fn a_run_ends_as_on_a_device() {
    let end = |text: &str| run(&module(text), &options()).1.expect("it is loaded");
    assert_eq!(end(r#"(module (func (export "run")))"#), TrialEnd::Ended(Ending::Exited { code: 0 }));
    let exits = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (func (export "_start") (call $exit (i32.const 7))))"#;
    assert_eq!(end(exits), TrialEnd::Ended(Ending::Exited { code: 7 }));
    let loops = r#"(module (func (export "run") (loop (br 0))))"#;
    assert_eq!(end(loops), TrialEnd::Ended(Ending::Exceeded(Exceeded::Cpu { limit_ms: 200 })));
    assert!(matches!(
        end(r#"(module (func (export "run") unreachable))"#),
        TrialEnd::Ended(Ending::Trapped(_))
    ));
}

#[test]
fn arguments_and_environment_arrive() {
    // argv[1] is written by the host behind the pointers, its address stands in the second of them.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
        (import "wasmbed" "log" (func $log (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "run")
            (drop (call $args (i32.const 0) (i32.const 100)))
            (call $log (i32.load (i32.const 4)) (i32.const 5))
            (drop (call $env (i32.const 0) (i32.const 200)))
            (call $log (i32.load (i32.const 0)) (i32.const 3))))"#;
    let options =
        TrialOptions { args: vec!["first".into()], env: vec![("A".into(), "1".into())], ..options() };
    assert_eq!(run(&module(text), &options).0, ["first", "A=1"]);
}

#[test]
fn check_says_everything_at_once() {
    let text = r#"(module
        (import "env" "printf" (func (param i32 i32) (result i32)))
        (import "wasmbed" "log" (func (param i32)))
        (import "wasmbed" "wait" (func (param i32)))
        (func (export "run") (param i32) (drop (v128.const i64x2 0 0))))"#;
    let Findings { refused, .. } = check(&module(text), &BOARD);
    for words in ["env.printf", "wasmbed.log", "SIMD, once", "undefined symbol", "entry 'run' is func (i32)"]
    {
        assert!(refused.iter().any(|line| line.contains(words)), "{words}: {refused:#?}");
    }
    assert!(!refused.iter().any(|line| line.contains("wasmbed.wait")), "{refused:#?}");
}

#[test]
fn check_knows_when_packing_helps() {
    let text = r#"(module (memory 1) (func $main) (start $main))"#;
    let findings = check(&module(text), &BOARD);
    assert!(!findings.refused.is_empty());
    assert!(findings.notes.iter().any(|line| line.contains("module pack")), "{findings:?}");
    let packed = pack(&module(text)).expect("it can be packed");
    assert_eq!(check(&packed.bytes, &BOARD).refused, Vec::<String>::new());
}

#[test]
fn check_says_what_older_devices_need() {
    let fills = r#"(module (memory 1) (func (export "run") (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))"#;
    let calls = r#"(module (func $f (export "run") (drop (i32.extend8_s (i32.const 1))) (return_call $f)))"#;
    let notes = |text: &str| {
        let findings = check(&module(text), &BOARD);
        assert_eq!(findings.refused, Vec::<String>::new());
        findings.notes.into_iter().filter(|line| line.contains("before this version")).collect::<Vec<_>>()
    };
    assert_eq!(
        notes(fills),
        [
            "devices of before this version may run it only after `wasmbed module pack --lower`, for memory.copy and memory.fill"
        ]
    );
    assert_eq!(notes(calls), ["devices of before this version may not run it, for tail calls"]);
    assert_eq!(notes(r#"(module (memory 1) (func (export "run")))"#), Vec::<String>::new());
}

#[test]
fn check_says_what_an_application_takes_at_least() {
    let notes = check(&module(r#"(module (memory 1) (func (export "run")))"#), &BOARD).notes;
    assert!(
        notes[0].starts_with("it takes 65,") && notes[0].contains(": 8 for its call stack, "),
        "{notes:?}"
    );
    assert!(notes[0].contains("65,536 of memory to begin with"), "{notes:?}");
}

/// What the fit check says that a device needs is what a device takes, to the byte.
#[test]
fn the_fit_check_knows_what_a_device_takes() {
    let table = r#"(module (table 100 funcref) (elem (i32.const 3) $f $f) (global i64 (i64.const 1)) (memory 10 (pagesize 1))
        (func $f (export "run") (block (br_table 0 0 0 (i32.const 1)))))"#;
    let modules = ["hello", "hello-c", "counter", "sensor-loop"].map(sample);
    for bytes in modules.into_iter().chain([module(table)]) {
        let facts = ModuleFacts::analyze(&bytes);
        let footprint = facts.needs.expect("it runs on a device").footprint;
        let device = |memory_bytes: u64| DeviceFacts {
            engine: <Interpreter as Engine>::NAME.to_owned(),
            memory_bytes: i64::try_from(memory_bytes).expect("a small number"),
            ..DeviceFacts::default()
        };
        let (kept, loading) = (footprint.bytes(&device(0)), footprint.loading_bytes(&device(0)));
        let needed = kept + loading;
        assert_eq!(plan_room(&footprint, &device(needed), &[]), Ok(()));
        assert!(plan_room(&footprint, &device(needed - 1), &[]).is_err());
        let limits =
            Limits { memory_bytes: u32::try_from(footprint.linear_bytes).expect("small"), cpu_ms: 1 };
        let capabilities = Capabilities::ALL;
        let program = Program { name: "test", module: &bytes, limits, args: &[], env: &[], capabilities };
        let load = |arena_bytes: u64| {
            let arena_bytes = usize::try_from(arena_bytes).expect("small");
            let config = RuntimeConfig { arena_bytes, ..RuntimeConfig::default() };
            let mut runtime: Runtime<Interpreter> = Runtime::new(config);
            runtime.load(AppId([1; 16]), &program).map(|()| runtime.memory_used_bytes() as u64)
        };
        assert_eq!(load(needed.next_multiple_of(8)).expect("it fits"), kept.next_multiple_of(8));
        assert!(load(needed - 8).is_err(), "{needed}");
    }
}

#[test]
fn check_compares_with_limits_and_grants() {
    let large = module(r#"(module (memory 2) (func (export "run")))"#);
    let refused = check(&large, &BOARD).refused;
    assert_eq!(refused, ["it starts with 131,072 bytes of memory, memory_limit is 65,536"]);
    let tight = CheckOptions { memory_limit_bytes: 1 << 20, device_memory_bytes: 100_000, ..BOARD };
    assert!(check(&large, &tight).refused[0].contains("the device has 100,000"));
    let none = CheckOptions { capabilities: Some(Capabilities::NONE), ..BOARD };
    assert!(check(&sample("counter"), &none).refused[0].contains("`key-value`"));
    let all = CheckOptions { capabilities: Some(Capabilities::ALL), ..BOARD };
    assert_eq!(check(&sample("counter"), &all).refused, Vec::<String>::new());
}

#[test]
fn check_refuses_what_only_an_engine_would() {
    // Sound in structure, but adds a float to an integer.
    let bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x0d\x01\x0b\0\x41\x01\x43\0\0\0\0\x6a\x1a\x0b";
    let refused = check(bytes, &BOARD).refused;
    assert_eq!(refused, ["invalid module: f32 where i32 is expected (byte 39 of the module)"]);
}

#[test]
fn info_describes_a_module_for_programs_too() {
    let bytes = sample("counter");
    let info = Info::read(&bytes).expect("it can be read");
    let json = serde_json::to_value(&info).expect("it is serialisable");
    assert_eq!(json["bytes"], bytes.len());
    assert_eq!(json["digest"].as_str().map(str::len), Some(64));
    assert_eq!(json["memory"]["page_bytes"], 1);
    let imports = json["imports"].as_array().expect("a list");
    assert!(
        imports.iter().any(|import| import["name"] == "key_value_get"
            && import["type"] == "func (i32, i32, i32, i32) -> i32")
    );
    assert!(json["exports"].as_array().expect("a list").iter().any(|export| export["name"] == "run"));
    let text = info.to_text();
    for words in ["sha256:", "wasmbed.key_value_put func", "run func ()", "custom page sizes: once"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
