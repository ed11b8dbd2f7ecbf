//! One subcommand for each process: configuration in, a running process, a clean end.

pub(crate) mod apiserver;
pub(crate) mod board;
pub(crate) mod controller;
pub(crate) mod device;
pub(crate) mod gateway;
pub(crate) mod signer;
pub(crate) mod simulate;

use std::net::SocketAddr;

use anyhow::{Context, Result};

/// Resolves a host and a port to the first address they have.
async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut addresses = tokio::net::lookup_host((host, port))
        .await
        .with_context(|| format!("can't resolve {host}:{port}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

/// The name of this host, which names a process that was given no name.
fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("can't read the host's name; set --name")?;
    Ok(name.trim().to_lowercase())
}

/// What every process with a configuration file takes.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// Configuration file, YAML.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// One value of the configuration, for example server.port=9000; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::values::setting)]
    set: Vec<(String, String)>,
    /// How to reach the Kubernetes API [default: KUBECONFIG, ~/.kube/config, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// Name of this process [default: the host's name].
    #[arg(long)]
    name: Option<String>,
}

impl Common {
    /// All flags as pairs of a path and a value; later ones win.
    fn flags(&self) -> Vec<(String, String)> {
        let kubeconfig = self
            .kubeconfig
            .iter()
            .map(|path| ("kubernetes.kubeconfig".to_owned(), path.display().to_string()));
        let name = self.name.iter().map(|name| ("name".to_owned(), name.clone()));
        self.set.iter().cloned().chain(kubeconfig).chain(name).collect()
    }
}
