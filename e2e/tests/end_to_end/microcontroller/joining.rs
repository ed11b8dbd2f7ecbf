//! From bare flash to a session with a renewed certificate, also when power is lost on the way.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, ResourceExt as _, api::ListParams};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use wasmbed_api::{Device, DevicePhase, request_annotation};
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application,
    board::{issued, prepare_as, read_to},
    fixtures,
};
use wasmbed_emulator::{Emulator, Kind, Options};
use wasmbed_flash::provision::Identity;
use wasmbed_identity::PairingToken;
use wasmbed_pki::{Authorities, CertificationRequest, FactoryAuthority, read_certificates};
use wasmbed_protocol::KeyHash;

use super::registrar::{Registrar, Seen};

each_board!(
    a_board_gets_from_bare_flash_to_running,
    kubectl_certificate_approve_lets_a_board_in,
    a_board_from_a_factory_joins_and_renews_whatever_its_power_does,
    a_board_with_a_token_joins_once,
    a_board_of_the_fleet_renews_what_it_was_provisioned_with,
);

/// Boards whose power is cut, each once or twice; `WASMBED_POWER_CUTS` for more of them.
pub(crate) const CUTS: u64 = 3;
/// Where the random moments begin; printed, so that they can be repeated.
pub(crate) const SEED: &str = "WASMBED_POWER_SEED";

pub(crate) struct Scene {
    kind: Kind,
    dir: tempfile::TempDir,
    pub(crate) authorities: Authorities,
    pub(crate) factory: FactoryAuthority,
    pub(crate) registrar: Registrar,
}

impl Scene {
    pub(crate) fn new(kind: Kind, token: Option<&PairingToken>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let pki = dir.path().join("pki");
        let authorities = Authorities::create_or_open(&pki, "wasmbed")?;
        let factory = FactoryAuthority::create_or_open(&pki, "wasmbed")?;
        let registrar = Registrar::listen(&pki, &authorities, &factory, token.map(PairingToken::key))?;
        Ok(Self { kind, dir, authorities, factory, registrar })
    }

    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    pub(crate) fn prepare(&self, folder: &Path, identity: Identity, seed: [u8; 32]) -> Result<Options> {
        let root = self.authorities.services_root().clone();
        prepare_as(self.kind, folder, identity, &[root], &self.registrar.address().to_string(), seed)
    }

    /// What a person may have given the board: a certificate that is soon to be renewed.
    pub(crate) fn first_certificate(&self) -> Result<wasmbed_pki::Identity> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        let chain = self.registrar.issue(&CertificationRequest::parse(request.der())?)?;
        wasmbed_pki::Identity::from_pem(&chain, &key.serialize_pem()).map_err(anyhow::Error::msg)
    }

    /// Waits until the board is there with a certificate that it got in a session.
    fn renewed(&self, board: &Emulator) -> Result<Seen> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            read_to(board, "session established")?;
            let seen = self.registrar.seen();
            ensure!(seen.faults.is_empty(), "{:?}", seen.faults);
            // The first one ends within the hour.
            if seen.sessions.last().is_some_and(|not_after| *not_after > now_s() + 86_400) {
                return Ok(seen);
            }
            ensure!(Instant::now() < deadline, "no session with a renewed certificate: {:?}", seen.sessions);
        }
    }
}

fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Numbers that the same seed gives again (splitmix64, Steele, Lea and Flood, 2014).
pub(crate) struct Moments(pub(crate) u64);

impl Moments {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn within(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.next() as f64 / u64::MAX as f64)
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = self.next() as u8);
        seed
    }
}

pub(crate) fn number(variable: &str) -> Result<Option<u64>> {
    match std::env::var(variable) {
        Ok(text) => Ok(Some(text.parse().with_context(|| format!("{variable} is no number"))?)),
        Err(_) => Ok(None),
    }
}

/// A person approves the Device, and the controller its request.
fn a_board_gets_from_bare_flash_to_running(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let mut machine = Machine::start(ControlPlane::Embedded).await?;
        let board = waiting(kind, &mut machine).await?;
        machine.merge::<Device>("sn-42", json!({ "spec": { "approved": true } })).await?;
        runs(&machine, &board).await
    })
}

