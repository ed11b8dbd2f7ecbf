//! `kubectl wasmbed`: the same binary, called `kubectl-wasmbed`.

mod approve;
mod complete;
mod decommission;
mod deny;
mod devices;
mod label;

use std::{ffi::OsStr, path::Path};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    commands::{apply, login, logs, messages, publish, settings},
    runtime::block_on,
};

/// The name under which kubectl looks for the plugin.
const PLUGIN: &str = "kubectl-wasmbed";
/// The name under which kubectl looks for what completes its command line.
const COMPLETER: &str = "kubectl_complete-wasmbed";

/// Devices and applications on microcontrollers.
#[derive(Parser)]
#[command(name = PLUGIN, bin_name = "kubectl wasmbed", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let devices in: approve them and, where a device has no proof of who it is, confirm its key.
    Approve(approve::Args),
    /// Keep devices out: deny their requests for certificates, and withdraw their approval.
    Deny(deny::Args),
    /// Take devices out of service: they erase what they have, sign that they did, and are kept out. Can't be taken back.
    Decommission(decommission::Args),
    /// Show the logs of applications, as received by the gateways.
    Logs(logs::Args),
    /// Show what applications published, as the gateways have it on their disks.
    Messages(messages::Args),
    /// Send a message to an application on devices.
    Publish(publish::Args),
    /// Show what the settings of an application are on its devices.
    Settings(settings::Args),
    /// Get a certificate with which gateways know you.
    Login(login::Args),
    /// Forget that certificate.
    Logout(login::LogoutArgs),
    /// Set labels of devices, by which Applications select them, or remove some.
    Label(label::Args),
    /// Deploy a WebAssembly file, or apply manifests.
    Run(Box<apply::Args>),
}

/// What the program is by the name that it was started under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `wasmbed`, and every other name.
    Program,
    /// `kubectl wasmbed`.
    Plugin,
    /// The completion of `kubectl wasmbed`.
    Completer,
}

impl Role {
    /// The role of a program that was started as this.
    #[must_use]
    pub fn of(program: Option<&OsStr>) -> Self {
        let name = program.map(Path::new).and_then(Path::file_stem).and_then(OsStr::to_str);
        match name {
            Some(PLUGIN) => Self::Plugin,
            Some(COMPLETER) => Self::Completer,
            Some(_) | None => Self::Program,
        }
    }
}

/// Runs the plugin with the arguments of this process.
///
/// # Errors
/// With a message for the user.
pub fn run() -> Result<()> {
    match Args::parse().command {
        Command::Approve(arguments) => block_on(approve::run(arguments)),
        Command::Deny(arguments) => block_on(deny::run(arguments)),
        Command::Decommission(arguments) => block_on(decommission::run(arguments)),
        Command::Logs(arguments) => block_on(logs::run(arguments)),
        Command::Messages(arguments) => block_on(messages::run(arguments)),
        Command::Publish(arguments) => block_on(publish::run(arguments)),
        Command::Settings(arguments) => block_on(settings::run(arguments)),
        Command::Login(arguments) => block_on(login::run(arguments)),
        Command::Logout(arguments) => block_on(login::logout(arguments)),
        Command::Label(arguments) => block_on(label::run(arguments)),
        Command::Run(arguments) => block_on(apply::run(*arguments)),
    }
}

/// Prints what may follow on the command line of `kubectl wasmbed`.
///
/// # Errors
/// When the asynchronous runtime can't be started.
pub fn complete() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    block_on(complete::run(Args::command(), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        for (name, role) in [
            ("wasmbed", Role::Program),
            ("/usr/bin/kubectl-wasmbed", Role::Plugin),
            ("./kubectl_complete-wasmbed", Role::Completer),
            ("kubectl-wasmbed.old/wasmbed", Role::Program),
        ] {
            assert_eq!(Role::of(Some(OsStr::new(name))), role, "{name}");
        }
        assert_eq!(Role::of(None), Role::Program);
        Args::command().debug_assert();
    }
}
