//! Certificates of devices by CertificateSigningRequests: what a gateway writes, a person approves and the signer issues.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    pin::pin,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::TryStreamExt as _;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
        core::v1::{Event, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SigningKey as _,
};
use serde_json::json;
use wasmbed_api::{
    DEVICE_SIGNER, Device, DeviceSpec, PAIRING_EXPIRES, PAIRING_NAMESPACE, pairing_secret,
    request_annotation as annotation,
};
use wasmbed_e2e::{ControlPlane, TIMEOUT, until_at, until_ready};
use wasmbed_identity::PairingToken;
use wasmbed_pki::{Authorities, CertificateFacts, Identity};
use wasmbed_protocol::{DeviceUid, JoinStatement, KeyHash, encode_join_statement};
use wasmbed_testbed::{Borrowed, Cluster, Folder, Port, Process, User, wasmbed};

wasmbed_e2e::both!(
    an_approved_request_with_a_factory_proof_is_signed,
    a_person_s_approval_does_not_make_up_for_a_proof,
    a_renewal_needs_no_person_but_a_device_that_stands,
    the_issuing_authority_is_replaced_and_what_the_one_before_issued_renews,
    what_a_request_waits_for_is_said_at_its_device,
    a_device_of_the_version_before_renews_and_a_person_makes_way_for_a_new_key,
    a_pairing_token_proves_its_device_once_and_until_it_expires,
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
    // Last, so that processes end before the control plane and what they read go.
    cluster: Borrowed,
    folder: Folder,
}

