//! `wasmbed up`, as a newcomer uses it, with the real kubectl.

#![cfg(test)]

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use wasmbed_e2e::{Up, wasmbed};

#[test]
fn one_command_brings_up_the_whole_path_and_a_second_one_carries_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut up = Up::start(dir.path(), &[])?;
    up.process
        .wait_for_line("a log line of the sample", |line| line.contains("hello from a WebAssembly module"))?;
    let kubectl = up.kubectl()?;
    let devices = kubectl.run(&["get", "wdev", "-o", "wide"])?;
    assert_eq!(devices.matches("Connected").count(), 3, "{devices}");
    let applications = kubectl.run(&["get", "wapp", "-o", "wide"])?;
    assert!(applications.contains("Running") && applications.contains("3/3"), "{applications}");
    let all = kubectl.run(&["get", "wdev,wapp,wgw", "-A", "-o", "wide"])?;
    assert!(all.contains("devicegateway.wasmbed.github.io/local"), "{all}");
    let uid = kubectl.run(&["get", "wapp", "hello", "-o", "jsonpath={.metadata.uid}"])?;

    up.process.signal("INT")?;
    ensure!(up.process.ended()?.success(), "Ctrl-C ends it cleanly: {}", up.process.printed()?);
    ensure!(up.process.printed()?.contains("stopped"), "it says that it stopped");

    let up = Up::start(dir.path(), &[])?;
    let again = up.kubectl()?.run(&["get", "wapp", "hello", "-o", "jsonpath={.metadata.uid}"])?;
    assert_eq!(uid, again, "the second start has the state of the first");
    let status = up.process.terminate()?;
    ensure!(status.success(), "SIGTERM ends it cleanly too: {status}");
    Ok(())
}

#[test]
fn kubectl_works_as_with_any_kubernetes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let up = Up::start(dir.path(), &["--devices", "1"])?;
    let kubectl = up.kubectl()?;
    let version = kubectl.run(&["version"])?;
    assert!(version.contains("Client Version: v1.36"), "{version}");
    let said = kubectl.run(&["wait", "--for=condition=Ready", "wapp/hello", "--timeout=60s"])?;
    assert!(said.contains("condition met"), "{said}");

    let described = kubectl.run(&["describe", "wapp", "hello"])?;
    assert!(described.contains("Ready") && described.contains("Events:"), "{described}");
    let explained = kubectl.run(&["explain", "wapp.spec.config.memory_limit"])?;
    assert!(explained.contains("Linear memory at most, bytes"), "{explained}");
    kubectl.run(&["label", "wdev", "device-001", "site=lab"])?;
    let labelled = kubectl.run(&["get", "wdev", "-l", "site=lab", "-o", "name"])?;
    assert_eq!(labelled.trim(), "device.wasmbed.github.io/device-001");

    let mut edit = kubectl.command(&["edit", "wapp", "hello"]);
    edit.env("KUBE_EDITOR", "sed -i 's/cpu_time_limit: 1000/cpu_time_limit: 900/'");
    let edited = edit.output()?;
    ensure!(edited.status.success(), "kubectl edit: {}", String::from_utf8_lossy(&edited.stderr));
    let limit = kubectl.run(&["get", "wapp", "hello", "-o", "jsonpath={.spec.config.cpu_time_limit}"])?;
    assert_eq!(limit, "900");
    Ok(())
}

#[test]
fn a_watch_shows_changes_and_the_deletion() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let up = Up::start(dir.path(), &["--devices", "1"])?;
    let kubectl = up.kubectl()?;
    let mut command = kubectl.command(&["get", "wapp", "hello", "-w", "--output-watch-events"]);
    let mut watch = command.stdout(std::process::Stdio::piped()).spawn().context("can't start kubectl")?;
    let lines = BufReader::new(watch.stdout.take().context("a pipe")?).lines();
    let mut seen = Vec::new();
    for line in lines.map_while(std::result::Result::ok) {
        if line.starts_with("ADDED") {
            kubectl.run(&["delete", "wapp", "hello", "--wait=false"])?;
        }
        let deleted = line.starts_with("DELETED");
        seen.push(line);
        if deleted {
            break;
        }
    }
    watch.kill().context("can't end kubectl")?;
    watch.wait().context("can't wait for kubectl")?;
    assert!(seen.last().is_some_and(|line| line.starts_with("DELETED")), "{seen:#?}");
    Ok(())
}

#[test]
fn two_on_one_folder_are_refused_and_a_taken_port_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _up = Up::start(dir.path(), &["--devices", "0", "--no-sample"])?;
    let mut second = wasmbed(&["up", "--free-ports", "--data-dir"])?;
    let output = second.arg(dir.path().join("state")).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("another `wasmbed up` uses"), "{said}");

    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = taken.local_addr()?.port().to_string();
    let mut third = wasmbed(&["up", "--data-dir"])?;
    let output = third.arg(dir.path().join("other")).args(["--apiserver-port", &port]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--apiserver-port"), "{said}");
    Ok(())
}
