//! `wasmbed up`, as a newcomer uses it, with the real kubectl.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use wasmbed::machine::layout::Layout;
use wasmbed_api::{DEVICE_SIGNER, request_annotation};
use wasmbed_e2e::{Up, wasmbed};
use wasmbed_pki::Identity;

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
    // The devices made their keys themselves, and the signer certified them.
    let columns = ".spec.serial}{.spec.public_key}|{.status.public_key";
    let joined = kubectl.run(&["get", "wdev", "device-001", "-o", &format!("jsonpath={{{columns}}}")])?;
    let certified = joined.strip_prefix("device-001|").context(joined.clone())?.to_owned();
    ensure!(!certified.is_empty(), "its key is certified");
    ensure!(up.process.printed()?.contains("\n  signer           health and metrics at http://127.0.0.1:"));

    up.process.signal("INT")?;
    ensure!(up.process.ended()?.success(), "Ctrl-C ends it cleanly: {}", up.process.printed()?);
    ensure!(up.process.printed()?.contains("stopped"), "it says that it stopped");

    let up = Up::start(dir.path(), &[])?;
    let again = up.kubectl()?.run(&["get", "wapp", "hello", "-o", "jsonpath={.metadata.uid}"])?;
    assert_eq!(uid, again, "the second start has the state of the first");
    let kept = up.kubectl()?.run(&["get", "wdev", "device-001", "-o", "jsonpath={.status.public_key}"])?;
    assert_eq!(certified, kept, "devices join once");
    let status = up.process.terminate()?;
    ensure!(status.success(), "SIGTERM ends it cleanly too: {status}");
    Ok(())
}

/// The version before had no signer and no factory, and gave its devices operational identities.
#[test]
fn a_folder_of_the_version_before_gains_a_signer_that_issues() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pki = dir.path().join("state/pki");
    Layout::create_or_open(&dir.path().join("state"))?.device_identity("default", "device-001")?;
    let key = std::fs::read(pki.join("device-default-device-001.key"))?;
    for file in std::fs::read_dir(&pki)?.filter_map(Result::ok) {
        if file.file_name().to_string_lossy().starts_with("factory-") {
            std::fs::remove_file(file.path())?;
        }
    }
    let up = Up::start(dir.path(), &["--devices", "1", "--no-sample"])?;
    ensure!(std::fs::read(pki.join("device-default-device-001.key"))? == key, "the devices keep their keys");

    // The device's own certificate is renewed, by hand.
    let (certificate, key) = Identity::files(&pki, "device-default-device-001");
    let identity = Identity::read(&certificate, &key)?;
    let own = KeyPair::from_pem(&identity.key_pem)?;
    let kubectl = up.kubectl()?;
    let uid = kubectl.run(&["get", "wdev", "device-001", "-o", "jsonpath={.metadata.uid}"])?;
    let request = CertificateParams::default().serialize_request(&own)?.pem()?;
    let object = serde_json::json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": "renewal", "annotations": {
            request_annotation::DEVICE: "default/device-001",
            request_annotation::DEVICE_UID: uid,
            request_annotation::RENEWS: identity.chain_pem,
        } },
        "spec": {
            "request": STANDARD.encode(request),
            "signerName": DEVICE_SIGNER,
            "usages": ["client auth"],
        },
    });
    kubectl.apply(&object.to_string())?;
    // The controller approves what renews.
    kubectl.run(&["wait", "csr/renewal", "--for=jsonpath={.status.certificate}", "--timeout=60s"])?;
    let pinned = kubectl.run(&["get", "wdev", "device-001", "-o", "jsonpath={.status.public_key}"])?;
    assert_eq!(pinned, identity.public_key_base64());
    ensure!(up.process.terminate()?.success(), "it stops with the signer");
    Ok(())
}

#[test]
fn devices_that_a_person_keeps_out_are_not_waited_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let up = Up::start(dir.path(), &["--devices", "2"])?;
    let kubectl = up.kubectl()?;
    for (name, field) in [("device-001", "\"approved\":false"), ("device-002", "\"revoked\":true")] {
        let patch = format!("{{\"spec\":{{{field}}}}}");
        kubectl.run(&["patch", "wdev", name, "--type=merge", "-p", &patch])?;
    }
    ensure!(up.process.terminate()?.success(), "it stops");
    let up = Up::start(dir.path(), &["--devices", "2"])?;
    let said = up.process.printed()?;
    let line = "0 of 2 Connected, device-001 waits for spec.approved, device-002 is revoked";
    assert!(said.contains(line), "{said}");
    Ok(())
}

