//! Devices without a certificate of the fleet, over real sockets, with the real signer behind the Kubernetes API.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SigningKey as _,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use wasmbed_api::{Device, DevicePhase, DeviceSpec, request_annotation as annotation};
use wasmbed_device::{DeviceConfig, DeviceIdentity};
use wasmbed_pki::{Authorities, CertificateFacts, FactoryAuthority, Identity, PairingToken, pem_of};
use wasmbed_protocol::{
    DeviceMessage, DeviceUid, GatewayMessage, Join, JoinState, JoinStatement, KeyHash, decode_gateway,
    encode_join_statement,
};

use crate::support::*;

/// A gateway that takes devices of a factory, and a signer.
struct Fleet {
    world: World,
    factory: FactoryAuthority,
    folder: tempfile::TempDir,
    signer: CancellationToken,
}

impl Fleet {
    async fn start() -> Self {
        Self::start_with(Duration::from_secs(3_600)).await
    }

    /// Certificates are valid for so long.
    async fn start_with(lifetime: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let factory = FactoryAuthority::create_or_open(folder.path(), TRUST_DOMAIN).unwrap();
        let root = folder.path().join("factory-root.crt");
        let roots = root.clone();
        let world = World::start_with(move |config| {
            config.tls.factory_roots = Some(roots);
            config.limits.certificates_interval = Duration::from_millis(50);
        })
        .await;
        let pki = world.folder.path().join("pki");
        let devices_roots = pki.join("devices-root.crt");
        let signer = signer(&world, &pki, devices_roots, root, lifetime).await;
        Self { world, factory, folder, signer }
    }

