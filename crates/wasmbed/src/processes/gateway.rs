//! `wasmbed gateway`.

use anyhow::Result;
use wasmbed_gateway::{Config, Joining, Limits, MessageLimits, TlsFiles};

use super::{Common, host_name, resolve};
use crate::{
    cluster::kubeconfig,
    config::{Enrollment, EnrollmentPolicy, GatewayFile, GatewaySection, load},
    runtime::shutdown_on_signal,
    runtime::start_logging,
};

/// How to run a gateway. Everything else stands in the configuration file, whose keys are in docs/configuration.md.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Address to listen at for devices and controllers.
    #[arg(long)]
    host: Option<String>,
    /// Port to listen at for devices and controllers; 0 takes a free one.
    #[arg(long)]
    port: Option<u16>,
    /// Folder of desired sets and modules.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What happens to devices that nobody created: closed, approval or open.
    #[arg(long)]
    enrollment: Option<String>,
}

/// Runs until a signal.
///
/// # Errors
/// When it can't start, or fails.
pub(crate) async fn run(arguments: Args) -> Result<()> {
    let mut flags = arguments.common.flags();
    let own = [
        ("server.host", arguments.host),
        ("server.port", arguments.port.map(|port| port.to_string())),
        ("data_dir", arguments.data_dir),
        // Beside what a section in the file says.
        ("enrollment.policy", arguments.enrollment),
    ];
    flags.extend(own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    let section = load::<GatewayFile>("gateway", arguments.common.config.as_deref(), &flags)?.gateway;
    start_logging(&section.logging.format, &section.logging.level)?;
    let shutdown = shutdown_on_signal()?;
    let config = configure(section).await?;
    let gateway = wasmbed_gateway::start(config, shutdown).await?;
    tracing::info!(address = %gateway.addresses.server, health = ?gateway.addresses.health, "devices and controllers are served");
    gateway.wait().await;
    Ok(())
}

/// Resolves a section of configuration to what the process takes.
///
/// # Errors
/// When an address can't be resolved or no Kubernetes API is found.
pub(crate) async fn configure(section: GatewaySection) -> Result<Config> {
    let name = section.name.clone().map_or_else(host_name, Ok)?;
    let services_roots = section.tls.services_ca_file();
    let tls = TlsFiles {
        certificate: section.tls.cert_file,
        key: section.tls.key_file,
        device_roots: section.tls.ca_file,
        services_roots,
        operators_roots: section.tls.operators_ca_file,
        factory_roots: section.tls.factory_ca_file,
    };
    let kube = kubeconfig::client_config(section.kubernetes.kubeconfig.as_ref()).await?;
    let mut config = Config::new(&name, &section.trust_domain, tls, section.data_dir, kube);
    config.namespace = section.namespace;
    config.data_key = section.data_key_file;
    config.listen = resolve(&section.server.host, section.server.port).await?;
    config.advertise = section.advertise;
    config.health_listen = Some(resolve(&section.health.host, section.health.port).await?);
    config.namespaces = section.namespaces;
    let Enrollment { policy, namespace, pending_max, tokens } = section.enrollment;
    config.enrollment = match policy {
        EnrollmentPolicy::Closed => wasmbed_gateway::Enrollment::Closed,
        EnrollmentPolicy::Approval => wasmbed_gateway::Enrollment::Approval,
        EnrollmentPolicy::Open => wasmbed_gateway::Enrollment::Open,
    };
    config.joining = Joining { tokens, namespace, pending_max };
    config.heartbeat_interval = section.heartbeat.interval.0;
    config.heartbeat_timeout = section.heartbeat.timeout.0;
    config.max_connections = section.server.max_connections;
    config.writes_per_second = section.writes_per_second;
    config.writes_burst = section.writes_burst;
    config.messages = Some(MessageLimits {
        bytes_max: section.messages.bytes_max,
        age_max_ms: u64::try_from(section.messages.age_max.0.as_millis()).unwrap_or(u64::MAX),
        device_bytes_max: section.messages.device_bytes_max(),
        ..MessageLimits::default()
    });
    config.limits = Limits { handshake_timeout: section.server.handshake_timeout.0, ..Limits::default() };
    Ok(config)
}
