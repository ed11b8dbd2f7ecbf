//! kubectl against the server.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::{Kubectl, Running};
use serde_json::Value;

const DEVICE: &str = "apiVersion: wasmbed.github.io/v1alpha1
kind: Device
metadata: {name: board-1, labels: {site: lab}}
spec: {device_type: hifive1, public_key: AAAA, capabilities: [wasm, tls]}
";

/// kubectl blocks, so it runs on another thread than the server.
async fn with_kubectl(test: impl FnOnce(Kubectl) + Send + 'static) {
    let server = Running::start().await;
    let kubectl = Kubectl::new(&server);
    tokio::task::spawn_blocking(move || test(kubectl)).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_edits_and_deletes() {
    with_kubectl(|kubectl| {
        let file = kubectl.file("device.yaml", DEVICE);
        assert_eq!(kubectl.run(&["apply", "-f", &file]), "device.wasmbed.github.io/board-1 created\n");
        assert_eq!(kubectl.run(&["apply", "-f", &file]), "device.wasmbed.github.io/board-1 unchanged\n");
        let changed =
            kubectl.file("changed.yaml", &DEVICE.replace("hifive1", "esp32c3").replace(", tls", ""));
        assert!(kubectl.run(&["diff", "-f", &file]).is_empty());
        assert_eq!(kubectl.run(&["apply", "-f", &changed]), "device.wasmbed.github.io/board-1 configured\n");
        let device: Value =
            serde_json::from_str(&kubectl.run(&["get", "wdev", "board-1", "-o", "json"])).unwrap();
        assert_eq!(device["spec"]["device_type"], "esp32c3");
        assert_eq!(device["spec"]["capabilities"], serde_json::json!(["wasm"]));
        assert_eq!(device["spec"]["approved"], true);
        assert_eq!(device["metadata"]["generation"], 2);

        kubectl.run(&["label", "wdev", "board-1", "site=roof", "--overwrite"]);
        kubectl.run(&["annotate", "wdev", "board-1", "example.com/note=hello"]);
        assert_eq!(
            kubectl.run(&["get", "wdev", "-l", "site in (roof)", "-o", "name"]),
            "device.wasmbed.github.io/board-1\n"
        );
        assert_eq!(kubectl.run(&["get", "wdev", "-l", "site=lab", "-o", "name"]), "");
        assert_eq!(
            kubectl.run(&["get", "wdev", "--field-selector", "spec.device_type=esp32c3", "-o", "name"]),
            "device.wasmbed.github.io/board-1\n"
        );

        let editor = kubectl.file("editor.sh", "#!/bin/sh\nsed -i s/esp32c3/nrf52/ \"$1\"\n");
        std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
        let edited =
            kubectl.command(&["edit", "wdev", "board-1"]).env("KUBE_EDITOR", &editor).output().unwrap();
        assert!(edited.status.success(), "{edited:?}");
        assert_eq!(kubectl.run(&["get", "wdev", "board-1", "-o", "jsonpath={.spec.device_type}"]), "nrf52");

        assert_eq!(
            kubectl.run(&["delete", "wdev", "board-1", "--dry-run=server"]),
            "device.wasmbed.github.io \"board-1\" deleted from default namespace (server dry run)\n"
        );
        kubectl.run(&["delete", "-f", &file]);
        assert!(
            kubectl
                .fail(&["get", "wdev", "board-1"])
                .contains("devices.wasmbed.github.io \"board-1\" not found")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_tables_descriptions_and_schemas() {
    with_kubectl(|kubectl| {
        let file = kubectl.file("device.yaml", DEVICE);
        kubectl.run(&["apply", "-f", &file]);
        kubectl.run(&["patch", "wdev", "board-1", "--subresource=status", "--type=merge", "-p",
            r#"{"status":{"phase":"Connected","gateway":"gw-1","conditions":[{"type":"Ready","status":"True"}]}}"#]);
        let table = kubectl.run(&["get", "wdev,wgw", "-o", "wide"]);
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAME", "PHASE", "READY", "AGE", "GATEWAY"]);
        assert_eq!(rows[1][..3], ["device.wasmbed.github.io/board-1", "Connected", "True"][..]);
        assert_eq!(rows[1][4], "gw-1");
        assert!(!kubectl.run(&["get", "wasmbed"]).contains("gw-1"));
        assert!(kubectl.run(&["get", "devices", "-A"]).contains("default"));
        assert!(kubectl.run(&["get", "crd"]).contains("devices.wasmbed.github.io"));
        assert!(kubectl.run(&["get", "ns"]).contains("Active"));

        let uid = kubectl.run(&["get", "wdev", "board-1", "-o", "jsonpath={.metadata.uid}"]);
        let event = kubectl.file(
            "event.yaml",
            &format!(
                "apiVersion: v1
kind: Event
metadata: {{name: board-1.1, namespace: default}}
involvedObject: {{apiVersion: wasmbed.github.io/v1alpha1, kind: Device, name: board-1, namespace: default, uid: {uid}}}
reason: Connected
message: a gateway holds its session
type: Normal
firstTimestamp: 2026-01-01T00:00:00Z
lastTimestamp: 2026-01-01T00:00:00Z
count: 1
"
            ),
        );
        kubectl.run(&["create", "-f", &event]);
        let described = kubectl.run(&["describe", "wdev", "board-1"]);
        for part in ["device_type:", "hifive1", "Phase:", "Connected", "a gateway holds its session"] {
            assert!(described.contains(part), "{part} not in\n{described}");
        }
        assert!(kubectl.run(&["get", "events"]).contains("device/board-1"));
        assert!(kubectl.run(&["events", "--for", "device.wasmbed.github.io/board-1"]).contains("a gateway holds its session"));

        let explained = kubectl.run(&["explain", "wdev.spec"]);
        for part in ["KIND:       Device", "VERSION:    v1alpha1", "device_type", "Board or product name"] {
            assert!(explained.contains(part), "{part} not in\n{explained}");
        }
        assert!(kubectl.run(&["explain", "wdev.metadata.labels"]).contains("map[string]string"));
        assert!(kubectl.run(&["explain", "leases"]).contains("coordination.k8s.io"));
        let resources = kubectl.run(&["api-resources"]);
        for part in ["wdev", "wgw", "namespaces", "leases", "customresourcedefinitions"] {
            assert!(resources.contains(part), "{part} not in\n{resources}");
        }
        assert!(kubectl.run(&["version"]).contains("v1.36"));
        assert!(kubectl.run(&["api-versions"]).contains("wasmbed.github.io/v1alpha1"));
        assert_eq!(kubectl.run(&["get", "--raw", "/readyz"]), "ok");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_and_watches() {
    with_kubectl(|kubectl| {
        let file = kubectl.file("device.yaml", DEVICE);
        let mut watching = kubectl
            .command(&["get", "wdev", "-w", "--output-watch-events"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut waiting = {
            kubectl.run(&["apply", "-f", &file]);
            kubectl
                .command(&["wait", "--for=condition=Ready", "wdev/board-1", "--timeout=30s"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        assert!(lines.next().unwrap().starts_with("EVENT"));
        assert!(lines.next().unwrap().starts_with("ADDED"));
        kubectl.run(&[
            "patch",
            "wdev",
            "board-1",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"Connected","conditions":[{"type":"Ready","status":"True"}]}}"#,
        ]);
        let modified = lines.next().unwrap();
        assert!(modified.starts_with("MODIFIED") && modified.contains("Connected"), "{modified}");
        assert!(waiting.wait().unwrap().success());
        kubectl.run(&["delete", "wdev", "board-1"]);
        assert!(lines.next().unwrap().starts_with("DELETED"));
        watching.kill().unwrap();
        watching.wait().unwrap();
        assert!(kubectl.run(&["wait", "--for=delete", "wdev/board-1", "--timeout=10s"]).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_on_the_server() {
    with_kubectl(|kubectl| {
        let file = kubectl.file("device.yaml", DEVICE);
        let applied = "device.wasmbed.github.io/board-1 serverside-applied\n";
        let managers = || {
            let path = "jsonpath={range .metadata.managedFields[*]}{.manager} {.operation}, {end}";
            kubectl.run(&["get", "wdev", "board-1", "--show-managed-fields", "-o", path])
        };
        // Fields of client-side apply are taken over, by a second apply and a JSON patch of the managers.
        kubectl.run(&["apply", "-f", &file]);
        assert_eq!(managers(), "kubectl-client-side-apply Update, ");
        assert_eq!(kubectl.run(&["apply", "--server-side", "-f", &file]), applied);
        let owners = managers();
        assert!(owners.contains("kubectl Apply, ") && !owners.contains("Update"), "{owners}");
        let version =
            || kubectl.run(&["get", "wdev", "board-1", "-o", "jsonpath={.metadata.resourceVersion}"]);
        let before = version();
        assert_eq!(kubectl.run(&["apply", "--server-side", "-f", &file]), applied);
        assert_eq!(version(), before);
        // Fields that are no longer applied are removed, and others own what they apply.
        let fewer =
            kubectl.file("fewer.yaml", &DEVICE.replace(", tls", "").replace(", labels: {site: lab}", ""));
        assert!(kubectl.run(&["diff", "--server-side", "-f", &file]).is_empty());
        assert_eq!(kubectl.run(&["apply", "--server-side", "-f", &fewer]), applied);
        let labels =
            kubectl.run(&["get", "wdev", "board-1", "-o", "jsonpath={.metadata.labels}{.spec.capabilities}"]);
        assert_eq!(labels, "[\"wasm\"]");
        let other = kubectl.file("other.yaml", &DEVICE.replace("hifive1", "esp32c3"));
        let error = kubectl.fail(&["apply", "--server-side", "--field-manager=other", "-f", &other]);
        assert!(error.contains("conflict with \"kubectl\": .spec.device_type"), "{error}");
        let forced =
            ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", other.as_str()];
        assert_eq!(kubectl.run(&forced), applied);
        assert!(managers().contains("other Apply, "), "{}", managers());
        // An absent object is created.
        let new = kubectl.file("new.yaml", &DEVICE.replace("board-1", "board-2"));
        let dry = kubectl.run(&["apply", "--server-side", "--dry-run=server", "-f", &new]);
        assert_eq!(dry, "device.wasmbed.github.io/board-2 serverside-applied (server dry run)\n");
        assert!(kubectl.fail(&["get", "wdev", "board-2"]).contains("not found"));
        kubectl.run(&["apply", "--server-side", "-f", &new]);
        kubectl.run(&["get", "wdev", "board-2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_what_is_invalid() {
    with_kubectl(|kubectl| {
        let wrong = |name: &str, from: &str, to: &str| kubectl.file(name, &DEVICE.replace(from, to));
        let unknown = wrong("unknown.yaml", "device_type", "device_typo");
        let error = kubectl.fail(&["apply", "-f", &unknown]);
        assert!(error.contains("strict decoding error: unknown field \"spec.device_typo\""), "{error}");
        let long = wrong("long.yaml", "hifive1", "a-board-with-a-name-that-is-too-long");
        let error = kubectl.fail(&["apply", "-f", &long]);
        assert!(error.contains("The Device \"board-1\" is invalid:"), "{error}");
        assert!(error.contains("spec.device_type: Too long: may not be more than 16 bytes"), "{error}");
        kubectl.run(&["apply", "-f", &kubectl.file("device.yaml", DEVICE)]);
        let other_key = wrong("key.yaml", "AAAA", "BBBB");
        let error = kubectl.fail(&["apply", "-f", &other_key]);
        assert!(error.contains("public_key is immutable"), "{error}");
        let error = kubectl.fail(&["apply", "--server-side", "-f", &other_key]);
        assert!(error.contains("public_key is immutable"), "{error}");
        let error = kubectl.fail(&["create", "-f", &kubectl.file("again.yaml", DEVICE)]);
        assert!(error.contains("AlreadyExists"), "{error}");
        let error = kubectl.fail(&["apply", "-n", "nowhere", "-f", &kubectl.file("device.yaml", DEVICE)]);
        assert!(error.contains("namespaces \"nowhere\" not found"), "{error}");
        assert!(kubectl.fail(&["delete", "ns", "default"]).contains("may not be deleted"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_deleted_with_its_content() {
    with_kubectl(|kubectl| {
        kubectl.run(&["create", "namespace", "lab"]);
        kubectl.run(&["apply", "-n", "lab", "-f", &kubectl.file("device.yaml", DEVICE)]);
        kubectl.run(&["label", "ns", "lab", "a=b"]);
        let manifest = |label: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: other, labels: {{a: {label}}}}}\n"
            );
            kubectl.file("namespace.yaml", &text)
        };
        assert_eq!(kubectl.run(&["apply", "-f", &manifest("b")]), "namespace/other created\n");
        assert_eq!(kubectl.run(&["apply", "-f", &manifest("b")]), "namespace/other unchanged\n");
        assert_eq!(kubectl.run(&["apply", "-f", &manifest("c")]), "namespace/other configured\n");
        kubectl.run(&["delete", "ns", "lab", "--timeout=20s"]);
        assert_eq!(kubectl.run(&["get", "wdev", "-A", "-o", "name"]), "");
        assert!(kubectl.fail(&["get", "ns", "lab"]).contains("not found"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_for_its_identity_and_permissions() {
    with_kubectl(|kubectl| {
        assert_eq!(kubectl.run(&["auth", "can-i", "create", "wdev"]), "yes\n");
        let who = kubectl.run(&["auth", "whoami"]);
        assert!(who.contains("system:masters"), "{who}");
    })
    .await;
}
