//! `wasmbed logs`: what applications wrote, read from the gateways as the user of Kubernetes.

mod order;
mod source;
mod stream;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use futures::future::join_all;
use kube::{Api, api::ListParams};
use order::{Cursor, Gaps, merge};
pub use source::{Credentials, Filter, Source};
pub(super) use stream::{Gateway, Lines, Refused};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use wasmbed_api::DeviceGateway;
use wasmbed_control::{Backoff, gateway_api::LogLine};
use wasmbed_telemetry::with_causes;

use crate::{
    cluster::{Cluster, ClusterArgs, Resource, encode_query},
    login::{Login, Operator},
    output::{self, harmless, print},
    values,
};

/// Lines buffered for printing; this limits how fast gateways are read.
const LINES_MAX: usize = 1_024;
/// Delays before reconnecting to a gateway whose stream broke: one that returns is read again soon.
pub(super) const PAUSES: Backoff = Backoff::doubling(1_000, 15_000);
/// How long `follow` waits for what the gateways hold, so that it can show it in one order.
const HELD_TIMEOUT: Duration = Duration::from_secs(3);

/// Show the logs of applications.
///
/// Gateways keep the most recent lines. They show them to whom the Kubernetes API allows to get applications/log or devices/log, and
/// know you by the certificate of wasmbed login, which is got when it is needed. Lines of a deleted Application or Device are shown as
/// long as a gateway has them.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this Application's lines.
    application: Option<String>,
    /// Only lines from this Device.
    #[arg(short, long, value_name = "NAME")]
    device: Option<String>,
    /// Show lines from all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Keep printing new lines.
    #[arg(short, long)]
    follow: bool,
    /// Print lines as JSON.
    #[arg(long)]
    json: bool,
    /// A gateway as host:port; can be repeated [default: every DeviceGateway of the cluster].
    #[arg(long, value_name = "HOST:PORT", value_parser = values::gateway)]
    gateway: Vec<String>,
    /// Folder with operator.crt, operator.key and services-ca.crt, as `pki issue operator` writes them [default: the certificate of
    /// wasmbed login].
    #[arg(long, value_name = "DIR", env = "WASMBED_PKI")]
    pki: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// A named object does not exist, no gateway could be read, or the identity is unusable.
