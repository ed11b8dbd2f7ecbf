//! An Application's life: devices that are away, a new module, deletion.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;
use wasmbed_api::{
    APPLICATION_FINALIZER, Application, ApplicationPhase, ApplicationStatus, DEVICE_FINALIZER, Device,
    DeviceApplicationState, DevicePhase, MODULE_BYTES, Module, ReasonCode, RestartPolicy, TargetDevices,
};
use wasmbed_e2e::{
    ControlPlane, Machine, Part, Process, application, digest, fixtures, metric_at_least, module, until_at,
    wasmbed,
};
use wasmbed_pki::Identity;

wasmbed_e2e::both!(
    a_device_that_is_away_delays_complete_and_gets_the_module_when_it_returns,
    a_new_module_replaces_the_old_and_a_deleted_application_leaves_the_device,
    an_application_deleted_while_its_device_is_away_goes_and_the_device_drops_it_on_its_return,
    a_deleted_device_stops_what_it_ran,
    a_deleted_namespace_goes_and_its_devices_stop,
    jobs_are_waited_for_leave_their_places_and_are_not_run_again,
    a_deleted_module_leaves_what_runs_and_a_new_target_says_why,
    a_quota_on_module_bytes_holds_until_it_is_raised,
);

fn status(application: &Application) -> ApplicationStatus {
    application.status.clone().unwrap_or_default()
}

fn condition(application: &Application, kind: &str) -> Option<(String, String, String)> {
    let status = application.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn is(application: &Application, kind: &str, value: &str) -> bool {
    condition(application, kind).is_some_and(|(status, ..)| status == value)
}

fn runs(device: &Device, digest: &str) -> bool {
    let applications = device.status.iter().flat_map(|status| &status.applications);
    applications.into_iter().any(|application| {
        application.state == DeviceApplicationState::Running && application.digest.as_deref() == Some(digest)
    })
}

fn idle(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| status.applications.is_empty())
}

async fn a_device_that_is_away_delays_complete_and_gets_the_module_when_it_returns(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("here").await?;
    machine.add_device("away").await?;
    machine.connected("here").await?;
    machine.connected("away").await?;
    machine.kill("away")?;
    machine
        .device("away", "Disconnected", |device| {
            device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Disconnected)
        })
        .await?;

    let wasm = fixtures::ticker("tick", 500);
    machine.create(&application("ticker", &wasm, &["here", "away"])).await?;
    let ready = machine
        .application("ticker", "Ready and not Complete", |application| {
            is(application, "Ready", "True") && is(application, "Complete", "False")
        })
        .await?;
    let (_, _, message) = condition(&ready, "Complete").context("a condition Complete")?;
    assert!(message.contains("away"), "the device that is away is named: {message}");
    assert_eq!(status(&ready).phase, ApplicationPhase::Running);
    assert_eq!((status(&ready).counts.running, status(&ready).counts.targets), (1, 2));

    // The gateway alone is enough for the device to get its module.
    machine.stop("controller")?;
    machine.stop_control_plane().await?;
    machine.start_device("away")?;
    machine.process("away")?.wait_for_line("the application's log line", |line| line.contains("tick"))?;
    machine.start_control_plane().await?;
    machine.start_controller()?;
    machine.device("away", "running the module", |device| runs(device, &digest(&wasm))).await?;
    machine.application("ticker", "Complete", |application| is(application, "Complete", "True")).await?;
    Ok(())
}

/// A ResourceQuota of the tests' namespace.
fn quota(hard: serde_json::Value) -> Result<ResourceQuota> {
    let quota = json!({ "metadata": { "name": "modules" }, "spec": { "hard": hard } });
    Ok(serde_json::from_value(quota)?)
}

