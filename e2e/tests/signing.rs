//! Certificates of devices by CertificateSigningRequests: what a gateway writes, a person approves and the signer issues.

#![cfg(test)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SigningKey as _,
};
use serde_json::json;
use wasmbed_api::{DEVICE_SIGNER, Device, DeviceSpec, request_annotation as annotation};
use wasmbed_e2e::{ControlPlane, until_at};
use wasmbed_pki::{Authorities, CertificateFacts, Identity};
use wasmbed_protocol::{DeviceUid, JoinStatement, KeyHash, encode_join_statement};
use wasmbed_testbed::{Cluster, Port, Process, SYSTEM_NAMESPACE, User, wasmbed};

wasmbed_e2e::both!(
    an_approved_request_with_a_factory_proof_is_signed,
    a_person_s_approval_does_not_make_up_for_a_proof,
    a_renewal_needs_no_person_but_a_device_that_stands,
    the_issuing_authority_is_replaced_and_what_the_one_before_issued_renews,
);

const NAMESPACE: &str = "default";
/// Where the key of the devices' root is kept.
const ROOT_KEY: &str = "devices-root.key";

/// A control plane with a signer, and a factory.
struct World {
    client: Client,
    gateway: Client,
    factory: CertifiedIssuer<'static, KeyPair>,
    signer: Process,
    // Last, so that processes end before it and its folder go.
    cluster: Cluster,
}

impl World {
    async fn start(plane: ControlPlane) -> Result<Self> {
        let cluster = Cluster::start(plane).await?;
        let pki = cluster.dir().join("fleet");
        let authorities = Authorities::create_or_open(&pki, "example.org")?;
        // What stays with whoever may make another authority.
        fs::rename(pki.join("devices-root.key"), cluster.dir().join(ROOT_KEY))?;
        let devices_roots = written(&pki, "devices-ca.crt", authorities.devices_root_pem())?;
        let factory = factory()?;
        let factory_roots = written(&pki, "factory-ca.crt", &factory.pem())?;
        let (certificate, key) = Identity::files(&pki, "devices-issuing");
        let health = Port::reserve()?;
        let set = [
            "trust_domain=example.org".to_owned(),
            format!("namespace={SYSTEM_NAMESPACE}"),
            format!("issuer.cert_file={}", certificate.display()),
            format!("issuer.key_file={}", key.display()),
            format!("devices_ca_file={}", devices_roots.display()),
            format!("factory_ca_file={}", factory_roots.display()),
            format!("health.port={}", health.number()),
        ];
        let kubeconfig = cluster.kubeconfig(&User::new("signer:signer-1", "wasmbed:signers"))?;
        let kubeconfig = kubeconfig.display().to_string();
        let flags = set.iter().flat_map(|set| ["--set", set.as_str()]);
        let arguments: Vec<&str> =
            ["signer", "--name", "signer-1", "--kubeconfig", &kubeconfig].into_iter().chain(flags).collect();
        let mut signer = Process::start(wasmbed(&arguments)?, "signer", cluster.dir())?;
        signer.wait_for_line("that it runs", |line| line.contains("the signer runs"))?;
        Ok(Self {
            client: cluster.client(&User::administrator()).await?,
            gateway: cluster.client(&User::gateway("gw-1")).await?,
            factory,
            signer,
            cluster,
        })
    }

    fn devices(&self) -> Api<Device> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn add_device(&self, name: &str, spec: DeviceSpec) -> Result<DeviceUid> {
        let made = self.devices().create(&PostParams::default(), &Device::new(name, spec)).await?;
        made.uid().context("a Device has a UID")?.parse().context("a UUID")
    }

