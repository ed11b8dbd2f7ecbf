//! `apply` and `get` against the embedded Kubernetes API, each run as the process that a person starts.
#![cfg(test)]

mod api;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Output, Stdio},
};

use wasmbed::machine::layout::{KubeUser, Layout};

use api::{Api, path, text};

/// The public key of some device.
const PUBLIC_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";
const HELLO: &[u8] = include_bytes!("../../../guests/prebuilt/hello.wasm");

/// A Device and an Application as a person writes them, with the key and the module filled in.
fn overview(public_key: &str, wasm_bytes: &str) -> String {
    format!(
        r#"# Device CRD
apiVersion: wasmbed.github.io/v1alpha1
kind: Device
metadata:
  name: device-001
spec:
  device_type: "hifive1"
  capabilities: ["wasm", "tls"]
  public_key: "{public_key}"
status:
  phase: "Connected"
  last_heartbeat: "2024-09-01T22:00:00Z"
---
# Application CRD
apiVersion: wasmbed.github.io/v1alpha1
kind: Application
metadata:
  name: my-wasm-app
spec:
  name: "My WASM Application"
  wasm_bytes: "{wasm_bytes}"
  target_devices:
    device_names: ["device-001"]
  config:
    memory_limit: 1048576
    cpu_time_limit: 1000
"#
    )
}

#[test]
fn the_overviews_manifests_are_refused_with_placeholders_and_taken_with_base64() {
    let api = Api::start();
    let printed =
        api.file("printed.yaml", overview("base64_encoded_public_key", "base64_encoded_wasm_binary"));
    let error = api.fails(&["apply", path(&printed)]);
    for field in ["spec.public_key", "spec.wasm_bytes", "document 1", "document 2", "2 of 2 objects"] {
        assert!(error.contains(field), "{field} is not in {error}");
    }
    assert!(api.fails(&["get", "wdev", "device-001"]).contains("not found"));

    let real = api.file("real.yaml", overview(PUBLIC_KEY, "AGFzbQEAAAA="));
    let output = api.succeeds(&["apply", path(&real)]);
    assert_eq!(
        output,
        "device.wasmbed.github.io/device-001 created\napplication.wasmbed.github.io/my-wasm-app created\n"
    );
    let device = api.get("wdev", "device-001");
    assert_eq!(device["spec"]["approved"], true);
    assert!(
        device.get("status").is_none_or(|status| status["phase"] != "Connected"),
        "a manifest sets no status"
    );
    assert_eq!(api.get("wapp", "my-wasm-app")["spec"]["config"]["restart_policy"], "Always");
}

#[test]
fn applying_again_changes_what_changed_and_removes_what_is_gone() {
    let api = Api::start();
    let manifest = |labels: &str, spec: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata:\n  name: a\n  labels: {labels}\nspec: {spec}\n"
        );
        api.file("device.yaml", text)
    };
    let file = manifest("{site: lab, floor: '2'}", "{device_type: one, unschedulable: true}");
    assert!(api.succeeds(&["apply", "-f", path(&file)]).ends_with("created\n"));
    assert!(api.succeeds(&["apply", path(&file)]).ends_with("unchanged\n"));
    manifest("{site: roof}", "{device_type: two}");
    assert!(api.succeeds(&["apply", "--dry-run", path(&file)]).ends_with("configured (dry run)\n"));
    assert_eq!(api.get("wdev", "a")["spec"]["device_type"], "one");
    assert!(api.succeeds(&["apply", path(&file)]).ends_with("configured\n"));
    let device = api.get("wdev", "a");
    assert_eq!(device["metadata"]["labels"], serde_json::json!({"site": "roof"}));
    assert_eq!(device["spec"]["device_type"], "two");
    assert_eq!(device["spec"]["unschedulable"], false, "removed, so the default is back");
}

/// Writes fields of a Device as another program does.
fn merge(api: &Api, manager: &str, patch: &serde_json::Value) {
    write(api, manager, patch, false);
}

