//! Applications that take all memory there is for them.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde_json::json;
use wasmbed_api::{Application, Device, ReasonCode, Topic, TopicDirection};
use wasmbed_control::gateway_api::{DeviceSettingsReport, SettingScalar};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, read_to, start},
    fixtures, module, publish, settings_until,
};
use wasmbed_emulator::Kind;
use wasmbed_protocol::limits::{PAYLOAD_BYTES_MAX, SETTINGS_MAX, SETTINGS_SCHEMA_BYTES_MAX};

each_board!(
    a_full_arena_refuses_the_next_and_breaks_no_reconnect,
    ten_in_a_row_reset_no_board,
    ten_that_are_not_heard_reset_no_board,
    a_module_runs_that_takes_most_of_the_arena,
);

/// Waits for ever with two pages of memory, 128 KiB. Ten of them are more than the board's arena.
const PAGES: &str = r#"(module
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 2)
    (func (export "run") (loop (call $wait (i32.const 500)) (br 0))))"#;
const APPLICATIONS: usize = 10;

fn a_full_arena_refuses_the_next_and_breaks_no_reconnect(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let mut machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        let pages = wat::parse_str(PAGES)?;
        for number in 0..APPLICATIONS {
            let name = format!("app-{number}");
            let mut object = application(&name, &pages, &[NAME]);
            object.spec.config.memory_limit = 2 * 65_536;
            machine.create(&object).await?;
        }
        let mut refused = 0;
        for number in 0..APPLICATIONS {
            let name = format!("app-{number}");
            let settled = machine.application(&name, "Running or Failed", is_settled).await?;
            let failures = settled.status.map(|status| status.failures).unwrap_or_default();
            for failure in failures {
                ensure!(failure.reason == ReasonCode::OutOfMemory, "{name}: {failure:?}");
                refused += 1;
            }
        }
        ensure!(refused > 0, "there was room for all of them");
        println!("{kind}: {refused} of {APPLICATIONS} applications were refused for memory");

        machine.kill("gateway")?;
        read_to(&board, "not connected, next try")?;
        machine.start_gateway()?;
        let lines = read_to(&board, "session established")?;
        ensure!(!lines.iter().any(|line| line.contains(" started ")), "it was reset: {lines:?}");
        Ok(())
    })
}

/// The smallest useful program, ten times as fast as they can be applied: the system's heap is as busy as it gets.
fn ten_in_a_row_reset_no_board(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        read_to(&board, "session established")?;
        let hello = include_bytes!("../../../../guests/prebuilt/hello.wasm");
        for number in 0..APPLICATIONS {
            machine.create(&application(&format!("app-{number}"), hello, &[NAME])).await?;
        }
        let lines = read_to(&board, &format!("memory applications={APPLICATIONS} "))?;
        // What docs/firmware.md says of one and of ten.
        for line in lines.iter().filter(|line| line.contains("memory applications=")) {
            println!("{kind}: {line}");
        }
        ensure!(!lines.iter().any(|line| line.contains(" started ")), "it was reset: {lines:?}");
        Ok(())
    })
}

/// As many settings as there may be, in a schema as long as it may be.
fn schema() -> String {
    let line = |number| format!("s{number:02} text ..7 reported = default\n");
    (0..SETTINGS_MAX).map(line).collect()
}

/// Writes lines and publishes messages as fast as they are taken; `SCHEMA` stands for its settings.
const TALKATIVE: &str = r#"(module
    (@custom "wasmbed.settings" "SCHEMA")
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 64 64 (pagesize 1))
    (data (i32.const 0) "topic")
    (func (export "run") (loop
        (call $log (i32.const 0) (i32.const 60))
        (drop (call $publish (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 60) (i32.const 1)))
        (call $wait (i32.const 10))
        (br 0))))"#;

