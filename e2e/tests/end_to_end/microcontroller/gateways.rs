//! Who calls himself a gateway and is none: the board says why it goes on looking.

use std::path::Path;

use anyhow::Result;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd};
use wasmbed_e2e::{
    TIMEOUT,
    board::{prepare_with, read_to},
};
use wasmbed_emulator::{Emulator, Kind};
use wasmbed_pki::{Authorities, Identity};

use super::impostor::Impostor;

each_board!(
    one_below_another_authority_is_refused,
    one_of_another_trust_domain_is_refused,
    one_without_a_name_of_ours_is_refused,
    one_whose_certificate_expired_is_refused_also_after_a_reset,
    a_controller_that_answers_as_a_gateway_is_refused,
    a_device_that_answers_as_a_gateway_is_refused,
    one_that_speaks_tls_1_2_is_refused,
);

/// A board, its own authorities, and a listener in its gateway's place.
struct Scene {
    board: Emulator,
    own: Authorities,
    impostor: Impostor,
    dir: tempfile::TempDir,
}

impl Scene {
    fn start(kind: Kind, show: impl FnOnce(&Authorities, &Path) -> Result<Option<Identity>>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let own = Authorities::create_or_open(&pki(dir.path()), "wasmbed")?;
        let impostor = Impostor::listen(own.devices_root())?;
        match show(&own, dir.path())? {
            Some(identity) => impostor.show(&identity)?,
            None => impostor.speak_tls_1_2(),
        }
        let device = own.issue_device("default", "board")?;
        let root = own.services_root().clone();
        let gateway = impostor.address().to_string();
        let board = Emulator::start(&prepare_with(kind, dir.path(), &device, &[root], &gateway)?)?;
        Ok(Self { board, own, impostor, dir })
    }

    fn refuses(&self, reason: &str) -> Result<()> {
        self.board.wait_for_line("why it refuses", TIMEOUT, |line| {
            line.contains("gateway not reached") && line.contains(reason)
        })?;
        Ok(())
    }
}

fn pki(dir: &Path) -> std::path::PathBuf {
    dir.join("pki")
}

/// Shows a board a server from the beginning.
fn refused(kind: Kind, impostor: impl FnOnce(&Authorities) -> Result<Identity>, reason: &str) -> Result<()> {
    Scene::start(kind, |own, _| impostor(own).map(Some))?.refuses(reason)
}

/// A certificate for servers that the services' own root signed, with a name of the test's choice and of 2020 alone if
/// `old`: what an authority would never issue.
fn signed_by_the_root(dir: &Path, uri: &str, old: bool) -> Result<Identity> {
    let read = |extension: &str| std::fs::read_to_string(pki(dir).join(format!("services-root.{extension}")));
    let root = Issuer::from_ca_cert_pem(&read("crt")?, KeyPair::from_pem(&read("key")?)?)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(if old { 2021 } else { 2100 }, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &root)?;
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).map_err(anyhow::Error::msg)
}

fn one_below_another_authority_is_refused(kind: Kind) -> Result<()> {
    let other = tempfile::tempdir()?;
    let strangers = Authorities::create_or_open(&pki(other.path()), "wasmbed")?;
    let hosts = ["10.0.2.2".to_owned()];
    refused(
        kind,
        |_| Ok(strangers.issue_gateway("wasmbed-system", "gateway", &hosts)?),
        "does not chain to a trusted root",
    )
}

fn one_of_another_trust_domain_is_refused(kind: Kind) -> Result<()> {
    let id = "spiffe://elsewhere/ns/wasmbed-system/gateway/gateway";
    Scene::start(kind, |_, dir| signed_by_the_root(dir, id, false).map(Some))?
        .refuses("is not in the trust domain")
}

fn one_without_a_name_of_ours_is_refused(kind: Kind) -> Result<()> {
    Scene::start(kind, |_, dir| signed_by_the_root(dir, "https://gateway.example", false).map(Some))?
        .refuses("its URI is not a SPIFFE id")
}

/// A board without a clock takes the time from the gateway that it reached before, and keeps it in its flash.
fn one_whose_certificate_expired_is_refused_also_after_a_reset(kind: Kind) -> Result<()> {
    let scene = Scene::start(kind, |own, _| {
        Ok(Some(own.issue_gateway("wasmbed-system", "gateway", &["10.0.2.2".to_owned()])?))
    })?;
    read_to(&scene.board, "connected gateway=")?;
    let id = format!("spiffe://{}/ns/wasmbed-system/gateway/gateway", scene.own.trust_domain());
    scene.impostor.show(&signed_by_the_root(scene.dir.path(), &id, true)?)?;
    scene.refuses("the gateway's certificate expired at 1609459200")?;
    scene.board.reset()?;
    read_to(&scene.board, "started reset_reason=")?;
    scene.refuses("the gateway's certificate expired at 1609459200")
}

fn a_controller_that_answers_as_a_gateway_is_refused(kind: Kind) -> Result<()> {
    refused(
        kind,
        |own| Ok(own.issue_controller("wasmbed-system", "controller")?),
        "the gateway's certificate",
    )
}

fn a_device_that_answers_as_a_gateway_is_refused(kind: Kind) -> Result<()> {
    refused(kind, |own| Ok(own.issue_device("default", "thief")?), "is not meant for this purpose")
}

fn one_that_speaks_tls_1_2_is_refused(kind: Kind) -> Result<()> {
    Scene::start(kind, |_, _| Ok(None))?
        .refuses("offers no TLS 1.3 with X25519, ChaCha20-Poly1305 and ECDSA P-256")
}