fn write(api: &Api, manager: &str, patch: &serde_json::Value, status: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kubeconfig = kube::config::Kubeconfig::read_from(api.layout.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let devices: kube::Api<wasmbed_api::Device> = kube::Api::namespaced(client, "default");
        let parameters =
            kube::api::PatchParams { field_manager: Some(manager.to_owned()), ..Default::default() };
        let patch = kube::api::Patch::Merge(patch);
        match status {
            true => devices.patch_status("a", &parameters, &patch).await.unwrap(),
            false => devices.patch("a", &parameters, &patch).await.unwrap(),
        };
    });
}

#[test]
fn logs_takes_the_folder_that_pki_issue_operator_wrote() {
    let api = Api::start();
    let pki = api.layout.kubeconfig().with_file_name("pki");
    let out = pki.with_file_name("operator");
    api.succeeds(&["pki", "issue", "operator", "--dir", path(&pki), "--name", "ada", "--out", path(&out)]);
    // Nobody listens there (port 9, discard): the files were read, and the gateway was called.
    let error = api.fails(&["logs", "--pki", path(&out), "--gateway", "127.0.0.1:9"]);
    assert!(error.contains("no gateway could be read"), "{error}");
}

#[test]
fn a_field_that_another_program_set_is_taken_over_only_when_that_is_asked_for() {
    let api = Api::start();
    let manifest = |spec: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        api.file("device.yaml", text)
    };
    let file = manifest("{device_type: one}");
    api.succeeds(&["apply", path(&file)]);
    merge(&api, "another", &serde_json::json!({ "spec": { "unschedulable": true } }));
    manifest("{device_type: one, unschedulable: false}");
    let error = api.fails(&["apply", path(&file)]);
    for words in ["\"another\"", ".spec.unschedulable", "--force-conflicts"] {
        assert!(error.contains(words), "{words} is not in {error}");
    }
    assert!(api.succeeds(&["apply", "--force-conflicts", path(&file)]).ends_with("configured\n"));
    assert_eq!(api.get("wdev", "a")["spec"]["unschedulable"], false);
}

#[test]
fn fields_that_an_earlier_version_merged_are_ours_to_change_and_to_remove() {
    let api = Api::start();
    let manifest = |spec: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        api.file("device.yaml", text)
    };
    let file = manifest("{}");
    api.succeeds(&["apply", path(&file)]);
    // As earlier versions wrote: merged on the client, with the annotation that kubectl uses.
    let merged = serde_json::json!({
        "metadata": {
            "labels": { "site": "lab" },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}" },
        },
        "spec": { "device_type": "one", "unschedulable": true },
    });
    merge(&api, "wasmbed-apply", &merged);
    manifest("{device_type: two}");
    assert!(api.succeeds(&["apply", path(&file)]).ends_with("configured\n"));
    let device = api.get("wdev", "a");
    assert_eq!(device["spec"]["device_type"], "two");
    assert_eq!(device["spec"]["unschedulable"], false, "the default");
    assert_eq!(device["metadata"]["labels"].as_object().map_or(0, serde_json::Map::len), 0);
    assert_eq!(device["metadata"]["annotations"].as_object().map_or(0, serde_json::Map::len), 0);
    assert!(api.succeeds(&["apply", path(&file)]).ends_with("unchanged\n"));
}

