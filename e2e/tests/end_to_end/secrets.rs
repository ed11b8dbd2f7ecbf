//! Values of Secrets on their way to a device: that they arrive, that they change what runs, and that nothing else shows them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{Event, Secret},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use wasmbed_api::{Application, Device, DeviceGateway, EnvFrom, Module, SecretRef};
use wasmbed_e2e::{
    ControlPlane, GatewayOptions, Machine, Up, application, fixtures, get, metric, metric_at_least, until,
    wasmbed,
};

wasmbed_e2e::both!(
    a_secret_s_value_is_where_it_has_to_be_and_nowhere_else,
    a_gateway_keeps_values_under_its_key_or_not_at_all,
    secrets_that_cannot_be_had_are_named_and_what_runs_goes_on,
);

/// In nothing that anybody writes by chance.
const MARK: &str = "m4rked-value-of-a-secret";
/// The variable, the value and a byte after each.
const SIZE: usize = "TOKEN=".len() + MARK.len() + 1;

/// An Application that has all keys of a Secret.
fn with_secret(name: &str, secret: &str, device: &str) -> Application {
    let mut object = application(name, &fixtures::environment_ticker(200), &[device]);
    let secret_ref = Some(SecretRef { name: secret.to_owned(), optional: None });
    object.spec.config.env_from = vec![EnvFrom { secret_ref, ..EnvFrom::default() }];
    object
}

fn secret(name: &str, value: &[u8]) -> Secret {
    let data = [("TOKEN".to_owned(), k8s_openapi::ByteString(value.to_vec()))].into();
    let mut object = Secret { data: Some(data), ..Secret::default() };
    object.metadata.name = Some(name.to_owned());
    object
}

/// Whether it runs with an environment of that size.
fn says(line: &str, size: usize) -> bool {
    line.split(|letter: char| letter != 'x').any(|word| word.len() == size)
}

fn condition(application: &Application, kind: &str) -> Option<(String, String, String)> {
    let status = application.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn is(application: &Application, kind: &str, status: &str, reason: &str) -> bool {
    condition(application, kind).is_some_and(|(is, why, _)| is == status && why == reason)
}

fn spec_hash(application: &Application) -> Option<String> {
    application.status.as_ref()?.spec_hash.clone()
}

/// What would tell the value: itself, as base64 at each of three places, as hex, as numbers, and its hash.
fn traces(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let encoded = (0..3).map(|start| {
        let part = &bytes[start..];
        STANDARD.encode(&part[..part.len() / 3 * 3])
    });
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let hash = Sha256::digest(bytes);
    let texts =
        [value.to_owned(), hex::encode(bytes), numbers.join(", "), hex::encode(hash), STANDARD.encode(hash)];
    encoded.chain(texts).map(String::into_bytes).collect()
}

fn shows(text: &[u8], traces: &[Vec<u8>]) -> bool {
    traces.iter().any(|trace| text.windows(trace.len()).any(|part| part == trace))
}

/// Every file below a folder, those below `except` aside.
fn files(folder: &Path, except: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if except.contains(&path) || path.is_symlink() {
            continue;
        }
        if path.is_dir() { found.extend(files(&path, except)?) } else { found.push(path) }
    }
    Ok(found)
}

fn nothing_in_files(folder: &Path, except: &[PathBuf], traces: &[Vec<u8>]) -> Result<usize> {
    let files = files(folder, except)?;
    for path in &files {
        // Files that come and go while processes run are not what is kept.
        let Ok(text) = std::fs::read(path) else { continue };
        ensure!(!shows(&text, traces), "{} shows the value", path.display());
    }
    Ok(files.len())
}

async fn nothing_in_objects<K>(client: &Client, traces: &[Vec<u8>]) -> Result<usize>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let objects = Api::<K>::all(client.clone()).list(&ListParams::default()).await?;
    for object in &objects.items {
        let text = serde_json::to_vec(object)?;
        ensure!(!shows(&text, traces), "{} shows the value", K::kind(&()));
    }
    Ok(objects.items.len())
}

