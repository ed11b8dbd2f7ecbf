//! What every subcommand that runs for a while needs: the asynchronous runtime, logging, and signals.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wasmbed_telemetry::{LogFormat, init_logging};

/// Exit code after a second signal: 128 and the number of SIGINT.
const FORCED: i32 = 130;

/// Runs a future to its end on a runtime of its own.
///
/// # Errors
/// Those of the future, or when the runtime can't be started.
pub(crate) fn block_on(task: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the asynchronous runtime")?
        .block_on(task)
}

/// Sets up logging from a configuration or the command line: `json` or `text`, and a level or filter directives.
///
/// # Errors
/// Names an unknown format or an invalid level.
pub(crate) fn start_logging(format: &str, level: &str) -> Result<()> {
    let format: LogFormat = format.parse()?;
    Ok(init_logging(format, level)?)
}

/// A token that the first signal cancels; a second signal ends the process at once.
///
/// # Errors
/// When the signals can't be listened for.
pub(crate) fn shutdown_on_signal() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("stopping; a second signal stops at once");
        cancelled.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(FORCED);
    });
    Ok(token)
}
