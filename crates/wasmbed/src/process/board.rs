//! `wasmbed device --board`: a microcontroller's firmware in QEMU, with an identity.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;
use wasmbed_emulator::{Emulator, Kind, Options, find_firmware, reach_host};
use wasmbed_flash::provision::Network;
use wasmbed_pki::{Identity, read_certificates};

use super::provision;

/// What a board is started with.
pub(super) struct Board {
    pub(super) kind: Kind,
    pub(super) firmware: Option<PathBuf>,
    pub(super) memory: Option<usize>,
    pub(super) data_dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) ca_file: PathBuf,
    pub(super) gateways: Vec<String>,
}

/// Runs until a signal, or until the emulator ends.
///
/// # Errors
/// The board can't be provisioned or started, or the emulator ended by itself.
pub(super) async fn run(board: Board, shutdown: CancellationToken) -> Result<()> {
    let emulator =
        tokio::task::spawn_blocking(move || start(board)).await.context("starting the board panicked")??;
    let emulator = Arc::new(emulator);
    let reader = Arc::clone(&emulator);
    let lines = tokio::task::spawn_blocking(move || {
        while let Some(line) = reader.next_line() {
            log(&line);
        }
    });
    let mut lines = std::pin::pin!(lines);
    let asked = tokio::select! {
        read = &mut lines => { read.context("reading the console panicked")?; false }
        () = shutdown.cancelled() => true,
    };
    let ended =
        tokio::task::spawn_blocking(move || emulator.quit()).await.context("ending the board panicked")?;
    if asked {
        return Ok(lines.await?);
    }
    match ended {
        Some(ended) => bail!("the emulator ended by itself ({ended}); what the board said last stands above"),
        None => bail!("the board's console is closed, and the emulator does not end"),
    }
}

fn start(board: Board) -> Result<Emulator> {
    let name = board.kind.name();
    let firmware = find_firmware(board.kind, board.firmware.as_deref())?;
    std::fs::create_dir_all(&board.data_dir)
        .with_context(|| format!("can't create {}", board.data_dir.display()))?;
    let flash = board.data_dir.join(format!("{name}.flash"));
    let roots = read_certificates(&board.ca_file)?;
    let gateways = board.gateways.iter().map(|gateway| reach_host(gateway)).collect();
    let identity = provision::provision(name, &board.identity, &roots, gateways, Network::Dhcp)?;
    wasmbed_emulator::provision(board.kind, &flash, identity)?;
    let memory = board.memory.map(u32::try_from).transpose().context("--memory is 4 GiB or more")?;
    let options = Options { memory, ..Options::new(board.kind, firmware, flash) };
    let emulator = Emulator::start(&options)?;
    tracing::info!(board = name, firmware = %options.firmware.display(), "the board runs in QEMU");
    Ok(emulator)
}

/// A console line begins with its level; one that does not is what a board says before it can log.
fn log(line: &str) {
    let (level, text) = line.split_once(' ').unwrap_or(("", line));
    match level {
        "ERROR" => tracing::error!(target: "wasmbed::board", "{text}"),
        "WARN" => tracing::warn!(target: "wasmbed::board", "{text}"),
        "INFO" => tracing::info!(target: "wasmbed::board", "{text}"),
        "DEBUG" => tracing::debug!(target: "wasmbed::board", "{text}"),
        "TRACE" => tracing::trace!(target: "wasmbed::board", "{text}"),
        _ => tracing::info!(target: "wasmbed::board", "{line}"),
    }
}