impl World {
    async fn start(plane: ControlPlane) -> Result<Self> {
        let cluster = Cluster::shared(plane).await?;
        let folder = Folder::create("signing")?;
        let pki = folder.path().join("fleet");
        let authorities = Authorities::create_or_open(&pki, "example.org")?;
        // What stays with whoever may make another authority.
        fs::rename(pki.join("devices-root.key"), folder.path().join(ROOT_KEY))?;
        let devices_roots = written(&pki, "devices-ca.crt", authorities.devices_root_pem())?;
        let factory = factory()?;
        let factory_roots = written(&pki, "factory-ca.crt", &factory.pem())?;
        let (certificate, key) = Identity::files(&pki, "devices-issuing");
        let health = Port::reserve()?;
        let set = [
            "trust_domain=example.org".to_owned(),
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
        let mut signer = Process::start(wasmbed(&arguments)?, "signer", folder.path())?;
        signer.wait_for_line("that it runs", |line| line.contains("the signer runs"))?;
        // No request is there yet.
        until_ready(SocketAddr::from((Ipv4Addr::LOCALHOST, health.number()))).await?;
        Ok(Self {
            client: cluster.client(&User::administrator()).await?,
            gateway: cluster.client(&User::gateway("gw-1")).await?,
            factory,
            signer,
            cluster,
            folder,
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
    let signature = factory_key.sign(&statement(own, device, uid)?)?;
    Ok(vec![(annotation::JOIN_PROOF, STANDARD.encode(signature)), (annotation::FACTORY_CHAIN, chain.clone())])
}

fn statement(own: &KeyPair, device: &str, uid: DeviceUid) -> Result<Vec<u8>> {
    let statement = JoinStatement {
        key: KeyHash::of(&own.subject_public_key_info()),
        trust_domain: "example.org",
        namespace: NAMESPACE,
        name: device,
        device_uid: uid,
    };
    let mut bytes = [0; 700];
    let length = encode_join_statement(&statement, &mut bytes).context("a statement")?;
    Ok(bytes[..length].to_vec())
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

/// Waits for the signer's Event of a reason about a Device; its message.
async fn said(world: &World, device: &str, reason: &str) -> Result<String> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), NAMESPACE);
    let of = watcher::Config::default().fields(&format!("involvedObject.name={device}"));
    let search = async {
        let mut events = pin!(watcher(events, of).default_backoff().applied_objects());
        loop {
            match events.try_next().await {
                Ok(Some(event)) if is_signers(&event) && event.reason.as_deref() == Some(reason) => {
                    return Ok(event.message.unwrap_or_default());
                }
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => bail!("the watch ended"),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, search).await.with_context(|| format!("nobody said {reason}"))?
}

fn is_signers(event: &Event) -> bool {
    event.reporting_component.as_deref() == Some("wasmbed-signer")
}

async fn what_a_request_waits_for_is_said_at_its_device(plane: ControlPlane) -> Result<()> {
    let world = World::start(plane).await?;
    let own = key()?;
    let uid = world.add_device("sn-20", DeviceSpec { approved: false, ..DeviceSpec::default() }).await?;
    world.ask("bare-20", &own, "sn-20", uid, Vec::new()).await?;
    said(&world, "sn-20", "PendingApproval").await?;
    // What changes and changes nothing in what is missing is told no second time.
    for site in ["a", "b"] {
        let label = json!({ "metadata": { "labels": { "site": site } }, "spec": { "device_type": site } });
        world.devices().patch("sn-20", &PatchParams::default(), &Patch::Merge(label)).await?;
    }
    let approve = json!({ "spec": { "approved": true } });
    world.devices().patch("sn-20", &PatchParams::default(), &Patch::Merge(approve)).await?;
    let message = said(&world, "sn-20", "KeyNotConfirmed").await?;
    let fingerprint = KeyHash::of(&own.subject_public_key_info()).to_string();
    ensure!(message.contains(&fingerprint) && message.contains("bare-20"), "{message}");
    // Only the approval of the request is missing, and no controller runs here.
    let confirm = json!({ "spec": { "confirmed_key": fingerprint } });
    world.devices().patch("sn-20", &PatchParams::default(), &Patch::Merge(confirm)).await?;
    let message = said(&world, "sn-20", "RequestNotApproved").await?;
    ensure!(message.contains("kubectl certificate approve bare-20"), "{message}");
    let events: Api<Event> = Api::namespaced(world.client.clone(), NAMESPACE);
    let all = events.list(&ListParams::default().fields("involvedObject.name=sn-20")).await?;
    let reasons: Vec<_> =
        all.items.iter().filter(|event| is_signers(event)).map(|event| &event.reason).collect();
    ensure!(reasons.len() == 3, "each was said once: {reasons:?}");
    world.approve("bare-20")?;
    ensure!(certificate(&world.finished("bare-20").await?).is_some(), "it is issued");
    Ok(())
}

async fn a_device_of_the_version_before_renews_and_a_person_makes_way_for_a_new_key(
    plane: ControlPlane,
) -> Result<()> {
    let world = World::start(plane).await?;
    // `wasmbed pki issue device`, and the gateway that enrolled it pinned its key. Its certificate names no UID.
    let before = world.folder.path().join("before");
    fs::create_dir(&before)?;
    for file in ["devices-root.crt", "devices-issuing.crt", "devices-issuing.key", "services-root.crt"] {
        fs::copy(world.folder.path().join("fleet").join(file), before.join(file))?;
    }
    let identity = Authorities::create_or_open(&before, "example.org")?.issue_device(NAMESPACE, "old-1")?;
    let spec = DeviceSpec { public_key: Some(identity.public_key_base64()), ..approved() };
    let uid = world.add_device("old-1", spec).await?;
    let own = KeyPair::from_pem(&identity.key_pem)?;
    let renews = vec![(annotation::RENEWS, identity.chain_pem.clone())];
    world.ask("renew-old", &own, "old-1", uid, renews).await?;
    world.approve("renew-old")?;
    let chain = certificate(&world.finished("renew-old").await?).context("it was refused")?;
    let renewed = Identity::from_pem(&chain, &identity.key_pem)?;
    assert_eq!(renewed.facts().subject_serial, Some(uid.to_string()), "now it names the UID");

    // With a factory identity it has a new key, and the pinned one stands in its way until a person removes it.
    let (board, new) = (world.board("old-1")?, key()?);
    world.ask("join-old", &new, "old-1", uid, proof(&board, &new, "old-1", uid)?).await?;
    assert_eq!(failure(&world.finished("join-old").await?), Some("KeyMismatch"));
    let unpin = json!({ "spec": { "public_key": null } });
    world.devices().patch("old-1", &PatchParams::default(), &Patch::Merge(unpin)).await?;
    world.ask("join-old-2", &new, "old-1", uid, proof(&board, &new, "old-1", uid)?).await?;
    world.approve("join-old-2")?;
    ensure!(certificate(&world.finished("join-old-2").await?).is_some(), "the way is free");
    Ok(())
}

async fn a_pairing_token_proves_its_device_once_and_until_it_expires(plane: ControlPlane) -> Result<()> {
    let world = World::start(plane).await?;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), PAIRING_NAMESPACE);
    let person = world.cluster.kubeconfig(&User::administrator())?.display().to_string();
    let pair = |arguments: &[&str]| -> Result<std::process::Output> {
        let all: Vec<&str> =
            ["devices", "pair", "--kubeconfig", &person].iter().chain(arguments).copied().collect();
        Ok(wasmbed(&all)?.output()?)
    };
    let paired = |name: &str| -> Result<PairingToken> {
        let output = pair(&[name])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.parse()?)
    };
    let join = async |request: &str, device: &str, token: &PairingToken| -> Result<_> {
        let (own, id) = (key()?, token.id().to_string());
        let uid = world.devices().get(device).await?.uid().context("a UID")?.parse()?;
        let mac = token.key().prove(&statement(&own, device, uid)?);
        let proof = vec![(annotation::JOIN_PROOF, STANDARD.encode(mac)), (annotation::PAIRING_ID, id)];
        world.ask(request, &own, device, uid, proof).await?;
        world.approve(request)?;
        world.finished(request).await
    };
    let token = paired("p-1")?;
    let secret = pairing_secret(&token.id().to_string());
    let expires = |secret: &Secret| secret.annotations().get(PAIRING_EXPIRES)?.parse::<Timestamp>().ok();
    let held = secrets.get(&secret).await?;
    let hours = expires(&held).context("a time")?.duration_since(Timestamp::now()).as_hours();
    ensure!(hours == 23, "a day by default: {held:?}");
    let signed = join("paired", "p-1", &token).await?;
    ensure!(certificate(&signed).is_some(), "{:?}", failure(&signed));
    let used = async |token: &PairingToken| -> Result<()> {
        let name = pairing_secret(&token.id().to_string());
        let gone = await_condition(secrets.clone(), &name, |secret: Option<&Secret>| secret.is_none());
        tokio::time::timeout(TIMEOUT, gone).await.context("the Secret of a used token stays")??;
        Ok(())
    };
    used(&token).await?;
    // The same token with another key: it was used.
    assert_eq!(failure(&join("again", "p-1", &token).await?), Some("ProofRefused"));

    // One that has expired.
    let token = paired("p-2")?;
    let name = pairing_secret(&token.id().to_string());
    let passed = json!({ "metadata": { "annotations": { PAIRING_EXPIRES: "2020-01-01T00:00:00Z" } } });
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(passed)).await?;
    assert_eq!(failure(&join("expired", "p-2", &token).await?), Some("ProofRefused"));
    // Another one takes its place, into a file.
    let file = world.folder.path().join("token");
    let output = pair(&["p-2", "--out", &file.display().to_string()])?;
    ensure!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let another: PairingToken = fs::read_to_string(&file)?.parse()?;
    ensure!(secrets.get_opt(&name).await?.is_none(), "the key of the former token is gone");
    assert_eq!(failure(&join("former", "p-2", &token).await?), Some("ProofRefused"));
    ensure!(certificate(&join("later", "p-2", &another).await?).is_some(), "the new one counts");

