//! People who use the gateway, and those who are none and would like to.

use std::{fs, sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use wasmbed_control::gateway_api::LogLine;
use wasmbed_pki::{Identity, parse_certificates, tls::Profile};
use wasmbed_protocol::{ApplicationUid, DeviceMessage, Log, Sequence};

use crate::support::*;

const LOGS: &str = "/v1/logs?namespace=default";

/// A client's certificate as whoever has the key of an authority can make it.
fn forge(world: &World, issuing: &str, uri: &str, seconds: i64) -> Identity {
    let (certificate, key) = Identity::files(&world.folder.path().join("pki"), issuing);
    let (pem, key) = (fs::read_to_string(certificate).unwrap(), fs::read_to_string(key).unwrap());
    let authority = parse_certificates(pem.as_bytes()).unwrap().remove(0);
    let issuer = Issuer::from_ca_cert_der(&authority, KeyPair::from_pem(&key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(3_600)).into();
    let end = Duration::from_secs(seconds.unsigned_abs());
    params.not_after = if seconds < 0 { now - end } else { now + end }.into();
    let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    assert!(!own.subject_public_key_info().is_empty());
    let leaf = params.signed_by(&own, &issuer).unwrap();
    Identity::from_pem(&(leaf.pem() + &pem), &own.serialize_pem()).unwrap()
}

/// Whether the gateway ends the connection of a client that it does not take, and its reason. A client learns of it with its first
/// read: in TLS 1.3 its own handshake is over by then.
async fn turned_away(world: &World, profile: Profile, identity: &Identity, reason: &str) {
    use tokio::io::AsyncReadExt as _;
    let config = world.client_config(profile, identity);
    if let Ok(mut stream) = world.tls(Arc::clone(&config)).await {
        let read = soon("the end", stream.read(&mut [0; 64])).await;
        assert!(!read.is_ok_and(|bytes| bytes > 0), "it was let in");
    }
    world.refused(reason).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_what_the_kubernetes_api_allows_and_nothing_of_controllers() {
    let world = World::start().await;
    for mut allowed in [world.administrator().await, world.person("ada", "wasmbed:operators").await] {
        assert_eq!(allowed.call("GET", LOGS, "").await.0, 200);
        assert_eq!(allowed.call("GET", "/v1/logs", "").await.0, 200);
        assert_eq!(allowed.call("GET", "/openapi.json", "").await.0, 200);
        assert_eq!(allowed.call("GET", "/v1/other", "").await.0, 404);
        let digest = "00".repeat(32);
        let module = format!("/v1/modules/{digest}");
        let sets = "{\"leader_term\":9,\"sets\":[]}";
        for (method, path, body) in [
            ("PUT", "/v1/sets", sets),
            ("PUT", "/v1/decommissions", "{\"leader_term\":9,\"orders\":[]}"),
            ("PUT", module.as_str(), "x"),
            ("HEAD", &module, ""),
            ("GET", "/v1/stream", ""),
            ("HEAD", "/v1/stream", ""),
        ] {
            assert_eq!(allowed.call(method, path, body).await.0, 403, "{method} {path}");
        }
        let (_, refusal) = allowed.call("PUT", "/v1/sets", sets).await;
        assert_eq!(refusal["message"], "this call is for controllers alone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_without_the_right_is_told_what_would_give_it() {
    let world = World::start().await;
    let mut eve = world.person("eve", "system:authenticated").await;
    for (query, action) in [
        ("namespace=lab&application=a", "get applications/log \"a\" in the namespace \"lab\""),
        ("namespace=lab&device=d", "get devices/log \"d\" in the namespace \"lab\""),
        ("", "get applications/log in all namespaces"),
    ] {
        let (status, refusal) = eve.call("GET", &format!("/v1/logs?{query}"), "").await;
        assert_eq!((status, refusal["reason"].as_str()), (403, Some("Forbidden")));
        let message = refusal["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("user \"eve\" may not {action}: ")), "{message}");
        assert!(message.contains("{ apiGroups: [wasmbed.github.io], resources: ["), "{message}");
    }
    assert_eq!(eve.call("HEAD", LOGS, "").await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_no_people() {
    let world = World::start().await;
    let (status, refusal) = world.controller().await.call("GET", LOGS, "").await;
    assert_eq!((status, refusal["reason"].as_str()), (403, Some("Forbidden")));
    assert!(refusal["message"].as_str().unwrap().contains("wasmbed login"), "{refusal}");
    // Of the version before, when operators stood below the services root and read everything.
    let former = world.authorities.issue_operator("wasmbed-system", "someone").unwrap();
    for path in [LOGS, "/v1/stream", "/openapi.json"] {
        let (status, refusal) = world.http(&former).await.call("GET", path, "").await;
        assert_eq!(status, 403, "{path}");
        assert!(refusal["message"].as_str().unwrap().contains("log in with wasmbed login"), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_s_certificate_opens_no_service_connection_and_a_person_s_no_session() {
    let world = World::start().await;
    let device = world.authorities.issue_device("default", "board-1").unwrap();
    turned_away(&world, Profile::Service, &device, "BadCertificate").await;
    let world = World::start().await;
    let person = world.operators.issue("admin", &["system:masters".to_owned()]).unwrap();
    turned_away(&world, Profile::Device, &person, "BadCertificate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_one_kind_makes_nobody_of_another() {
    let person = format!("spiffe://{TRUST_DOMAIN}/operator/admin/system_3Amasters");
    let controller = format!("spiffe://{TRUST_DOMAIN}/ns/wasmbed-system/controller/controller");
    for (issuing, uri) in [
        ("services-issuing", &person),
        ("devices-issuing", &person),
        ("operators-issuing", &controller),
        ("devices-issuing", &controller),
    ] {
        let world = World::start().await;
        turned_away(&world, Profile::Service, &forge(&world, issuing, uri, 3_600), "BadCertificate").await;
    }
    let world = World::start().await;
    let foreign =
        forge(&world, "operators-issuing", "spiffe://other.example/operator/admin/system_3Amasters", 60);
    turned_away(&world, Profile::Service, &foreign, "WrongIdentity").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_operators_roots_nobody_but_controllers_calls() {
    let world = World::start_with(|config| config.tls.operators_roots = None).await;
    let person = world.operators.issue("admin", &["system:masters".to_owned()]).unwrap();
    turned_away(&world, Profile::Service, &person, "BadCertificate").await;
    assert_eq!(world.controller().await.call("GET", "/openapi.json", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused_and_one_that_expires_ends_what_it_began() {
    let world = World::start().await;
    let uri = format!("spiffe://{TRUST_DOMAIN}/operator/admin/system_3Amasters");
    let expired = forge(&world, "operators-issuing", &uri, -5);
    turned_away(&world, Profile::Service, &expired, "BadCertificate").await;
    let ending = forge(&world, "operators-issuing", &uri, 4);
    let mut http = world.http(&ending).await;
    let mut other = world.http(&ending).await;
    let mut lines = Lines::new(http.open("GET", "/v1/logs?follow=true", "").await);
    assert!(lines.next::<LogLine>().await.is_none(), "the stream ends with the certificate");
    let (status, refusal) = other.call("GET", LOGS, "").await;
    assert_eq!((status, refusal["reason"].as_str()), (403, Some("Expired")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_api_that_is_away_means_no_once_its_last_yes_is_old() {
    let mut world = World::start().await;
    let mut device = world.device("a").await;
    let path = format!("{LOGS}&application=07070707-0707-0707-0707-070707070707");
    let mut admin = world.administrator().await;
    let mut lines = Lines::new(admin.open("GET", &format!("{path}&follow=true"), "").await);
    world.cluster.take().unwrap().stop().await;
    let line = Log { uid: ApplicationUid([7; 16]), sequence: Sequence(1), lines_lost: 0, text: "meanwhile" };
    device.send(&DeviceMessage::Log(line)).await.unwrap();
    assert_eq!(lines.next::<LogLine>().await.unwrap().text, "meanwhile", "the last yes still counts");
    assert_eq!(world.administrator().await.open("GET", &path, "").await.status(), 200);
    let (status, refusal) = world.administrator().await.call("GET", "/v1/logs?namespace=other", "").await;
    assert_eq!((status, refusal["reason"].as_str()), (503, Some("NotKnown")), "of this it said nothing");
    assert!(lines.next::<LogLine>().await.is_none(), "the stream ends");
    // A connection on which nothing was asked meanwhile may be closed by now.
    assert_eq!(world.administrator().await.call("GET", &path, "").await.0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_asks_the_kubernetes_api_no_more_than_its_share() {
    let world = World::start().await;
    let mut eve = world.person("eve", "system:authenticated").await;
    let mut busy = 0;
    for number in 0..wasmbed_control::access::ANSWERS_OF_USER_MAX + 8 {
        let (status, refusal) = eve.call("GET", &format!("{LOGS}&application=a{number}"), "").await;
        match status {
            403 => {}
            429 => {
                assert_eq!(refusal["reason"], "TooManyQuestions");
                busy += 1;
            }
            other => panic!("{other}: {refusal}"),
        }
    }
    assert!(busy > 0, "all were asked");
    assert_eq!(world.administrator().await.call("GET", LOGS, "").await.0, 200, "others have their own share");
}
