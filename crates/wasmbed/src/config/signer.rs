//! The signer's configuration file.

use std::path::PathBuf;

use serde::Deserialize;

use super::{HealthSection, Kubernetes, Logging, Seconds, Section};

/// A year, as long as devices' certificates may live.
const LIFETIME_MAX: Seconds = Seconds::new(365 * 86_400);
/// A day, as long as people's certificates may live.
const OPERATORS_LIFETIME_MAX: Seconds = Seconds::new(86_400);

/// The file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerFile {
    /// The only section.
    pub signer: SignerSection,
}

impl Section for SignerFile {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let lifetime = self.signer.lifetime;
        if lifetime < Seconds::new(600) || lifetime > LIFETIME_MAX {
            return Err(("signer.lifetime", format!("found {lifetime}, expected 10m to 8760h")));
        }
        let lifetime = self.signer.operators.lifetime;
        if lifetime < Seconds::new(600) || lifetime > OPERATORS_LIFETIME_MAX {
            return Err(("signer.operators.lifetime", format!("found {lifetime}, expected 10m to 24h")));
        }
        Ok(())
    }
}

/// All that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerSection {
    /// Name in Events and logs. Default: the host's name.
    pub name: Option<String>,
    /// Namespace of the Secrets with the keys of pairing tokens; nothing else belongs there.
    pub namespace: String,
    /// First part of all SPIFFE ids.
    pub trust_domain: String,
    /// What it signs with.
    pub issuer: SignerIssuer,
    /// Roots below which devices' certificates are, for renewal.
    pub devices_ca_file: PathBuf,
    /// Roots below which factory certificates are. Default: none, and no factory certificate counts.
    pub factory_ca_file: Option<PathBuf>,
    /// Of devices' certificates.
    pub lifetime: Seconds,
    /// How people's certificates are issued.
    pub operators: SignerOperators,
    /// Health, readiness and metrics.
    pub health: HealthSection,
    /// The Kubernetes API.
    pub kubernetes: Kubernetes,
    /// Logs.
    pub logging: Logging,
}

impl Default for SignerSection {
    fn default() -> Self {
        Self {
            name: None,
            namespace: wasmbed_api::PAIRING_NAMESPACE.to_owned(),
            trust_domain: "wasmbed".to_owned(),
            issuer: SignerIssuer::default(),
            devices_ca_file: "/etc/wasmbed/devices-ca.crt".into(),
            factory_ca_file: None,
            lifetime: Seconds::new(90 * 86_400),
            operators: SignerOperators::default(),
            health: HealthSection::default(),
            kubernetes: Kubernetes::default(),
            logging: Logging::default(),
        }
    }
}

/// How people's certificates are issued.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerOperators {
    /// The operators' issuing authority. Default: none, and people get no certificates.
    pub issuer: Option<SignerIssuer>,
    /// PEM: roots below which gateways are; they come with each certificate.
    pub services_ca_file: PathBuf,
    /// Of people's certificates.
    pub lifetime: Seconds,
}

impl Default for SignerOperators {
    fn default() -> Self {
        Self {
            issuer: None,
            services_ca_file: "/etc/wasmbed/services-ca.crt".into(),
            lifetime: Seconds::new(12 * 3_600),
        }
    }
}

/// An issuing authority; by default the devices'.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignerIssuer {
    /// PEM: its certificate.
    pub cert_file: PathBuf,
    /// PEM, PKCS#8.
    pub key_file: PathBuf,
}

impl Default for SignerIssuer {
    fn default() -> Self {
        Self {
            cert_file: "/etc/wasmbed/devices-issuing.crt".into(),
            key_file: "/etc/wasmbed/devices-issuing.key".into(),
        }
    }
}
