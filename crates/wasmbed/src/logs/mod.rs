//! `wasmbed logs`: what applications wrote, read from the gateways with an operator's identity.

mod stream;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use kube::{Api, api::ListParams};
use rustls_pki_types::CertificateDer;
use tokio::{sync::mpsc, task::JoinSet};
use wasmbed_api::DeviceGateway;
use wasmbed_control::exchange::LogLine;
use wasmbed_pki::{Identity, read_certificates};

use crate::{
    cluster::{Cluster, ClusterArgs, explain},
    output::{self, harmless, print},
};
use stream::Gateway;

/// Lines that wait to be printed; gateways are read no faster than that.
const LINES_MAX: usize = 1_024;
/// First pause before a gateway that broke off is called again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause: a gateway that comes back is read again soon.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Show what applications wrote.
///
/// Gateways keep the newest lines; they are called with the identity of an operator.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this Application's lines.
    application: Option<String>,
    /// Only lines from this Device.
    #[arg(short, long, value_name = "NAME")]
    device: Option<String>,
    /// Lines of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on with new lines.
    #[arg(short, long)]
    follow: bool,
    /// Print lines as JSON.
    #[arg(long)]
    json: bool,
    /// A gateway, host:port; may be given several times [default: every DeviceGateway of the cluster].
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Folder with operator.crt, operator.key and services-root.crt [default: pki beside the kubeconfig].
    #[arg(long, value_name = "DIR", env = "WASMBED_PKI")]
    pki: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Which gateways to read, and as whom.
pub struct Source {
    /// An operator.
    pub identity: Identity,
    /// Below which the gateways stand.
    pub services_roots: Vec<CertificateDer<'static>>,
    /// The gateways' trust domain.
    pub trust_domain: String,
    /// `host:port` of each.
    pub gateways: Vec<String>,
}

/// Which lines; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of Applications in this namespace.
    pub namespace: Option<String>,
    /// Of the Application of this name.
    pub application: Option<String>,
    /// From the Device of this name.
    pub device: Option<String>,
}

/// Runs the command; an error is for a person and means exit code 1.
///
/// # Errors
/// No gateway could be read, or the identity can't be used.
pub async fn run(args: Args) -> Result<()> {
    let cluster = args.cluster.connect().await?;
    let gateways = match args.gateway.is_empty() {
        true => known_gateways(&cluster).await?,
        false => args.gateway.clone(),
    };
    let source = Source::operator(&pki_folder(&args)?, gateways)?;
    let filter = Filter {
        namespace: (!args.all_namespaces).then_some(cluster.namespace),
        application: args.application,
        device: args.device,
    };
    let json = args.json;
    let show = move |line: &LogLine| match json {
        true => serde_json::to_string(line).map(|text| print(&(text + "\n"))),
        false => {
            print(&(render(line) + "\n"));
            Ok(())
        }
    };
    if args.follow {
        follow(source, filter, |line| {
            if let Err(error) = show(&line) {
                output::complain(&format!("error: a line can't be printed as JSON: {error}"));
            }
        })
        .await
    } else {
        for line in read(source, filter).await? {
            show(&line)?;
        }
        Ok(())
    }
}

/// One line for a terminal. Nothing that an application wrote can steer the terminal.
#[must_use]
pub fn render(line: &LogLine) -> String {
    let lost = match line.lines_lost {
        0 => String::new(),
        1 => "(1 line lost) ".to_owned(),
        lost => format!("({lost} lines lost) "),
    };
    // Seconds are enough for people; JSON has the rest.
    let time = line.time.get(..19).unwrap_or(&line.time);
    let text = harmless(&line.text);
    format!("{time} {}/{} {} | {lost}{text}", line.device.namespace, line.device.name, line.application)
}

/// Every line that the gateways hold, by time.
///
/// # Errors
/// None of the gateways could be read, or the identity can't be used. Some that could not are named in the log.
pub async fn read(source: Source, filter: Filter) -> Result<Vec<LogLine>> {
    let gateways = source.gateways(&filter, false)?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for (gateway, answer) in gateways.iter().zip(join_all(gateways.iter().map(read_one)).await) {
        match answer {
            Ok(held) => lines.extend(held),
            Err(error) => failed.push(format!("gateway {}: {error:#}", gateway.address())),
        }
    }
    if failed.len() == gateways.len() {
        bail!("no gateway could be read: {}", failed.join("; "));
    }
    failed.iter().for_each(|failure| output::complain(&format!("warning: {failure}")));
    lines.sort_by(|a, b| (&a.time, &a.device, a.sequence).cmp(&(&b.time, &b.device, b.sequence)));
    Ok(lines)
}

async fn read_one(gateway: &Gateway) -> Result<Vec<LogLine>> {
    let mut stream = gateway.open().await?;
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await? {
        lines.push(line);
    }
    Ok(lines)
}

/// Every line that the gateways hold and then each new one, for as long as the future is polled. A gateway that breaks off is
/// called again; lines that were seen before are not repeated.
///
/// # Errors
/// The identity can't be used, or there is no gateway.
pub async fn follow(source: Source, filter: Filter, mut on_line: impl FnMut(LogLine)) -> Result<()> {
    let gateways = source.gateways(&filter, true)?;
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    // Dropped with this future, which ends the tasks.
    let mut tasks = JoinSet::new();
    for gateway in gateways {
        tasks.spawn(follow_one(gateway, sender.clone()));
    }
    drop(sender);
    while let Some(line) = lines.recv().await {
        on_line(line);
    }
    Ok(())
}

