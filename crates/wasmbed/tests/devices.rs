//! `wasmbed devices` against the embedded Kubernetes API, each run as the process that a person starts.

#![cfg(test)]

mod api;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use api::{Api, path};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use wasmbed_identity::PairingToken;

const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn a_file_is_registered_once_and_what_is_new_in_it_the_next_time() {
    let api = Api::start();
    let file = api.file("line.csv", format!("SN_0001\nSN-2,pump-east,{HASH},site=lab;line=3\n"));
    let register = ["devices", "preregister", "-f", path(&file)];
    let dry = api.succeeds(&[&register[..], &["--dry-run"]].concat());
    assert_eq!(dry, "2 devices: 2 created, 0 configured, 0 unchanged (dry run)\n");
    assert!(api.fails(&["get", "wdev", "sn-0001"]).contains("not found"), "nothing was made");

    assert_eq!(api.succeeds(&register), "2 devices: 2 created, 0 configured, 0 unchanged\n");
    let device = api.get("wdev", "pump-east");
    assert_eq!(device["spec"]["serial"], "SN-2");
    assert_eq!(device["spec"]["factory_key_hash"], HASH);
    assert_eq!(device["spec"]["approved"], true, "whoever registers it wants it");
    assert_eq!(device["metadata"]["labels"], json!({ "site": "lab", "line": "3" }));
    let manager = &device["metadata"]["managedFields"][0];
    assert_eq!((&manager["manager"], &manager["operation"]), (&json!("wasmbed-devices"), &json!("Apply")));

    // A person's decision about one of them stays.
    let decided = api.file(
        "decided.yaml",
        "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: sn-0001}\nspec: {approved: false}\n",
    );
    api.succeeds(&["apply", path(&decided)]);
    let version = api.get("wdev", "pump-east")["metadata"]["resourceVersion"].clone();
    assert_eq!(api.succeeds(&register), "2 devices: 0 created, 0 configured, 2 unchanged\n");
    assert_eq!(api.get("wdev", "pump-east")["metadata"]["resourceVersion"], version, "it is not written");
    api.file("line.csv", format!("SN_0001,,,site=lab\nSN-2,pump-east,{HASH},site=lab;line=3\nSN-3\n"));
    assert_eq!(api.succeeds(&register), "3 devices: 1 created, 1 configured, 1 unchanged\n");
    let device = api.get("wdev", "sn-0001");
    assert_eq!(
        (&device["spec"]["approved"], &device["metadata"]["labels"]["site"]),
        (&json!(false), &json!("lab"))
    );
}

#[test]
fn nothing_is_written_unless_every_line_can_be_read() {
    let api = Api::start();
    let file = api.file("bad.csv", "ok-1\n-bad\nok-2\nok-3,Bad Name\nok-1\n");
    let said = api.fails(&["devices", "preregister", "-f", path(&file)]);
    for (number, wanted) in [(2, "serial \"-bad\""), (4, "name \"Bad Name\""), (5, "is on line 1")] {
        let line = said.lines().find(|line| line.contains(&format!("bad.csv, line {number}: ")));
        assert!(line.is_some_and(|line| line.contains(wanted)), "line {number}: {said}");
    }
    assert!(said.contains("3 of the lines can't be used; nothing was registered"), "{said}");
    assert!(api.fails(&["get", "wdev", "ok-1"]).contains("not found"));
    let empty = api.file("empty.csv", "# nothing\n\n");
    assert!(api.fails(&["devices", "preregister", "-f", path(&empty)]).contains("there is no device in"));
}

#[test]
fn a_line_that_the_api_refuses_is_named_and_the_others_are_registered() {
    let api = Api::start();
    let first = api.file("first.csv", "SN-1,one\nSN-2,two\n");
    api.succeeds(&["devices", "preregister", "-f", path(&first)]);
    // SN-1 has another name, `two` another serial, and someone else set the hash of three.
    let other = api.file(
        "other.yaml",
        format!("apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {{name: three}}\nspec: {{factory_key_hash: {HASH}}}\n"),
    );
    api.succeeds(&["apply", path(&other)]);
    let second =
        api.file("second.csv", format!("SN-1,eins\nSN-9,two\nSN-3,three,{}\nSN-4\n", HASH.replace('0', "1")));
    let output = api.run(&["devices", "preregister", "-f", path(&second)]);
    let (said, printed) = (api::text(&output.stderr), api::text(&output.stdout));
    assert_eq!(output.status.code(), Some(1));
    for (line, wanted) in [
        ("line 1 (SN-1)", "the Device one has this serial"),
        ("line 2 (SN-9)", "the Device two has the serial \"SN-2\""),
        ("line 3 (SN-3)", "conflict"),
    ] {
        let found = said.lines().find(|text| text.contains(line));
        assert!(found.is_some_and(|text| text.contains(wanted)), "{line}: {said}");
    }
    assert_eq!(printed, "4 devices: 1 created, 0 configured, 0 unchanged\n");
    assert!(said.contains("3 of 4 could not be registered; the same file can be given again"), "{said}");
    assert_eq!(api.get("wdev", "sn-4")["spec"]["serial"], "SN-4");
}

