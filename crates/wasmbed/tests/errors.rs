//! Wrong input of every kind: each message says what was wrong, once, and what would be right.
#![cfg(test)]

mod api;

use std::{net::TcpListener, process::Command, thread};

use api::{Api, path, text};
use wasmbed::machine::layout::KubeUser;

const HELLO: &[u8] = include_bytes!("../../../guests/prebuilt/hello.wasm");
const CONFIG: &str = "the Kubernetes API at";

/// What no message for people holds: the words of libraries about themselves, debug output, the same part twice, a UID.
fn says_it_well(arguments: &[&str], said: &str) {
    for alien in ["ApiError", "ServiceError", "client error", "Some(", "Status {", "'\"", "\\n", "::"] {
        assert!(!said.contains(alien), "{arguments:?}: {alien} in {said}");
    }
    let uid = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    assert!(!said.split_whitespace().any(|word| uid(word.trim_matches('"'))), "{arguments:?}: {said}");
    for line in said.lines() {
        // The path of a field stands twice in the API server's own words.
        let parts: Vec<&str> =
            line.split(": ").filter(|part| part.len() > 8 && !part.starts_with("spec.")).collect();
        for (index, part) in parts.iter().enumerate() {
            let again = parts.iter().skip(index + 1).any(|later| later.contains(part));
            assert!(!again, "{arguments:?} says {part:?} twice: {said}");
        }
    }
}

/// Runs the binary for each line of a table: arguments, and words of which each has to be in the message.
fn refuses(command: &dyn Fn(&[&str]) -> Command, table: &[(&[&str], &[&str])]) {
    for (arguments, wanted) in table {
        let output = command(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} was taken: {}{said}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        says_it_well(arguments, &said);
        for words in *wanted {
            assert!(said.contains(words), "{arguments:?}: {words:?} is not in {said}");
        }
    }
}

