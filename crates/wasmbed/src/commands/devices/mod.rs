//! `wasmbed devices`: Devices that are known before they join.

mod api;
mod lines;
mod pair;
mod preregister;

use anyhow::Result;

/// Make Devices known before they join.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a pairing token, with which one device without a factory identity joins once.
    Pair(pair::Args),
    /// Register devices by their serials, before they join with their factory identities.
    Preregister(preregister::Args),
}

/// Runs a subcommand.
///
/// # Errors
/// With a message for the user.
pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Pair(arguments) => pair::run(arguments).await,
        Command::Preregister(arguments) => preregister::run(arguments).await,
    }
}