fn answer(stream: TcpStream, written: &AtomicUsize, writes: usize) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let (status, body) = match head.starts_with("GET") {
        true => ("200 OK", r#"{"metadata":{},"items":[]}"#),
        false if written.fetch_add(1, Ordering::Relaxed) < writes => ("200 OK", "{}"),
        false => ("503 Service Unavailable", r#"{"status":"Failure","code":503,"message":"too much"}"#),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    reader.into_inner().write_all(answer.as_bytes()).unwrap();
}

/// It answers the list and some writes, and then that it is overloaded.
fn failing_api(writes: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, written) = (stream.unwrap(), Arc::clone(&written));
            // A client may keep a connection that it does not need.
            std::thread::spawn(move || answer(stream, &written, writes));
        }
    });
    address
}

#[test]
fn an_api_that_stops_answering_is_told_once_and_what_is_left_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = json!({
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", failing_api(20)) } }],
        "users": [],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "" } }],
        "current-context": "c",
    });
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let lines: String = (0..200).map(|number| format!("S{number}\n")).collect();
    std::fs::write(folder.path().join("line.csv"), lines).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbed"));
    command.args(["devices", "preregister", "--kubeconfig", "kubeconfig", "-f", "line.csv"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    let said = api::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(api::text(&output.stdout), "200 devices: 20 created, 0 configured, 0 unchanged\n");
    assert_eq!(said.matches("too much").count(), 1, "{said}");
    assert!(said.contains("1 of 200 could not be registered, and 179 were not tried"), "{said}");
}

#[test]
fn a_token_is_shown_once_and_a_second_one_replaces_it() {
    let api = Api::start();
    let out = api.file("x", "").with_file_name("token");
    let said = api.fails(&["devices", "pair", "board-1", "--out", path(&out)]);
    assert!(said.contains("there is no namespace wasmbed-pairing"), "{said}");
    assert!(!out.exists() && api.fails(&["get", "wdev", "board-1"]).contains("not found"));
    let namespace =
        api.file("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: wasmbed-pairing}\n");
    api.succeeds(&["apply", path(&namespace)]);

    let token: PairingToken = api.succeeds(&["devices", "pair", "board-1"]).parse().unwrap();
    let device = api.get("wdev", "board-1");
    assert_eq!(device["spec"]["pairing_id"], token.id().to_string());
    assert_eq!(device["spec"]["approved"], true);
    let secret = |name: &str| api.run(&["get", "secrets", name, "-n", "wasmbed-pairing", "-o", "json"]);
    let held = secret(&format!("wasmbed-pairing-{}", token.id()));
    let held: serde_json::Value = serde_json::from_slice(&held.stdout).unwrap();
    assert_eq!(held["data"]["key"], STANDARD.encode(token.key().reveal()));
    assert_eq!(held["metadata"]["annotations"]["wasmbed.github.io/device"], "default/board-1");

    assert_eq!(api.succeeds(&["devices", "pair", "board-1", "--out", path(&out)]), "");
    let another: PairingToken = std::fs::read_to_string(&out).unwrap().parse().unwrap();
    assert_eq!(api.get("wdev", "board-1")["spec"]["pairing_id"], another.id().to_string());
    assert!(!secret(&format!("wasmbed-pairing-{}", token.id())).status.success(), "the former is gone");
    assert!(api.fails(&["devices", "pair", "board-2", "--out", path(&out)]).contains("can't create"));
    assert!(api.fails(&["get", "wdev", "board-2"]).contains("not found"));
    let output = api.run(&["devices", "pair", "board-1", "--expires", "1d"]);
    assert!(api::text(&output.stderr).contains("from 1m to 8760h"));
}

#[test]
fn ten_thousand_lines_are_registered_in_one_go() {
    let api = Api::start();
    let lines: String =
        (0..10_000).map(|number| format!("SN-{number:05},,{HASH},line={}\n", number % 7)).collect();
    let file = api.file("line.csv", lines);
    let register = ["devices", "preregister", "-f", path(&file)];
    let began = Instant::now();
    assert_eq!(api.succeeds(&register), "10,000 devices: 10,000 created, 0 configured, 0 unchanged\n");
    let first = began.elapsed();
    assert_eq!(api.succeeds(&register), "10,000 devices: 0 created, 0 configured, 10,000 unchanged\n");
    println!("first {first:?}, again {:?}", began.elapsed() - first);
}
