//! `wasmbed apiserver`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use wasmbed_apiserver::{Config, Limits, Policy, ServerTls};
use wasmbed_pki::{Identity, read_certificates};

use crate::{cli::start_logging, signals::shutdown_on_signal};

/// How to run the embedded Kubernetes API.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of its store.
    #[arg(
        long,
        value_name = "DIR",
        env = "WASMBED_APISERVER_DATA_DIR",
        default_value = "/var/lib/wasmbed/apiserver"
    )]
    data_dir: PathBuf,
    /// Address to listen at; port 0 takes a free one.
    #[arg(long, env = "WASMBED_APISERVER_LISTEN", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// PEM: its certificate, then the issuing authorities.
    #[arg(long, value_name = "FILE", env = "WASMBED_APISERVER_CERT_FILE")]
    cert_file: PathBuf,
    /// PEM: its key.
    #[arg(long, value_name = "FILE", env = "WASMBED_APISERVER_KEY_FILE")]
    key_file: PathBuf,
    /// PEM: the authority of its clients.
    #[arg(long, value_name = "FILE", env = "WASMBED_APISERVER_CLIENT_CA_FILE")]
    client_ca_file: PathBuf,
    /// A level, or `target=level` pairs with commas.
    #[arg(long, env = "WASMBED_LOG", default_value = "info")]
    log_level: String,
    /// auto, json or text.
    #[arg(long, env = "WASMBED_LOG_FORMAT", default_value = "auto")]
    log_format: String,
}

/// Runs until a signal.
///
/// # Errors
/// When it can't start, or fails.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    start_logging(&arguments.log_format, &arguments.log_level)?;
    let shutdown = shutdown_on_signal()?;
    let identity = Identity::read(&arguments.cert_file, &arguments.key_file)?;
    let client_roots = read_certificates(&arguments.client_ca_file)?;
    let config = configure(arguments.data_dir, arguments.listen, &identity, client_roots)?;
    let server = wasmbed_apiserver::start(config).await?;
    tracing::info!(address = %server.address(), "the Kubernetes API is served");
    server.run(shutdown.cancelled_owned()).await;
    Ok(())
}

/// The embedded Kubernetes API for Wasmbed's own kinds and roles.
///
/// # Errors
/// Only if a definition is not JSON, which would be a bug.
pub(crate) fn configure(
    data_dir: PathBuf,
    listen: SocketAddr,
    identity: &Identity,
    client_roots: Vec<rustls_pki_types::CertificateDer<'static>>,
) -> Result<Config> {
    let definitions = wasmbed_api::crds().iter().map(serde_json::to_value).collect::<Result<_, _>>();
    Ok(Config {
        data_dir,
        listen,
        tls: ServerTls { certificates: identity.chain(), key: identity.key() },
        client_roots,
        definitions: definitions.context("can't represent a CustomResourceDefinition as JSON")?,
        policy: Policy::standard()?,
        limits: Limits::default(),
    })
}
