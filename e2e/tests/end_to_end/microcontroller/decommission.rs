//! From a board at work to one without a key, also when power is lost on the way.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use serde_json::json;
use wasmbed_api::{Device, DevicePhase, condition};
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application, board::issued, board::prepare_as, board::read_to, fixtures,
};
use wasmbed_emulator::{Emulator, Kind, Options};
use wasmbed_flash::provision::Identity;
use wasmbed_pki::read_certificates;

use super::joining::{CUTS, Moments, SEED, Scene, number};

each_board!(a_board_at_work_is_taken_out_of_service, a_board_ends_without_a_key_whatever_its_power_does,);

/// What a board says when it has ended; the second one at a start after its provisioned identity was erased.
const ENDS: [&str; 2] = ["its key is erased, and it does nothing any more", "its identity is erased"];

/// What stands before the scalar of a P-256 key in PKCS#8 v1.
const KEY_HEAD: &[u8] = &[
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01,
    0x04, 0x20,
];

/// Keys in a board's flash: in the region of its identity, and in its records.
fn keys(kind: Kind, flash: &Path) -> Result<(usize, usize)> {
    let bytes = std::fs::read(flash)?;
    let region = kind.board().geometry.identity_bytes() as usize;
    let (identity, records) = bytes.split_at_checked(region).context("no whole flash")?;
    let count = |bytes: &[u8]| bytes.windows(KEY_HEAD.len()).filter(|part| *part == KEY_HEAD).count();
    Ok((count(identity), count(records)))
}

fn is_legible(flash: &Path, bytes: &[u8]) -> Result<bool> {
    Ok(std::fs::read(flash)?.windows(bytes.len()).any(|part| part == bytes))
}

/// Waits until the board has ended.
fn ended(board: &Emulator) -> Result<()> {
    let begun = Instant::now();
    while !board.last_lines().iter().any(|line| ENDS.iter().any(|end| line.contains(end))) {
        ensure!(begun.elapsed() < TIMEOUT, "it goes on: {:#?}", board.last_lines());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// With a whole control plane: a person says so, the controller orders it, and the Device shows the proof.
fn a_board_at_work_is_taken_out_of_service(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let mut machine = Machine::start(ControlPlane::Embedded).await?;
        let factory = machine.start_signer()?;
        let folder = machine.dir().join("board");
        std::fs::create_dir_all(&folder)?;
        let roots = read_certificates(&machine.layout().services_root())?;
        let identity = Identity::Factory(issued(&factory.issue("SN_42")?));
        let gateway = machine.gateway_address().to_string();
        let options = prepare_as(kind, &folder, identity, &roots, &gateway, [9; 32])?;
        let board = Emulator::start(&options)?;
        let exists = |_: &Device| true;
        machine.device("sn-42", "there", exists).await?;
        machine.merge::<Device>("sn-42", json!({ "spec": { "approved": true } })).await?;
        machine.create(&application("ticker", &fixtures::ticker("tick", 1_000), &["sn-42"])).await?;
        read_to(&board, "APP default/ticker: tick")?;
        ensure!(keys(kind, &options.data_flash)?.1 > 0, "its key is in its records");
        ensure!(is_legible(&options.data_flash, b"tick")?, "its module is in its flash");

        machine.merge::<Device>("sn-42", json!({ "spec": { "decommission": true } })).await?;
        read_to(&board, "decommissioned as Device ")?;
        let is_confirmed = |device: &Device| {
            device.status.as_ref().is_some_and(|status| {
                let confirmed = status.decommission.as_ref().is_some_and(|it| it.confirmed_at.is_some());
                confirmed && status.phase == DevicePhase::Decommissioned
            })
        };
        let device = machine.device("sn-42", "confirmed", is_confirmed).await?;
        let status = device.status.as_ref().context("no status")?;
        let decommission = status.decommission.as_ref().context("no proof")?;
        ensure!(decommission.erased.len() == 3, "{decommission:?}");
        let shown = status.conditions.iter().find(|one| one.type_ == condition::DECOMMISSIONED);
        ensure!(
            shown.is_some_and(|one| one.status == "True"),
            "{:?} of {}",
            status.conditions,
            device.name_any()
        );
        ended(&board)?;
        board.cut_power();
        let (identity, records) = keys(kind, &options.data_flash)?;
        ensure!(
            (identity, records) == (1, 0),
            "{records} keys are in its records, {identity} in its identity"
        );
        ensure!(!is_legible(&options.data_flash, b"tick")?, "its module is still there");
        // The factory's identity is still there; with it the board is turned away.
        let board = Emulator::start(&options)?;
        read_to(&board, "joining: certificate asked for")?;
        Ok(())
    })
}