#[test]
fn what_is_named_and_does_not_exist_is_an_error_that_names_it() {
    let api = Api::start();
    let device = "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: board}\nspec: {device_type: x}\n";
    let file = api.file("device.yaml", device);
    api.succeeds(&["apply", path(&file)]);
    let application =
        r#"there is no Application "nobody" in namespace default; see wasmbed get wapp -n default"#;
    let device = r#"there is no Device "nobody" in namespace default; see wasmbed get wdev -n default"#;
    refuses(
        &|arguments| api.command(arguments),
        &[
            (&["logs", "nobody"], &[application]),
            (&["logs", "--follow", "nobody"], &[application]),
            (&["logs", "--json", "nobody"], &[application]),
            (&["logs", "nobody", "--gateway", "127.0.0.1:1", "--pki", "none"], &[application]),
            (&["logs", "--device", "nobody"], &[device]),
            (&["logs", "--follow", "--device", "nobody"], &[device]),
            (&["logs", "nobody", "--device", "board"], &[application]),
            (&["logs", "-A", "nobody"], &[r#"there is no Application "nobody" in any namespace"#]),
            (&["logs", "-n", "lab", "-d", "board"], &[r#""board" in namespace lab"#]),
            (&["logs", "a/b"], &["\"a/b\" can't be the name of an object"]),
            (&["get", "wdev", "nobody"], &["\"nobody\" not found"]),
            (&["get", "wdev/nobody"], &["\"nobody\" not found"]),
            (&["get", "wdev", "nobody", "-o", "json"], &["device.wasmbed.github.io/nobody was not found"]),
            (&["get", "wdev", "nobody", "--watch"], &["\"nobody\" not found"]),
            (&["get", "wdev", "a/b"], &["\"a/b\" can't be the name of an object"]),
            (&["get", "wdev", "-n", "A b"], &["\"A b\" is no namespace"]),
            (&["get", "wdev", "-A", "board"], &["--all-namespaces"]),
            (&["get", "wdev", "board", "-l", "a=b"], &["--selector"]),
            (&["get", "pods"], &["there is no resource called \"pods\"; try one of"]),
            (&["pki", "fetch", "--dir", "x"], &["wasmbed-authorities"]),
        ],
    );
    // It exists, so what is in the way is another thing.
    let none = api.fails(&["logs", "--device", "board", "--pki", "none"]);
    assert!(none.contains("no operator's identity: wasmbed pki issue operator makes one"), "{none}");
    assert!(api.fails(&["logs", "--device", "board"]).contains("the cluster has no DeviceGateway"));
    assert_eq!(api.succeeds(&["logout"]), "not logged in\n");
    let waits = api.fails(&["login", "--timeout", "0"]);
    assert!(waits.contains("nobody has decided about the request wasmbed-operator-"), "{waits}");
    assert_eq!(api.get("wdev", "board")["spec"]["device_type"], "x");
    assert_eq!(api.succeeds(&["get", "wdev/board", "-o", "name"]), "device.wasmbed.github.io/board\n");
}

#[test]
fn what_the_api_refuses_is_told_in_its_words_once() {
    let api = Api::start();
    let hello = api.file("hello.wasm", HELLO);
    let hello = path(&hello);
    let named = |name: &str| api.file(name, HELLO).to_str().unwrap().to_owned();
    let (other, long) = (named("größe.wasm"), named(&format!("{}.wasm", "x".repeat(64))));
    let device = "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: a}\nspec: {}\n";
    api.succeeds(&["apply", path(&api.file("device.yaml", device))]);
    let conflict = api.file(
        "conflict.yaml",
        "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: a, resourceVersion: '1'}\nspec: {device_type: x}\n",
    );
    let kind = api.file(
        "kind.yaml",
        "apiVersion: wasmbed.github.io/v1alpha1\nkind: Gadget\nmetadata: {name: a}\nspec: {}\n",
    );
    let name = api.file(
        "name.yaml",
        "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {name: a/b}\nspec: {device_type: x}\n",
    );
    refuses(
        &|arguments| api.command(arguments),
        &[
            (&["apply", hello, "--all-devices", "--name", "Bad_Name"], &["Bad_Name", "lowercase RFC 1123"]),
            (&["apply", hello, "--all-devices", "-n", "nowhere"], &["\"nowhere\" not found"]),
            (&["apply", hello, "--all-devices", "--memory-limit", "99Gi"], &["memory_limit", "4294967296"]),
            (&["apply", hello, "--all-devices", "--memory-limit", "64Q"], &["not a number of bytes", "64Ki"]),
            (&["apply", hello, "--all-devices", "--env", "X"], &["not NAME=VALUE"]),
            (&["apply", &other, "--all-devices"], &["größe", "give one with --name"]),
            (&["apply", &long, "--all-devices"], &["up to 63", "give one with --name"]),
            (&["apply", path(&kind)], &["has no kind \"Gadget\"; it has"]),
            (&["apply", path(&name)], &["\"a/b\" can't be the name of an object"]),
            (&["apply", path(&conflict)], &["the object has been modified"]),
            (&["get", "wdev", "-l", "a in b"], &["unable to parse requirement"]),
            (&["get", "wdev", "--field-selector", "spec.nope=1"], &["spec.nope"]),
        ],
    );
}

#[test]
fn what_answers_wrongly_or_not_at_all_is_named() {
    let api = Api::start();
    let kubeconfig = std::fs::read_to_string(api.layout.kubeconfig()).unwrap();
    let server =
        kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: ")).unwrap().trim_matches('"');
    let elsewhere =
        |name: &str, url: &str| api.file(name, kubeconfig.replace(server, url)).to_str().unwrap().to_owned();
    // Answers everything with a page.
    let page = TcpListener::bind("127.0.0.1:0").unwrap();
    let page_at = format!("http://{}", page.local_addr().unwrap());
    thread::spawn(move || {
        for stream in page.incoming() {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>");
        }
    });
    let refused = elsewhere("refused", "https://127.0.0.1:1");
    let page = elsewhere("page", &page_at);
    let plain = elsewhere("plain", &server.replace("https", "http"));
    let stranger = tempfile::tempdir().unwrap();
    let stranger = wasmbed::machine::layout::Layout::create_or_open(stranger.path()).unwrap();
    let address = server.trim_start_matches("https://").trim_end_matches('/').parse().unwrap();
    let stranger = stranger.write_kubeconfig(address, KubeUser::Administrator).unwrap();
    let broken = api.file("broken", "a: [b\n");
    let secret = api.file("secret", "users:\n- user:\n    SECRET\n  [\n");
    let folder = broken.parent().unwrap();
    let reached = [CONFIG, "could not be reached: Connection refused", "is KUBECONFIG the right one?"];
    let hello = api.file("hello.wasm", HELLO);
    refuses(
        &|arguments| api.command(arguments),
        &[
            (&["get", "--kubeconfig", &refused], &reached),
            (&["logs", "a", "--kubeconfig", &refused], &reached),
            (&["apply", path(&hello), "--all-devices", "--kubeconfig", &refused], &reached),
            (&["pki", "fetch", "--kubeconfig", &refused], &reached),
            (&["get", "--kubeconfig", &page], &["what answers at http://", "is not the Kubernetes API"]),
            (&["get", "--kubeconfig", &plain], &[CONFIG, "could not be reached"]),
            (&["get", "--kubeconfig", path(&stranger)], &[CONFIG, "certificate"]),
            (&["get", "--kubeconfig", "/nowhere"], &["can't use the kubeconfig /nowhere: No such file"]),
            (&["get", "--kubeconfig", path(folder)], &["Is a directory"]),
            (&["get", "--kubeconfig", path(&broken)], &["line 1 column 4"]),
            (&["get", "--kubeconfig", path(&secret)], &["can't use the kubeconfig"]),
        ],
    );
    let said = api.fails(&["get", "--kubeconfig", path(&secret)]);
    assert!(!said.contains("SECRET"), "{said}");
}

#[test]
fn wrong_files_and_flags_are_named_with_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("bad.wasm", &b"not wasm"[..]),
        ("cut.wasm", b"\0asm\x01\0\0\0\x01"),
        ("text", b"text"),
        ("bad.yaml", b"a: [b\n"),
        ("half.yaml", b"kind: Device\n"),
        ("empty.yaml", b""),
        ("typo.yaml", b"gateway: {serverr: {}}\n"),
        ("hello.wasm", HELLO),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(folder.path().join("dir")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbed"));
        command.args(arguments).current_dir(folder.path()).env_remove("KUBECONFIG").env("HOME", "/nowhere");
        command
    };
    run(&["pki", "init", "--dir", "pki"]).output().unwrap();
    run(&["pki", "issue", "operator", "--dir", "pki", "--name", "me", "--out", "pki"]).output().unwrap();
    let device = ["device", "--gateway", "x:1", "--cert-file"];
    let certificate = |chain, key| [&device[..], &[chain, "--key-file", key]].concat();
    refuses(
        &run,
        &[
            (&["get"], &["no Kubernetes API found: set --kubeconfig or KUBECONFIG"]),
            (&["apply", "none.yaml"], &["can't read none.yaml: No such file"]),
            (&["apply", "dir"], &["dir holds no .yaml, .yml or .json file"]),
            (&["apply", "bad.yaml"], &["bad.yaml is neither YAML nor JSON: line 1 column 4"]),
            (&["apply", "half.yaml"], &["half.yaml: apiVersion is missing"]),
            (&["apply", "empty.yaml"], &["there is no object in what was given"]),
            (&["apply", "bad.wasm", "--all-devices"], &["can't pack bad.wasm: not WebAssembly"]),
            (&["apply", "cut.wasm", "--all-devices"], &["invalid WebAssembly at byte 9"]),
            (&["apply", "hello.wasm"], &["--device NAME, --selector LABELS or --all-devices"]),
            (&["module", "info", "none.wasm"], &["can't read none.wasm: No such file"]),
            (&["module", "info", "dir"], &["can't read dir: Is a directory"]),
            (&["module", "info", "bad.wasm", "-o", "json"], &["not WebAssembly"]),
            (&["module", "run", "cut.wasm"], &["can't pack cut.wasm"]),
            (&["module", "pack", "hello.wasm", "-o", "dir"], &["can't write dir: Is a directory"]),
            (&certificate("none", "none"), &["none: No such file"]),
            (&certificate("text", "text"), &["text: holds no PEM certificate"]),
            (
                &certificate("pki/operator.crt", "pki/services-root.key"),
                &["does not belong to the certificate"],
            ),
            (&["device", "--gateway", "https://x"], &["https:// does not belong here"]),
            (&["device", "--gateway", "x:1", "--board", "nope"], &["riscv32-virt, mps2-an385"]),
            (
                &["device", "provision", "--board", "nope", "--gateway", "x:1", "--out", "x"],
                &["riscv32-virt, nucleo-h743zi2, mps2-an385"],
            ),
            (&["device", "--gateway", "x:1", "--memory", "1Q"], &["not a number of bytes"]),
            (&["gateway", "--config", "none.yaml"], &["can't read the configuration none.yaml: No such"]),
            (&["gateway", "--config", "bad.yaml"], &["in bad.yaml"]),
            (&["gateway", "--config", "typo.yaml"], &["gateway.serverr: unknown key; expected one of"]),
            (&["gateway", "--set", "server.port=99999"], &["expected a number from 0 to 65535"]),
            (&["gateway", "--set", "enrollment=any"], &["expected one of closed, approval, open"]),
            (&["controller", "--set", "logging.level=infoo"], &["bad log level 'infoo'"]),
            (&["simulate", "--pki", "pki", "--gateway", "x"], &["the port is missing"]),
            (&["simulate", "--pki", "pki", "--devices", "10001"], &["at most 10000"]),
            (&["up", "--data-dir", "text"], &["can't create text"]),
            (
                &["pki", "issue", "device", "--dir", "typo", "--name", "a"],
                &["no authorities in typo", "pki init"],
            ),
            (&["pki", "issue", "device", "--dir", "pki", "--name", "A b"], &["A b", "is not usable"]),
            (
                &["pki", "issue", "factory", "--dir", "typo", "--serial", "a"],
                &["no authorities in typo", "factory-root.crt", "pki init"],
            ),
            (
                &["pki", "issue", "factory", "--dir", "pki", "--serial", "SN 1"],
                &["SN 1", "is not usable", "1 to 63 letters"],
            ),
            (
                &["pki", "issue", "signer", "--dir", "pki", "--server", "https://x:1", "--out", "signer"],
                &["pki has no cluster-ca.key"],
            ),
            (&["pki", "show", "text", "text"], &["holds no PEM certificate"]),
            (&["pki", "kubeconfig", "--data-dir", "typo"], &["typo is no folder of `wasmbed up`"]),
            (&["logs", "a", "--gateway", "nonsense"], &["the port is missing"]),
            (&["nope"], &["unrecognized subcommand 'nope'"]),
        ],
    );
    assert!(!folder.path().join("typo").exists(), "nothing was made in a misspelt folder");
    let few =
        format!("ulimit -n 300; exec {} simulate --pki pki --devices 290", env!("CARGO_BIN_EXE_wasmbed"));
    let output = Command::new("sh").args(["-c", &few]).current_dir(folder.path()).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("290 devices need as many open files"), "{said}");
}