/// What ten applications say while there is no gateway waits in the system's heap, where the next handshake needs its room; and so do
/// what comes in for them, which they never look at, and their settings.
fn ten_that_are_not_heard_reset_no_board(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let mut machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        read_to(&board, "session established")?;
        let schema = schema();
        ensure!(schema.len() == SETTINGS_SCHEMA_BYTES_MAX, "{} bytes", schema.len());
        let talkative = wat::parse_str(TALKATIVE.replace("SCHEMA", &schema.replace('\n', "\\n")))?;
        let settings: BTreeMap<_, _> =
            (0..SETTINGS_MAX).map(|number| (format!("s{number:02}"), "changed")).collect();
        for number in 0..APPLICATIONS {
            let mut object = application(&format!("app-{number}"), &talkative, &[NAME]);
            object.spec.config.capabilities = vec!["messages".to_owned()];
            let topic = |name: &str, direction| Topic { name: name.to_owned(), direction, per_second: 100 };
            object.spec.config.topics =
                vec![topic("in", TopicDirection::In), topic("topic", TopicDirection::Out)];
            object.spec.settings = serde_json::from_value(json!({ "values": settings }))?;
            machine.create(&object).await?;
        }
        read_to(&board, &format!("memory applications={APPLICATIONS} "))?;
        let changed = |report: &DeviceSettingsReport| {
            let text = Some(SettingScalar::Text("changed".to_owned()));
            report.settings.len() == SETTINGS_MAX
                && report.settings.iter().all(|setting| setting.value == text)
        };
        for number in 0..APPLICATIONS {
            settings_until(&machine, &format!("app-{number}"), "changed", changed)?;
            let payload = "x".repeat(PAYLOAD_BYTES_MAX);
            let application = format!("app-{number}");
            let (told, error) = publish(&machine, &[&application, "in", &payload, "--device", NAME])?;
            ensure!(told.ends_with("has it\n"), "{told} {error}");
        }
        machine.kill("gateway")?;
        read_to(&board, "not connected, next try")?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        machine.start_gateway()?;
        let mut lines = read_to(&board, "session established")?;
        machine.delete::<Application>("app-0").await?;
        lines.extend(read_to(&board, &format!("memory applications={} ", APPLICATIONS - 1))?);
        println!("{kind}: {}", lines.last().map_or("", String::as_str));
        ensure!(!lines.iter().any(|line| line.contains(" started ")), "it was reset: {lines:?}");
        Ok(())
    })
}

/// The code of one program may take what the arena has, and what it has not the fit check says.
fn a_module_runs_that_takes_most_of_the_arena(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        let device = machine.device(NAME, "its facts", |device| arena_bytes(device) > 0).await?;
        let arena = arena_bytes(&device);
        let bytes = usize::try_from(arena)?;
        for (name, bytes) in [("large", bytes / 2), ("too-large", bytes)] {
            let wasm = fixtures::large_program(name, bytes);
            ensure!(wasm.len() >= bytes, "{name} has {} bytes", wasm.len());
            machine.create(&module(name, &wasm)).await?;
            let mut object = application(name, &[], &[NAME]);
            object.spec.wasm_bytes = None;
            object.spec.module = Some(name.to_owned());
            machine.create(&object).await?;
            println!("{kind}: {name} has {} bytes", wasm.len());
        }
        let refused = machine.application("too-large", "Running or Failed", is_settled).await?;
        let failures = refused.status.map(|status| status.failures).unwrap_or_default();
        let Some(failure) = failures.first() else { bail!("it runs in an arena of {arena} bytes") };
        println!("{kind}: {}", failure.message);
        ensure!(failure.reason == ReasonCode::OutOfMemory, "{failure:?}");
        ensure!(failure.message.contains(&arena.to_string()), "{failure:?}");

        read_to(&board, "APP default/large: large")?;
        let ran = machine.application("large", "Running", is_settled).await?;
        ensure!(ran.status.is_some_and(|status| status.counts.running == 1), "it is not reported as running");
        Ok(())
    })
}

fn arena_bytes(device: &Device) -> i64 {
    let facts = device.status.as_ref().and_then(|status| status.facts.as_ref());
    facts.map_or(0, |facts| facts.memory_bytes)
}

fn is_settled(application: &Application) -> bool {
    let status = application.status.as_ref();
    status.is_some_and(|status| status.counts.running == 1 || !status.failures.is_empty())
}
