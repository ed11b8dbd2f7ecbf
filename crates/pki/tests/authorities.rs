//! What the authorities leave on disk, and that OpenSSL agrees.

#![cfg(test)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject};
use wasmbed_pki::{
    Authorities, CertificateFacts, ClusterAuthority, FactoryAuthority, Identity, Role, SpiffeId,
    public_key_base64,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

fn authorities(folder: &Path) -> Authorities {
    Authorities::create_or_open(folder, "example.org").unwrap()
}

fn openssl(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("openssl").args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn all_files_have_mode_0600_and_opening_again_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    let root = authorities(&pki).devices_root_pem().to_owned();
    ClusterAuthority::create_or_open(&pki).unwrap();
    let names: Vec<_> = fs::read_dir(&pki).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    for path in names {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(authorities(&pki).devices_root_pem(), root);
}

#[test]
fn a_key_without_its_certificate_is_used_and_a_wrong_pair_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path();
    authorities(pki);
    let key = fs::read(pki.join("services-root.key")).unwrap();
    fs::remove_file(pki.join("services-root.crt")).unwrap();
    authorities(pki);
    assert_eq!(fs::read(pki.join("services-root.key")).unwrap(), key);

    fs::copy(pki.join("devices-root.key"), pki.join("services-root.key")).unwrap();
    let error = Authorities::create_or_open(pki, "example.org").err().unwrap().to_string();
    assert!(error.contains("services-root.crt") && error.contains("restore"), "{error}");
}

#[test]
fn issuing_works_without_the_roots_keys_and_not_without_the_issuing_ones() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path();
    authorities(pki);
    fs::remove_file(pki.join("services-root.key")).unwrap();
    fs::remove_file(pki.join("devices-root.key")).unwrap();
    authorities(pki).issue_device("default", "board-1").unwrap();
    fs::remove_file(pki.join("devices-issuing.key")).unwrap();
    let error = authorities(pki).issue_device("default", "board-1").unwrap_err().to_string();
    assert!(error.contains("devices-issuing.key"), "{error}");
}

#[test]
fn an_identity_survives_its_files_and_a_mixed_pair_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = authorities(&folder.path().join("pki"));
    let device = authorities.issue_device("default", "board-1").unwrap();
    let other = authorities.issue_device("default", "board-2").unwrap();
    device.write(folder.path(), "one").unwrap();
    other.write(folder.path(), "two").unwrap();
    let (chain, key) = Identity::files(folder.path(), "one");
    let read = Identity::read(&chain, &key).unwrap();
    assert_eq!(
        read.spiffe_id().unwrap(),
        SpiffeId::new("example.org", "default", Role::Device, "board-1").unwrap()
    );
    assert_eq!(read.public_key_base64(), public_key_base64(&device.chain()[0]).unwrap());
    assert_eq!(read.chain().len(), 2);
    assert!(!format!("{read:?}").contains("PRIVATE"));

    let error = Identity::read(&chain, &folder.path().join("two.key")).unwrap_err().to_string();
    assert!(error.contains("two.key") && error.contains("does not belong"), "{error}");
    let error = Identity::read(&key, &key).unwrap_err().to_string();
    assert!(error.contains("one.key") && error.contains("no PEM certificate"), "{error}");
}

#[test]
fn renewal_is_due_in_the_last_third_of_a_life() {
    let folder = tempfile::tempdir().unwrap();
    let identity = authorities(folder.path()).issue_gateway("wasmbed-system", "gateway-0", &[]).unwrap();
    let CertificateFacts { not_before, not_after, .. } = *identity.facts();
    assert!(!identity.should_renew(not_before + (not_after - not_before) / 2));
    assert!(identity.should_renew(not_after - (not_after - not_before) / 4));
    assert!(identity.should_renew(not_before - 1));
}

#[test]
fn names_that_cannot_stand_in_an_id_are_refused_by_what_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Authorities::create_or_open(folder.path(), "Example.org/x").is_err());
    let authorities = authorities(folder.path());
    assert!(authorities.issue_device("default", "Board_1").is_err());
    let error = authorities.issue_gateway("default", "g", &["host:8080".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("host:8080") && error.contains("without a port"), "{error}");
}

/// RFC 5208: `PrivateKeyInfo ::= SEQUENCE { version INTEGER (0), … }`, where version 1 would be RFC 5958's v2.
#[test]
fn keys_are_pkcs8_v1_and_openssl_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let identity = authorities(folder.path()).issue_device("default", "board-1").unwrap();
    identity.write(folder.path(), "device").unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let der = key.secret_pkcs8_der();
    assert_eq!(der[..2], [0x30, 0x81], "a SEQUENCE with a length of one more byte");
    assert_eq!(der[3..6], [0x02, 0x01, 0x00], "INTEGER 0");
    let key_file = folder.path().join("device.key");
    if let Some((success, text)) = openssl(&["pkey", "-noout", "-text", "-in", key_file.to_str().unwrap()]) {
        assert!(success && text.contains("P-256"), "{text}");
    }
}