#[test]
fn unknown_fields_kinds_and_rules_are_refused_by_name_and_the_rest_is_applied() {
    let api = Api::start();
    let device = |name: &str, spec: &str| {
        format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let text = device("typo", "device_typ: x")
        + "apiVersion: wasmbed.github.io/v1alpha1\nkind: Gadget\nmetadata: {name: x}\n---\n"
        + "apiVersion: wasmbed.github.io/v1alpha1\nkind: Application\nmetadata: {name: x}\nspec: {config: {}}\n---\n"
        + &device("fine", "device_type: x");
    let file = api.file("mixed.yaml", text);
    let output = api.run(&["apply", path(&file)]);
    assert!(!output.status.success());
    assert!(text_of_out(&output).contains("device.wasmbed.github.io/fine created"));
    let error = text_of_err(&output);
    for words in
        ["device_typ", "no kind \"Gadget\"", "exactly one of wasm_bytes and module", "3 of 4 objects"]
    {
        assert!(error.contains(words), "{words} is not in {error}");
    }
}

#[test]
fn topics_are_refused_unless_they_are_topics() {
    let api = Api::start();
    let apply = |topics: &str, capabilities: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Application\nmetadata: {{name: x}}\n\
             spec: {{module: m, config: {{capabilities: [{capabilities}], topics: [{topics}]}}}}\n"
        );
        api.run(&["apply", path(&api.file("topics.yaml", text))])
    };
    let good =
        apply("{name: temperature}, {name: door/state.1_a-B, per_second: 100, direction: Out}", "messages");
    assert!(good.status.success(), "{}", text_of_err(&good));
    assert_eq!(api.get("wapp", "x")["spec"]["config"]["topics"][0]["per_second"], 1, "the default");
    let long = format!("{{name: {}}}", "x".repeat(65));
    for wrong in [
        "{name: ''}",
        "{name: /a}",
        "{name: a/}",
        "{name: a//b}",
        "{name: a+}",
        "{name: 'a/#'}",
        "{name: a, per_second: 0}",
        "{name: a, per_second: 101}",
        "{name: a, direction: Sideways}",
        "{name: a}, {name: a}",
        &long,
    ] {
        assert!(!apply(wrong, "messages").status.success(), "{wrong}");
    }
    let many: Vec<String> = (0..17).map(|number| format!("{{name: t{number}}}")).collect();
    assert!(!apply(&many.join(", "), "messages").status.success());
    let ungranted = apply("{name: a}", "gpio");
    assert!(text_of_err(&ungranted).contains("topics need messages among the capabilities"));
}

fn text_of_out(output: &Output) -> String {
    text(&output.stdout)
}

fn text_of_err(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn env_and_args_are_bounded_together_and_modules_are_immutable() {
    let api = Api::start();
    let application = |args: usize| {
        let args = vec![format!("'{}'", "x".repeat(400)); args].join(", ");
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Application\nmetadata: {{name: a}}\n\
             spec: {{module: m, config: {{env: {{A: b}}, args: [{args}]}}}}\n"
        );
        api.file("application.yaml", text)
    };
    let file = application(4);
    assert!(api.fails(&["apply", path(&file)]).contains("at most 1536 characters"));
    application(3);
    api.succeeds(&["apply", path(&file)]);

    let module = |bytes: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Module\nmetadata: {{name: m}}\nspec: {{wasm_bytes: {bytes}}}\n"
        );
        api.file("module.yaml", text)
    };
    let file = module("AGFzbQEAAAA=");
    api.succeeds(&["apply", path(&file)]);
    module("AGFzbQEAAAAA");
    let error = api.fails(&["apply", path(&file)]);
    assert!(error.contains("a Module is immutable"), "{error}");
}

