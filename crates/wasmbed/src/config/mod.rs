//! Configuration of the processes: defaults, then a file, then the environment, then flags; the last word wins.
//!
//! The environment says `WASMBED_GATEWAY__SERVER__PORT=9000` for `gateway.server.port`. An unknown key or a bad value is
//! refused with its path, the value, what was expected and where it stood.

mod controller;
mod enrollment;
mod gateway;
mod layers;
mod seconds;
mod signer;

pub use controller::{ControllerFile, ControllerGateway, ControllerSection, Leases, Reconciliation};
pub use enrollment::{Enrollment, EnrollmentPolicy};
pub use gateway::{GatewayFile, GatewaySection, Heartbeat, Messages, Server};
pub use layers::{ConfigError, Section, load};
pub use seconds::Seconds;
pub use signer::{SignerFile, SignerIssuer, SignerOperators, SignerSection};

use std::path::PathBuf;

use serde::Deserialize;

/// Certificate, key and trust of a process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: the leaf, then the issuing authority.
    pub cert_file: PathBuf,
    /// PEM, PKCS#8.
    pub key_file: PathBuf,
    /// PEM: for a gateway the root of the devices, for a controller the root of the services.
    pub ca_file: PathBuf,
    /// PEM: for a gateway the root of the services, whose controllers may call it. Default: `services-ca.crt` beside `ca_file`.
    #[serde(default)]
    pub services_ca_file: Option<PathBuf>,
    /// PEM: for a gateway the roots of people, who may do what the Kubernetes API allows them. Default: none, and nobody but controllers
    /// calls.
    #[serde(default)]
    pub operators_ca_file: Option<PathBuf>,
    /// PEM: for a gateway the roots of factories, whose devices may join. Default: none, and no device joins with a certificate of
    /// a factory.
    #[serde(default)]
    pub factory_ca_file: Option<PathBuf>,
}

impl Tls {
    /// The names that `wasmbed pki issue` gives below `/etc/wasmbed`.
    fn installed(stem: &str, ca: &str) -> Self {
        let dir = PathBuf::from("/etc/wasmbed");
        Self {
            cert_file: dir.join(format!("{stem}.crt")),
            key_file: dir.join(format!("{stem}.key")),
            ca_file: dir.join(ca),
            services_ca_file: None,
            operators_ca_file: None,
            factory_ca_file: None,
        }
    }

    /// The root of the services.
    #[must_use]
    pub fn services_ca_file(&self) -> PathBuf {
        self.services_ca_file.clone().unwrap_or_else(|| self.ca_file.with_file_name("services-ca.crt"))
    }
}

/// Where `/health`, `/ready` and `/metrics` are served over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// Address to listen at.
    pub host: String,
    /// Port to listen at; 0 takes a free one.
    pub port: u16,
    /// Path at which liveness is answered besides `/health`.
    pub path: String,
}

impl Default for HealthSection {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 8080, path: "/health".to_owned() }
    }
}

/// How the Kubernetes API is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// A kubeconfig; absent means `KUBECONFIG`, `~/.kube/config` or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// A level, or `target=level` pairs with commas.
    pub level: String,
    /// `auto`, `json` or `text`.
    pub format: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: "auto".to_owned() }
    }
}

#[cfg(test)]
mod tests;
