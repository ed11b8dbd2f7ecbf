//! `wasmbed up`: every role on one machine, over the sockets and files that separate processes would use.

mod boards;
mod progress;
mod roles;
mod sample;
mod wait;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use tokio_util::sync::CancellationToken;

use self::{boards::Board, progress::Progress, roles::Roles};
use crate::{
    cluster::kubeconfig,
    commands::logs,
    login::Login,
    machine::layout::{DirLock, KubeUser, Layout, SYSTEM_NAMESPACE},
    output::Screen,
    runtime::shutdown_on_signal,
    runtime::start_logging,
};

/// Devices at most: `simulate` runs more against any gateway.
const DEVICES_MAX: u16 = 1_000;
/// Namespace of the devices and the sample.
const NAMESPACE: &str = "default";

/// What to run, and where.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of all state [default: $XDG_STATE_HOME/wasmbed or ~/.local/state/wasmbed].
    #[arg(long, value_name = "DIR", env = "WASMBED_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// How many devices to run on this machine.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=i64::from(DEVICES_MAX)))]
    devices: u16,
    /// How many emulated microcontrollers to run besides: of each emulated board in turn, each in a QEMU.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(boards::BOARDS_MAX)))]
    qemu: u16,
    /// With --qemu: folder of BOARD.elf [default: WASMBED_FIRMWARE, or firmware beside or above this program's folder].
    #[arg(long, value_name = "DIR", requires = "qemu")]
    firmware: Option<PathBuf>,
    /// Deploy no sample Application.
    #[arg(long)]
    no_sample: bool,
    /// Namespace in which the controller may get Secrets, for env_from of Applications; can be repeated.
    #[arg(long, value_name = "NAMESPACE", default_value = NAMESPACE)]
    secret_namespace: Vec<String>,
    /// Forget all state in the folder first: objects, identities, modules and applications' data.
    #[arg(long)]
    reset: bool,
    /// Port of the Kubernetes API on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    apiserver_port: u16,
    /// Port for devices and controllers on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    gateway_port: u16,
    /// Port of the controller's health and metrics on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    controller_health_port: u16,
    /// Port of the gateway's health and metrics on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8082)]
    gateway_health_port: u16,
    /// Port of the signer's health and metrics on loopback; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8083)]
    signer_health_port: u16,
    /// Take free ports instead of all of the above.
    #[arg(long)]
    free_ports: bool,
    /// A level, or `target=level` pairs with commas; the progress on screen is apart from it.
    #[arg(long, env = "WASMBED_LOG", default_value = "warn")]
    log_level: String,
    /// auto, json or text.
    #[arg(long, env = "WASMBED_LOG_FORMAT", default_value = "auto")]
    log_format: String,
}

impl Args {
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, if self.free_ports { 0 } else { port }))
    }
}

/// Runs everything until a signal.
///
/// # Errors
/// When a role can't start or fails.
pub(crate) async fn run(arguments: Args) -> Result<()> {
    start_logging(&arguments.log_format, &arguments.log_level)?;
    let interrupted = shutdown_on_signal()?;
    let boards = boards::plan(arguments.qemu);
    boards::check(&boards, arguments.firmware.as_deref())?;
    let dir = arguments.data_dir.clone().map_or_else(default_dir, Ok)?;
    let _lock = DirLock::take(&dir)?;
    if arguments.reset {
        reset(&dir)?;
    }
    let screen = Screen::default();
    let mut progress = Progress::new(screen.clone());
    let layout = Layout::create_or_open(&dir)?;
    progress.done("identities", &layout.dir().join("pki").display().to_string());
    let mut roles = Roles::default();
    let started = tokio::select! {
        started = start(&arguments, &boards, &layout, &mut roles, &mut progress, &screen) => started.map(Some),
        () = interrupted.cancelled() => Ok(None),
        () = screen.closed() => Ok(None),
    };
    let ended_early = match &started {
        Ok(Some(())) => tokio::select! {
            () = interrupted.cancelled() => false,
            () = screen.closed() => false,
            () = roles.any_ended() => true,
        },
        Ok(None) | Err(_) => false,
    };
    screen.line("\nstopping");
    let stopped = roles.stop().await;
    started?;
    stopped?;
    ensure!(!ended_early, "a component exited unexpectedly; see the log above");
    screen.line(&format!("stopped; `wasmbed up` carries on with the state in {}", layout.dir().display()));
    Ok(())
}