async fn a_quota_on_module_bytes_holds_until_it_is_raised(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let (first, second) = (fixtures::ticker("first", 500), fixtures::ticker("second", 500));
    let (one, both) = (first.len(), first.len() + second.len());
    machine.create(&application("first", &first, &["board"])).await?;
    machine.device("board", "running the first module", |device| runs(device, &digest(&first))).await?;

    // Lower than what is there: that goes on, and nothing is added.
    machine.create(&quota(json!({ MODULE_BYTES: (one - 1).to_string() }))?).await?;
    machine.create(&application("second", &second, &["board"])).await?;
    let refused = machine
        .application("second", "refused by the quota", |application| {
            condition(application, "Stalled")
                .is_some_and(|(status, reason, _)| status == "True" && reason == "QuotaExceeded")
        })
        .await?;
    let (_, reason, message) = condition(&refused, "Ready").context("a condition Ready")?;
    let numbers = format!(
        "exceeded quota: modules, requested: {MODULE_BYTES}={}, used: {MODULE_BYTES}={one}, limited: {MODULE_BYTES}={}",
        second.len(),
        one - 1
    );
    ensure!(reason == "QuotaExceeded" && message.contains(&numbers), "{reason}: {message}");
    says_used(&machine, one).await?;
    let board = machine.api::<Device>().get("board").await?;
    ensure!(runs(&board, &digest(&first)) && !runs(&board, &digest(&second)), "{:?}", board.status);
    machine.application("first", "Ready still", |application| is(application, "Ready", "True")).await?;

    let hard = json!({ "spec": { "hard": { MODULE_BYTES: both.to_string() } } });
    machine.merge::<ResourceQuota>("modules", hard).await?;
    machine
        .device("board", "running both modules", |device| {
            runs(device, &digest(&first)) && runs(device, &digest(&second))
        })
        .await?;
    machine.application("second", "Complete", |application| is(application, "Complete", "True")).await?;
    says_used(&machine, both).await
}

/// Waits until the quota's status says that the modules have so many bytes.
async fn says_used(machine: &Machine, bytes: usize) -> Result<()> {
    let says = |quota: &ResourceQuota| {
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref()?.get(MODULE_BYTES));
        used.is_some_and(|used| used.0 == bytes.to_string())
    };
    until_at(machine.api::<ResourceQuota>(), "modules", &format!("{bytes} bytes used"), says).await?;
    Ok(())
}

async fn a_new_module_replaces_the_old_and_a_deleted_application_leaves_the_device(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let (first, second) = (fixtures::ticker("first", 500), fixtures::ticker("second", 500));
    machine.create(&application("ticker", &first, &["board"])).await?;
    machine.device("board", "running the first module", |device| runs(device, &digest(&first))).await?;

    let change = application("ticker", &second, &["board"]);
    let updated: Application =
        machine.merge("ticker", json!({ "spec": { "wasm_bytes": change.spec.wasm_bytes } })).await?;
    machine.device("board", "running the second module", |device| runs(device, &digest(&second))).await?;
    let settled = machine
        .application("ticker", "Ready at the new generation", |application| {
            is(application, "Complete", "True")
                && status(application).observed_generation == updated.metadata.generation
        })
        .await?;
    assert_eq!(status(&settled).module_digest, Some(digest(&second)));

    machine.delete::<Application>("ticker").await?;
    machine.device("board", "running nothing", idle).await?;
    let gone = machine.api::<Application>();
    kube::runtime::wait::await_condition(
        gone,
        "ticker",
        kube::runtime::conditions::is_deleted(settled.metadata.uid.as_deref().context("a uid")?),
    )
    .await?;
    Ok(())
}

async fn an_application_deleted_while_its_device_is_away_goes_and_the_device_drops_it_on_its_return(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let wasm = fixtures::ticker("tick", 500);
    let made = machine.create(&application("ticker", &wasm, &["board"])).await?;
    machine.device("board", "running it", |device| runs(device, &digest(&wasm))).await?;
    let held = machine.application("ticker", "held by its finalizer", |application| {
        application.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == APPLICATION_FINALIZER)
    });
    held.await?;
    machine.kill("board")?;
    machine
        .device("board", "Disconnected", |device| {
            device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Disconnected)
        })
        .await?;

    machine.delete::<Application>("ticker").await?;
    let uid = made.metadata.uid.as_deref().context("a uid")?;
    let gone = kube::runtime::wait::await_condition(
        machine.api::<Application>(),
        "ticker",
        kube::runtime::conditions::is_deleted(uid),
    );
    tokio::time::timeout(wasmbed_e2e::TIMEOUT, gone).await.context("the Application is still there")??;

    machine.start_device("board")?;
    machine.connected("board").await?;
    machine.device("board", "running nothing", idle).await?;
    Ok(())
}