/// Nobody but a person approves the request, at a Kubernetes API of a cluster.
fn kubectl_certificate_approve_lets_a_board_in(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let mut machine = Machine::start(ControlPlane::Kubernetes).await?;
        machine.stop("controller")?;
        let board = waiting(kind, &mut machine).await?;
        let device = machine.api::<Device>().get("sn-42").await?;
        let request = request_for(&machine, &device).await?;
        // The signer refuses what is asked for a Device that nobody approved, whoever approved the request.
        machine.merge::<Device>("sn-42", json!({ "spec": { "approved": true } })).await?;
        machine.kubectl()?.run(&["certificate", "approve", &request])?;
        machine.start_controller()?;
        runs(&machine, &board).await
    })
}

/// The name of the one request for a Device. What the device is told that it waits for may be told before the request is there.
async fn request_for(machine: &Machine, device: &Device) -> Result<String> {
    let requests: Api<CertificateSigningRequest> = Api::all(machine.client().clone());
    let begun = Instant::now();
    loop {
        let all = requests.list(&ListParams::default()).await?.items;
        // Another machine at the same API had its own.
        let is_ours = |request: &&CertificateSigningRequest| {
            request.annotations().get(request_annotation::DEVICE_UID) == device.metadata.uid.as_ref()
        };
        match all.iter().filter(is_ours).collect::<Vec<_>>()[..] {
            [request] => return Ok(request.name_any()),
            [] => ensure!(begun.elapsed() < TIMEOUT, "nobody asked for a certificate: {all:?}"),
            [..] => bail!("not one request: {all:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A board from the factory, whose request waits for approval.
async fn waiting(kind: Kind, machine: &mut Machine) -> Result<Emulator> {
    let factory = machine.start_signer()?;
    let folder = machine.dir().join("board");
    std::fs::create_dir_all(&folder)?;
    let roots = read_certificates(&machine.layout().services_root())?;
    let identity = Identity::Factory(issued(&factory.issue("SN_42")?));
    let gateway = machine.gateway_address().to_string();
    let board = Emulator::start(&prepare_as(kind, &folder, identity, &roots, &gateway, [9; 32])?)?;
    read_to(&board, "certificate of Device default/sn-42 waited for: ")?;
    let waits = |device: &Device| phase(device) == Some(DevicePhase::Pending);
    let device = machine.device("sn-42", "Pending", waits).await?;
    ensure!(device.spec.serial.as_deref() == Some("SN_42") && !device.spec.approved, "{:?}", device.spec);
    Ok(board)
}

/// It gets its certificate, connects with it, and runs what is deployed.
async fn runs(machine: &Machine, board: &Emulator) -> Result<()> {
    let lines = read_to(board, "session established")?;
    ensure!(lines.iter().any(|line| line.contains("certificate in use from now on")), "{lines:?}");
    ensure!(!lines.iter().any(|line| line.contains(" started ")), "it was reset: {lines:?}");
    machine.create(&application("ticker", &fixtures::ticker("tick", 1_000), &["sn-42"])).await?;
    read_to(board, "APP default/ticker: tick")?;
    let device = machine.device("sn-42", "the key that it made", has_key).await?;
    let lines = board.last_lines();
    let hash = lines.iter().find_map(|line| line.split("this device's key is sha256:").nth(1)?.get(..64));
    let pinned = device.status.and_then(|status| status.public_key).context("no key")?;
    let pinned = base64::engine::general_purpose::STANDARD.decode(pinned)?;
    ensure!(hash == Some(KeyHash::of(&pinned).to_string().as_str()), "{hash:?}");
    Ok(())
}

fn has_key(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| status.public_key.is_some())
}

fn phase(device: &Device) -> Option<DevicePhase> {
    device.status.as_ref().map(|status| status.phase)
}

fn a_board_from_a_factory_joins_and_renews_whatever_its_power_does(kind: Kind) -> Result<()> {
    let seed = number(SEED)?.unwrap_or_else(|| RandomState::new().hash_one(kind.name()));
    let cuts = number("WASMBED_POWER_CUTS")?.unwrap_or(CUTS);
    println!("{kind}: {cuts} boards lose power, {SEED}={seed}");
    let (scene, mut moments) = (Scene::new(kind, None)?, Moments(seed));

    // The first one is left alone: so long it takes to join, after which nothing but the renewal is still to come.
    let mut takes = Duration::ZERO;
    for round in 0..=cuts {
        let serial = format!("SN-{round}");
        scene.registrar.forget();
        let identity = Identity::Factory(issued(&scene.factory.issue(&serial)?));
        let options = scene.prepare(&scene.folder(&serial)?, identity, moments.seed())?;
        let mut lost = Vec::new();
        if round > 0 {
            for _ in 0..=moments.next() % 2 {
                let board = Emulator::start(&options)?;
                let moment = moments.within(takes);
                std::thread::sleep(moment);
                let last = board.last_lines().pop().unwrap_or_default();
                board.cut_power();
                lost.push(format!("after {} ms at {last:?}", moment.as_millis()));
            }
        }
        let begun = Instant::now();
        let board = Emulator::start(&options)?;
        if round == 0 {
            read_to(&board, "certificate in use from now on")?;
            takes = begun.elapsed();
        }
        let seen = scene.renewed(&board)?;
        if round == 0 {
            let said = |what: &str| board.last_lines().iter().any(|line| line.contains(what));
            ensure!(said(&format!("provisioned factory={serial} trust_domain=wasmbed gateways=1")));
            ensure!(said("joining: certificate asked for") && said("certificate in use from now on"));
            ensure!(!said("ERROR"), "{:?}", board.last_lines());
            ensure!((seen.joined, seen.renewed) == (1, 1), "{} and {}", seen.joined, seen.renewed);
        }
        ensure!(seen.keys.len() == 1, "{serial} made {} keys, power lost {lost:?}", seen.keys.len());
        println!(
            "{kind}: {serial} joined {} times, renewed {}, power lost {lost:?}",
            seen.joined, seen.renewed
        );
    }
    Ok(())
}

fn a_board_with_a_token_joins_once(kind: Kind) -> Result<()> {
    let token = PairingToken::new([1, 2, 3, 4], [5; PairingToken::SECRET_BYTES]);
    let scene = Scene::new(kind, Some(&token))?;
    let identity =
        Identity::Pairing { token: token.reveal().to_string(), trust_domain: "wasmbed".to_owned() };
    let options = scene.prepare(&scene.folder("paired")?, identity, [3; 32])?;
    let board = Emulator::start(&options)?;
    read_to(&board, "provisioned pairing=01020304 trust_domain=wasmbed gateways=1")?;
    let seen = scene.renewed(&board)?;
    ensure!((seen.joined, seen.keys.len()) == (1, 1), "{} with {} keys", seen.joined, seen.keys.len());
    board.cut_power();
    let board = Emulator::start(&options)?;
    let again = scene.renewed(&board)?;
    ensure!(again.joined == 1 && again.keys == seen.keys, "the token was used again");
    Ok(())
}

fn a_board_of_the_fleet_renews_what_it_was_provisioned_with(kind: Kind) -> Result<()> {
    let scene = Scene::new(kind, None)?;
    let device = scene.first_certificate()?;
    let key = KeyHash::of(&device.facts().public_key);
    let folder = scene.folder("fleet")?;
    let options = scene.prepare(&folder, Identity::Operational(issued(&device)), [3; 32])?;
    let board = Emulator::start(&options)?;
    let seen = scene.renewed(&board)?;
    ensure!(seen.joined == 0 && seen.keys == [key].into(), "{} joined", seen.joined);
    ensure!(seen.sessions.first() == Some(&device.facts().not_after), "{:?}", seen.sessions);
    board.cut_power();
    let sessions = seen.sessions.len();
    let board = Emulator::start(&options)?;
    let again = scene.renewed(&board)?;
    let first = again.sessions.get(sessions).copied();
    ensure!(first == seen.sessions.last().copied(), "it begins with the provisioned one: {first:?}");
    Ok(())
}