/// Looks for the values everywhere but in the Secret and on the device.
async fn nothing_shows(machine: &Machine, traces: &[Vec<u8>]) -> Result<()> {
    let (client, folder) = (machine.client(), machine.dir());
    // A board's flash has what it runs: the threat model says so. A process on Linux has it in the same place.
    let devices = machine.layout().devices_dir();
    let looked_at = nothing_in_files(folder, std::slice::from_ref(&devices), traces)?;
    ensure!(looked_at > 10, "only {looked_at} files were looked at");
    // Without a configuration for it, etcd keeps Secrets as they are; ours does not.
    let store = machine.cluster().dir().join("etcd");
    nothing_in_files(machine.cluster().dir(), &[store], traces)?;
    let counts = [
        nothing_in_objects::<Application>(client, traces).await?,
        nothing_in_objects::<Device>(client, traces).await?,
        nothing_in_objects::<DeviceGateway>(client, traces).await?,
        nothing_in_objects::<Event>(client, traces).await?,
        nothing_in_objects::<Lease>(client, traces).await?,
    ];
    ensure!(counts.iter().all(|count| *count > 0), "{counts:?} objects were looked at");
    nothing_in_objects::<Module>(client, traces).await?;
    nothing_in_objects::<CertificateSigningRequest>(client, traces).await?;
    for (health, prefix) in
        [(machine.gateway_health(), "wasmbed_gateway_"), (machine.controller_health(), "wasmbed_controller_")]
    {
        let (_, text) = get(health, "/metrics").await?;
        ensure!(text.contains(prefix) && !shows(text.as_bytes(), traces), "{prefix} metrics");
    }
    for arguments in [
        &["get", "applications", "-o", "yaml"][..],
        &["get", "applications", "-o", "json"],
        &["get", "devices", "-o", "yaml"],
        &["get", "events", "-o", "yaml"],
    ] {
        let mut command = wasmbed(arguments)?;
        let ended = command.env("KUBECONFIG", machine.layout().kubeconfig()).output()?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let printed = [ended.stdout, ended.stderr].concat();
        ensure!(printed.len() > 20 && !shows(&printed, traces), "wasmbed {arguments:?} shows the value");
    }
    let kubectl = machine.kubectl()?;
    let told = kubectl.run(&["describe", "wapp,wdev,wgw", "-A"])?;
    ensure!(!shows(told.as_bytes(), traces), "kubectl describe shows the value");
    Ok(())
}

async fn a_secret_s_value_is_where_it_has_to_be_and_nowhere_else(plane: ControlPlane) -> Result<()> {
    let options = GatewayOptions { set: vec!["logging.level=trace".to_owned()], ..GatewayOptions::default() };
    let mut machine = Machine::start_with(plane, options).await?;
    machine.set_controller(&["logging.level=trace"]);
    machine.stop("controller")?;
    machine.start_controller()?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    machine.create(&secret("token", MARK.as_bytes())).await?;
    // As a person does it, with what the command prints.
    let manifest = machine.dir().join("with-secret.json");
    std::fs::write(&manifest, serde_json::to_vec(&with_secret("app", "token", "board"))?)?;
    let mut apply = wasmbed(&["apply"])?;
    apply.arg(&manifest).env("KUBECONFIG", machine.layout().kubeconfig());
    let applied = apply.output()?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    ensure!(!shows(&[applied.stdout, applied.stderr].concat(), &traces(MARK)), "apply shows the value");

    machine.process("board")?.wait_for_line("the variable", |line| says(line, SIZE))?;
    let ready = |application: &Application| is(application, "Ready", "True", "AllRunning");
    let first = machine.application("app", "Ready", ready).await?;
    nothing_shows(&machine, &traces(MARK)).await?;

    // Another value is another spec, and the application starts again with it. It is read within a minute, or when the
    // Application changes.
    let changed = format!("{MARK}-changed");
    let data = json!({ "data": { "TOKEN": STANDARD.encode(&changed) } });
    machine.merge::<Secret>("token", data).await?;
    machine.merge::<Application>("app", json!({ "spec": { "description": "changed" } })).await?;
    let longer = SIZE + "-changed".len();
    machine.process("board")?.wait_for_line("the changed variable", |line| says(line, longer))?;
    let hash = spec_hash(&first).context("a hash")?;
    let second = machine
        .application("app", "Ready with another hash", |application| {
            ready(application) && spec_hash(application).as_deref() != Some(&hash)
        })
        .await?;
    // A controller that starts anew comes to the same hash, and nothing starts again.
    machine.stop("controller")?;
    machine.start_controller()?;
    let metrics = machine.controller_health();
    metric_at_least(metrics, "wasmbed_controller_operations_total{operation=\"ReadSecret\"}", 1.0).await?;
    let third = machine.application("app", "Ready", ready).await?;
    ensure!(spec_hash(&third) == spec_hash(&second), "a new leader has another hash");
    nothing_shows(&machine, &[traces(MARK), traces(&changed)].concat()).await
}

async fn a_gateway_keeps_values_under_its_key_or_not_at_all(plane: ControlPlane) -> Result<()> {
    for keyless in [false, true] {
        let mut machine =
            Machine::start_with(plane, GatewayOptions { keyless, ..GatewayOptions::default() }).await?;
        machine.add_device("board").await?;
        machine.create(&secret("token", MARK.as_bytes())).await?;
        machine.create(&with_secret("app", "token", "board")).await?;
        machine.process("board")?.wait_for_line("the variable", |line| says(line, SIZE))?;
        let on_disk = metric(machine.gateway_health(), "wasmbed_gateway_secrets_on_disk").await?;
        ensure!(on_disk == f64::from(u8::from(!keyless)), "{on_disk}");
        let said = machine.process("gateway")?.printed()?;
        ensure!(said.contains("gateway.data_key_file is not set") == keyless, "{said}");
        let folder = machine.layout().gateway_dir();
        nothing_in_files(&folder, &[], &traces(MARK))?;

        // Everything but the gateway is away, and the device has lost what it knew.
        machine.stop("controller")?;
        machine.stop("board")?;
        machine.stop("gateway")?;
        std::fs::remove_dir_all(machine.device_dir("board"))?;
        machine.start_gateway()?;
        machine.start_device("board")?;
        if !keyless {
            machine
                .process("board")?
                .wait_for_line("the variable, from the gateway", |line| says(line, SIZE))?;
        }
        // What it lacks a controller sends again.
        machine.start_controller()?;
        machine.process("board")?.wait_for_line("the variable, again", |line| says(line, SIZE))?;
        nothing_in_files(&folder, &[], &traces(MARK))?;
    }
    Ok(())
}

