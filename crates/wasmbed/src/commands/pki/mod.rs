//! `wasmbed pki`: authorities and identities as files, or as Secrets of a cluster.

mod secrets;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use wasmbed_pki::{Authorities, Identity};

use crate::{
    machine::layout::{KubeUser, Layout, SYSTEM_NAMESPACE, TRUST_DOMAIN},
    output,
    runtime::block_on,
};

/// Certificate authorities and identities.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Create both root CAs and their issuing CAs, or check existing ones.
    Init {
        #[command(flatten)]
        place: Place,
    },
    /// Issue an identity.
    #[command(subcommand)]
    Issue(Issue),
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

/// Where the CAs are.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Folder of the CAs.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// Trust domain of all SPIFFE ids.
    #[arg(long, default_value = TRUST_DOMAIN)]
    trust_domain: String,
}

/// Whose identity to issue.
#[derive(clap::Subcommand)]
pub(crate) enum Issue {
    /// A gateway: writes gateway.crt, gateway.key, ca.crt and services-ca.crt.
    Gateway {
        #[command(flatten)]
        whose: Whose,
        /// Host name or address at which devices reach it; can be repeated.
        #[arg(long = "host", required = true)]
        hosts: Vec<String>,
    },
    /// A controller: writes controller.crt, controller.key and services-ca.crt.
    Controller {
        #[command(flatten)]
        whose: Whose,
    },
    /// An operator, who may read logs from gateways: writes operator.crt, operator.key and services-ca.crt.
    Operator {
        #[command(flatten)]
        whose: Whose,
    },
    /// A device: writes device.crt, device.key and services-ca.crt, and prints its public key.
    Device {
        #[command(flatten)]
        whose: Whose,
    },
}

/// A name and an output folder.
#[derive(clap::Args)]
pub(crate) struct Whose {
    #[command(flatten)]
    place: Place,
    /// Name within the namespace.
    #[arg(long)]
    name: String,
    /// Namespace [default: default for devices, wasmbed-system otherwise].
    #[arg(long)]
    namespace: Option<String>,
    /// Output folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Runs a subcommand.
///
/// # Errors
/// With a message for the user.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Init { place } => {
            open(&place)?;
            output::print_line(&format!(
                "authorities of the trust domain {} in {}",
                place.trust_domain,
                place.dir.display()
            ));
            Ok(())
        }
        Command::Issue(issue) => run_issue(issue),
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

fn open(place: &Place) -> Result<Authorities> {
    let authorities = Authorities::create_or_open(&place.dir, &place.trust_domain)?;
    for file in authorities.begun_anew() {
        output::complain(&format!(
            "warning: {} lay in the future and begins now, with the same key: the clock was ahead when it was made, or is behind now",
            file.display()
        ));
    }
    Ok(authorities)
}

fn run_issue(issue: Issue) -> Result<()> {
    let place = issue.place();
    // A misspelt folder would otherwise become authorities that nobody trusts.
    ensure!(
        place.dir.join("services-root.crt").is_file(),
        "there are no authorities in {}: make them with wasmbed pki init, or say --dir",
        place.dir.display()
    );
    match issue {
        Issue::Gateway { whose, hosts } => {
            let authorities = open(&whose.place)?;
            let identity =
                authorities.issue_gateway(whose.namespace_or(SYSTEM_NAMESPACE), &whose.name, &hosts)?;
            write_public(&whose.out.join("ca.crt"), authorities.devices_root_pem())?;
            whose.write(&authorities, "gateway", &identity)
        }
        Issue::Controller { whose } => {
            let authorities = open(&whose.place)?;
            let identity = authorities.issue_controller(whose.namespace_or(SYSTEM_NAMESPACE), &whose.name)?;
            whose.write(&authorities, "controller", &identity)
        }
        Issue::Operator { whose } => {
            let authorities = open(&whose.place)?;
            let identity = authorities.issue_operator(whose.namespace_or(SYSTEM_NAMESPACE), &whose.name)?;
            whose.write(&authorities, "operator", &identity)
        }
        Issue::Device { whose } => {
            let authorities = open(&whose.place)?;
            let identity = authorities.issue_device(whose.namespace_or("default"), &whose.name)?;
            whose.write(&authorities, "device", &identity)?;
            output::print_line(&format!("public_key: {}", identity.public_key_base64()));
            Ok(())
        }
    }
}

impl Issue {
    fn place(&self) -> &Place {
        match self {
            Self::Gateway { whose, .. }
            | Self::Controller { whose }
            | Self::Operator { whose }
            | Self::Device { whose } => &whose.place,
        }
    }
}

impl Whose {
    fn namespace_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(default)
    }

    fn write(&self, authorities: &Authorities, stem: &str, identity: &Identity) -> Result<()> {
        identity.write(&self.out, stem)?;
        write_public(&self.out.join("services-ca.crt"), authorities.services_root_pem())?;
        show(identity)
    }
}

fn write_public(path: &Path, pem: &str) -> Result<()> {
    wasmbed_pki::write_private(path, pem.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

fn show(identity: &Identity) -> Result<()> {
    let facts = identity.facts();
    match identity.spiffe_id() {
        Ok(id) => output::print_line(&format!("id: {id}")),
        Err(_) => output::print_line(&format!(
            "id: none ({})",
            facts.common_name.as_deref().unwrap_or("no common name")
        )),
    }
    let until =
        jiff::Timestamp::from_second(facts.not_after).context("the certificate's end is out of range")?;
    output::print_line(&format!("valid until: {until}"));
    Ok(())
}