async fn start(
    arguments: &Args,
    boards: &[Board],
    layout: &Layout,
    roles: &mut Roles,
    progress: &mut Progress,
    screen: &Screen,
) -> Result<()> {
    let started = jiff::Timestamp::now();
    let listen = arguments.address(arguments.apiserver_port);
    let api = roles.start_apiserver(layout, listen, &arguments.secret_namespace).await?;
    let kubeconfig = layout.write_kubeconfig(api, KubeUser::Administrator)?;
    progress.done("Kubernetes API", &format!("https://{api}"));
    let client = kube::Client::try_from(kubeconfig::client_config(Some(&kubeconfig)).await?)
        .context("can't make a client of the Kubernetes API")?;
    for namespace in [SYSTEM_NAMESPACE, wasmbed_api::PAIRING_NAMESPACE] {
        sample::ensure_namespace(&client, namespace).await?;
    }

    let gateway_port = arguments.address(arguments.gateway_port);
    let gateway = roles
        .start_gateway(layout, api, gateway_port, arguments.address(arguments.gateway_health_port))
        .await?;
    progress
        .done("gateway", &format!("{} (health and metrics at http://{})", gateway.server, gateway.health));
    let health =
        roles.start_controller(layout, api, arguments.address(arguments.controller_health_port)).await?;
    progress.done("controller", &format!("health and metrics at http://{health}"));
    let health = roles.start_signer(layout, api, arguments.address(arguments.signer_health_port)).await?;
    progress.done("signer", &format!("health and metrics at http://{health}"));

    let mut names: Vec<String> =
        (1..=arguments.devices).map(|number| format!("device-{number:03}")).collect();
    let mut identities = Vec::with_capacity(names.len());
    for name in &names {
        let identity = layout.given_identity(NAMESPACE, name)?;
        sample::ensure_device(&client, NAMESPACE, name, "linux", &identity).await?;
        identities.push(identity);
    }
    if !identities.is_empty() {
        roles.start_devices(layout, identities, gateway.server)?;
    }
    for board in boards {
        let identity = layout.given_identity(NAMESPACE, &board.name)?;
        sample::ensure_device(&client, NAMESPACE, &board.name, board.kind.name(), &identity).await?;
        let data_dir = layout.devices_dir().join(NAMESPACE).join(&board.name);
        roles
            .start_board(layout, board, arguments.firmware.clone(), data_dir, &identity, gateway.server)
            .await?;
        names.push(board.name.clone());
    }
    follow_logs(layout, gateway.server, screen.clone(), roles.followers()).await?;
    let connected = wait::until_connected(&client, NAMESPACE, &names, started, progress).await?;
    if !arguments.no_sample && !names.is_empty() {
        sample::ensure_application(&client, NAMESPACE).await?;
    }
    if !arguments.no_sample && connected > 0 {
        wait::until_running(&client, NAMESPACE, sample::NAME, progress).await?;
    }
    screen.line(&format!("\n  export KUBECONFIG={}", kubeconfig.display()));
    screen.line("  kubectl get wdev,wapp,wgw -A -o wide\n\nready");
    Ok(())
}

/// Prints applications' log lines as the gateway receives them: the administrator logs in as anybody would.
async fn follow_logs(
    layout: &Layout,
    gateway: SocketAddr,
    screen: Screen,
    stop: CancellationToken,
) -> Result<()> {
    let login = Login::at(layout.kubeconfig(), layout.login_dir()).await?;
    let source = logs::Source {
        credentials: logs::Credentials::Login(Arc::new(login)),
        gateways: vec![gateway.to_string()],
        all_gateways: true,
    };
    tokio::spawn(async move {
        let print = |line| screen.line(&format!("  {}", logs::render(&line)));
        let follow = logs::follow(source, logs::Filter::default(), print);
        tokio::select! {
            ended = follow => if let Err(error) = ended {
                tracing::warn!(error = wasmbed_telemetry::with_causes(error.as_ref()), "log lines are no longer followed");
            },
            () = stop.cancelled() => {}
        }
    });
    Ok(())
}

fn default_dir() -> Result<PathBuf> {
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(state).join("wasmbed"));
    }
    let home = std::env::var_os("HOME").context("neither XDG_STATE_HOME nor HOME is set; say --data-dir")?;
    Ok(PathBuf::from(home).join(".local/state/wasmbed"))
}

/// Removes what `up` keeps, and nothing else that may lie in the folder.
fn reset(dir: &Path) -> Result<()> {
    for name in ["pki", "apiserver", "gateway", "data-keys", "devices"] {
        let path = dir.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_file(dir.join("kubeconfig")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("can't remove the kubeconfig")
        }
        _ => Ok(()),
    }
}