async fn follow_one(gateway: Gateway, lines: mpsc::Sender<LogLine>) {
    let mut seen = Seen::default();
    let mut pause = PAUSE_MIN;
    loop {
        let before = seen.time.clone();
        match follow_once(&gateway, &mut seen, &lines).await {
            Ok(End::NobodyListens) => return,
            Ok(End::Closed) => {
                tracing::debug!(gateway = gateway.address(), "the gateway ended the log stream")
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(gateway = gateway.address(), reason, "can't read logs, trying again");
            }
        }
        pause = if seen.time == before { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        tokio::time::sleep(pause).await;
    }
}

/// Why a stream is no longer read.
enum End {
    Closed,
    NobodyListens,
}

async fn follow_once(gateway: &Gateway, seen: &mut Seen, lines: &mpsc::Sender<LogLine>) -> Result<End> {
    let mut stream = gateway.open().await?;
    while let Some(line) = stream.next().await? {
        if seen.is_new(&line) && lines.send(line).await.is_err() {
            return Ok(End::NobodyListens);
        }
    }
    Ok(End::Closed)
}

/// Where a gateway's lines were read to. Its times never go back; lines of one instant are told apart by their place.
#[derive(Default)]
struct Seen {
    time: String,
    at_time: Vec<(String, String, u64)>,
}

impl Seen {
    fn is_new(&mut self, line: &LogLine) -> bool {
        let place = (
            format!("{}/{}", line.device.namespace, line.device.name),
            line.application.clone(),
            line.sequence,
        );
        match line.time.cmp(&self.time) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if self.at_time.contains(&place) => false,
            std::cmp::Ordering::Equal => {
                self.at_time.push(place);
                true
            }
            std::cmp::Ordering::Greater => {
                self.time.clone_from(&line.time);
                self.at_time = vec![place];
                true
            }
        }
    }
}

impl Source {
    /// An operator's files in a folder, as `wasmbed up` and `wasmbed pki` leave them.
    ///
    /// # Errors
    /// A file is missing or can't be used.
    pub fn operator(folder: &Path, gateways: Vec<String>) -> Result<Self> {
        let (chain, key) = Identity::files(folder, "operator");
        let identity = Identity::read(&chain, &key)
            .context("no operator's identity: say --pki DIR, for example the pki folder of `wasmbed up`")?;
        let trust_domain =
            identity.spiffe_id().with_context(|| format!("{} can't be used", chain.display()))?;
        let services_roots = read_certificates(&folder.join("services-root.crt"))?;
        Ok(Self { identity, services_roots, trust_domain: trust_domain.trust_domain().to_owned(), gateways })
    }

    fn gateways(&self, filter: &Filter, follow: bool) -> Result<Vec<Gateway>> {
        ensure!(!self.gateways.is_empty(), "the cluster has no DeviceGateway; is a gateway running?");
        let tls = stream::tls_config(self)?;
        Ok(self.gateways.iter().map(|address| Gateway::new(address, &tls, filter, follow)).collect())
    }
}

async fn known_gateways(cluster: &Cluster) -> Result<Vec<String>> {
    let gateways: Api<DeviceGateway> = Api::all(cluster.client.clone());
    let listed = gateways.list(&ListParams::default()).await.map_err(explain)?;
    Ok(listed.items.into_iter().map(|gateway| gateway.spec.address).collect())
}

fn pki_folder(args: &Args) -> Result<PathBuf> {
    if let Some(folder) = &args.pki {
        return Ok(folder.clone());
    }
    let kubeconfig =
        args.cluster.file().context("no kubeconfig file whose pki folder could be used; say --pki DIR")?;
    Ok(kubeconfig.with_file_name("pki"))
}

#[cfg(test)]
mod tests {
    use wasmbed_control::exchange::DeviceKey;

    use super::*;

    fn line(time: &str, sequence: u64) -> LogLine {
        LogLine {
            time: time.to_owned(),
            device: DeviceKey { namespace: "default".to_owned(), name: "device-001".to_owned() },
            application: "default/hello".to_owned(),
            sequence,
            lines_lost: 0,
            text: "hello".to_owned(),
        }
    }

    #[test]
    fn a_line_says_when_where_what_and_what_is_missing() {
        let plain = line("2026-01-02T03:04:05.678Z", 1);
        assert_eq!(render(&plain), "2026-01-02T03:04:05 default/device-001 default/hello | hello");
        let lossy = LogLine { lines_lost: 2, text: "a\u{1b}[2Jb".to_owned(), ..plain };
        assert!(render(&lossy).ends_with("| (2 lines lost) a [2Jb"));
    }

    #[test]
    fn lines_that_a_gateway_repeats_are_told_from_new_ones() {
        let mut seen = Seen::default();
        let first = ["2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.2Z", "2026-01-02T03:04:05.2Z"];
        let lines: Vec<_> = first.iter().zip(1..).map(|(time, sequence)| line(time, sequence)).collect();
        assert!(lines.iter().all(|line| seen.is_new(line)));
        assert!(!lines.iter().any(|line| seen.is_new(line)));
        assert!(seen.is_new(&line("2026-01-02T03:04:05.2Z", 4)));
        assert!(seen.is_new(&line("2026-01-02T03:04:05.3Z", 1)));
    }
}