fn held(device: &Device) -> bool {
    device.finalizers().iter().any(|finalizer| finalizer == DEVICE_FINALIZER)
}

/// Ended with the deletion: nothing of the application after the last empty set, and then the news that there is no Device. The first
/// one may have been empty as well.
fn stopped(device: &mut Process, line: &str) -> Result<()> {
    device.wait_for_line("the end of its Device", |line| line.contains("the Device was deleted"))?;
    let printed = device.printed()?;
    let (before, after) =
        printed.rsplit_once("desired set of 0 applications").context("it was never given the empty set")?;
    ensure!(before.contains(line) && !after.contains(line), "it ran on:\n{after}");
    Ok(())
}

async fn gone<K>(api: Api<K>, object: &K) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
    K: serde::de::DeserializeOwned,
{
    let (name, uid) = (object.name_any(), object.uid().context("a uid")?);
    let deleted =
        kube::runtime::wait::await_condition(api, &name, kube::runtime::conditions::is_deleted(&uid));
    tokio::time::timeout(wasmbed_e2e::TIMEOUT, deleted)
        .await
        .with_context(|| format!("{name} is still there"))??;
    Ok(())
}

async fn a_deleted_device_stops_what_it_ran(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let wasm = fixtures::ticker("it-runs-on", 500);
    machine.create(&application("ticker", &wasm, &["board"])).await?;
    let device = machine
        .device("board", "running it, and held", |device| runs(device, &digest(&wasm)) && held(device))
        .await?;
    machine.delete::<Device>("board").await?;
    gone(machine.api::<Device>(), &device).await?;
    stopped(machine.process("board")?, "it-runs-on")?;
    // It begins anew, and nothing runs there before a person says so.
    machine
        .device("board", "waiting for approval", |device| {
            device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Pending)
        })
        .await?;
    let application = machine.application("ticker", "without its device", |application| {
        is(application, "Ready", "False") && status(application).counts.running == 0
    });
    application.await?;
    Ok(())
}

async fn a_deleted_namespace_goes_and_its_devices_stop(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    if plane == ControlPlane::Kubernetes {
        // What deletes a namespace's objects there.
        machine.cluster().start_part(Part::ControllerManager).await?;
    }
    let client = machine.client().clone();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "site" } }))?;
    let namespace = namespaces.create(&PostParams::default(), &namespace).await?;

    let files = machine.layout().device_identity("site", "board")?;
    let identity = Identity::read(&files.certificate, &files.key)?;
    let object = wasmbed_e2e::device("board", &identity.public_key_base64());
    Api::<Device>::namespaced(client.clone(), "site").create(&PostParams::default(), &object).await?;
    machine.start_device_as("board", &files)?;
    let wasm = fixtures::ticker("it-runs-on", 500);
    let module = wasmbed_e2e::module("ticks", &wasm);
    Api::<Module>::namespaced(client.clone(), "site").create(&PostParams::default(), &module).await?;
    let mut ticker = application("ticker", &wasm, &["board"]);
    (ticker.spec.wasm_bytes, ticker.spec.module) = (None, Some("ticks".to_owned()));
    Api::<Application>::namespaced(client.clone(), "site").create(&PostParams::default(), &ticker).await?;
    wasmbed_e2e::until(&client, "site", "board", "running it, and held", |device: &Device| {
        runs(device, &digest(&wasm)) && held(device)
    })
    .await?;

    machine.kubectl()?.run(&["delete", "namespace", "site", "--wait=false"])?;
    gone(namespaces, &namespace).await?;
    stopped(machine.process("board")?, "it-runs-on")?;
    if plane == ControlPlane::Kubernetes {
        machine.cluster().stop(Part::ControllerManager).await?;
    }
    Ok(())
}

fn job(name: &str) -> Application {
    let mut job = application(name, &fixtures::once(&format!("ran {name}")), &["board"]);
    job.spec.config.restart_policy = RestartPolicy::Never;
    job
}

