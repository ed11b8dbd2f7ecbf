//! `wasmbed apiserver`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use wasmbed_apiserver::{AuditLog, Config, Limits, Policy, Server, ServerTls};
use wasmbed_pki::{Identity, RENEWAL_INTERVAL, Renewed, read_certificates};
use wasmbed_telemetry::with_causes;

use crate::{runtime::shutdown_on_signal, runtime::start_logging};

/// How to run the embedded Kubernetes API.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of its store.
    #[arg(
        long,
        value_name = "DIR",
        env = "WASMBED_APISERVER_DATA_DIR",
        default_value = "/var/lib/wasmbed/apiserver"
    )]
    data_dir: PathBuf,
    /// Keys that encrypt Secrets in the store: 64 hexadecimal digits on each line, the newest first. Made with a new store.
    /// Default: encryption-keys in the folder of the store.
    #[arg(long, value_name = "FILE", env = "WASMBED_APISERVER_ENCRYPTION_KEYS_FILE")]
    encryption_keys_file: Option<PathBuf>,
    /// Where requests that change something are recorded, with who made them: a line each, as kube-apiserver writes it at level Metadata.
    /// Default: audit.log in the folder of the store.
    #[arg(long, value_name = "FILE", env = "WASMBED_APISERVER_AUDIT_LOG_PATH")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes of the audit log before it becomes FILE.1 and a new one begins.
    #[arg(long, value_name = "MB", env = "WASMBED_APISERVER_AUDIT_LOG_MAXSIZE", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    audit_log_maxsize: u64,
    /// Earlier files of the audit log that are kept.
    #[arg(long, value_name = "N", env = "WASMBED_APISERVER_AUDIT_LOG_MAXBACKUP", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    audit_log_maxbackup: u32,
    /// Record nothing.
    #[arg(long, env = "WASMBED_APISERVER_NO_AUDIT_LOG", conflicts_with = "audit_log_path")]
    no_audit_log: bool,
    /// Namespace in which controllers may get Secrets, for env_from of Applications; can be repeated. In a cluster a RoleBinding of
    /// the ClusterRole wasmbed-secret-reader says the same.
    #[arg(long, value_name = "NAMESPACE", env = "WASMBED_APISERVER_SECRET_NAMESPACE", value_delimiter = ',')]
    secret_namespace: Vec<String>,
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
pub(crate) async fn run(arguments: Args) -> Result<()> {
    start_logging(&arguments.log_format, &arguments.log_level)?;
    let shutdown = shutdown_on_signal()?;
    let tls = TlsFiles {
        certificate: arguments.cert_file,
        key: arguments.key_file,
        client_roots: arguments.client_ca_file,
    };
    let audit_log = (!arguments.no_audit_log).then(|| AuditLog {
        path: arguments.audit_log_path.unwrap_or_else(|| arguments.data_dir.join("audit.log")),
        bytes_max: arguments.audit_log_maxsize.saturating_mul(1_000_000),
        kept: arguments.audit_log_maxbackup,
    });
    let store = StoreFiles {
        folder: arguments.data_dir,
        encryption_keys: arguments.encryption_keys_file,
        audit_log,
        secret_namespaces: arguments.secret_namespace,
    };
    let server = start(store, arguments.listen, tls, shutdown.clone()).await?;
    tracing::info!(address = %server.address(), "the Kubernetes API is served");
    server.run(shutdown.cancelled_owned()).await;
    Ok(())
}

/// PEM files of the server's identity and of its clients' authority.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_roots: PathBuf,
}

impl TlsFiles {
    fn read(&self) -> Result<(ServerTls, Vec<CertificateDer<'static>>)> {
        let identity = Identity::read(&self.certificate, &self.key)?;
        let tls = ServerTls { certificates: identity.chain(), key: identity.key() };
        Ok((tls, read_certificates(&self.client_roots)?))
    }
}

/// Where its store is, and who else reads the Secrets in it.
pub(crate) struct StoreFiles {
    pub(crate) folder: PathBuf,
    /// Keys that encrypt Secrets; in the folder if none are named.
    pub(crate) encryption_keys: Option<PathBuf>,
    /// The audit log, if there is to be one.
    pub(crate) audit_log: Option<AuditLog>,
    /// Namespaces in which controllers may get Secrets.
    pub(crate) secret_namespaces: Vec<String>,
}

/// A server of Wasmbed's own kinds and roles, bound; files that are replaced are taken until `stop`.
///
/// # Errors
/// The files can't be used, the address can't be bound or the store can't be opened.
pub(crate) async fn start(
    store: StoreFiles,
    listen: SocketAddr,
    files: TlsFiles,
    stop: CancellationToken,
) -> Result<Server> {
    let (tls, client_roots) = files.read()?;
    let server = wasmbed_apiserver::start(configure(store, listen, tls, client_roots)?).await?;
    let certificates = server.certificates();
    let names = [files.certificate.clone(), files.key.clone(), files.client_roots.clone()];
    // Read once more: a file may have changed since.
    let renewed = Arc::new(Renewed::open(names, move || {
        let (tls, client_roots) = files.read()?;
        anyhow::Ok(certificates.replace(tls, client_roots)?)
    })?);
    let following = renewed.follow(RENEWAL_INTERVAL, |read| match read {
        Ok(_) => tracing::info!("certificates were read again; new connections get them"),
        Err(error) => tracing::error!(
            reason = "BadCertificateFiles",
            error = with_causes(error.as_ref()),
            "changed certificate files can't be used; the earlier ones stay in use"
        ),
    });
    let following = following.context("can't start the thread that looks at certificate files")?;
    tokio::spawn(async move {
        stop.cancelled().await;
        drop(following);
    });
    Ok(server)
}

/// The embedded Kubernetes API for Wasmbed's own kinds and roles.
///
/// # Errors
/// Only if a definition is not JSON, which would be a bug.
fn configure(
    store: StoreFiles,
    listen: SocketAddr,
    tls: ServerTls,
    client_roots: Vec<CertificateDer<'static>>,
) -> Result<Config> {
    let definitions = wasmbed_api::crds().iter().map(serde_json::to_value).collect::<Result<_, _>>();
    Ok(Config {
        data_dir: store.folder,
        encryption_keys: store.encryption_keys,
        listen,
        tls,
        client_roots,
        definitions: definitions.context("can't represent a CustomResourceDefinition as JSON")?,
        audit_log: store.audit_log,
        policy: Policy::standard()?.with_secret_namespaces(store.secret_namespaces),
        limits: Limits::default(),
    })
}
