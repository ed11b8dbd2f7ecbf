//! A microcontroller's firmware in QEMU, with an identity: `wasmbed device --board`, and the boards of `wasmbed up`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use wasmbed_control::harmless;
use wasmbed_emulator::{Emulator, Ended, Kind, Options, find_firmware, reach_host};
use wasmbed_flash::provision::Network;

use crate::machine::provision::{self, Chosen};

/// Between the end of an emulator and its next start; doubled until [`RESTART_SECONDS_MAX`] when that one ends too.
const RESTART_SECONDS_MIN: u64 = 1;
const RESTART_SECONDS_MAX: u64 = 30;
/// A board that ran for so long starts again without a longer wait.
const STEADY_SECONDS: u64 = 60;

/// Of the lines of consoles, in the log.
const TARGET: &str = "wasmbed::board";

/// What a board is made of.
pub(crate) struct Board {
    pub(crate) kind: Kind,
    pub(crate) firmware: Option<PathBuf>,
    pub(crate) memory: Option<usize>,
    pub(crate) data_dir: PathBuf,
    pub(crate) identity: Chosen,
    pub(crate) services_roots: Vec<CertificateDer<'static>>,
    pub(crate) gateways: Vec<String>,
}

/// A board with power. Its console goes to the log.
pub(crate) struct Running {
    name: String,
    options: Options,
    emulator: Arc<Emulator>,
}

impl Running {
    /// Writes the identity into the board's flash, which stays between runs, and starts QEMU.
    ///
    /// # Errors
    /// There is no firmware or no QEMU, the flash can't be used, or QEMU does not start.
    pub(crate) async fn start(board: Board) -> Result<Self> {
        blocking(move || {
            let name = board.identity.name.clone();
            let options = provision(board)?;
            let emulator = Arc::new(Emulator::start(&options)?);
            tracing::info!(device = name, board = %options.board, firmware = %options.firmware.display(), "a board runs in QEMU");
            Ok(Self { name, options, emulator })
        })
        .await
    }

    /// Runs until the token is cancelled, or until the emulator ends.
    ///
    /// # Errors
    /// The emulator ended by itself.
    pub(crate) async fn run(self, shutdown: &CancellationToken) -> Result<()> {
        match self.follow(shutdown).await? {
            None => Ok(()),
            Some(ended) => {
                bail!("the emulator exited unexpectedly ({ended}); the board's last output is above")
            }
        }
    }

    /// Runs until the token is cancelled; an emulator that ends by itself is started again, with the same flash.
    ///
    /// # Errors
    /// It can't be started again.
    pub(crate) async fn keep_running(mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut wait = RESTART_SECONDS_MIN;
        loop {
            let started = tokio::time::Instant::now();
            let Some(ended) = self.follow(shutdown).await? else { return Ok(()) };
            if started.elapsed() >= Duration::from_secs(STEADY_SECONDS) {
                wait = RESTART_SECONDS_MIN;
            }
            tracing::warn!(device = self.name, status = %ended, seconds = wait, "a board's emulator ended; it starts again");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(wait)) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            wait = (wait * 2).min(RESTART_SECONDS_MAX);
            let Self { name, options, emulator } = self;
            // The old one holds the flash's lock.
            drop(emulator);
            self = blocking(move || {
                let emulator = Arc::new(Emulator::start(&options)?);
                Ok(Self { name, options, emulator })
            })
            .await?;
        }
    }

    /// Logs the console; none when it ended because it was asked to.
    async fn follow(&self, shutdown: &CancellationToken) -> Result<Option<Ended>> {
        let (reader, name) = (Arc::clone(&self.emulator), self.name.clone());
        let lines = tokio::task::spawn_blocking(move || {
            while let Some(line) = reader.next_line() {
                log(&name, &line);
            }
        });
        let mut lines = std::pin::pin!(lines);
        let asked = tokio::select! {
            read = &mut lines => { read.context("reading the console panicked")?; false }
            () = shutdown.cancelled() => true,
        };
        let emulator = Arc::clone(&self.emulator);
        let ended = blocking(move || Ok(emulator.quit())).await?;
        if asked {
            lines.await.context("reading the console panicked")?;
            return Ok(None);
        }
        ended.map(Some).context("the board's console is closed, and the emulator does not end")
    }
}

fn provision(board: Board) -> Result<Options> {
    let kind = board.kind;
    let firmware = find_firmware(kind, board.firmware.as_deref())?;
    wasmbed_files::private_folder(&board.data_dir)
        .with_context(|| format!("can't create {}", board.data_dir.display()))?;
    let flash = board.data_dir.join(format!("{kind}.flash"));
    let gateways = board.gateways.iter().map(|gateway| reach_host(gateway)).collect();
    let identity = board.identity.identity;
    let identity =
        provision::provision(kind.name(), identity, &board.services_roots, gateways, Network::Dhcp)?;
    wasmbed_emulator::provision(kind, &flash, identity)?;
    let memory = board.memory.map(u32::try_from).transpose().context("--memory is 4 GiB or more")?;
    Ok(Options { memory, ..Options::new(kind, firmware, flash) })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the emulator's task panicked")?
}

/// Of a console line; a log text of 1,024 bytes with its fields, escaped.
const LINE_BYTES_MAX: usize = 4_096;

/// A console line begins with its level; one that does not is what a board says before it can log. The correlation id is a
/// field of its own, by which the lines of all processes are found.
fn log(device: &str, line: &str) {
    let line = &*harmless(line, LINE_BYTES_MAX);
    let (level, text) = line.split_once(' ').unwrap_or(("", line));
    let correlation_id = text.split(' ').find_map(|word| word.strip_prefix("correlation_id="));
    match level {
        "ERROR" => tracing::error!(target: TARGET, device, correlation_id, "{text}"),
        "WARN" => tracing::warn!(target: TARGET, device, correlation_id, "{text}"),
        "INFO" => tracing::info!(target: TARGET, device, correlation_id, "{text}"),
        "DEBUG" => tracing::debug!(target: TARGET, device, correlation_id, "{text}"),
        "TRACE" => tracing::trace!(target: TARGET, device, correlation_id, "{text}"),
        _ => tracing::info!(target: TARGET, device, "{line}"),
    }
}
