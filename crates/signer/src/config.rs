//! What a signer needs to know before it starts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A signer's configuration, all values resolved.
#[derive(Clone)]
pub struct Config {
    /// Its name among signers, for Events and logs.
    pub name: String,
    /// Trust domain of the ids that it issues.
    pub trust_domain: String,
    /// What it signs with and what it verifies against; read again when the files change.
    pub files: PkiFiles,
    /// Lifetime of devices' certificates, at most a year.
    pub lifetime: Duration,
    /// How people's certificates are issued; none issues none.
    pub operators: Option<OperatorsConfig>,
    /// Namespace of the Secrets with the keys of pairing tokens.
    pub secrets_namespace: String,
    /// Where health and metrics are served.
    pub health: HealthConfig,
    /// The Kubernetes API.
    pub kube: kube::Config,
}

/// How people's certificates are issued. The files are PEM, and read again when they change.
#[derive(Clone, Debug)]
pub struct OperatorsConfig {
    /// The operators' issuing authority.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
    /// Roots below which gateways are: they come with each certificate.
    pub services_roots: PathBuf,
    /// Lifetime of a certificate, at most a day.
    pub lifetime: Duration,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct PkiFiles {
    /// The devices' issuing authority.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
    /// Roots below which devices' certificates are, for renewal.
    pub devices_roots: PathBuf,
    /// Roots below which factory certificates are; without them no factory certificate counts.
    pub factory_roots: Option<PathBuf>,
}

/// Where health and metrics are served, over plain HTTP.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Path of the liveness check.
    pub path: String,
}
