//! `wasmbed devices preregister`.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use wasmbed_api::kind;

use super::{
    api::{Apply, Failure, apply},
    lines::{Line, parse},
};
use crate::{
    cluster::{Cluster, ClusterArgs, Resource, encode_query},
    output::{complain, grouped, harmless, print_line},
};

/// More than 100,000 lines of 160 bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Devices in one answer of the API.
const PAGE: u32 = 500;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Register devices by their serials, before they join with their factory identities.
///
/// One device a line: its serial and, with commas between, the name of its Device (by default made from the serial), the hash of its
/// factory key (no other key joins as this device) and labels as KEY=VALUE with ; between. A first line that begins with "serial"
/// names the columns; lines that begin with # are skipped.
///
/// Nothing is written unless every line can be read. The same file can be given again: what is registered stays as it is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The file, or - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Let the API server validate every device without changing anything.
    #[arg(long)]
    dry_run: bool,
    /// Calls at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
///
/// # Errors
/// Lines that can't be used, each named before, and whether others were registered.
pub(super) async fn run(args: Args) -> Result<()> {
    let name =
        if args.file.as_os_str() == "-" { "standard input".into() } else { args.file.display().to_string() };
    let text = read(&args.file).with_context(|| format!("can't read {name}"))?;
    let lines = match parse(&text) {
        Ok(lines) => lines,
        Err(flaws) => {
            for (number, flaw) in &flaws {
                complain(&format!("error: {name}, line {number}: {}", harmless(&flaw.to_string())));
            }
            bail!("{} of the lines can't be used; nothing was registered", grouped(flaws.len() as u64));
        }
    };
    ensure!(!lines.is_empty(), "there is no device in {name}");
    let cluster = args.cluster.connect_without_retries().await?;
    let resource = Resource::ours(kind::DEVICE, "devices");
    let known = known(&cluster, &resource).await?;
    let work = Work { cluster: &cluster, resource: &resource, known: &known, dry_run: args.dry_run };
    let tally = register(&work, &lines, usize::from(args.concurrency), &name).await;
    tally.report(&lines, args.dry_run)
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "it is larger than {} MiB", FILE_BYTES_MAX >> 20);
    String::from_utf8(bytes).ok().context("it is not text in UTF-8")
}

/// What there is in the namespace.
#[derive(Default)]
struct Known {
    devices: HashMap<String, Seen>,
    /// Names by serials.
    serials: HashMap<String, String>,
}

/// What a line says of a Device, as it is.
struct Seen {
    serial: Option<String>,
    factory_key: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Page {
    metadata: ListMeta,
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    token: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
    spec: Spec,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    serial: Option<String>,
    factory_key_hash: Option<String>,
}

async fn known(cluster: &Cluster, resource: &Resource) -> Result<Known> {
    let mut known = Known::default();
    let mut token: Option<String> = None;
    loop {
        let next =
            token.as_ref().map_or_else(String::new, |token| format!("&continue={}", encode_query(token)));
        let path = format!("{}?limit={PAGE}{next}", resource.collection(Some(&cluster.namespace)));
        let request = http::Request::get(path).body(Vec::new()).context("can't make a request")?;
        let page: Page = cluster.client.request(request).await.map_err(|error| cluster.explain(error))?;
        for Item { metadata, spec } in page.items {
            if let Some(serial) = &spec.serial {
                known.serials.insert(serial.clone(), metadata.name.clone());
            }
            let seen =
                Seen { serial: spec.serial, factory_key: spec.factory_key_hash, labels: metadata.labels };
            known.devices.insert(metadata.name, seen);
        }
        token = page.metadata.token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(known);
        }
    }
}

/// What became of a line.
enum Outcome {
    Created,
    Configured,
    Unchanged,
    Refused,
    /// The API had stopped answering.
    NotTried,
}

struct Work<'a> {
    cluster: &'a Cluster,
    resource: &'a Resource,
    known: &'a Known,
    dry_run: bool,
}