    used(&another).await?;

    // Nothing is left of what could not be made whole.
    let before = secrets.list(&ListParams::default()).await?.items.len();
    for (arguments, wanted) in [
        (&["No_Name"][..], "can't make the Device No_Name"),
        (&["p-3", "--out", &file.display().to_string()], "can't create"),
        (&["p-3", "--pairing-namespace", "nowhere"], "there is no namespace nowhere"),
    ] {
        let output = pair(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(wanted), "{said}");
        ensure!(output.stdout.is_empty(), "no token is shown");
    }
    assert_eq!(secrets.list(&ListParams::default()).await?.items.len(), before);
    ensure!(world.devices().get_opt("p-3").await?.is_none(), "and no Device");
    world.add_device("p-4", DeviceSpec { public_key: Some("A".repeat(44)), ..approved() }).await?;
    let said = String::from_utf8(pair(&["p-4"])?.stderr)?;
    ensure!(said.contains("pins a key"), "{said}");
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
    let (pki, others) = (world.folder.path().join("fleet"), world.folder.path().join("others"));
    fs::create_dir(&others)?;
    fs::copy(pki.join("devices-root.crt"), others.join("devices-root.crt"))?;
    fs::copy(world.folder.path().join(ROOT_KEY), others.join("devices-root.key"))?;
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
