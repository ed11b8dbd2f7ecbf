//! Modules that are broken or mean harm: each ends in the right phase with a reason that a person understands, and its neighbour
//! on the same device doesn't notice.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use wasmbed_api::{Application, ApplicationPhase, Device, DeviceApplicationState, ReasonCode};
use wasmbed_e2e::{ControlPlane, Machine, application, digest, fixtures, module};

wasmbed_e2e::both!(
    each_ends_with_its_reason_and_the_neighbour_does_not_notice,
    a_flood_of_log_lines_is_bounded_and_counted,
    a_module_over_the_limit_is_refused_where_it_is_applied,
    an_eleventh_application_is_refused_and_the_ten_run_on,
);

/// What becomes of one hostile module.
struct Case {
    name: &'static str,
    wasm: Vec<u8>,
    reason: ReasonCode,
    /// A part of the message.
    says: &'static str,
}

fn case(name: &'static str, wasm: Vec<u8>, reason: ReasonCode, says: &'static str) -> Case {
    Case { name, wasm, reason, says }
}

/// Modules that are refused before anything is sent, or that the device ends while they run.
fn cases() -> Vec<Case> {
    use ReasonCode::{
        CapabilityDenied, CpuLimit, InvalidModule, MemoryLimit, StackLimit, Trapped, UnknownImport,
    };
    vec![
        case("endless-loop", fixtures::endless_loop(), CpuLimit, "1000 ms"),
        case("endless-growth", fixtures::endless_growth(), MemoryLimit, "65536 bytes"),
        case("endless-recursion", fixtures::endless_recursion(), StackLimit, ""),
        case("trap-at-once", fixtures::trap_at_once(), Trapped, "at inner (function 0, offset 0x"),
        case("endless-start", fixtures::endless_start(), CpuLimit, "1000 ms"),
        case("call-of-nothing", fixtures::call_of_nothing(), Trapped, "empty table element"),
        case("many-elements", fixtures::many_elements(), InvalidModule, "20000 elements in segments"),
        case("unknown-import", fixtures::unknown_import(), UnknownImport, "self_destruct"),
        case("wrong-signature", fixtures::wrong_signature(), UnknownImport, "wasmbed.log"),
        case("no-entry", fixtures::no_entry(), InvalidModule, "_start"),
        case("needs-key-value", fixtures::needs_key_value(), CapabilityDenied, "key-value"),
        case("huge-memory", fixtures::huge_memory(), MemoryLimit, ""),
        case("many-locals", fixtures::many_locals(), InvalidModule, "20000"),
        case("many-exports", fixtures::many_exports(), InvalidModule, "7500"),
        case("many-functions", fixtures::many_functions(), InvalidModule, "70000"),
        case("not-webassembly", fixtures::not_webassembly(), InvalidModule, ""),
        case("damaged", fixtures::damaged(), InvalidModule, ""),
    ]
}

fn restarts(device: &Device, digest: &str) -> Option<(DeviceApplicationState, i64)> {
    let applications = &device.status.as_ref()?.applications;
    let found = applications.iter().find(|application| application.digest.as_deref() == Some(digest))?;
    Some((found.state, found.restarts))
}

/// The device's own failure, once it has one.
fn failure<'a>(application: &'a Application, device: &str) -> Option<&'a wasmbed_api::ApplicationFailure> {
    application.status.as_ref()?.failures.iter().find(|failure| failure.device == device)
}

async fn each_ends_with_its_reason_and_the_neighbour_does_not_notice(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let neighbour = fixtures::ticker("neighbour", 100);
    machine.create(&application("neighbour", &neighbour, &["board"])).await?;
    machine
        .device("board", "running the neighbour", |device| {
            restarts(device, &digest(&neighbour))
                .is_some_and(|(state, _)| state == DeviceApplicationState::Running)
        })
        .await?;

    // All of them, before the test fails for one.
    let mut otherwise = Vec::new();
    for Case { name, wasm, reason, says } in cases() {
        // Large ones don't fit an Application and go by a Module.
        if wasm.len() > 100 * 1_024 {
            machine.create(&module(name, &wasm)).await.with_context(|| format!("the Module {name}"))?;
            let mut by_module = application(name, &[], &["board"]);
            (by_module.spec.wasm_bytes, by_module.spec.module) = (None, Some(name.to_owned()));
            machine.create(&by_module).await?;
        } else {
            machine.create(&application(name, &wasm, &["board"])).await?;
        }
        let failed = machine
            .application(name, "Failed with a reason", |application| {
                let phase = application.status.as_ref().map(|status| status.phase);
                phase == Some(ApplicationPhase::Failed) && failure(application, "board").is_some()
            })
            .await?;
        let failure = failure(&failed, "board").context("a failure")?;
        if failure.reason != reason || !failure.message.contains(says) {
            otherwise.push(format!(
                "{name}: {:?}, {:?}; expected {reason:?}, saying {says:?}",
                failure.reason, failure.message
            ));
        }
        if name == "trap-at-once" {
            its_functions_are_named(&machine, name).await?;
            its_description_says_where(&machine, name)?;
        }
        machine.delete::<Application>(name).await?;
    }

    assert!(otherwise.is_empty(), "{otherwise:#?}");

    let after = machine
        .device("board", "running the neighbour alone", |device| {
            device.status.as_ref().is_some_and(|status| status.applications.len() == 1)
        })
        .await?;
    assert_eq!(restarts(&after, &digest(&neighbour)), Some((DeviceApplicationState::Running, 0)));
    Ok(())
}