#[test]
fn openssl_verifies_the_chains_and_refuses_the_other_root_and_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    let authorities = authorities(&pki);
    authorities.issue_device("default", "board-1").unwrap().write(folder.path(), "device").unwrap();
    authorities
        .issue_gateway(
            "wasmbed-system",
            "gateway-0",
            &["127.0.0.1".to_owned(), "gateway.example.org".to_owned()],
        )
        .unwrap()
        .write(folder.path(), "gateway")
        .unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let verify = |root: &str, purpose: &str, leaf: &str| {
        let (root, leaf) = (path(root), path(leaf));
        openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            &root,
            "-purpose",
            purpose,
            "-untrusted",
            &leaf,
            &leaf,
        ])
    };
    let Some((success, text)) = verify("pki/devices-root.crt", "sslclient", "device.crt") else {
        // OpenSSL is an oracle where it is installed; the rustls tests refuse the same things everywhere.
        return;
    };
    assert!(success, "{text}");
    let refused = |root, purpose, leaf| !verify(root, purpose, leaf).unwrap().0;
    assert!(verify("pki/services-root.crt", "sslserver", "gateway.crt").unwrap().0);
    assert!(refused("pki/services-root.crt", "sslclient", "device.crt"));
    assert!(refused("pki/devices-root.crt", "sslserver", "device.crt"));
    assert!(refused("pki/services-root.crt", "sslclient", "gateway.crt"));
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", &path("gateway.crt")]).unwrap();
    for expected in [
        "URI:spiffe://example.org/ns/wasmbed-system/gateway/gateway-0",
        "IP Address:127.0.0.1",
        "DNS:gateway.example.org",
        "CA:FALSE",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn a_cluster_client_is_its_user_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = ClusterAuthority::create_or_open(folder.path()).unwrap();
    let client = cluster.issue_client("gateway:gateway-0", "wasmbed:gateways").unwrap();
    assert_eq!(client.facts().common_name.as_deref(), Some("gateway:gateway-0"));
    client.write(folder.path(), "client").unwrap();
    let file = folder.path().join("client.crt");
    if let Some((_, text)) = openssl(&["x509", "-noout", "-subject", "-in", file.to_str().unwrap()]) {
        assert!(text.contains("O = wasmbed:gateways") && text.contains("CN = gateway:gateway-0"), "{text}");
    }
    cluster.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    assert!(cluster.issue_client(&"u".repeat(65), "g").is_err());
}

#[test]
fn an_issuing_key_that_is_elsewhere_is_made_up_for_by_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path();
    let roots = [authorities(pki).devices_root().clone()];
    fs::remove_file(pki.join("devices-issuing.key")).unwrap();
    let device = authorities(pki).issue_device("default", "board-1").unwrap();
    assert_eq!(device.chain().len(), 1, "the root itself signed it");
    assert!(verifies(&device, &roots[0], false), "a client");
    assert!(!verifies(&device, &roots[0], true), "no server");

    // What someone keeps who moved everything else to where it is used.
    let offline = tempfile::tempdir().unwrap();
    for file in ["devices-root.crt", "devices-root.key", "services-root.crt"] {
        fs::copy(pki.join(file), offline.path().join(file)).unwrap();
    }
    let few = authorities(offline.path());
    assert!(verifies(&few.issue_device("default", "board-2").unwrap(), &roots[0], false));
    let error = few.issue_controller("wasmbed-system", "c").unwrap_err().to_string();
    assert!(error.contains("services-root.key") && error.contains("is not here"), "{error}");
}

#[test]
fn a_factory_identity_is_below_its_own_root_alone() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = authorities(folder.path());
    let factory = FactoryAuthority::create_or_open(folder.path(), "example.org").unwrap();
    let identity = factory.issue("SN_17.b").unwrap();
    assert_eq!(identity.facts().uris, ["spiffe://example.org/factory/SN_17.b"]);
    assert!(identity.spiffe_id().is_err(), "it is nobody's in a fleet");
    assert_eq!(identity.chain().len(), 2);
    assert!(verifies(&identity, factory.root(), false));
    assert!(!verifies(&identity, factory.root(), true), "no server");
    for root in [authorities.devices_root(), authorities.services_root()] {
        assert!(!verifies(&identity, root, false), "another root");
    }
    let again = FactoryAuthority::create_or_open(folder.path(), "example.org").unwrap();
    assert_eq!(again.root_pem(), factory.root_pem());
    for serial in ["", "-17", "sn 17", "sn/17", &"s".repeat(64)] {
        let error = factory.issue(serial).unwrap_err().to_string();
        assert!(error.contains("1 to 63 letters"), "{error}");
    }
}

fn verifies(identity: &Identity, root: &CertificateDer<'_>, as_server: bool) -> bool {
    let chain = identity.chain();
    let anchors = [anchor_from_trusted_cert(root).unwrap()];
    let usage = if as_server { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    let algorithms = wasmbed_pki::tls::provider().signature_verification_algorithms.all;
    leaf.verify_for_usage(algorithms, &anchors, &chain[1..], UnixTime::now(), usage, None, None).is_ok()
}