#[test]
fn it_stops_in_order_when_nobody_reads_its_screen_any_more() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = wasmbed(&["up", "--free-ports", "--devices", "1", "--data-dir"])?;
    let mut up =
        command.arg(dir.path().join("state")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // As `up 2>&1 | head -1` does: both are read from until the first line came.
    let mut screen = BufReader::new(up.stdout.take().context("standard output is a pipe")?);
    screen.read_line(&mut String::new())?;
    drop((screen, up.stderr.take()));
    let status = up.wait()?;
    ensure!(status.success(), "it ends as after Ctrl-C: {status}");
    Up::start(dir.path(), &["--devices", "1"])?;
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

#[test]
fn emulated_boards_join_beside_the_devices_and_one_that_loses_power_comes_back() -> Result<()> {
    const BOARDS: [&str; 2] = ["riscv32-virt-001", "mps2-an385-001"];
    let dir = tempfile::tempdir()?;
    let mut up = Up::start(dir.path(), &["--devices", "1", "--qemu", "2"])?;
    for board in BOARDS {
        up.process.wait_for_line("the sample's log line", |line| {
            line.contains(&format!("default/{board} default/hello | hello"))
        })?;
    }
    let kubectl = up.kubectl()?;
    let applications = kubectl.run(&["get", "wapp", "-o", "wide"])?;
    assert!(applications.contains("Running") && applications.contains("3/3"), "{applications}");
    let epochs = [BOARDS[0], BOARDS[1]].map(|board| -> Result<String> {
        let what = "jsonpath={.spec.device_type}|{.status.phase}|{.status.facts.board}|{.status.facts.memory_bytes}|{.status.facts.flash_bytes}|{.status.facts.firmware}";
        let shown = kubectl.run(&["get", "wdev", board, "-o", what])?;
        let kind = board.trim_end_matches("-001");
        assert!(shown.starts_with(&format!("{kind}|Connected|{kind}|")), "{shown}");
        assert!(shown.split('|').skip(3).all(|fact| !fact.is_empty() && fact != "0"), "{shown}");
        kubectl.run(&["get", "wdev", board, "-o", "jsonpath={.status.epoch}"])
    });

    cut_power(&dir.path().join("state/devices/default").join(BOARDS[0]))?;
    up.process.wait_for_line("the warning", |line| line.contains("emulator ended"))?;
    up.process.wait_for_line("the sample again", |line| {
        line.contains(&format!("default/{} default/hello | hello", BOARDS[0]))
    })?;
    let [before, _] = epochs;
    let before: u64 = before?.parse()?;
    let next = format!("--for=jsonpath={{.status.epoch}}={}", before + 1);
    kubectl.run(&["wait", &format!("wdev/{}", BOARDS[0]), &next, "--timeout=60s"])?;
    ensure!(up.process.terminate()?.success(), "it stops with the boards");
    Ok(())
}

#[test]
fn boards_that_this_machine_can_not_run_are_refused_before_anything_starts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = wasmbed(&["up", "--free-ports", "--qemu", "1", "--data-dir"])?;
    let output = command.arg(dir.path().join("state")).arg("--firmware").arg(dir.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cargo xtask firmware"), "{said}");
    assert!(!dir.path().join("state").exists(), "nothing was made");

    let mut command = wasmbed(&["up", "--free-ports", "--qemu", "1", "--data-dir"])?;
    let output = command.arg(dir.path().join("state")).env("PATH", dir.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("apt-get install qemu-system-misc"), "{said}");
    Ok(())
}

/// Kills the QEMU that runs from a folder.
fn cut_power(folder: &Path) -> Result<()> {
    let folder = folder.to_str().context("a path in UTF-8")?;
    let all = std::fs::read_dir("/proc")?.filter_map(Result::ok);
    let mut ids = all.filter(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.starts_with(b"qemu-system") && String::from_utf8_lossy(&words).contains(folder)
    });
    let id = ids.next().context("its QEMU runs")?.file_name();
    ensure!(ids.next().is_none(), "one QEMU runs from {folder}");
    ensure!(Command::new("kill").arg("-9").arg(id).status()?.success(), "it is killed");
    Ok(())
}