#[test]
fn what_no_environment_can_hold_is_refused_by_the_api() {
    let api = Api::start();
    let apply = |config: &str| {
        let text = format!(
            "apiVersion: wasmbed.github.io/v1alpha1\nkind: Application\nmetadata: {{name: a}}\n\
             spec: {{module: m, config: {config}}}\n"
        );
        let file = api.file("application.yaml", text);
        api.run(&["apply", path(&file)])
    };
    for (config, wanted) in [
        (r#"{env: {"A=B": c}}"#, "a name has no '=' and no NUL"),
        (r#"{env: {"A\0B": c}}"#, "a name has no '=' and no NUL"),
        (r#"{env: {A: "b\0c"}}"#, "spec.config.env.A"),
        (r#"{args: ["a\0b"]}"#, "spec.config.args[0]"),
    ] {
        let output = apply(config);
        let error = text_of_err(&output);
        assert!(!output.status.success() && error.contains(wanted), "{config}: {error}");
    }
    assert!(apply(r#"{env: {A: "b=c"}, args: ["--x=y"]}"#).status.success());
}

#[test]
fn a_webassembly_file_becomes_an_application_and_its_old_modules_go() {
    let api = Api::start();
    let small = api.file("Hello World.wasm", HELLO);
    let output = api.succeeds(&["apply", path(&small), "--all-devices", "--env", "A=1"]);
    assert_eq!(output, "application.wasmbed.github.io/hello-world created\n");
    let application = api.get("wapp", "hello-world");
    assert!(application["spec"]["wasm_bytes"].as_str().unwrap().starts_with("AGFzbQEAAA"));
    assert_eq!(application["spec"]["target_devices"], serde_json::json!({"selector": {}}));

    let large = |letter: &str| {
        let data = letter.repeat(150_000);
        let wat = format!("(module (memory 3) (data (i32.const 0) \"{data}\") (func (export \"run\")))");
        api.file("large.wasm", wat::parse_str(wat).unwrap())
    };
    let file = large("a");
    let arguments = ["apply", path(&file), "--name", "hello-world", "--device", "a"];
    api.succeeds(&arguments);
    let first = api.get("wapp", "hello-world")["spec"]["module"].as_str().unwrap().to_owned();
    assert!(api.get("wapp", "hello-world")["spec"].get("wasm_bytes").is_none());
    large("b");
    let output = api.succeeds(&arguments);
    assert!(output.contains(&format!("module.wasmbed.github.io/{first} deleted")), "{output}");
    let modules = api.succeeds(&["get", "wmod", "-o", "name"]);
    assert_eq!(modules.lines().count(), 1, "{modules}");

    let error = api.fails(&["apply", path(&small)]);
    assert!(error.contains("--device NAME"), "{error}");
    let printed = api.succeeds(&["apply", path(&small), "--device", "a", "--print"]);
    assert!(printed.starts_with("apiVersion: wasmbed.github.io/v1alpha1\nkind: Application"), "{printed}");
}

/// What a Device reports decides: a module goes to it in a form that it runs.
#[test]
fn a_webassembly_file_is_lowered_for_a_device_that_runs_less() {
    let api = Api::start();
    let device = |features: &[&str]| {
        let facts = serde_json::json!({
            "board": "linux", "firmware": "0.1.0", "engine": "spacewasm 0.7.1", "memory_bytes": 1_048_576,
            "flash_bytes": 1_048_576, "load_permille": 1_600, "module_bytes_max": 1_048_576, "applications_max": 10,
            "features": features, "host_functions": [], "capabilities": [],
        });
        write(&api, "gateway", &serde_json::json!({"status": {"phase": "Connected", "facts": facts}}), true);
    };
    let labels = "metadata: {name: a, labels: {site: roof}}";
    let manifest = format!(
        "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\n{labels}\nspec: {{public_key: {PUBLIC_KEY}, approved: true}}\n"
    );
    api.succeeds(&["apply", path(&api.file("device.yaml", manifest))]);
    let fills = r#"(module (memory (export "memory") 1)
        (func (export "run") (memory.fill (i32.const 0) (i32.const 1) (i32.const 9))))"#;
    let calls = r#"(module (func $run (export "run") (return_call $run)))"#;
    let file = api.file("app.wasm", wat::parse_str(fills).unwrap());
    // How it was applied, and whether what was sent runs on the first devices.
    let apply = |arguments: &[&str]| {
        let output = api.run(&[&["apply", path(&file), "--name", "app"], arguments].concat());
        assert!(output.status.success(), "{}", text_of_err(&output));
        let sent = api.get("wapp", "app")["spec"]["wasm_bytes"].as_str().unwrap().to_owned();
        let sent = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, sent).unwrap();
        let limits = wasmbed_scan::ScanLimits {
            features: wasmbed_scan::Features::FIRST_DEVICES,
            ..wasmbed_scan::ScanLimits::default()
        };
        (text_of_err(&output), wasmbed_scan::scan(&sent, &limits).is_ok())
    };

    let (said, first) = apply(&["--device", "a"]);
    assert!(!said.contains("lowered") && said.contains("devices run it as it is"), "{said}");
    assert!(!first, "nothing is known of a device that never connected");
    device(&["mutable globals", "custom page sizes"]);
    for target in [&["--device", "a"][..], &["--selector", "site in (roof)"], &["--all-devices"]] {
        let (said, first) = apply(target);
        assert!(
            said.contains("lowered    a (spacewasm 0.7.1) does not run bulk memory operators\n")
                && said.contains("rewritten  memory.copy and memory.fill, once"),
            "{said}"
        );
        assert!(first, "{target:?}");
    }
    assert!(!apply(&["--selector", "site=cellar"]).1, "it goes elsewhere");
    device(&["bulk memory operators", "reference types"]);
    assert!(!apply(&["--device", "a"]).1, "what the device runs is left as it is");
    assert!(apply(&["--device", "a", "--lower"]).1, "whatever the device runs");
    device(&[]);
    std::fs::write(&file, wat::parse_str(calls).unwrap()).unwrap();
    let (said, _) = apply(&["--device", "a"]);
    assert!(
        said.contains("not lowered, though a (spacewasm 0.7.1) does not run tail calls: can't pack"),
        "{said}"
    );
}

#[test]
fn get_prints_tables_selects_and_names_what_there_is_not() {
    let api = Api::start();
    assert_eq!(api.succeeds(&["get"]), "");
    let folder = api.file("fleet/a.yaml", overview(PUBLIC_KEY, "AGFzbQEAAAA="));
    let labelled = "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: b, labels: {site: lab}}\nspec: {approved: false}\n";
    api.file("fleet/b.yaml", labelled);
    api.succeeds(&["apply", path(folder.parent().unwrap())]);

    let table = api.succeeds(&["get", "wdev"]);
    assert!(table.starts_with("NAME         PHASE"), "{table}");
    assert!(
        table.lines().any(|line| line.starts_with("device-001   ") && line.contains("hifive1")),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    let wide = api.succeeds(&["get", "devices", "-o", "wide", "-A"]);
    assert!(wide.starts_with("NAMESPACE   NAME") && wide.contains("APPROVED"), "{wide}");
    assert_eq!(
        api.succeeds(&["get", "wdev", "-l", "site=lab", "-o", "name"]),
        "device.wasmbed.github.io/b\n"
    );
    let waiting = api.succeeds(&["get", "wdev", "--field-selector", "spec.approved=false", "-o", "name"]);
    assert_eq!(waiting, "device.wasmbed.github.io/b\n");
    let all = api.succeeds(&["get"]);
    assert!(all.contains("device/device-001") && all.contains("application/my-wasm-app"), "{all}");
    let yaml = api.succeeds(&["get", "wapp", "my-wasm-app", "-o", "yaml"]);
    assert!(yaml.contains("kind: Application\n"), "{yaml}");

    assert!(api.fails(&["get", "wdev", "nobody"]).contains("nobody"));
    assert!(api.fails(&["get", "pods"]).contains("no resource called \"pods\"; try one of"));
}

#[test]
fn get_watch_prints_each_change_and_ends_with_its_reader() {
    use std::io::{BufRead, BufReader};

    let api = Api::start();
    let mut watch = api.command(&["get", "wdev", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("NAME"));
    let file = api.file("fleet.yaml", overview(PUBLIC_KEY, "AGFzbQEAAAA="));
    api.succeeds(&["apply", path(&file)]);
    assert!(lines.next().unwrap().unwrap().starts_with("device-001"));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn what_cannot_be_reached_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create_or_open(folder.path()).unwrap();
    // Port 1 of the loopback interface: nothing listens there.
    layout.write_kubeconfig(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), KubeUser::Administrator).unwrap();
    let run = |kubeconfig: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbed"));
        command.args(["get", "wdev", "--kubeconfig", path(kubeconfig)]).output().unwrap()
    };
    let output = run(&layout.kubeconfig());
    assert!(
        text_of_err(&output).contains("could not be reached: Connection refused"),
        "{}",
        text_of_err(&output)
    );
    let output = run(&folder.path().join("nowhere"));
    assert!(text_of_err(&output).contains("can't use the kubeconfig"), "{}", text_of_err(&output));
}