fn a_board_ends_without_a_key_whatever_its_power_does(kind: Kind) -> Result<()> {
    let seed = number(SEED)?.unwrap_or_else(|| RandomState::new().hash_one(kind.name()));
    let cuts = number("WASMBED_POWER_CUTS")?.unwrap_or(CUTS);
    println!("{kind}: {cuts} boards lose power, {SEED}={seed}");
    let (scene, mut moments) = (Scene::new(kind, None)?, Moments(seed));
    // The first ones, one of each kind, are left alone: so long it takes from a start to the end.
    let mut takes = [Duration::ZERO; 2];
    for round in 0..cuts + 2 {
        let is_factory = round % 2 == 1;
        scene.registrar.forget();
        let folder = scene.folder(&format!("end-{round}"))?;
        let identity = if is_factory {
            Identity::Factory(issued(&scene.factory.issue(&format!("SN-{round}"))?))
        } else {
            Identity::Operational(issued(&scene.first_certificate()?))
        };
        let options = scene.prepare(&folder, identity, moments.seed())?;
        if is_factory {
            let board = Emulator::start(&options)?;
            read_to(&board, "certificate in use from now on")?;
            board.cut_power();
        }
        scene.registrar.decommission(&scene.authorities)?;
        let mut lost = Vec::new();
        let takes = &mut takes[usize::from(is_factory)];
        if round > 1 {
            for _ in 0..=moments.next() % 2 {
                lost.push(cut(&options, moments.within(*takes))?);
            }
        }
        let begun = Instant::now();
        let board = Emulator::start(&options)?;
        let rejoins =
            || board.last_lines().iter().any(|line| line.contains("joining: certificate asked for"));
        // A board from a factory that had ended before begins anew.
        let ended = if is_factory && round > 1 {
            let begun = Instant::now();
            loop {
                if rejoins() || ended_now(&board) {
                    break Ok(());
                }
                ensure!(begun.elapsed() < TIMEOUT, "{lost:?}: {:#?}", board.last_lines());
                sleep(Duration::from_millis(20));
            }
        } else {
            ended(&board)
        };
        ended.with_context(|| format!("power lost {lost:?}"))?;
        if round < 2 {
            *takes = begun.elapsed();
        }
        let is_new = rejoins();
        board.cut_power();
        let seen = scene.registrar.seen();
        ensure!(seen.faults.is_empty(), "{:?}", seen.faults);
        ensure!(seen.proofs > 0, "it ended without a proof, power lost {lost:?}");
        let (identity, records) = keys(kind, &options.data_flash)?;
        // A board that begins anew has made another key by then.
        ensure!(identity == usize::from(is_factory), "{identity} keys in the identity, power lost {lost:?}");
        ensure!(records <= usize::from(is_new), "{records} keys in the records, power lost {lost:?}");
        println!("{kind}: board {round} ended after {} proofs, power lost {lost:?}", seen.proofs);
    }
    Ok(())
}

fn ended_now(board: &Emulator) -> bool {
    board.last_lines().iter().any(|line| ENDS.iter().any(|end| line.contains(end)))
}

/// Starts the board and cuts its power after a while.
fn cut(options: &Options, moment: Duration) -> Result<String> {
    let board = Emulator::start(options)?;
    sleep(moment);
    let last = board.last_lines().pop().unwrap_or_default();
    board.cut_power();
    Ok(format!("after {} ms at {last:?}", moment.as_millis()))
}