    fn requests(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.world.admin.clone())
    }

    /// Waits for the only request that is not decided about.
    async fn request(&self) -> CertificateSigningRequest {
        let requests = self.requests();
        soon("a request", async {
            loop {
                let all = requests.list(&ListParams::default()).await.unwrap().items;
                let open = |request: &CertificateSigningRequest| {
                    request
                        .status
                        .as_ref()
                        .is_none_or(|status| status.conditions.iter().flatten().count() == 0)
                };
                if let Some(request) = all.into_iter().find(open) {
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    async fn approve_request(&self) {
        let request = self.request().await;
        let approved = json!({ "status": { "conditions": [{
            "type": "Approved", "status": "True", "reason": "Test", "message": "by the test",
        }] } });
        let name = request.metadata.name.unwrap();
        let params = PatchParams::default();
        self.requests().patch_approval(&name, &params, &Patch::Merge(&approved)).await.unwrap();
    }

    async fn edit(&self, name: &str, spec: serde_json::Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.world.devices().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Makes a Device for a token, and the Secret with which the signer checks it.
    async fn pair(&self, name: &str, token: &PairingToken) {
        let namespaces: Api<Namespace> = Api::all(self.world.admin.clone());
        let namespace = json!({ "metadata": { "name": wasmbed_api::PAIRING_NAMESPACE } });
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(self.world.admin.clone(), wasmbed_api::PAIRING_NAMESPACE);
        let secret = json!({
            "metadata": { "name": format!("wasmbed-pairing-{}", token.id()) },
            "data": { "key": base64(token.key().reveal()) },
        });
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        let spec =
            DeviceSpec { approved: true, pairing_id: Some(token.id().to_string()), ..DeviceSpec::default() };
        self.world.devices().create(&PostParams::default(), &Device::new(name, spec)).await.unwrap();
    }

    async fn stop(mut self) {
        self.signer.cancel();
        self.world.stop_gateway().await;
    }
}

/// A signer with the issuing authority of a folder.
async fn signer(
    world: &World,
    pki: &Path,
    devices_roots: PathBuf,
    factory_roots: PathBuf,
    lifetime: Duration,
) -> CancellationToken {
    let (certificate, key) = Identity::files(pki, "devices-issuing");
    let factory_roots = Some(factory_roots);
    let config = wasmbed_signer::Config {
        name: "signer".to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        files: wasmbed_signer::PkiFiles { certificate, key, devices_roots, factory_roots },
        operators: None,
        lifetime,
        secrets_namespace: wasmbed_api::PAIRING_NAMESPACE.to_owned(),
        health: wasmbed_signer::HealthConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            path: "/health".to_owned(),
        },
        kube: world.cluster.as_ref().unwrap().config("signer:signer", "wasmbed:signers").await,
    };
    let stop = CancellationToken::new();
    wasmbed_signer::start(config, stop.clone()).await.unwrap();
    stop
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn join<'a>(request: &'a [u8], proof: Option<&'a [u8]>) -> DeviceMessage<'a> {
    DeviceMessage::Join(Join { request, proof, pairing_id: None, board: "test-board", firmware: "1" })
}

fn token_join<'a>(request: &'a [u8], proof: Option<&'a [u8]>) -> DeviceMessage<'a> {
    let pairing_id = Some("0a1b2c3d");
    DeviceMessage::Join(Join { request, proof, pairing_id, board: "test-board", firmware: "1" })
}

fn self_signed(key: &KeyPair) -> Identity {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(key).unwrap();
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

/// What an answer to a Join says.
#[derive(Debug)]
struct Told {
    state: JoinState,
    uid: Option<DeviceUid>,
    name: String,
    detail: String,
}

/// The next answer to a Join.
async fn told(client: &mut DeviceClient) -> Told {
    let body = client.next_body().await.expect("an answer");
    match decode_gateway(&body).unwrap() {
        GatewayMessage::JoinAnswer(answer) => {
            assert_eq!(answer.namespace, "default");
            Told {
                state: answer.state,
                uid: answer.device_uid,
                name: answer.name.to_owned(),
                detail: answer.detail.to_owned(),
            }
        }
        other => panic!("{other:?}"),
    }
}

/// Waits for the chain, passing over what is waited for: leaf and authority.
async fn certificate(client: &mut DeviceClient) -> Vec<Vec<u8>> {
    let mut chain: Vec<u8> = Vec::new();
    loop {
        let body = client.next_body().await.expect("a certificate");
        match decode_gateway(&body).unwrap() {
            GatewayMessage::JoinAnswer(answer) => assert_eq!(answer.state, JoinState::Pending, "{answer:?}"),
            GatewayMessage::Certificate(piece) => {
                assert_eq!(piece.offset as usize, chain.len());
                chain.extend_from_slice(piece.bytes);
                if chain.len() == piece.chain_bytes as usize {
                    return split(&chain);
                }
            }
            GatewayMessage::HeartbeatAck(_) | GatewayMessage::Desired(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// DER certificates one after the other, each longer than 255 bytes.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [0x30, 0x82, high, low, ..] = bytes {
        let length = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        all.push(bytes[..length].to_vec());
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    all
}

fn identity(chain: &[Vec<u8>], key: &KeyPair) -> Identity {
    let pem = pem_of("CERTIFICATE", chain.iter().map(Vec::as_slice));
    Identity::from_pem(&pem, &key.serialize_pem()).unwrap()
}

fn statement(key: &KeyPair, name: &str, device_uid: DeviceUid) -> Vec<u8> {
    let statement = JoinStatement {
        key: KeyHash::of(&key.subject_public_key_info()),
        trust_domain: TRUST_DOMAIN,
        namespace: "default",
        name,
        device_uid,
    };
    let mut bytes = vec![0; 700];
    let length = encode_join_statement(&statement, &mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Joins until the gateway says that it waits; gives what it said.
async fn ask(client: &mut DeviceClient, factory: &Identity, own: &KeyPair) -> Told {
    let request = request(own);
    client.send(&join(&request, None)).await.unwrap();
    let asked = told(client).await;
    assert_eq!(asked.state, JoinState::ProofNeeded, "{asked:?}");
    let statement = statement(own, &asked.name, asked.uid.unwrap());
    let proof = KeyPair::from_pem(&factory.key_pem).unwrap().sign(&statement).unwrap();
    client.send(&join(&request, Some(&proof))).await.unwrap();
    told(client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_the_factory_joins_connects_and_renews() {
    let fleet = Fleet::start().await;
    let mut neighbour = fleet.world.device("neighbour").await;
    let (factory, own) = (fleet.factory.issue("SN-1").unwrap(), key());
    let mut client = DeviceClient::connect(&fleet.world, &factory).await.unwrap();
    let waits = ask(&mut client, &factory, &own).await;
    assert_eq!((waits.state, waits.name.as_str()), (JoinState::Pending, "sn-1"));
    let device = fleet.world.phase("sn-1", DevicePhase::Pending).await;
    assert_eq!(device.spec.serial.as_deref(), Some("SN-1"));
    assert!(!device.spec.approved && device.spec.public_key.is_none());
    let asked = fleet.request().await;
    assert_eq!(asked.spec.username.as_deref(), Some("gateway:gw"));
    assert!(asked.metadata.annotations.unwrap().contains_key(annotation::FACTORY_CHAIN));

    fleet.edit("sn-1", json!({ "approved": true })).await;
    fleet.approve_request().await;
    let chain = certificate(&mut client).await;
    let facts = CertificateFacts::parse(&chain[0]).unwrap();
    assert_eq!(facts.public_key, own.subject_public_key_info());
    assert_eq!(facts.uris, ["spiffe://test.example/ns/default/device/sn-1"]);
    drop(client);
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"Issued\"} 1").await;

    let mut session = fleet.world.connect_device(&identity(&chain, &own)).await;
    let device = fleet.world.phase("sn-1", DevicePhase::Connected).await;
    assert_eq!(device.status.unwrap().public_key, Some(facts.public_key_base64()));
    let request = request(&own);
    session.send(&join(&request, None)).await.unwrap();
    let renews = fleet.request().await.metadata.annotations.unwrap();
    assert!(renews.contains_key(annotation::RENEWS) && !renews.contains_key(annotation::JOIN_PROOF));
    fleet.approve_request().await;
    let renewed = certificate(&mut session).await;
    assert_ne!(renewed[0], chain[0]);
    assert_eq!(CertificateFacts::parse(&renewed[0]).unwrap().public_key, facts.public_key);
    session.beat(1).await;
    let mut next = fleet.world.connect_device(&identity(&renewed, &own)).await;
    next.beat(1).await;
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"Renewed\"} 1").await;
    neighbour.beat(1).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_a_token_joins_as_the_device_that_names_it() {
    let fleet = Fleet::start().await;
    let token: PairingToken = "0a1b2c3d.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let own = key();
    let device = self_signed(&own);
    let request = request(&own);
    // Nobody names it yet: not a word, and nothing is made.
    let mut early = DeviceClient::connect(&fleet.world, &device).await.unwrap();
    early.send(&token_join(&request, None)).await.unwrap();
    assert_eq!(early.next().await, None);
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"UnknownToken\"} 1").await;
    assert!(fleet.world.devices().list(&ListParams::default()).await.unwrap().items.is_empty());

    fleet.pair("pump", &token).await;
    let mut client = soon("the Device to be known", async {
        loop {
            let mut client = DeviceClient::connect(&fleet.world, &device).await.unwrap();
            client.send(&token_join(&request, None)).await.unwrap();
            if let Some(body) = client.next_body().await {
                let GatewayMessage::JoinAnswer(answer) = decode_gateway(&body).unwrap() else { panic!() };
                let statement = statement(&own, answer.name, answer.device_uid.unwrap());
                let mac = token.key().prove(&statement);
                client.send(&token_join(&request, Some(&mac))).await.unwrap();
                return client;
            }
        }
    })
    .await;
    fleet.approve_request().await;
    let chain = certificate(&mut client).await;
    let mut session = fleet.world.connect_device(&identity(&chain, &own)).await;
    session.beat(1).await;
    fleet.world.phase("pump", DevicePhase::Connected).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_this_version_renews_by_itself_and_comes_back_with_what_it_got() {
    // They begin an hour before they are issued, so that these are past two thirds of their time.
    let fleet = Fleet::start_with(Duration::from_secs(600)).await;
    let (certificate, key) = Identity::files(fleet.folder.path(), "sn-7");
    fleet.factory.issue("SN-7").unwrap().write(fleet.folder.path(), "sn-7").unwrap();
    let made = || DeviceIdentity::Factory(Identity::read(&certificate, &key).unwrap());
    let first = device(&fleet, made(), "renewing");
    fleet.world.phase("sn-7", DevicePhase::Pending).await;
    let asked = fleet.request().await.metadata.annotations.unwrap();
    assert!(asked.contains_key(annotation::JOIN_PROOF));
    fleet.edit("sn-7", json!({ "approved": true })).await;
    fleet.approve_request().await;
    let connected = fleet.world.phase("sn-7", DevicePhase::Connected).await;
    let asked = fleet.request().await.metadata.annotations.unwrap();
    assert!(asked.contains_key(annotation::RENEWS));
    fleet.approve_request().await;
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"Renewed\"} 1").await;
    // The record has the new chain beside the one before, until a session was established with it.
    let record = fleet.folder.path().join("renewing").join("storage").join("identity");
    let has_two = || std::fs::metadata(&record).unwrap().len() > 1_800;
    until("the renewed certificate to be stored", &has_two).await;
    first.stop();
    first.wait().unwrap();
    let second = device(&fleet, made(), "renewing");
    until("the renewed certificate to be in use", &|| !has_two()).await;
    let again = fleet.world.phase("sn-7", DevicePhase::Connected).await;
    assert_eq!(again.status.unwrap().public_key, connected.status.unwrap().public_key);
    second.stop();
    second.wait().unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_roots_are_replaced_by_the_second_slot_and_no_session_is_lost() {
    // As above: certificates are renewed as soon as they are there.
    let lifetime = Duration::from_secs(600);
    let mut fleet = Fleet::start_with(lifetime).await;
    let next_pki = fleet.folder.path().join("next");
    let next = Authorities::create_or_open(&next_pki, TRUST_DOMAIN).unwrap();
    let before = &fleet.world.authorities;
    let devices_roots = format!("{}{}", before.devices_root_pem(), next.devices_root_pem());
    let services_roots = format!("{}{}", before.services_root_pem(), next.services_root_pem());
    let gateway_pki = fleet.world.folder.path().join("gateway-pki");
    let replace = |name: &str, text: &str| std::fs::write(gateway_pki.join(name), text).unwrap();

    // The device knows the next root of services before any service needs it.
    let both = vec![before.services_root().clone(), next.services_root().clone()];
    let (certificate, key) = Identity::files(fleet.folder.path(), "sn-7");
    fleet.factory.issue("SN-7").unwrap().write(fleet.folder.path(), "sn-7").unwrap();
    let made = || DeviceIdentity::Factory(Identity::read(&certificate, &key).unwrap());
    let device = device_below(&fleet, both, made(), "moving");
    fleet.world.phase("sn-7", DevicePhase::Pending).await;
    fleet.edit("sn-7", json!({ "approved": true })).await;
    fleet.approve_request().await;
    let connected = fleet.world.phase("sn-7", DevicePhase::Connected).await;

    // Every gateway trusts both roots before the next signer issues, and has a certificate below the next root of services.
    replace("devices.crt", &devices_roots);
    replace("services.crt", &services_roots);
    let hosts = ["127.0.0.1".to_owned()];
    next.issue_gateway("wasmbed-system", "gw", &hosts).unwrap().write(&gateway_pki, "gw").unwrap();
    let reloaded = || async { fleet.world.plain("/metrics").await.contains("_reloads_total 0") };
    soon("the gateway's files to be read", async {
        while reloaded().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    fleet.signer.cancel();
    let bundle = fleet.folder.path().join("devices-roots.crt");
    std::fs::write(&bundle, &devices_roots).unwrap();
    let factory_roots = fleet.folder.path().join("factory-root.crt");
    fleet.signer = signer(&fleet.world, &next_pki, bundle, factory_roots, lifetime).await;
    fleet.approve_request().await;
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"Renewed\"} 1").await;
    let record = fleet.folder.path().join("moving").join("storage").join("identity");
    let has_two = || std::fs::metadata(&record).unwrap().len() > 1_800;
    until("the renewed certificate to be stored", &has_two).await;
    let after = fleet.world.phase("sn-7", DevicePhase::Connected).await;
    let epoch = |device: &Device| device.status.as_ref().unwrap().epoch;
    assert_eq!(epoch(&after), epoch(&connected), "the session went on all the time");
    device.stop();
    device.wait().unwrap();

    // The roots before are trusted by nobody any more, and what was issued below them opens nothing.
    let late = fleet.world.authorities.issue_device("default", "sn-7").unwrap();
    replace("devices.crt", next.devices_root_pem());
    replace("services.crt", next.services_root_pem());
    let device = device_below(&fleet, vec![next.services_root().clone()], made(), "moving");
    until("the renewed certificate to be in use", &|| !has_two()).await;
    fleet.world.phase("sn-7", DevicePhase::Connected).await;
    soon("what the root before issued to be refused", async {
        let refused = "wasmbed_gateway_refusals_total{reason=\"BadCertificate\"}";
        while !fleet.world.plain("/metrics").await.contains(refused) {
            drop(DeviceClient::connect(&fleet.world, &late).await);
        }
    })
    .await;
    device.stop();
    device.wait().unwrap();
    fleet.stop().await;
}

async fn until(what: &str, condition: &dyn Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_refuses_is_heard_by_the_device_and_its_owner() {
    let fleet = Fleet::start().await;
    let (factory, own, other) = (fleet.factory.issue("SN-1").unwrap(), key(), key());
    let mut client = DeviceClient::connect(&fleet.world, &factory).await.unwrap();
    client.send(&join(&request(&own), None)).await.unwrap();
    let asked = told(&mut client).await;
    // A proof for another key: what a gateway in the middle would make of it.
    let statement = statement(&other, &asked.name, asked.uid.unwrap());
    let proof = KeyPair::from_pem(&factory.key_pem).unwrap().sign(&statement).unwrap();
    client.send(&join(&request(&own), Some(&proof))).await.unwrap();
    let refused = loop {
        let told = told(&mut client).await;
        if told.state != JoinState::Pending {
            break told;
        }
    };
    assert_eq!(refused.state, JoinState::Refused);
    assert!(refused.detail.contains("ProofRefused"), "{refused:?}");
    assert_eq!(client.next().await, None, "its place is free");
    let device = fleet.world.phase("sn-1", DevicePhase::Rejected).await;
    let conditions = device.status.unwrap().conditions;
    let enrolled = conditions.iter().find(|condition| condition.type_ == "Enrolled").unwrap();
    assert_eq!(enrolled.reason, "RequestRefused");
    assert!(enrolled.message.contains("not by the factory key"), "{}", enrolled.message);
    // It is told at once that it has to wait.
    let mut again = DeviceClient::connect(&fleet.world, &factory).await.unwrap();
    let told = again.next().await.unwrap();
    assert!(told.contains("Refused") && told.contains("a short while ago"), "{told}");
    assert_eq!(again.next().await, None);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_and_does_not_keep_to_it_is_closed_and_nobody_else_notices() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let mut neighbour = world.device("neighbour").await;
    let own = key();
    let connect = async |number: u8| {
        let identity = fleet.factory.issue(&format!("SN-{number}")).unwrap();
        DeviceClient::connect(world, &identity).await.unwrap()
    };
    let closed = async |mut client: DeviceClient| {
        let said = client.next().await.unwrap();
        assert!(said.starts_with("Reject(") && said.contains("ProtocolError"), "{said}");
        assert_eq!(client.next().await, None);
    };

    let mut hello_first = connect(1).await;
    hello_first.send(&DeviceMessage::Hello(hello(0, 0))).await.unwrap();
    closed(hello_first).await;
    let mut huge = connect(2).await;
    huge.stream.write_all(&[0xff, 0xff]).await.unwrap();
    closed(huge).await;
    let mut random = connect(3).await;
    random.stream.write_all(&[0, 9, 0xff, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    closed(random).await;
    assert_eq!(world.devices().list(&ListParams::default()).await.unwrap().items.len(), 1);
    neighbour.beat(1).await;

    let mut insists = connect(4).await;
    let request = request(&own);
    // Without a proof: it would wait for a person.
    for _ in 0..5 {
        insists.send(&join(&request, None)).await.unwrap();
    }
    let mut last = String::new();
    while let Some(said) = insists.next().await {
        last = said;
    }
    assert!(last.starts_with("Reject(") && last.contains("more than four Joins in a minute"), "{last}");

    let mut other_request = connect(5).await;
    other_request.send(&join(&[0x30; 300], None)).await.unwrap();
    let told = told_refusal(&mut other_request).await;
    assert!(told.contains("not a certification request"), "{told}");
    neighbour.beat(2).await;

    // A name that its holder did not sign.
    let (key, forger) = (key(), key());
    let params = CertificateParams::default;
    let forged = params().signed_by(&key, &Issuer::new(params(), forger)).unwrap();
    let forged = Identity::from_pem(&forged.pem(), &key.serialize_pem()).unwrap();
    let refused = match DeviceClient::connect(world, &forged).await {
        Ok(mut client) => client.next().await.is_none(),
        Err(_) => true,
    };
    assert!(refused);
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 1").await;
    world.metric("wasmbed_gateway_joins_total{outcome=\"ProtocolError\"} 4").await;
    world.metric("wasmbed_gateway_joining 0").await;
    neighbour.beat(3).await;
    fleet.stop().await;
}

/// A device of this version, which nobody tells what to do.
fn device(fleet: &Fleet, identity: DeviceIdentity, folder: &str) -> wasmbed_device::Handle {
    device_below(fleet, vec![fleet.world.authorities.services_root().clone()], identity, folder)
}

/// One that takes gateways below these roots.
fn device_below(
    fleet: &Fleet,
    roots: Vec<CertificateDer<'static>>,
    identity: DeviceIdentity,
    folder: &str,
) -> wasmbed_device::Handle {
    let data_dir = fleet.folder.path().join(folder);
    let gateways = vec![fleet.world.server.to_string()];
    wasmbed_device::start(DeviceConfig::new(identity, roots, gateways, data_dir)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_this_version_join_by_themselves() {
    let fleet = Fleet::start().await;
    let token: PairingToken = "0a1b2c3d.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    fleet.pair("pump", &token).await;
    let trust_domain = TRUST_DOMAIN.to_owned();
    let paired = device(&fleet, DeviceIdentity::Pairing { token, trust_domain }, "paired");
    fleet.approve_request().await;
    let pump = fleet.world.phase("pump", DevicePhase::Connected).await;
    assert!(pump.status.unwrap().public_key.is_some() && pump.spec.public_key.is_none());

    let factory = fleet.factory.issue("SN_0042").unwrap();
    let made = device(&fleet, DeviceIdentity::Factory(factory), "made");
    fleet.world.phase("sn-0042", DevicePhase::Pending).await;
    fleet.edit("sn-0042", json!({ "approved": true })).await;
    fleet.approve_request().await;
    fleet.world.phase("sn-0042", DevicePhase::Connected).await;
    fleet.world.metric("wasmbed_gateway_joins_total{outcome=\"Issued\"} 2").await;
    fleet.world.metric("wasmbed_gateway_joining 0").await;
    for device in [paired, made] {
        device.stop();
        device.wait().unwrap();
    }
    fleet.stop().await;
}

async fn told_refusal(client: &mut DeviceClient) -> String {
    let body = client.next_body().await.expect("an answer");
    match decode_gateway(&body).unwrap() {
        GatewayMessage::JoinAnswer(answer) => {
            assert_eq!(answer.state, JoinState::Refused);
            answer.detail.to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn factories_and_tokens_count_where_they_are_configured_and_roots_are_read_again() {
    let fleet = Fleet::start().await;
    let folder = tempfile::tempdir().unwrap();
    let other = FactoryAuthority::create_or_open(folder.path(), TRUST_DOMAIN).unwrap();
    let newcomer = other.issue("SN-9").unwrap();
    let joins = async |world: &World, identity: &Identity| match DeviceClient::connect(world, identity).await
    {
        Ok(mut client) => {
            let sent = client.send(&join(&request(&key()), None)).await;
            sent.is_ok() && client.next().await.is_some()
        }
        Err(_) => false,
    };
    assert!(!joins(&fleet.world, &newcomer).await);
    let roots = format!("{}{}", fleet.factory.root_pem(), other.root_pem());
    std::fs::write(fleet.folder.path().join("factory-root.crt"), roots).unwrap();
    fleet.world.metric("wasmbed_gateway_certificate_reloads_total 1").await;
    assert!(joins(&fleet.world, &newcomer).await);
    fleet.stop().await;

    let world = World::start_with(|config| config.joining.tokens = false).await;
    assert!(!joins(&world, &newcomer).await);
    assert!(!joins(&world, &self_signed(&key())).await);
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 2").await;
}