async fn secrets_that_cannot_be_had_are_named_and_what_runs_goes_on(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.create(&with_secret("app", "token", "board")).await?;
    let stalled =
        |reason: &'static str| move |application: &Application| is(application, "Stalled", "True", reason);
    let missing = machine.application("app", "SecretNotFound", stalled("SecretNotFound")).await?;
    let (_, _, message) = condition(&missing, "Stalled").context("a condition")?;
    ensure!(message.contains("Secret token") && message.contains("create it"), "{message}");

    machine.create(&secret("token", MARK.as_bytes())).await?;
    machine.process("board")?.wait_for_line("the variable", |line| says(line, SIZE))?;
    machine.application("app", "Ready", |application| is(application, "Ready", "True", "AllRunning")).await?;

    // A value that is none stays away, the good one stays.
    let mut bad = MARK.as_bytes().to_vec();
    bad.push(0xff);
    machine.merge::<Secret>("token", json!({ "data": { "TOKEN": STANDARD.encode(&bad) } })).await?;
    machine.merge::<Application>("app", json!({ "spec": { "min_ready_seconds": 1 } })).await?;
    let invalid = machine.application("app", "SecretInvalid", stalled("SecretInvalid")).await?;
    let (_, _, message) = condition(&invalid, "Stalled").context("a condition")?;
    ensure!(
        message.contains("key TOKEN of Secret token is not UTF-8") && !message.contains(MARK),
        "{message}"
    );
    let running = |application: &Application| is(application, "Ready", "True", "AllRunning");
    machine.application("app", "running as before", running).await?;

    // In another namespace nobody lets the controller read: that Secret, by that name, is not had from there.
    let kubectl = machine.kubectl()?;
    let namespace = "secrets-unbound";
    kubectl.run(&["create", "namespace", namespace])?;
    let ended = elsewhere(&machine, namespace).await;
    kubectl.run(&["delete", "namespace", namespace, "--wait=false"])?;
    ended?;
    nothing_shows(&machine, &traces(MARK)).await
}

async fn elsewhere(machine: &Machine, namespace: &str) -> Result<()> {
    let client = machine.client().clone();
    let (applications, secrets) = (
        Api::<Application>::namespaced(client.clone(), namespace),
        Api::<Secret>::namespaced(client, namespace),
    );
    secrets.create(&Default::default(), &secret("theirs", MARK.as_bytes())).await?;
    // The name of a Secret of another namespace is that of none here: there is no field for a namespace.
    for name in ["theirs", "token"] {
        applications.create(&Default::default(), &with_secret(name, name, "board")).await?;
        let forbidden =
            until(machine.client(), namespace, name, "SecretForbidden", |application: &Application| {
                is(application, "Stalled", "True", "SecretForbidden")
            });
        let (_, _, message) = condition(&forbidden.await?, "Stalled").context("a condition")?;
        ensure!(message.contains("RoleBinding of the ClusterRole wasmbed-secret-reader"), "{message}");
    }
    for wrong in ["default/token", "../default/token", "namespaces/default/secrets/token"] {
        match applications.create(&Default::default(), &with_secret("wrong", wrong, "board")).await {
            Err(kube::Error::Api(status)) if status.code == 422 => {}
            other => bail!("{wrong}: {other:?}"),
        }
    }
    Ok(())
}

/// All roles in one process, and its whole folder but the devices'.
#[test]
fn up_shows_a_secret_s_value_nowhere() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = ["--devices", "1", "--no-sample", "--log-level", "trace"];
    let mut up = Up::start(dir.path(), &log)?;
    let kubectl = up.kubectl()?;
    // Not from a file, which would lie beside what is looked at.
    let value = format!("--from-literal=TOKEN={MARK}");
    kubectl.run(&["create", "secret", "generic", "token", &value])?;
    kubectl.apply(&serde_json::to_string(&with_secret("app", "token", "device-001"))?)?;
    up.process.wait_for_line("the variable", |line| says(line, SIZE))?;
    kubectl.run(&["wait", "wapp/app", "--for=condition=Ready", "--timeout=60s"])?;
    let state = dir.path().join("state");
    let looked_at = nothing_in_files(dir.path(), &[state.join("devices")], &traces(MARK))?;
    ensure!(looked_at > 20, "only {looked_at} files were looked at");
    ensure!(shows(up.process.printed()?.as_bytes(), &[b"wasmbed".to_vec()]), "nothing was logged");
    ensure!(up.process.terminate()?.success(), "it stops");
    nothing_in_files(dir.path(), &[state.join("devices")], &traces(MARK))?;
    Ok(())
}