/// An Event of the device and a line of the application's log say which function trapped and who called it.
async fn its_functions_are_named(machine: &Machine, name: &str) -> Result<()> {
    let named = |text: &str| {
        let rest =
            text.split_once("unreachable executed (a panic or an abort) at inner (function 0, offset 0x");
        rest.and_then(|(_, rest)| rest.split_once("), called by outer (function 1, offset 0x"))
            .is_some_and(|(_, rest)| rest.contains("), function 2 (offset 0x"))
    };
    let events: Api<Event> = Api::namespaced(machine.client().clone(), "default");
    let kubeconfig = machine.layout().kubeconfig();
    let pki = machine.operator_pki()?;
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    loop {
        let messages: Vec<_> = events.list(&Default::default()).await?.items;
        let messages: Vec<_> = messages.into_iter().filter_map(|event| event.message).collect();
        let mut command = wasmbed_e2e::wasmbed(&["logs", name, "--kubeconfig"])?;
        let output = command.arg(&kubeconfig).arg("--pki").arg(&pki).output()?;
        let log = String::from_utf8_lossy(&output.stdout);
        if messages.iter().any(|message| named(message)) && log.lines().any(named) {
            return Ok(());
        }
        anyhow::ensure!(std::time::Instant::now() < deadline, "{messages:#?}\n{log}");
    }
}

/// `kubectl describe` of the Application says it too: among its failures, and in its own Event.
fn its_description_says_where(machine: &Machine, name: &str) -> Result<()> {
    let kubectl = machine.kubectl()?;
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    loop {
        let described = kubectl.run(&["describe", "wapp", name])?;
        let (status, events) = described.split_once("Events:").unwrap_or((&described, ""));
        let named = |text: &str| text.contains("at inner (function 0, offset 0x");
        if named(status) && named(events) {
            return Ok(());
        }
        anyhow::ensure!(std::time::Instant::now() < deadline, "{described}");
    }
}

async fn a_flood_of_log_lines_is_bounded_and_counted(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let neighbour = fixtures::ticker("neighbour", 100);
    machine.create(&application("neighbour", &neighbour, &["board"])).await?;
    let flood = fixtures::log_flood();
    machine.create(&application("flood", &flood, &["board"])).await?;
    machine
        .device("board", "running both", |device| {
            let running = |wasm: &[u8]| restarts(device, &digest(wasm)).map(|(state, _)| state);
            [&neighbour, &flood].iter().all(|wasm| running(wasm) == Some(DeviceApplicationState::Running))
        })
        .await?;
    // The gateway's own copy of the log says how many lines the device had to drop.
    let kubeconfig = machine.layout().kubeconfig();
    let pki = machine.operator_pki()?;
    let mut lines = Vec::new();
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    while !lines.iter().any(|line: &String| line.contains("lost")) {
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "no line says that others were lost: {lines:#?}"
        );
        let mut command = wasmbed_e2e::wasmbed(&["logs", "flood", "--kubeconfig"])?;
        let output = command.arg(&kubeconfig).arg("--pki").arg(&pki).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    }
    let mut command = wasmbed_e2e::wasmbed(&["logs", "neighbour", "--kubeconfig"])?;
    let output = command.arg(&kubeconfig).arg("--pki").arg(&pki).output()?;
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("neighbour"),
        "the neighbour's lines arrive too"
    );
    Ok(())
}

async fn a_module_over_the_limit_is_refused_where_it_is_applied(plane: ControlPlane) -> Result<()> {
    let machine = Machine::start(plane).await?;
    let error = machine.create(&module("large", &fixtures::too_large())).await.expect_err("over 1 MiB");
    assert!(format!("{error:#}").contains("spec.wasm_bytes"), "{error:#}");
    let inline = fixtures::large_ticker("tick", 1_000, 140 * 1_024);
    let error = machine.create(&application("large", &inline, &[])).await.expect_err("over 128 KiB");
    assert!(format!("{error:#}").contains("spec.wasm_bytes"), "{error:#}");
    Ok(())
}

async fn an_eleventh_application_is_refused_and_the_ten_run_on(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    for number in 1..=10 {
        let wasm = fixtures::ticker(&format!("number {number}"), 1_000);
        machine.create(&application(&format!("app-{number:02}"), &wasm, &["board"])).await?;
    }
    machine
        .device("board", "running ten", |device| {
            let applications = device.status.iter().flat_map(|status| &status.applications);
            applications.filter(|application| application.state == DeviceApplicationState::Running).count()
                == 10
        })
        .await?;
    machine.create(&application("app-11", &fixtures::ticker("number 11", 1_000), &["board"])).await?;
    let refused = machine
        .application("app-11", "Failed", |application| {
            application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Failed)
        })
        .await?;
    let failure = failure(&refused, "board").context("a failure")?;
    assert_eq!(failure.reason, ReasonCode::TooManyApplications, "{}", failure.message);
    let device = machine.connected("board").await?;
    let running = device.status.iter().flat_map(|status| &status.applications);
    assert_eq!(
        running.filter(|application| application.state == DeviceApplicationState::Running).count(),
        10
    );

    // Room again: the eleventh moves up.
    machine.delete::<Application>("app-03").await?;
    machine
        .application("app-11", "Running", |application| {
            application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
        })
        .await?;
    Ok(())
}
