//! The command line: which subcommands there are.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    commands::{apply, crds, devices, get, login, logs, messages, module, pki, publish},
    machine::up,
    output, processes,
    runtime::block_on,
};

/// WebAssembly on microcontrollers, managed through Kubernetes.
#[derive(Parser)]
#[command(name = "wasmbed", version, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: Kubernetes API, gateway, controller, signer and devices.
    Up(up::Args),
    /// Run the embedded Kubernetes API.
    Apiserver(processes::apiserver::Args),
    /// Run a gateway, which holds devices' connections.
    Gateway(processes::gateway::Args),
    /// Run a controller, which decides which devices run what.
    Controller(processes::controller::Args),
    /// Run a signer, which issues certificates of devices and people.
    Signer(processes::signer::Args),
    /// Run a device on this machine.
    Device(processes::device::Args),
    /// Run many devices in one process, to load-test a gateway.
    Simulate(processes::simulate::Args),
    /// Create certificate authorities and issue identities.
    #[command(subcommand)]
    Pki(pki::Command),
    /// Make Devices known before they join.
    #[command(subcommand)]
    Devices(devices::Command),
    /// Print the CustomResourceDefinitions as YAML.
    Crds(crds::Args),
    /// Inspect, check and pack a WebAssembly module.
    #[command(subcommand)]
    Module(module::Command),
    /// Create or update objects from manifests or from a module.
    Apply(apply::Args),
    /// Show objects as tables.
    Get(get::Args),
    /// Show the logs of applications, as received by the gateways.
    Logs(logs::Args),
    /// Show what applications published, as the gateways have it on their disks.
    Messages(messages::Args),
    /// Send a message to an application on devices.
    Publish(publish::Args),
    /// Get a certificate with which gateways know you.
    Login(login::Args),
    /// Forget that certificate.
    Logout(login::LogoutArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command on the command line.
///
/// # Errors
/// With a message for the user.
pub fn run(arguments: Args) -> Result<()> {
    match arguments.command {
        Command::Up(arguments) => block_on(up::run(arguments)),
        Command::Apiserver(arguments) => block_on(processes::apiserver::run(arguments)),
        Command::Gateway(arguments) => block_on(processes::gateway::run(arguments)),
        Command::Controller(arguments) => block_on(processes::controller::run(arguments)),
        Command::Signer(arguments) => block_on(processes::signer::run(arguments)),
        Command::Device(arguments) => block_on(processes::device::run(arguments)),
        Command::Simulate(arguments) => block_on(processes::simulate::run(arguments)),
        Command::Pki(command) => pki::run(command),
        Command::Devices(command) => block_on(devices::run(command)),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Module(command) => module::run(command),
        Command::Apply(arguments) => block_on(apply::run(arguments)),
        Command::Get(arguments) => block_on(get::run(arguments)),
        Command::Logs(arguments) => block_on(logs::run(arguments)),
        Command::Messages(arguments) => block_on(messages::run(arguments)),
        Command::Publish(arguments) => block_on(publish::run(arguments)),
        Command::Login(arguments) => block_on(login::run(arguments)),
        Command::Logout(arguments) => block_on(login::logout(arguments)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "wasmbed", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
