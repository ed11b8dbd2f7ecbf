//! What a controller needs to know before it starts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use wasmbed_control::fleet::ValuesKey;

/// A controller's configuration, all values resolved.
#[derive(Clone)]
pub struct Config {
    /// Its name among the controllers: the holder in the leader Lease, and the `CN` that it writes as.
    pub name: String,
    /// Namespace of the leader Lease, the DeviceGateways and their Leases.
    pub system_namespace: String,
    /// The only namespace whose Applications, Modules and Devices it looks after; `None` means all.
    pub namespace: Option<String>,
    /// Its own identity and whom it trusts; read again when the files change.
    pub tls: TlsFiles,
    /// Trust domain of the gateways' ids.
    pub trust_domain: String,
    /// How gateways are called.
    pub gateway: GatewayConfig,
    /// How often and how hard it tries.
    pub reconciliation: ReconciliationConfig,
    /// Where health and metrics are served.
    pub health: HealthConfig,
    /// Hides values of Secrets in hashes; all controllers have the same. Without it Applications that name Secrets are refused.
    pub values_key: Option<ValuesKey>,
    /// The Kubernetes API.
    pub kube: kube::Config,
    /// The Lease that one controller of several holds.
    pub lease: LeaseConfig,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The controller's certificate, with the role `controller`, then its issuing authorities.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
    /// Roots below which gateways are trusted.
    pub services_roots: PathBuf,
}

/// How gateways are called.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `http(s)://host[:port]` of the one gateway, instead of the address in its DeviceGateway. The controller always
    /// speaks TLS: `http` is accepted with a warning.
    pub url: Option<String>,
    /// Of one call.
    pub timeout: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self { url: None, timeout: Duration::from_secs(30) }
    }
}

/// How often and how hard the controller tries.
#[derive(Clone, Debug)]
pub struct ReconciliationConfig {
    /// Everything is reconciled anew this often.
    pub interval: Duration,
    /// Attempts after the first one before a gateway is left alone until the next interval or change.
    pub max_retries: u32,
    /// Each pause is this many times the one before; the first is one second.
    pub backoff_multiplier: f64,
}

impl Default for ReconciliationConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), max_retries: 3, backoff_multiplier: 2.0 }
    }
}

/// Where health and metrics are served, over plain HTTP.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Path of the liveness check.
    pub path: String,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), path: "/health".to_owned() }
    }
}

/// Timing of Leases, its own and the gateways'.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// How long the leader Lease holds without a renewal.
    pub duration: Duration,
    /// How often it is renewed; less than half of `duration`.
    pub renew: Duration,
    /// Added to a gateway's lease before its devices are called unreachable.
    pub gateway_grace: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            // A leader that dies right after a renewal has a follower in its place in under 15 s, the follower's start included.
            duration: Duration::from_secs(10),
            renew: Duration::from_secs(3),
            gateway_grace: Duration::from_secs(10),
        }
    }
}
