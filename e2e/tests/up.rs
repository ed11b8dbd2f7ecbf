//! `wasmbed up`, as a newcomer uses it, with the real kubectl.

#![cfg(test)]

use anyhow::{Result, ensure};
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
