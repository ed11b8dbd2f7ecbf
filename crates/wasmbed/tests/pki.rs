//! `wasmbed pki` as a person runs it.

#![cfg(test)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use wasmbed_pki::{ClusterAuthority, Identity, read_certificates};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbed"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_folder_of_the_version_before_gains_a_factory_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    wasmbed_pki::Authorities::create_or_open(&folder.join("pki"), "wasmbed").unwrap();
    let root = fs::read(folder.join("pki/devices-root.crt")).unwrap();
    let issue = ["pki", "issue", "factory", "--serial", "SN_17"];
    assert!(!run(folder, &issue).status.success(), "nothing is made by the way");
    assert!(!folder.join("pki/factory-root.crt").exists());

    said(folder, &["pki", "init"]);
    let factory = fs::read(folder.join("pki/factory-root.crt")).unwrap();
    said(folder, &["pki", "init"]);
    assert_eq!(fs::read(folder.join("pki/factory-root.crt")).unwrap(), factory, "made once");
    assert_eq!(fs::read(folder.join("pki/devices-root.crt")).unwrap(), root);
    let said = said(folder, &issue);
    assert!(
        said.contains("id: spiffe://wasmbed/factory/SN_17\n") && said.contains("device: sn-17\n"),
        "{said}"
    );
    let identity = Identity::read(&folder.join("factory.crt"), &folder.join("factory.key")).unwrap();
    let hash = wasmbed_protocol::KeyHash::of(&identity.facts().public_key);
    assert!(said.contains(&format!("factory_key_hash: {hash}\n")), "{said}");
    assert_eq!(hash.to_string().len(), 64, "as a Device has it");
    let services = read_certificates(&folder.join("services-ca.crt")).unwrap();
    assert_eq!(services, read_certificates(&folder.join("pki/services-root.crt")).unwrap());
}

#[test]
fn a_person_is_issued_offline_by_an_authority_that_an_older_folder_gains() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    wasmbed_pki::Authorities::create_or_open(&folder.join("pki"), "wasmbed").unwrap();
    let root = fs::read(folder.join("pki/services-root.crt")).unwrap();
    let issue = ["pki", "issue", "operator", "--name", "ada@example.org", "--group", "dev", "--out", "ada"];
    assert!(!run(folder, &issue).status.success(), "nothing is made by the way");
    assert!(!folder.join("pki/operators-root.crt").exists());
    said(folder, &["pki", "init"]);
    assert_eq!(fs::read(folder.join("pki/services-root.crt")).unwrap(), root);
    let text = said(folder, &issue);
    assert!(text.contains("id: spiffe://wasmbed/operator/ada_40example.org/dev\n"), "{text}");
    assert!(text.contains("user: ada@example.org\ngroups: dev\n"), "{text}");
    let text = said(folder, &["pki", "issue", "operator", "--name", "ops", "--out", "ops"]);
    assert!(text.contains("groups: wasmbed:operators\n"), "{text}");
    assert!(folder.join("ops/services-ca.crt").is_file());
    let gateway = ["pki", "issue", "gateway", "--name", "g", "--host", "localhost", "--out", "gateway"];
    said(folder, &gateway);
    let trusted = read_certificates(&folder.join("gateway/operators-ca.crt")).unwrap();
    assert_eq!(trusted, read_certificates(&folder.join("pki/operators-root.crt")).unwrap());
}

#[test]
fn a_production_line_needs_nothing_but_its_own_authority() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    said(folder, &["pki", "init"]);
    fs::create_dir(folder.join("line")).unwrap();
    for file in ["factory-root.crt", "factory-issuing.crt", "factory-issuing.key", "services-root.crt"] {
        fs::copy(folder.join("pki").join(file), folder.join("line").join(file)).unwrap();
    }
    said(folder, &["pki", "issue", "factory", "--dir", "line", "--serial", "1", "--out", "one"]);
    assert!(folder.join("one/factory.key").is_file());
    assert!(!folder.join("line/devices-root.crt").exists(), "and makes no other");
}

#[test]
fn a_signer_gets_what_its_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    said(folder, &["pki", "init"]);
    said(folder, &["pki", "issue", "signer", "--out", "signer"]);
    let signer = folder.join("signer");
    for file in [
        "devices-issuing.crt",
        "devices-issuing.key",
        "operators-issuing.crt",
        "operators-issuing.key",
        "devices-ca.crt",
        "services-ca.crt",
        "factory-ca.crt",
    ] {
        assert!(signer.join(file).is_file(), "{file}");
    }
    assert!(!signer.join("signer.kubeconfig").exists(), "its account is the cluster's");
    let (certificate, key) = Identity::files(&signer, "devices-issuing");
    wasmbed_pki::DeviceIssuer::open(&certificate, &key, "wasmbed").unwrap();

    ClusterAuthority::create_or_open(&folder.join("pki")).unwrap();
    let issue =
        ["pki", "issue", "signer", "--name", "s-1", "--server", "https://127.0.0.1:6443", "--out", "signer"];
    said(folder, &issue);
    let kubeconfig = fs::read_to_string(signer.join("signer.kubeconfig")).unwrap();
    assert!(
        kubeconfig.contains("https://127.0.0.1:6443") && kubeconfig.contains("signer:s-1"),
        "{kubeconfig}"
    );

    // Once the key has gone where it is used.
    fs::remove_file(folder.join("pki/devices-issuing.key")).unwrap();
    assert!(!run(folder, &issue).status.success());
    said(folder, &["pki", "issue", "device", "--name", "board-1", "--out", "board"]);
    assert_eq!(read_certificates(&folder.join("board/device.crt")).unwrap().len(), 1, "signed by the root");
}
