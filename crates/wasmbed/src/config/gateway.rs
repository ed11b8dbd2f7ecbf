//! The gateway's configuration file.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Deserialize;

use super::{Enrollment, HealthSection, Kubernetes, Logging, Seconds, Section, Tls};

/// The file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayFile {
    /// The only section.
    pub gateway: GatewaySection,
}

impl Section for GatewayFile {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Heartbeat { interval, timeout } = self.gateway.heartbeat;
        if interval < Seconds::new(1) || interval > Seconds::new(3_600) {
            return Err(("gateway.heartbeat.interval", format!("found {interval}, expected 1s to 1h")));
        }
        if timeout <= interval || timeout > Seconds::new(86_400) {
            let problem =
                format!("found {timeout}, expected more than the interval of {interval} and at most 24h");
            return Err(("gateway.heartbeat.timeout", problem));
        }
        let Server { max_connections, handshake_timeout, .. } = self.gateway.server;
        if max_connections == 0 {
            return Err(("gateway.server.max_connections", "found 0, expected at least 1".to_owned()));
        }
        if self.gateway.writes_per_second == 0 {
            return Err(("gateway.writes_per_second", "found 0, expected at least 1".to_owned()));
        }
        if self.gateway.enrollment.pending_max == 0 {
            return Err(("gateway.enrollment.pending_max", "found 0, expected at least 1".to_owned()));
        }
        if self.gateway.enrollment.namespace.is_empty() {
            return Err(("gateway.enrollment.namespace", "found \"\", expected a namespace".to_owned()));
        }
        let (namespaces, joining) = (&self.gateway.namespaces, &self.gateway.enrollment.namespace);
        if !namespaces.is_empty() && !namespaces.contains(joining) {
            let served = namespaces.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let problem = format!("found {joining:?}, expected one of gateway.namespaces ({served})");
            return Err(("gateway.enrollment.namespace", problem));
        }
        if self.gateway.writes_burst == Some(0) {
            return Err(("gateway.writes_burst", "found 0, expected at least 1".to_owned()));
        }
        self.gateway.messages.check()?;
        if handshake_timeout < Seconds::new(1) || handshake_timeout > Seconds::new(300) {
            let problem = format!("found {handshake_timeout}, expected 1s to 5m");
            return Err(("gateway.server.handshake_timeout", problem));
        }
        Ok(())
    }
}

/// All that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Name of its DeviceGateway and in its certificate. Default: the host's name.
    pub name: Option<String>,
    /// Namespace of its DeviceGateway and Lease.
    pub namespace: String,
    /// `host:port` that devices and controllers are told. Default: the name and the port.
    pub advertise: Option<String>,
    /// First part of all SPIFFE ids.
    pub trust_domain: String,
    /// Where sets and modules are kept.
    pub data_dir: PathBuf,
    /// Namespaces whose devices it serves. Default: all.
    pub namespaces: BTreeSet<String>,
    /// Keys that encrypt sets with values of Secrets in `data_dir`. Default: none, and such sets are kept in memory only.
    pub data_key_file: Option<PathBuf>,
    /// Who comes into the fleet.
    pub enrollment: Enrollment,
    /// Certificate, key and trust.
    pub tls: Tls,
    /// The one port for devices and controllers.
    pub server: Server,
    /// Signs of life.
    pub heartbeat: Heartbeat,
    /// Messages of applications on its disk.
    pub messages: Messages,
    /// Writes to the Kubernetes API each second, sustained.
    pub writes_per_second: u32,
    /// Writes to the Kubernetes API in a burst. Default: four for each of `server.max_connections`.
    pub writes_burst: Option<u32>,
    /// Health, readiness and metrics.
    pub health: HealthSection,
    /// The Kubernetes API.
    pub kubernetes: Kubernetes,
    /// Logs.
    pub logging: Logging,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            name: None,
            namespace: "wasmbed-system".to_owned(),
            advertise: None,
            trust_domain: "wasmbed".to_owned(),
            data_dir: PathBuf::from("/var/lib/wasmbed/gateway"),
            namespaces: BTreeSet::new(),
            data_key_file: None,
            enrollment: Enrollment::default(),
            tls: Tls::installed("gateway", "ca.crt"),
            server: Server::default(),
            heartbeat: Heartbeat::default(),
            messages: Messages::default(),
            writes_per_second: 50,
            writes_burst: None,
            health: HealthSection { port: 8082, ..HealthSection::default() },
            kubernetes: Kubernetes::default(),
            logging: Logging::default(),
        }
    }
}

/// The port for devices and controllers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address to listen at.
    pub host: String,
    /// Port to listen at; 0 takes a free one.
    pub port: u16,
    /// Device sessions at most.
    pub max_connections: usize,
    /// From the first byte to the end of the handshake.
    pub handshake_timeout: Seconds,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 8080,
            max_connections: 1_000,
            handshake_timeout: Seconds::new(10),
        }
    }
}

/// Signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// How often a device sends one.
    pub interval: Seconds,
    /// Silence after which a session ends.
    pub timeout: Seconds,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Seconds::new(30), timeout: Seconds::new(90) }
    }
}

/// Messages of applications on the gateway's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messages {
    /// Bytes of all of them; the oldest go.
    pub bytes_max: u64,
    /// Those that are older go.
    pub age_max: Seconds,
    /// Bytes of one device's; more are refused. Default: a sixteenth of `bytes_max`.
    pub device_bytes_max: Option<u64>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, age_max: Seconds::new(86_400), device_bytes_max: None }
    }
}

impl Messages {
    /// Bytes of one device's messages.
    #[must_use]
    pub fn device_bytes_max(&self) -> u64 {
        self.device_bytes_max.unwrap_or(self.bytes_max / 16)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let (least, most) = (1 << 20, 1 << 40);
        if !(least..=most).contains(&self.bytes_max) {
            let problem = format!("found {}, expected {least} (1 MiB) to {most} (1 TiB)", self.bytes_max);
            return Err(("gateway.messages.bytes_max", problem));
        }
        if self.age_max < Seconds::new(60) || self.age_max > Seconds::new(90 * 86_400) {
            return Err((
                "gateway.messages.age_max",
                format!("found {}, expected 1m to 90 days", self.age_max),
            ));
        }
        let share = self.device_bytes_max();
        if !(4_096..=self.bytes_max).contains(&share) {
            let problem = format!("found {share}, expected 4096 to gateway.messages.bytes_max");
            return Err(("gateway.messages.device_bytes_max", problem));
        }
        Ok(())
    }
}