pub async fn run(args: Args) -> Result<()> {
    let cluster = args.cluster.connect().await?;
    let filter = Filter {
        namespace: (!args.all_namespaces).then(|| cluster.namespace.clone()),
        application: args.application.clone(),
        device: args.device.clone(),
    };
    let missing = missing(&cluster, &filter).await;
    let source = source(&cluster, &args.cluster, &args.gateway, args.pki.as_deref()).await;
    let json = args.json;
    let show = move |line: &LogLine| match json {
        true => serde_json::to_string(line).map(|text| print(&(text + "\n"))),
        false => {
            print(&(render(line) + "\n"));
            Ok(())
        }
    };
    let existence = match missing {
        Ok(None) => None,
        // Gateways may still hold what it wrote, and nothing new can come.
        Ok(Some(missing)) => {
            let held = match source {
                Ok(source) => read(source, filter).await.unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            held.iter().try_for_each(&show)?;
            ensure!(!held.is_empty() && !args.follow, missing);
            return Ok(());
        }
        Err(error) => Some(error),
    };
    let source = source?;
    if let Some(error) = existence {
        // With --gateway, logs are there while the Kubernetes API is not.
        let error = with_causes(error.as_ref());
        output::complain(&format!("warning: can't check whether what was named exists: {error}"));
    }
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

/// A message about the filter's objects that do not exist; none if all exist.
pub(super) async fn missing(cluster: &Cluster, filter: &Filter) -> Result<Option<String>> {
    let namespace = filter.namespace.as_deref();
    let (place, flag) = match namespace {
        Some(namespace) => (format!("in namespace {namespace}"), format!("-n {namespace}")),
        None => ("in any namespace".to_owned(), "-A".to_owned()),
    };
    let named = [
        (Resource::ours("Application", "applications"), "wapp", &filter.application),
        (Resource::ours("Device", "devices"), "wdev", &filter.device),
    ];
    for (resource, short, name) in named {
        let Some(name) = name else { continue };
        let path = match resource.object(namespace, name) {
            Ok(path) => path,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let found = match namespace {
            Some(_) => cluster.read(&path).await?,
            None => {
                let fields = encode_query(&format!("metadata.name={name}"));
                let list = format!("{}?fieldSelector={fields}&limit=1", resource.collection(None));
                let list = cluster.read(&list).await?;
                list.filter(|list| list["items"].as_array().is_some_and(|items| !items.is_empty()))
            }
        };
        if found.is_none() {
            let kind = resource.kind;
            return Ok(Some(format!("there is no {kind} {name:?} {place}; see wasmbed get {short} {flag}")));
        }
    }
    Ok(None)
}

/// The gateways that are named, or all of the cluster, and as whom they are called.
pub(super) async fn source(
    cluster: &Cluster,
    arguments: &ClusterArgs,
    named: &[String],
    pki: Option<&Path>,
) -> Result<Source> {
    let gateways = match named.is_empty() {
        true => known_gateways(cluster).await?,
        false => named.to_vec(),
    };
    let credentials = match pki {
        Some(folder) => Credentials::Issued(Arc::new(Operator::read(folder)?)),
        None => Credentials::Login(Arc::new(Login::of(cluster, arguments)?)),
    };
    Ok(Source { credentials, gateways, all_gateways: named.is_empty() })
}

/// One line for a terminal, with control characters of the application escaped.
#[must_use]
pub fn render(line: &LogLine) -> String {
    let lost = match line.lines_lost {
        0 => String::new(),
        1 => "(1 line lost) ".to_owned(),
        lost => format!("({lost} lines lost) "),
    };
    // Seconds are enough for people; JSON has the rest.
    let time = line.time.to_seconds_text();
    let time = time.trim_end_matches('Z');
    let (device, application) = (&line.device, harmless(&line.application));
    let (namespace, name) = (harmless(&device.namespace), harmless(&device.name));
    format!("{time} {namespace}/{name} {application} | {lost}{}", harmless(&line.text))
}

/// Every line that the gateways hold: those of an application on a device in its order, all of them by time.
///
/// # Errors
/// None of the gateways could be read, or there is no certificate. Some that could not be read are named in the log.
pub async fn read(source: Source, filter: Filter) -> Result<Vec<LogLine>> {
    let gateways = source.gateways(&filter, false)?;
    // Once, and what is missing is said once.
    source.credentials.current().await?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for (gateway, answer) in gateways.iter().zip(join_all(gateways.iter().map(read_one)).await) {
        match answer {
            Ok((_, held)) => lines.extend(held),
            Err(error) => {
                failed.push(format!("gateway {}: {}", gateway.address(), with_causes(error.as_ref())))
            }
        }
    }
    if failed.len() == gateways.len() {
        bail!("no gateway could be read: {}", failed.join("; "));
    }
    failed.iter().for_each(|failure| output::complain(&format!("warning: {failure}")));
    let mut gaps = Gaps::new(source.all_gateways && failed.is_empty());
    let mut lines = merge(lines);
    lines.iter_mut().for_each(|line| gaps.account(line));
    Ok(lines)
}

/// What one gateway holds, and how far it was read with that.
async fn read_one(gateway: &Gateway) -> Result<(Cursor, Vec<LogLine>)> {
    let mut stream = gateway.open::<LogLine>().await?;
    let mut cursor = Cursor::default();
    cursor.begin(stream.boot_id());
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await? {
        cursor.is_new(&line);
        lines.push(line);
    }
    Ok((cursor, lines))
}

/// Every line that the gateways hold and then each new one, for as long as the future is polled. A gateway that breaks off is
/// called again; lines that were seen before are not repeated.
///
/// # Errors
/// There is no certificate or no gateway, or a gateway says that this user may not read.
pub async fn follow(source: Source, filter: Filter, mut on_line: impl FnMut(LogLine)) -> Result<()> {
    source.credentials.current().await?;
    let mut gaps = Gaps::new(source.all_gateways);
    let held = source.gateways(&filter, false)?;
    // What is there already, in one order. A gateway that does not answer soon is left to its own task.
    let read = held.iter().map(|gateway| timeout(HELD_TIMEOUT, read_one(gateway)));
    let (mut lines, mut cursors) = (Vec::new(), Vec::new());
    for answer in join_all(read).await {
        let (cursor, held) = answer.ok().and_then(Result::ok).unwrap_or_default();
        lines.extend(held);
        cursors.push(cursor);
    }
    for mut line in merge(lines) {
        gaps.account(&mut line);
        on_line(line);
    }
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    // Dropped with this future, which ends the tasks.
    let mut tasks = JoinSet::new();
    for (gateway, cursor) in source.gateways(&filter, true)?.into_iter().zip(cursors) {
        tasks.spawn(follow_one(gateway, cursor, sender.clone()));
    }
    drop(sender);
    loop {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                Some(mut line) => {
                    gaps.account(&mut line);
                    on_line(line);
                }
                None => break,
            },
            // One gateway says what all of them would: they ask the same API.
            Some(Ok(Err(refused))) = tasks.join_next() => return Err(refused),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(refused)) = ended {
            return Err(refused);
        }
    }
    Ok(())
}

/// Ends when nobody listens, or when the gateway says that this user may not.
async fn follow_one(gateway: Gateway, mut cursor: Cursor, lines: mpsc::Sender<LogLine>) -> Result<()> {
    let mut failures = 0_u32;
    loop {
        let before = cursor.progress();
        match follow_once(&gateway, &mut cursor, &lines).await {
            Ok(End::NobodyListens) => return Ok(()),
            Ok(End::Closed) => {
                tracing::debug!(gateway = gateway.address(), "the gateway ended the log stream")
            }
            Err(error) if error.downcast_ref::<Refused>().is_some_and(Refused::is_final) => {
                return Err(error.context(format!("gateway {}", gateway.address())));
            }
            Err(error) => {
                let error = with_causes(error.as_ref());
                tracing::warn!(gateway = gateway.address(), error, "can't read logs, trying again");
            }
        }
        failures = if cursor.progress() == before { failures.saturating_add(1) } else { 0 };
        tokio::time::sleep(Duration::from_millis(PAUSES.pause_ms(failures))).await;
    }
}

/// Why reading a stream ended.
enum End {
    Closed,
    NobodyListens,
}

async fn follow_once(gateway: &Gateway, cursor: &mut Cursor, lines: &mpsc::Sender<LogLine>) -> Result<End> {
    let mut stream = gateway.open::<LogLine>().await?;
    cursor.begin(stream.boot_id());
    while let Some(line) = stream.next().await? {
        if cursor.is_new(&line) && lines.send(line).await.is_err() {
            return Ok(End::NobodyListens);
        }
    }
    Ok(End::Closed)
}

async fn known_gateways(cluster: &Cluster) -> Result<Vec<String>> {
    let gateways: Api<DeviceGateway> = Api::all(cluster.client.clone());
    let listed = gateways.list(&ListParams::default()).await.map_err(|error| cluster.explain(error))?;
    Ok(listed.items.into_iter().map(|gateway| gateway.spec.address).collect())
}

#[cfg(test)]
mod tests {
    use wasmbed_control::{ObjectKey, UnixTime};

    use super::*;

    #[test]
    fn a_line_says_when_where_what_and_what_is_missing() {
        let plain = LogLine {
            time: UnixTime::parse("2026-01-02T03:04:05.678Z").unwrap(),
            device: ObjectKey { namespace: "default".to_owned(), name: "device-001".to_owned() },
            application: "default/hello".to_owned(),
            sequence: 1,
            lines_lost: 0,
            text: "hello".to_owned(),
            number: Some(1),
            boot: Some(1),
            epoch: Some(1),
        };
        assert_eq!(render(&plain), "2026-01-02T03:04:05 default/device-001 default/hello | hello");
        let lossy = LogLine { lines_lost: 2, text: "a\u{1b}[2Jb".to_owned(), ..plain };
        assert!(render(&lossy).ends_with("| (2 lines lost) a\\u{1b}[2Jb"));
    }
}
