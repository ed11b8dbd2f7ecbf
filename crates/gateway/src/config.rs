//! What a gateway process is given: resolved values, no files of configuration.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use wasmbed_control::gateway::config::PENDING_MAX;
pub use wasmbed_control::gateway::{Enrollment, MessageLimits};

/// A gateway process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of its DeviceGateway and of its certificate.
    pub name: String,
    /// Namespace of its DeviceGateway and its Lease.
    pub namespace: String,
    /// Where devices and controllers connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` under which they find it, as in the DeviceGateway. `None`: the bound address, loopback if
    /// it listens on all.
    pub advertise: Option<String>,
    /// Plain HTTP for `/health`, `/ready`, `/metrics`; `None` serves none.
    pub health_listen: Option<SocketAddr>,
    /// Certificates and roots.
    pub tls: TlsFiles,
    /// The part of every SPIFFE id after `spiffe://`.
    pub trust_domain: String,
    /// Sets and modules.
    pub data_dir: PathBuf,
    /// Namespaces whose devices are served; all if there is none.
    pub namespaces: BTreeSet<String>,
    /// Keys that encrypt sets with values of Secrets in `data_dir`, one of 64 hexadecimal digits on each line, the newest first.
    /// Without it such sets are kept in memory only.
    pub data_key: Option<PathBuf>,
    /// What happens to devices that no Device object names.
    pub enrollment: Enrollment,
    /// Devices that have no certificate of the fleet yet.
    pub joining: Joining,
    /// How often devices say that they live.
    pub heartbeat_interval: Duration,
    /// Silence after which a session ends.
    pub heartbeat_timeout: Duration,
    /// Sessions at most.
    pub max_connections: usize,
    /// Bounds on what a peer may cost.
    pub limits: Limits,
    /// Writes to the Kubernetes API each second, sustained.
    pub writes_per_second: u32,
    /// Writes to the Kubernetes API in a burst. `None`: four for each connection that is allowed.
    pub writes_burst: Option<u32>,
    /// Bounds of the outbox for messages of applications; `None` takes no messages.
    pub messages: Option<MessageLimits>,
    /// How to reach the Kubernetes API.
    pub kube: kube::Config,
}

/// Files of the gateway's identity and of what it trusts, all PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The gateway's certificate, then its issuing authorities.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
    /// Roots that devices' certificates lead to.
    pub device_roots: PathBuf,
    /// Roots that controllers' certificates lead to.
    pub services_roots: PathBuf,
    /// Roots that people's certificates lead to; without them nobody but controllers calls.
    pub operators_roots: Option<PathBuf>,
    /// Roots that certificates of factories lead to; without them no device joins with one.
    pub factory_roots: Option<PathBuf>,
}

/// How devices join that have no certificate of the fleet yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Whether a client with a certificate that it signed itself may come in and name a pairing token.
    pub tokens: bool,
    /// Namespace of the Devices that are created for devices from a factory.
    pub namespace: String,
    /// Devices in a namespace that name a serial and are not approved, at most, before no more are created.
    pub pending_max: usize,
}

impl Default for Joining {
    fn default() -> Self {
        Self { tokens: true, namespace: "default".to_owned(), pending_max: PENDING_MAX }
    }
}

/// Bounds on what a peer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Connections in their handshake, all together. A handshake costs some 30 kB while it lasts.
    pub handshakes_max: usize,
    /// Connections in their handshake from one address, three quarters of all: a fleet behind one address translator is
    /// served as fast as the processor can, and others find a place at once. Further ones wait.
    pub handshakes_per_source_max: usize,
    /// From a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// For the peer to take a batch of frames.
    pub write_timeout: Duration,
    /// HTTPS connections of controllers and operators.
    pub api_connections_max: usize,
    /// Bytes of all modules on disk.
    pub modules_bytes_max: u64,
    /// For sessions to end and statuses to be written when the process stops.
    pub shutdown_timeout: Duration,
    /// Between two looks at the certificate files, which may be renewed while the gateway runs.
    pub certificates_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 2_048,
            handshakes_per_source_max: 1_536,
            frame_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            api_connections_max: 64,
            modules_bytes_max: 1024 * 1024 * 1024,
            shutdown_timeout: Duration::from_secs(5),
            certificates_interval: wasmbed_pki::RENEWAL_INTERVAL,
        }
    }
}

impl Config {
    /// A gateway with the documented defaults: port 8080 on all addresses, health on loopback port 8082, 1,000
    /// connections, a heartbeat every 30 s, enrollment by approval.
    #[must_use]
    pub fn new(name: &str, trust_domain: &str, tls: TlsFiles, data_dir: PathBuf, kube: kube::Config) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "wasmbed-system".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 8_080)),
            advertise: None,
            health_listen: Some(SocketAddr::from(([127, 0, 0, 1], 8_082))),
            tls,
            trust_domain: trust_domain.to_owned(),
            data_dir,
            namespaces: BTreeSet::new(),
            data_key: None,
            enrollment: Enrollment::Approval,
            joining: Joining::default(),
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(90),
            max_connections: 1_000,
            limits: Limits::default(),
            writes_per_second: 50,
            writes_burst: None,
            messages: Some(MessageLimits::default()),
            kube,
        }
    }
}
