//! `wasmbed pki issue`: from authorities in a folder, without any server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use wasmbed_pki::{Authorities, ClusterAuthority, Identity};
use wasmbed_protocol::KeyHash;

use super::place::{Place, show, write_public};
use crate::{
    cluster::kubeconfig,
    machine::layout::{KubeUser, SYSTEM_NAMESPACE},
    output,
};

/// The group that roles of the embedded Kubernetes API and of the chart are given to.
const OPERATORS_GROUP: &str = "wasmbed:operators";

/// Whose identity to issue.
///
/// Nothing but files is needed. Where the key of an issuing CA is elsewhere, at the signer for example, the root's key will do.
#[derive(clap::Subcommand)]
pub(crate) enum Issue {
    /// A gateway: writes gateway.crt, gateway.key, ca.crt, services-ca.crt and operators-ca.crt.
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
    /// A person whom gateways are to know without wasmbed login: writes operator.crt, operator.key and services-ca.crt.
    Operator(Operator),
    /// A device: writes device.crt, device.key and services-ca.crt, and prints its public key.
    Device {
        #[command(flatten)]
        whose: Whose,
    },
    /// A device that is to join by itself: writes factory.crt, factory.key and services-ca.crt, and prints the name that its Device
    /// gets and the hash of its key.
    Factory(Factory),
    /// A signer: writes devices-issuing.crt, devices-issuing.key, operators-issuing.crt, operators-issuing.key, devices-ca.crt,
    /// services-ca.crt, factory-ca.crt and, for the embedded Kubernetes
    /// API, signer.kubeconfig.
    Signer(Signer),
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

/// A serial and an output folder.
#[derive(clap::Args)]
pub(crate) struct Factory {
    #[command(flatten)]
    place: Place,
    /// What the maker calls the device: up to 63 letters, digits, '-', '.' and '_', a letter or digit at both ends.
    #[arg(long)]
    serial: String,
    /// Output folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// A user of Kubernetes and an output folder.
#[derive(clap::Args)]
pub(crate) struct Operator {
    #[command(flatten)]
    place: Place,
    /// The user's name in Kubernetes: gateways ask the Kubernetes API what it may do.
    #[arg(long)]
    name: String,
    /// A group of the user's in Kubernetes; may be given again [default: wasmbed:operators].
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Output folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// A signer's name, and what it talks to.
#[derive(clap::Args)]
pub(crate) struct Signer {
    #[command(flatten)]
    place: Place,
    /// Its name among signers: its user is signer:NAME, of the group wasmbed:signers.
    #[arg(long, default_value = "signer")]
    name: String,
    /// URL of the embedded Kubernetes API, for signer.kubeconfig; DIR has to be the pki folder of that API. In a cluster the
    /// signer's account is the cluster's, and this is left out.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Output folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Issues an identity.
///
/// # Errors
/// There are no authorities, a key is not here, or a file can't be written.
pub(super) fn run(issue: Issue) -> Result<()> {
    match issue {
        Issue::Gateway { whose, hosts } => {
            let authorities = existing(&whose.place)?;
            let identity =
                authorities.issue_gateway(whose.namespace_or(SYSTEM_NAMESPACE), &whose.name, &hosts)?;
            write_public(&whose.out.join("ca.crt"), authorities.devices_root_pem())?;
            if whose.place.dir.join("operators-root.crt").is_file() {
                let operators = whose.place.open_operators()?;
                write_public(&whose.out.join("operators-ca.crt"), operators.root_pem())?;
            }
            whose.write(&authorities, "gateway", &identity)
        }
        Issue::Controller { whose } => {
            let authorities = existing(&whose.place)?;
            let identity = authorities.issue_controller(whose.namespace_or(SYSTEM_NAMESPACE), &whose.name)?;
            whose.write(&authorities, "controller", &identity)
        }
        Issue::Operator(operator) => operator.run(),
        Issue::Device { whose } => {
            let authorities = existing(&whose.place)?;
            let identity = authorities.issue_device(whose.namespace_or("default"), &whose.name)?;
            whose.write(&authorities, "device", &identity)?;
            output::print_line(&format!("public_key: {}", identity.public_key_base64()));
            Ok(())
        }
        Issue::Factory(factory) => factory.run(),
        Issue::Signer(signer) => signer.run(),
    }
}

/// The authorities of a folder that has some: a misspelt one would otherwise become authorities that nobody trusts.
fn existing(place: &Place) -> Result<Authorities> {
    ensure_root(place, "services-root")?;
    ensure_root(place, "devices-root")?;
    place.open()
}

fn ensure_root(place: &Place, stem: &str) -> Result<()> {
    ensure!(
        place.dir.join(format!("{stem}.crt")).is_file(),
        "there are no authorities in {} ({stem}.crt is missing): make them with wasmbed pki init, or say --dir",
        place.dir.display()
    );
    Ok(())
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

impl Factory {
    /// A production line needs no authority but its own, and the services' root as a file.
    fn run(&self) -> Result<()> {
        ensure_root(&self.place, "factory-root")?;
        let services_root = self.place.dir.join("services-root.crt");
        let services_root = std::fs::read_to_string(&services_root).with_context(|| {
            format!("can't read {}, which the device has to trust", services_root.display())
        })?;
        let identity = self.place.open_factory()?.issue(&self.serial)?;
        identity.write(&self.out, "factory")?;
        write_public(&self.out.join("services-ca.crt"), &services_root)?;
        show(&identity)?;
        let id = wasmbed_pki::FactoryId::new(&self.place.trust_domain, &self.serial)?;
        output::print_line(&format!("device: {}", id.device_name()));
        output::print_line(&format!("factory_key_hash: {}", KeyHash::of(&identity.facts().public_key)));
        Ok(())
    }
}

impl Operator {
    fn run(&self) -> Result<()> {
        let authorities = existing(&self.place)?;
        ensure_root(&self.place, "operators-root")?;
        let groups = match self.groups.as_slice() {
            [] => &[OPERATORS_GROUP.to_owned()],
            groups => groups,
        };
        let identity = self.place.open_operators()?.issue(&self.name, groups)?;
        identity.write(&self.out, "operator")?;
        write_public(&self.out.join("services-ca.crt"), authorities.services_root_pem())?;
        show(&identity)
    }
}

impl Signer {
    fn run(&self) -> Result<()> {
        let authorities = existing(&self.place)?;
        let dir = &self.place.dir;
        let (certificate, key) = Identity::files(dir, "devices-issuing");
        let issuing = Identity::read(&certificate, &key)
            .context("a signer needs the devices' issuing CA with its key")?;
        issuing.write(&self.out, "devices-issuing")?;
        write_public(&self.out.join("devices-ca.crt"), authorities.devices_root_pem())?;
        let (certificate, key) = Identity::files(dir, "operators-issuing");
        let issues_for_people = key.is_file();
        if issues_for_people {
            Identity::read(&certificate, &key)?.write(&self.out, "operators-issuing")?;
            write_public(&self.out.join("services-ca.crt"), authorities.services_root_pem())?;
        }
        let factory_root = dir.join("factory-root.crt");
        if factory_root.is_file() {
            write_public(&self.out.join("factory-ca.crt"), self.place.open_factory()?.root_pem())?;
        }
        if let Some(server) = &self.server {
            let path = self.out.join("signer.kubeconfig");
            write_public(&path, &self.kubeconfig(dir, server)?)?;
            output::print_line(&format!("kubeconfig: {}", path.display()));
        }
        output::print_line(&format!(
            "devices' issuing CA: {}",
            self.out.join("devices-issuing.key").display()
        ));
        if issues_for_people {
            let key = self.out.join("operators-issuing.key");
            output::print_line(&format!("operators' issuing CA: {}", key.display()));
        }
        Ok(())
    }

    fn kubeconfig(&self, dir: &Path, server: &str) -> Result<String> {
        ensure!(
            dir.join("cluster-ca.key").is_file(),
            "{} has no cluster-ca.key, which the embedded Kubernetes API's clients are issued with: say --dir DATA_DIR/pki",
            dir.display()
        );
        let cluster = ClusterAuthority::create_or_open(dir)?;
        let user = KubeUser::Signer(&self.name);
        let identity = cluster.issue_client(&user.name(), user.group())?;
        kubeconfig::render(server, cluster.certificate_pem(), &user.name(), &identity)
    }
}
