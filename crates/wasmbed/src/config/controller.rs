//! The controller's configuration file.

use std::path::PathBuf;

use serde::Deserialize;

use super::{HealthSection, Kubernetes, Logging, Seconds, Section, Tls};

/// The file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerFile {
    /// The only section.
    pub controller: ControllerSection,
}

impl Section for ControllerFile {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Reconciliation { interval, max_retries, backoff_multiplier } = self.controller.reconciliation;
        if interval < Seconds::new(1) || interval > Seconds::new(86_400) {
            return Err((
                "controller.reconciliation.interval",
                format!("found {interval}, expected 1s to 24h"),
            ));
        }
        if max_retries > 100 {
            return Err((
                "controller.reconciliation.max_retries",
                format!("found {max_retries}, expected 0 to 100"),
            ));
        }
        if !(1.0..=100.0).contains(&backoff_multiplier) {
            let problem = format!("found {backoff_multiplier}, expected 1 to 100");
            return Err(("controller.reconciliation.backoff_multiplier", problem));
        }
        let timeout = self.controller.gateway.timeout;
        if timeout < Seconds::new(1) || timeout > Seconds::new(600) {
            return Err(("controller.gateway.timeout", format!("found {timeout}, expected 1s to 10m")));
        }
        let Leases { duration, gateway_grace } = self.controller.lease;
        if duration < Seconds::new(2) || duration > Seconds::new(600) {
            return Err(("controller.lease.duration", format!("found {duration}, expected 2s to 10m")));
        }
        if gateway_grace > Seconds::new(3_600) {
            let problem = format!("found {gateway_grace}, expected at most 1h");
            return Err(("controller.lease.gateway_grace", problem));
        }
        Ok(())
    }
}

/// All that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerSection {
    /// Name in its certificate and Lease. Default: the host's name.
    pub name: Option<String>,
    /// Namespace of the leader's Lease.
    pub namespace: String,
    /// The only namespace whose Applications, Modules and Devices it looks after. Default: all.
    pub watch_namespace: Option<String>,
    /// First part of all SPIFFE ids.
    pub trust_domain: String,
    /// Key under which values of Secrets are hashed: the same file for all controllers. Default: none, and Applications with
    /// `env_from` are refused.
    pub data_key_file: Option<PathBuf>,
    /// Certificate, key and trust.
    pub tls: Tls,
    /// How it works towards the desired state.
    pub reconciliation: Reconciliation,
    /// How it talks to gateways.
    pub gateway: ControllerGateway,
    /// When another takes its place, and when a gateway counts as gone.
    pub lease: Leases,
    /// Health, readiness and metrics.
    pub health: HealthSection,
    /// The Kubernetes API.
    pub kubernetes: Kubernetes,
    /// Logs.
    pub logging: Logging,
}

impl Default for ControllerSection {
    fn default() -> Self {
        Self {
            name: None,
            namespace: "wasmbed-system".to_owned(),
            watch_namespace: None,
            trust_domain: "wasmbed".to_owned(),
            data_key_file: None,
            tls: Tls::installed("controller", "services-ca.crt"),
            reconciliation: Reconciliation::default(),
            gateway: ControllerGateway::default(),
            lease: Leases::default(),
            health: HealthSection::default(),
            kubernetes: Kubernetes::default(),
            logging: Logging::default(),
        }
    }
}

/// How the controller works towards the desired state.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconciliation {
    /// Everything is looked at again this often, also without a change.
    pub interval: Seconds,
    /// Tries of a call that failed, before it waits for the next interval or change.
    pub max_retries: u32,
    /// Each pause between tries is this many times the one before; at least 1.
    pub backoff_multiplier: f64,
}

impl Default for Reconciliation {
    fn default() -> Self {
        Self { interval: Seconds::new(30), max_retries: 3, backoff_multiplier: 2.0 }
    }
}

/// How the controller talks to gateways.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerGateway {
    /// Used for every gateway instead of the address in its DeviceGateway. Always spoken to over TLS, whatever its scheme.
    pub url: Option<String>,
    /// For one call.
    pub timeout: Seconds,
}

impl Default for ControllerGateway {
    fn default() -> Self {
        Self { url: None, timeout: Seconds::new(30) }
    }
}

/// When another controller takes the leader's place, and when a gateway counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leases {
    /// A leader that has not renewed its Lease for this long is replaced; it renews three times as often.
    pub duration: Seconds,
    /// Added to a gateway's own Lease before its devices are called unreachable.
    pub gateway_grace: Seconds,
}

impl Default for Leases {
    fn default() -> Self {
        Self { duration: Seconds::new(10), gateway_grace: Seconds::new(10) }
    }
}
