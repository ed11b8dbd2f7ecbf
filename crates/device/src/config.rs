//! What a device is made with, and what can be wrong with it.

use std::{io, path::PathBuf, time::Duration};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use wasmbed_pki::{
    CertificateError, FactoryIdError, Identity, PairingToken, PkiError, SpiffeId, tls::TlsError,
};
use wasmbed_protocol::limits::MODULE_BYTES_MAX;
use wasmbed_runtime::RuntimeConfig;

/// Serial devices of one device: a device names 16 things at most, and has eight pins.
pub(crate) const UARTS_MAX: usize = 8;

/// The board that a Linux process is.
#[derive(Clone, Debug)]
pub struct BoardConfig {
    /// Board or host type.
    pub board: String,
    /// The sandbox: its arena, its bounds, and how many applications run at once.
    pub runtime: RuntimeConfig,
    /// Bytes of storage for modules, state and applications' data.
    pub storage_bytes: u64,
    /// The largest module accepted, bytes.
    pub module_bytes_max: u32,
    /// Whether applications can be granted its pins by name, and so their edges. Fleets have none, which keeps the facts of thousands
    /// of Devices small.
    pub names_pins: bool,
    /// Serial devices that applications may use, eight at most: the first is `uart0`. One that is missing when it is to be used is
    /// looked for again with each call.
    pub uarts: Vec<PathBuf>,
}

impl Default for BoardConfig {
    /// A small Linux board: room for ten applications of 1 MiB and their modules.
    fn default() -> Self {
        Self {
            board: "linux".into(),
            runtime: RuntimeConfig::hosted(),
            storage_bytes: 64 * 1_024 * 1_024,
            module_bytes_max: MODULE_BYTES_MAX,
            names_pins: true,
            uarts: Vec::new(),
        }
    }
}

impl BoardConfig {
    /// The board of the project's budgets, 512 KiB of RAM and 4 MiB of flash: what each device of a simulated fleet is.
    #[must_use]
    pub fn microcontroller() -> Self {
        Self {
            board: "linux-simulated".into(),
            runtime: RuntimeConfig::default(),
            storage_bytes: 4 * 1_024 * 1_024,
            module_bytes_max: 256 * 1_024,
            names_pins: false,
            uarts: Vec::new(),
        }
    }
}

/// What a device was given.
#[derive(Debug)]
pub enum DeviceIdentity {
    /// A certificate of the fleet; its namespace and name stand in it.
    Operational(Identity),
    /// A certificate of its maker, with which it joins.
    Factory(Identity),
    /// A token, with which it joins once.
    Pairing {
        /// The token.
        token: PairingToken,
        /// Of the fleet.
        trust_domain: String,
    },
}

impl From<Identity> for DeviceIdentity {
    fn from(identity: Identity) -> Self {
        Self::Operational(identity)
    }
}

/// One device.
#[derive(Debug)]
pub struct DeviceConfig {
    /// What it was given to be told apart by.
    pub identity: DeviceIdentity,
    /// Roots below which gateways stand; two slots, so that a new root can arrive before the old one goes.
    pub services_roots: Vec<CertificateDer<'static>>,
    /// `host:port`, tried in this order.
    pub gateways: Vec<String>,
    /// Where modules, state and data are kept; one process at a time.
    pub data_dir: PathBuf,
    /// The board.
    pub board: BoardConfig,
    /// The file that the key of an operational identity came from, which is erased when the device is decommissioned.
    pub key_file: Option<PathBuf>,
    /// How long one address of a gateway may take for the TCP connection and the handshake.
    pub connect_timeout: Duration,
    /// How long the device loop may stand still before the watchdog ends the process.
    pub watchdog_timeout: Duration,
}

impl DeviceConfig {
    /// Devices of this class reset after some seconds; a round of the loop takes well under 100 ms.
    pub const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(8);

    /// A handshake takes two round trips and a few milliseconds of CPU on either side, which may be busy.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// A device with a board and a watchdog as usual.
    #[must_use]
    pub fn new(
        identity: impl Into<DeviceIdentity>,
        services_roots: Vec<CertificateDer<'static>>,
        gateways: Vec<String>,
        data_dir: PathBuf,
    ) -> Self {
        Self {
            identity: identity.into(),
            services_roots,
            gateways,
            data_dir,
            board: BoardConfig::default(),
            key_file: None,
            connect_timeout: Self::CONNECT_TIMEOUT,
            watchdog_timeout: Self::WATCHDOG_TIMEOUT,
        }
    }
}

/// Why there is no identity for a device; whoever makes them knows.
pub type IssueError = Box<dyn std::error::Error + Send + Sync>;

/// Why a device could not start or had to end.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// Configuration: no gateway to connect to.
    #[error("no gateway is configured: give at least one as host:port")]
    NoGateway,
    /// Configuration: a gateway that is not `host:port`.
    #[error("the gateway {0:?} is not host:port")]
    Gateway(String),
    /// Configuration: the certificate says nothing that we understand.
    #[error("the device's certificate is not usable: {0}")]
    Certificate(#[from] CertificateError),
    /// Configuration: a certificate for something else.
    #[error("the certificate is for {0}, which is not a device")]
    NotADevice(SpiffeId),
    /// Configuration: a certificate that is not a factory's.
    #[error("the factory certificate is not usable: {0}")]
    NotAFactory(#[from] FactoryIdError),
    /// Configuration: a trust domain that no certificate can carry.
    #[error("{0:?} is not a trust domain: 1 to 255 of a-z, 0-9, '.', '-', '_'")]
    TrustDomain(String),
    /// Configuration: a key that signs nothing that we understand.
    #[error("the private key is not usable: {0}")]
    Key(#[from] PkiError),
    /// Configuration: TLS refuses the identity or the roots.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Configuration: another process uses the data directory.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Configuration: more serial devices than there are names.
    #[error("{0} serial devices are too many for one device, at most {UARTS_MAX}")]
    Uarts(usize),
    /// I/O: the data directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// I/O: the host gives no more threads, sockets or the like.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// Configuration: an identity for a device of a fleet could not be made.
    #[error("no identity for simulated device {index}: {problem}")]
    Identity {
        /// Which device.
        index: usize,
        /// What happened.
        problem: IssueError,
    },
    /// Configuration: a fleet larger than one process is made for.
    #[error("{devices} devices are too many for one process, at most {max}")]
    TooMany {
        /// How many were asked for.
        devices: usize,
        /// How many are possible.
        max: usize,
    },
    /// Configuration: a fleet larger than the host lets one process be.
    #[error(
        "{needed} devices need as many open files and the host leaves {allowed}: raise the limit (ulimit -Hn, LimitNOFILE)"
    )]
    Files {
        /// One for each device.
        needed: usize,
        /// What the hard limit leaves for them.
        allowed: usize,
    },
    /// Bug: the device loop panicked; the next start reports it to the gateway.
    #[error("the device loop panicked: {0}")]
    Panicked(String),
}

/// Checks that a gateway is `host:port`.
pub(crate) fn check_gateways(gateways: &[String]) -> Result<(), DeviceError> {
    if gateways.is_empty() {
        return Err(DeviceError::NoGateway);
    }
    for gateway in gateways {
        let port = gateway
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(DeviceError::Gateway(gateway.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_host_and_port() {
        let check = |gateway: &str| check_gateways(&[gateway.to_owned()]).is_ok();
        assert!(check("gateway.example:8080") && check("127.0.0.1:1") && check("[::1]:8080"));
        assert!(!check("gateway") && !check("gateway:0") && !check(":8080") && !check("gateway:http"));
        assert!(check_gateways(&[]).is_err());
    }
}
