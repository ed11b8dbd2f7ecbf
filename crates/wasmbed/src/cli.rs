//! The command line: which subcommands there are.

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use wasmbed_telemetry::{LogFormat, init_logging};

use crate::{apply, crds, get, logs, module, output, pki, process, up};

/// WebAssembly on microcontrollers, managed through Kubernetes.
#[derive(Parser)]
#[command(name = "wasmbed", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: Kubernetes API, gateway, controller and devices.
    Up(up::Arguments),
    /// Run the embedded Kubernetes API.
    Apiserver(process::apiserver::Arguments),
    /// Run a gateway, which holds devices' connections.
    Gateway(process::gateway::Arguments),
    /// Run a controller, which plans what runs where.
    Controller(process::controller::Arguments),
    /// Run a device on this machine.
    Device(process::device::Arguments),
    /// Run many devices in one process, to see how a gateway bears them.
    Simulate(process::simulate::Arguments),
    /// Make authorities, and issue identities.
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Print the CustomResourceDefinitions as YAML.
    Crds(crds::Arguments),
    /// Look into a WebAssembly module, check it, make it fit.
    #[command(subcommand)]
    Module(module::ModuleCommand),
    /// Create or change objects, from manifests or from a module.
    Apply(apply::Args),
    /// Show objects as tables.
    Get(get::Args),
    /// Show what applications print, as gateways received it.
    Logs(logs::Args),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs what the command line asks for.
///
/// # Errors
/// With a message for the person who typed it.
pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Up(arguments) => waiting(up::run(arguments)),
        Command::Apiserver(arguments) => waiting(process::apiserver::run(arguments)),
        Command::Gateway(arguments) => waiting(process::gateway::run(arguments)),
        Command::Controller(arguments) => waiting(process::controller::run(arguments)),
        Command::Device(arguments) => waiting(process::device::run(arguments)),
        Command::Simulate(arguments) => waiting(process::simulate::run(arguments)),
        Command::Pki(command) => pki::run(command),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Module(command) => module::run(command),
        Command::Apply(arguments) => waiting(apply::run(arguments)),
        Command::Get(arguments) => waiting(get::run(arguments)),
        Command::Logs(arguments) => waiting(logs::run(arguments)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "wasmbed", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

/// Runs a future on a runtime of its own.
pub(crate) fn waiting(task: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the asynchronous runtime")?
        .block_on(task)
}

/// Sets up logging from what a configuration or the command line says.
pub(crate) fn start_logging(format: &str, level: &str) -> Result<()> {
    let format: LogFormat = format.parse()?;
    Ok(init_logging(format, level)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
