//! `wasmbed device`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use wasmbed_device::{DeviceConfig, DeviceIdentity};
use wasmbed_emulator::Kind;
use wasmbed_pki::{Identity, PairingToken, read_certificates};

use super::board::{Board, Running};
use crate::{
    machine::{
        layout::TRUST_DOMAIN,
        provision::{self, Chosen},
    },
    runtime::shutdown_on_signal,
    runtime::start_logging,
    values,
};

/// How to run a device on this machine. Its namespace and name stand in its certificate, which it has from the start or joins for:
/// with its maker's certificate or with a pairing token. What it joined for is in its data folder, and renewed by itself.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A gateway as host:port; may be given again, they are tried in this order.
    #[arg(
        long = "gateway",
        value_name = "HOST:PORT",
        required = true,
        env = "WASMBED_DEVICE_GATEWAYS",
        value_delimiter = ',',
        value_parser = values::gateway
    )]
    gateways: Vec<String>,
    /// PEM: its certificate, then the issuing authority.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_CERT_FILE", default_value = "device.crt")]
    cert_file: PathBuf,
    /// PEM: its key.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_KEY_FILE", default_value = "device.key")]
    key_file: PathBuf,
    /// PEM: the certificate of its maker, then the issuing authority: join with it instead.
    #[arg(
        long,
        value_name = "FILE",
        env = "WASMBED_DEVICE_FACTORY_CERT_FILE",
        requires = "factory_key_file",
        conflicts_with_all = ["cert_file", "key_file"]
    )]
    factory_cert_file: Option<PathBuf>,
    /// PEM: the key of its maker's certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = "WASMBED_DEVICE_FACTORY_KEY_FILE",
        requires = "factory_cert_file"
    )]
    factory_key_file: Option<PathBuf>,
    /// A file with a pairing token, as `wasmbed devices pair` gives it: join with it instead. It is used once.
    #[arg(
        long,
        value_name = "FILE",
        env = "WASMBED_DEVICE_PAIRING_TOKEN_FILE",
        conflicts_with_all = ["cert_file", "key_file", "factory_cert_file"]
    )]
    pairing_token_file: Option<PathBuf>,
    /// The pairing token itself. Other users of the machine can read a command line: the file or the environment keeps it from them.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "WASMBED_DEVICE_PAIRING_TOKEN",
        hide_env_values = true,
        conflicts_with_all = ["cert_file", "key_file", "factory_cert_file", "pairing_token_file"]
    )]
    pairing_token: Option<String>,
    /// First part of all SPIFFE ids of the fleet, which a pairing token does not say.
    #[arg(long, env = "WASMBED_DEVICE_TRUST_DOMAIN", default_value = TRUST_DOMAIN)]
    trust_domain: String,
    /// PEM: the root of the services; a second one may follow the first.
    #[arg(long, value_name = "FILE", env = "WASMBED_DEVICE_CA_FILE", default_value = "services-ca.crt")]
    ca_file: PathBuf,
    /// Folder of modules, state, applications' data and the key and certificates that it joined for; one process at a time.
    #[arg(long, value_name = "DIR", env = "WASMBED_DEVICE_DATA_DIR", default_value = "device-data")]
    data_dir: PathBuf,
    /// Run this board's firmware in QEMU instead.
    #[arg(long, value_parser = values::emulated_board())]
    board: Option<Kind>,
    /// Folder of BOARD.elf [default: WASMBED_FIRMWARE, or firmware beside or above this program's folder].
    #[arg(long, value_name = "DIR", requires = "board")]
    firmware: Option<PathBuf>,
    /// Memory for all applications together, bytes or for example 512Ki; with --board, of the whole board.
    #[arg(long, value_name = "BYTES", env = "WASMBED_DEVICE_MEMORY", value_parser = values::bytes_of::<usize>)]
    memory: Option<usize>,
    /// A serial device that applications may use, for example /dev/ttyUSB0: the first is uart0. May be given several times.
    #[arg(
        long = "uart",
        value_name = "PATH",
        env = "WASMBED_DEVICE_UARTS",
        value_delimiter = ',',
        conflicts_with = "board"
    )]
    uarts: Vec<PathBuf>,
    /// A level, or `target=level` pairs with commas.
    #[arg(long, env = "WASMBED_LOG", default_value = "info")]
    log_level: String,
    /// auto, json or text.
    #[arg(long, env = "WASMBED_LOG_FORMAT", default_value = "auto")]
    log_format: String,
}

/// What else there is to do about a device.
#[derive(clap::Subcommand)]
enum Command {
    /// Write a microcontroller's identity into an image of its data flash.
    Provision(Box<provision::Args>),
}

/// Runs until a signal, or until the device was decommissioned and its key is erased.
///
/// # Errors
/// When it can't start, or fails. A gateway that can't be reached is no error.
pub(crate) async fn run(arguments: Args) -> Result<()> {
    if let Some(Command::Provision(arguments)) = &arguments.command {
        return provision::run(arguments);
    }
    start_logging(&arguments.log_format, &arguments.log_level)?;
    let shutdown = shutdown_on_signal()?;
    if let Some(kind) = arguments.board {
        let board = Board {
            kind,
            identity: Chosen::new(&identity(&arguments)?)?,
            firmware: arguments.firmware,
            memory: arguments.memory,
            data_dir: arguments.data_dir,
            services_roots: read_certificates(&arguments.ca_file)?,
            gateways: arguments.gateways,
        };
        return Running::start(board).await?.run(&shutdown).await;
    }
    let identity = identity(&arguments)?;
    let roots = read_certificates(&arguments.ca_file)?;
    let is_operational = matches!(identity, DeviceIdentity::Operational(_));
    let mut config = DeviceConfig::new(identity, roots, arguments.gateways, arguments.data_dir);
    config.key_file = is_operational.then_some(arguments.key_file);
    config.board.uarts = arguments.uarts;
    if let Some(bytes) = arguments.memory {
        config.board.runtime.arena_bytes = bytes;
    }
    let device = wasmbed_device::start(config)?;
    let stop = device.stopper();
    let stopping = tokio::spawn(async move {
        shutdown.cancelled().await;
        stop.stop();
    });
    let ended =
        tokio::task::spawn_blocking(move || device.wait()).await.context("the device's waiter panicked")?;
    stopping.abort();
    Ok(ended?)
}

/// What the device is told apart by.
fn identity(arguments: &Args) -> Result<DeviceIdentity> {
    let token = match (&arguments.pairing_token, &arguments.pairing_token_file) {
        (Some(text), _) => Some(text.parse::<PairingToken>().context("--pairing-token")?),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(text.parse::<PairingToken>().with_context(|| path.display().to_string())?)
        }
        (None, None) => None,
    };
    if let Some(token) = token {
        return Ok(DeviceIdentity::Pairing { token, trust_domain: arguments.trust_domain.clone() });
    }
    if let (Some(certificate), Some(key)) = (&arguments.factory_cert_file, &arguments.factory_key_file) {
        return Ok(DeviceIdentity::Factory(Identity::read(certificate, key)?));
    }
    Ok(DeviceIdentity::Operational(Identity::read(&arguments.cert_file, &arguments.key_file)?))
}
