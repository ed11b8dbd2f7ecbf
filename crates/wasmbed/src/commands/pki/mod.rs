//! `wasmbed pki`: authorities and identities as files, or as Secrets of a cluster.

mod issue;
mod place;
mod secrets;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use wasmbed_pki::Identity;

use self::place::{Place, show};
use crate::{
    machine::layout::{KubeUser, Layout},
    output,
    runtime::block_on,
};

/// Certificate authorities and identities.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Create the root CAs of services, devices, factory and operators with their issuing CAs, or check existing ones and add what is missing.
    Init {
        #[command(flatten)]
        place: Place,
    },
    /// Issue an identity.
    #[command(subcommand)]
    Issue(issue::Issue),
    /// Create or renew the CAs and identities of a cluster's gateways and controllers as Secrets; the Helm chart's job runs
    /// this.
    Secrets(secrets::Wanted),
    /// Write a cluster's CAs to a folder, to issue identities for devices and operators.
    Fetch(secrets::Destination),
    /// Show the identity in a certificate.
    Show {
        /// PEM; the first certificate is used.
        certificate: PathBuf,
        /// PEM of its key.
        key: PathBuf,
    },
    /// Write an administrator's kubeconfig for an embedded Kubernetes API.
    Kubeconfig {
        /// Folder of `wasmbed up`.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Port of the embedded Kubernetes API on this machine.
        #[arg(long, default_value_t = 6443)]
        port: u16,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// With a message for the user.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Init { place } => {
            place.open()?;
            place.open_factory()?;
            place.open_operators()?;
            output::print_line(&format!(
                "authorities of the trust domain {} in {}",
                place.trust_domain,
                place.dir.display()
            ));
            Ok(())
        }
        Command::Issue(issue) => issue::run(issue),
        Command::Secrets(wanted) => block_on(secrets::ensure(wanted)),
        Command::Fetch(destination) => block_on(secrets::fetch(destination)),
        Command::Show { certificate, key } => show(&Identity::read(&certificate, &key)?),
        Command::Kubeconfig { data_dir, port } => {
            ensure!(
                data_dir.join("pki").is_dir(),
                "{} is no folder of `wasmbed up`: it has no pki in it",
                data_dir.display()
            );
            let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let path =
                Layout::create_or_open(&data_dir)?.write_kubeconfig(server, KubeUser::Administrator)?;
            output::print_line(&format!("{}", path.display()));
            Ok(())
        }
    }
}