impl Work<'_> {
    async fn register(&self, line: &Line) -> Result<Outcome, Failure> {
        let seen = self.known.devices.get(&line.name);
        if let Some(other) = self.known.serials.get(&line.serial).filter(|other| **other != line.name) {
            let named =
                anyhow::anyhow!("the Device {other} has this serial; delete it, or give the line its name");
            return Err(Failure::Refused(named));
        }
        if let Some(serial) =
            seen.and_then(|seen| seen.serial.as_ref()).filter(|serial| **serial != line.serial)
        {
            let named = anyhow::anyhow!("the Device {} has the serial {serial:?}", line.name);
            return Err(Failure::Refused(named));
        }
        if seen.is_some_and(|seen| seen.says(line)) {
            return Ok(Outcome::Unchanged);
        }
        let apply_it = Apply {
            resource: self.resource,
            namespace: &self.cluster.namespace,
            name: &line.name,
            object: &self.object(line),
            dry_run: self.dry_run,
        };
        apply(self.cluster, apply_it).await?;
        Ok(if seen.is_some() { Outcome::Configured } else { Outcome::Created })
    }

    /// Without `approved`: a new Device has it, and a person's decision about one that is there stays.
    fn object(&self, line: &Line) -> Value {
        let mut object = json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": { "name": line.name, "namespace": self.cluster.namespace },
            "spec": { "serial": line.serial },
        });
        if let Some(hash) = &line.factory_key {
            object["spec"]["factory_key_hash"] = json!(hash);
        }
        if !line.labels.is_empty() {
            object["metadata"]["labels"] = json!(line.labels);
        }
        object
    }
}

impl Seen {
    fn says(&self, line: &Line) -> bool {
        self.serial.as_ref() == Some(&line.serial)
            && line.factory_key.as_ref().is_none_or(|hash| self.factory_key.as_ref() == Some(hash))
            && line.labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

#[derive(Default)]
struct Tally {
    created: u64,
    configured: u64,
    unchanged: u64,
    refused: u64,
    not_tried: u64,
}

async fn register(work: &Work<'_>, lines: &[Line], concurrency: usize, file: &str) -> Tally {
    let is_down = AtomicBool::new(false);
    let is_down = &is_down;
    let calls = futures::stream::iter(lines).map(|line| async move {
        if is_down.load(Ordering::Relaxed) {
            return Outcome::NotTried;
        }
        match work.register(line).await {
            Ok(outcome) => outcome,
            Err(failure) => {
                let is_first = match failure {
                    Failure::Unreachable(_) => !is_down.swap(true, Ordering::Relaxed),
                    Failure::Refused(_) => true,
                };
                if is_first {
                    let why = wasmbed_telemetry::with_causes(failure.into_error().as_ref());
                    complain(&format!("error: {file}, line {} ({}): {why}", line.number, line.serial));
                    return Outcome::Refused;
                }
                Outcome::NotTried
            }
        }
    });
    let mut outcomes = std::pin::pin!(calls.buffer_unordered(concurrency));
    let (mut tally, mut done, mut told) = (Tally::default(), 0_u64, Instant::now());
    while let Some(outcome) = outcomes.next().await {
        tally.count(&outcome);
        done += 1;
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            complain(&format!("{} of {}", grouped(done), grouped(lines.len() as u64)));
        }
    }
    tally
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Created => &mut self.created,
            Outcome::Configured => &mut self.configured,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Refused => &mut self.refused,
            Outcome::NotTried => &mut self.not_tried,
        } += 1;
    }

    fn report(&self, lines: &[Line], dry_run: bool) -> Result<()> {
        let Self { created, configured, unchanged, refused, not_tried } = *self;
        let note = if dry_run { " (dry run)" } else { "" };
        let all = grouped(lines.len() as u64);
        print_line(&format!(
            "{all} devices: {} created, {} configured, {} unchanged{note}",
            grouped(created),
            grouped(configured),
            grouped(unchanged)
        ));
        if refused + not_tried == 0 {
            return Ok(());
        }
        let rest = if not_tried > 0 {
            format!(", and {} were not tried", grouped(not_tried))
        } else {
            String::new()
        };
        bail!("{} of {all} could not be registered{rest}; the same file can be given again", grouped(refused))
    }
}