    /// Makes a request as a gateway.
    async fn ask(
        &self,
        name: &str,
        key: &KeyPair,
        device: &str,
        uid: DeviceUid,
        proofs: Vec<(&str, String)>,
    ) -> Result<()> {
        let request = CertificateParams::default().serialize_request(key)?.pem()?;
        let mut annotations = BTreeMap::from([
            (annotation::DEVICE.to_owned(), format!("{NAMESPACE}/{device}")),
            (annotation::DEVICE_UID.to_owned(), uid.to_string()),
        ]);
        annotations.extend(proofs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let object = CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: DEVICE_SIGNER.to_owned(),
                usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let requests: Api<CertificateSigningRequest> = Api::all(self.gateway.clone());
        requests.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    fn approve(&self, name: &str) -> Result<String> {
        self.cluster.kubectl(&User::administrator())?.run(&["certificate", "approve", name])
    }

    async fn finished(&self, name: &str) -> Result<CertificateSigningRequest> {
        until_at(Api::all(self.client.clone()), name, "its end", |request: &CertificateSigningRequest| {
            certificate(request).is_some() || failure(request).is_some()
        })
        .await
    }

    /// A board with a certificate of the factory.
    fn board(&self, serial: &str) -> Result<(KeyPair, String)> {
        let key = key()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://example.org/factory/{serial}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.factory)?.pem();
        Ok((key, certificate))
    }
}

fn written(folder: &std::path::Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn key() -> Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn factory() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(CertifiedIssuer::self_signed(params, key()?)?)
}

/// A factory key's proof for an operational key.
fn proof(
    (factory_key, chain): &(KeyPair, String),
    own: &KeyPair,
    device: &str,
    uid: DeviceUid,
) -> Result<Vec<(&'static str, String)>> {
    let statement = JoinStatement {
        key: KeyHash::of(&own.subject_public_key_info()),
        trust_domain: "example.org",
        namespace: NAMESPACE,
        name: device,
        device_uid: uid,
    };
    let mut bytes = [0; 700];
    let length = encode_join_statement(&statement, &mut bytes).context("a statement")?;
    let signature = factory_key.sign(&bytes[..length])?;
    Ok(vec![(annotation::JOIN_PROOF, STANDARD.encode(signature)), (annotation::FACTORY_CHAIN, chain.clone())])
}

fn certificate(request: &CertificateSigningRequest) -> Option<String> {
    let bytes = request.status.as_ref()?.certificate.as_ref()?;
    String::from_utf8(bytes.0.clone()).ok()
}

fn failure(request: &CertificateSigningRequest) -> Option<&str> {
    let mut conditions = request.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Failed")?.reason.as_deref()
}

fn approved() -> DeviceSpec {
    DeviceSpec { approved: true, ..DeviceSpec::default() }
}

async fn an_approved_request_with_a_factory_proof_is_signed(plane: ControlPlane) -> Result<()> {
    let world = World::start(plane).await?;
    let (board, own) = (world.board("SN_17")?, key()?);
    let uid = world.add_device("sn-17", DeviceSpec { approved: false, ..DeviceSpec::default() }).await?;
    world.ask("join-17", &own, "sn-17", uid, proof(&board, &own, "sn-17", uid)?).await?;
    world.approve("join-17")?;
    // The request is approved, the Device is not yet.
    let seen = Api::<CertificateSigningRequest>::all(world.client.clone()).get("join-17").await?;
    ensure!(certificate(&seen).is_none(), "nothing is issued for a Device that nobody approved");
    let approve = json!({ "spec": { "approved": true } });
    world.devices().patch("sn-17", &PatchParams::default(), &Patch::Merge(approve)).await?;

    let chain = certificate(&world.finished("join-17").await?).context("it was refused")?;
    let leaf = Identity::from_pem(&chain, &own.serialize_pem())?;
    let facts: &CertificateFacts = leaf.facts();
    assert_eq!(facts.uris, ["spiffe://example.org/ns/default/device/sn-17"]);
    assert_eq!(facts.subject_serial, Some(uid.to_string()));
    let device = world.devices().get("sn-17").await?;
    let pinned = device.status.and_then(|status| status.public_key);
    assert_eq!(pinned, Some(STANDARD.encode(own.subject_public_key_info())));
    assert_eq!(device.spec.public_key, None, "a person's field is a person's");
    Ok(())
}

async fn a_person_s_approval_does_not_make_up_for_a_proof(plane: ControlPlane) -> Result<()> {
    let world = World::start(plane).await?;
    let (board, own, gateways) = (world.board("SN_17")?, key()?, key()?);
    let uid = world.add_device("sn-17", approved()).await?;
    // The board's proof, with the key of the gateway that saw it.
    world.ask("swapped", &gateways, "sn-17", uid, proof(&board, &own, "sn-17", uid)?).await?;
    world.approve("swapped")?;
    assert_eq!(failure(&world.finished("swapped").await?), Some("ProofRefused"));
    // A Device that is revoked.
    let revoked = DeviceSpec { revoked: true, ..approved() };
    let uid = world.add_device("sn-18", revoked).await?;
    let board = world.board("sn-18")?;
    world.ask("revoked", &own, "sn-18", uid, proof(&board, &own, "sn-18", uid)?).await?;
    world.approve("revoked")?;
    assert_eq!(failure(&world.finished("revoked").await?), Some("Revoked"));
    // No proof: only for the key that a person confirmed.
    let uid = world.add_device("sn-19", approved()).await?;
    world.ask("bare", &own, "sn-19", uid, Vec::new()).await?;
    world.approve("bare")?;
    let confirmed = hex::encode(KeyHash::of(&own.subject_public_key_info()).0);
    let confirm = json!({ "spec": { "confirmed_key": confirmed } });
    let seen = Api::<CertificateSigningRequest>::all(world.client.clone()).get("bare").await?;
    ensure!(certificate(&seen).is_none() && failure(&seen).is_none(), "it waits for a person");
    world.devices().patch("sn-19", &PatchParams::default(), &Patch::Merge(confirm)).await?;
    ensure!(certificate(&world.finished("bare").await?).is_some(), "the confirmed key gets its certificate");
    Ok(())
}

async fn a_renewal_needs_no_person_but_a_device_that_stands(plane: ControlPlane) -> Result<()> {
    let world = World::start(plane).await?;
    let (board, own) = (world.board("sn-17")?, key()?);
    let uid = world.add_device("sn-17", approved()).await?;
    world.ask("join-17", &own, "sn-17", uid, proof(&board, &own, "sn-17", uid)?).await?;
    world.approve("join-17")?;
    let chain = certificate(&world.finished("join-17").await?).context("it was refused")?;

    world.ask("renew-17", &own, "sn-17", uid, vec![(annotation::RENEWS, chain.clone())]).await?;
    world.approve("renew-17")?;
    let renewed = certificate(&world.finished("renew-17").await?).context("it was refused")?;
    ensure!(renewed != chain, "another certificate, for the same key");

    // The Device of that name is another by now.
    world.devices().delete("sn-17", &kube::api::DeleteParams::default()).await?;
    let other = world.add_device("sn-17", approved()).await?;
    world.ask("late-17", &own, "sn-17", other, vec![(annotation::RENEWS, chain)]).await?;
    world.approve("late-17")?;
    assert_eq!(failure(&world.finished("late-17").await?), Some("WrongDevice"));
    Ok(())
}

async fn the_issuing_authority_is_replaced_and_what_the_one_before_issued_renews(
    plane: ControlPlane,
) -> Result<()> {
    let mut world = World::start(plane).await?;
    let (board, own) = (world.board("sn-17")?, key()?);
    let uid = world.add_device("sn-17", approved()).await?;
    world.ask("join-17", &own, "sn-17", uid, proof(&board, &own, "sn-17", uid)?).await?;
    world.approve("join-17")?;
    let chain = certificate(&world.finished("join-17").await?).context("it was refused")?;

    // Whoever has the root's key makes another authority below it, and gives the signer its files.
    let (pki, others) = (world.cluster.dir().join("fleet"), world.cluster.dir().join("others"));
    fs::create_dir(&others)?;
    fs::copy(pki.join("devices-root.crt"), others.join("devices-root.crt"))?;
    fs::copy(world.cluster.dir().join(ROOT_KEY), others.join("devices-root.key"))?;
    Authorities::create_or_open(&others, "example.org")?;
    for ending in ["key", "crt"] {
        let name = format!("devices-issuing.{ending}");
        fs::rename(others.join(&name), pki.join(&name))?;
    }
    let read = "the issuing authority was read again";
    world.signer.wait_for_line(read, |line| line.contains(read))?;

    world.ask("renew-17", &own, "sn-17", uid, vec![(annotation::RENEWS, chain.clone())]).await?;
    world.approve("renew-17")?;
    let renewed = certificate(&world.finished("renew-17").await?).context("it was refused")?;
    let authority = |chain: &str| -> Result<Vec<u8>> {
        let identity = Identity::from_pem(chain, &own.serialize_pem())?;
        Ok(identity.chain().get(1).context("an authority")?.to_vec())
    };
    ensure!(authority(&renewed)? != authority(&chain)?, "the other authority issued it");
    Ok(())
}