async fn jobs_are_waited_for_leave_their_places_and_are_not_run_again(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let kubectl = machine.kubectl()?;
    // Two more than a device has places.
    let names: Vec<String> = (0..12).map(|number| format!("job-{number:02}")).collect();
    for name in &names {
        machine.create(&job(name)).await?;
        let wait = ["wait", "--for=condition=Succeeded", &format!("wapp/{name}"), "--timeout=60s"];
        assert!(kubectl.run(&wait)?.contains("condition met"), "{name}");
    }
    let shown = kubectl.run(&["get", "wapp", "-o", "wide"])?;
    assert_eq!(shown.matches("Completed").count(), 12, "{shown}");
    let board = machine.device("board", "with two results beside its set", |device| {
        device.status.as_ref().is_some_and(|status| status.finished.len() == 2)
    });
    let board = board.await?.status.unwrap_or_default();
    let first: Vec<&str> = board.finished.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(first, ["job-00", "job-01"]);
    let all = board.finished.iter().chain(&board.applications);
    assert!(all.clone().all(|entry| entry.state == DeviceApplicationState::Completed), "{board:#?}");
    assert_eq!(all.count(), 12);

    machine.kill("board")?;
    machine.stop("controller")?;
    machine.start_controller()?;
    machine.start_device("board")?;
    machine.connected("board").await?;
    machine.create(&job("job-12")).await?;
    kubectl.run(&["wait", "--for=condition=Succeeded", "wapp/job-12", "--timeout=60s"])?;
    let printed = machine.process("board")?.printed()?;
    assert!(printed.contains("ran job-12"), "{printed}");
    for name in &names {
        assert!(!printed.contains(&format!("ran {name}")), "{printed}");
        let completed = |application: &Application| status(application).phase == ApplicationPhase::Completed;
        machine.application(name, "still Completed", completed).await?;
    }

    let file = machine.dir().join("trap.wasm");
    std::fs::write(&file, fixtures::trap_after(1_500))?;
    let mut apply = wasmbed(&["apply", "--device", "board", "--wait", "--timeout", "60"])?;
    let output = apply.arg(&file).arg("--kubeconfig").arg(machine.layout().kubeconfig()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("board: Trapped:"), "{said}");
    Ok(())
}

async fn a_deleted_module_leaves_what_runs_and_a_new_target_says_why(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.add_device("other").await?;
    let wasm = fixtures::ticker("tick", 500);
    machine.create(&module("tick", &wasm)).await?;
    let mut object = application("ticker", &wasm, &["board"]);
    (object.spec.wasm_bytes, object.spec.module) = (None, Some("tick".to_owned()));
    machine.create(&object).await?;
    machine.application("ticker", "Complete", |application| is(application, "Complete", "True")).await?;
    machine.delete::<Module>("tick").await?;
    let stalled =
        machine.application("ticker", "Stalled", |application| is(application, "Stalled", "True")).await?;
    let says = |application: &Application| {
        let status = status(application);
        (status.phase, status.ready, condition(application, "Stalled").map(|(_, reason, _)| reason))
    };
    let running = (ApplicationPhase::Running, "1/1".to_owned(), Some("ModuleNotFound".to_owned()));
    assert_eq!(says(&stalled), running);

    // Another controller, which has never seen the Module, counts what the device reports.
    machine.stop("controller")?;
    machine.start_controller()?;
    // What the status says is of the generation before the next change.
    metric_at_least(machine.controller_health(), "wasmbed_controller_applications", 1.0).await?;
    let both = TargetDevices { device_names: vec!["board".to_owned(), "other".to_owned()], selector: None };
    machine.merge::<Application>("ticker", json!({ "spec": { "target_devices": both } })).await?;
    let degraded = machine
        .application("ticker", "failed on the new target", |application| {
            status(application).counts.failed == 1
        })
        .await?;
    assert_eq!(
        (status(&degraded).phase, status(&degraded).ready),
        (ApplicationPhase::Degraded, "1/2".to_owned())
    );
    let failure = &status(&degraded).failures[0];
    assert_eq!((failure.device.as_str(), failure.reason), ("other", ReasonCode::ModuleNotFound));
    machine.create(&module("tick", &wasm)).await?;
    machine
        .application("ticker", "Complete again", |application| is(application, "Complete", "True"))
        .await?;
    Ok(())
}
