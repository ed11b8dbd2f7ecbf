//! `wasmbed messages`: what applications published, read from the gateways as the user of Kubernetes.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::join_all;
use tokio::{sync::mpsc, task::JoinSet};
use wasmbed_control::{UnixTime, gateway_api::MessageLine};
use wasmbed_telemetry::with_causes;

use super::logs::{self, Filter, Gateway, Lines, PAUSES, Refused, Source};
use crate::{
    cluster::ClusterArgs,
    config::Seconds,
    output::{self, harmless, print},
    values,
};

/// Messages buffered for printing; this limits how fast gateways are read.
const LINES_MAX: usize = 1_024;

/// Show what applications published.
///
/// Gateways keep messages on their disks, within bounds of bytes and age. They show them to whom the Kubernetes API allows to get
/// devices/messages, and know you by the certificate of wasmbed login, which is got when it is needed. A message that a device sent
/// to two gateways is shown by both, with the same boot and sequence.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only messages of this Application.
    #[arg(short, long, value_name = "NAME")]
    application: Option<String>,
    /// Only messages from this Device.
    #[arg(short, long, value_name = "NAME")]
    device: Option<String>,
    /// Only messages to this topic.
    #[arg(short, long, value_name = "NAME")]
    topic: Option<String>,
    /// Show messages from all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Keep printing new messages.
    #[arg(short, long)]
    follow: bool,
    /// Only messages that came within this time, for example 90s, 10m or 2h.
    #[arg(long, value_name = "DURATION")]
    since: Option<Seconds>,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
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

/// How messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line each: time, device, application, topic, and the payload as text, or in hexadecimal if it is none.
    Text,
    /// One JSON object a line, with the payload in base64 and, if it is text, as text.
    Json,
}

/// Which messages.
struct Wanted {
    filter: Filter,
    topic: Option<String>,
    since: Option<String>,
}

impl Wanted {
    fn of(&self, source: &Source, address: &str, follow: bool, after: u64) -> Gateway {
        let after = (after > 0).then(|| after.to_string());
        let parameters = [
            ("namespace", self.filter.namespace.as_deref()),
            ("application", self.filter.application.as_deref()),
            ("device", self.filter.device.as_deref()),
            ("topic", self.topic.as_deref()),
            ("since", self.since.as_deref()),
            ("after", after.as_deref()),
        ];
        Gateway::new(address, source.credentials.clone(), "/v1/messages", follow, &parameters)
    }
}

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// A named object does not exist, no gateway could be read, or the identity is unusable.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = args.cluster.connect().await?;
    let filter = Filter {
        namespace: (!args.all_namespaces).then(|| cluster.namespace.clone()),
        application: args.application.clone(),
        device: args.device.clone(),
    };
    let missing = logs::missing(&cluster, &filter).await;
    let source = logs::source(&cluster, &args.cluster, &args.gateway, args.pki.as_deref()).await?;
    let since = args.since.map(|ago| since(ago.0));
    let wanted = Wanted { filter, topic: args.topic, since };
    source.credentials.current().await?;
    let mut shown = Shown::new(args.output);
    let places = held(&source, &wanted, &mut shown).await?;
    match missing {
        // Gateways may still hold what it published, and nothing new can come.
        Ok(Some(missing)) => {
            ensure!(shown.any && !args.follow, missing);
            return Ok(());
        }
        Ok(None) => {}
        Err(error) => {
            let error = with_causes(error.as_ref());
            output::complain(&format!("warning: can't check whether what was named exists: {error}"));
        }
    }
    if args.follow {
        follow(source, wanted, places, &mut shown).await?;
    }
    Ok(())
}

fn since(ago: Duration) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ms = now.saturating_sub(ago).as_millis();
    UnixTime::from_ms(u64::try_from(ms).unwrap_or(u64::MAX)).to_string()
}

/// What was printed.
struct Shown {
    output: Output,
    any: bool,
}

impl Shown {
    fn new(output: Output) -> Self {
        Self { output, any: false }
    }

    fn show(&mut self, line: &MessageLine) -> Result<()> {
        self.any = true;
        print(&match self.output {
            Output::Text => render(line) + "\n",
            Output::Json => serde_json::to_string(line)? + "\n",
        });
        Ok(())
    }
}

/// What a gateway still has to show of what it holds.
struct Held {
    lines: Lines<MessageLine>,
    next: Option<MessageLine>,
    /// Number of the last one that was shown.
    read: u64,
}

/// Shows what the gateways hold by time, one message of each in memory; gives how far each was read.
async fn held(source: &Source, wanted: &Wanted, shown: &mut Shown) -> Result<Vec<u64>> {
    ensure!(!source.gateways.is_empty(), "the cluster has no DeviceGateway; is a gateway running?");
    let open = async |address: &String| {
        let mut lines = wanted.of(source, address, false, 0).open::<MessageLine>().await?;
        let next = lines.next().await?;
        Ok::<_, anyhow::Error>(Held { lines, next, read: 0 })
    };
    let mut held = Vec::new();
    let mut failed = Vec::new();
    for (address, opened) in source.gateways.iter().zip(join_all(source.gateways.iter().map(open)).await) {
        held.push(match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                failed.push(format!("gateway {address}: {}", with_causes(error.as_ref())));
                None
            }
        });
    }
    if failed.len() == source.gateways.len() {
        bail!("no gateway could be read: {}", failed.join("; "));
    }
    failed.iter().for_each(|failure| output::complain(&format!("warning: {failure}")));
    loop {
        let waiting = held.iter_mut().flatten().filter_map(|gateway| {
            let next = gateway.next.as_ref()?;
            Some((next.time, gateway))
        });
        let Some((_, first)) = waiting.min_by_key(|(time, _)| *time) else { break };
        if let Some(line) = first.next.take() {
            shown.show(&line)?;
            first.read = line.number;
            first.next = first.lines.next().await?;
        }
    }
    Ok(held.into_iter().map(|gateway| gateway.map_or(0, |gateway| gateway.read)).collect())
}

/// Shows each new message, for as long as the future is polled. A gateway that breaks off is called again.
///
/// # Errors
/// A gateway says that this user may not read.
async fn follow(source: Source, wanted: Wanted, places: Vec<u64>, shown: &mut Shown) -> Result<()> {
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    let (source, wanted) = (std::sync::Arc::new(source), std::sync::Arc::new(wanted));
    // Dropped with this future, which ends the tasks.
    let mut tasks = JoinSet::new();
    for (index, after) in places.into_iter().enumerate() {
        tasks.spawn(follow_one(source.clone(), wanted.clone(), index, after, sender.clone()));
    }
    drop(sender);
    loop {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                Some(line) => shown.show(&line)?,
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
async fn follow_one(
    source: std::sync::Arc<Source>,
    wanted: std::sync::Arc<Wanted>,
    index: usize,
    mut after: u64,
    lines: mpsc::Sender<MessageLine>,
) -> Result<()> {
    let address = &source.gateways[index];
    let mut failures = 0_u32;
    loop {
        let before = after;
        let gateway = wanted.of(&source, address, true, after);
        match follow_once(&gateway, &mut after, &lines).await {
            Ok(true) => tracing::debug!(gateway = address, "the gateway ended the stream of messages"),
            Ok(false) => return Ok(()),
            Err(error) if error.downcast_ref::<Refused>().is_some_and(Refused::is_final) => {
                return Err(error.context(format!("gateway {address}")));
            }
            Err(error) => {
                let error = with_causes(error.as_ref());
                tracing::warn!(gateway = address, error, "can't read messages, trying again");
            }
        }
        failures = if after == before { failures.saturating_add(1) } else { 0 };
        tokio::time::sleep(Duration::from_millis(PAUSES.pause_ms(failures))).await;
    }
}

/// Whether the gateway ended the stream; otherwise nobody listens any more.
async fn follow_once(gateway: &Gateway, after: &mut u64, lines: &mpsc::Sender<MessageLine>) -> Result<bool> {
    let mut stream = gateway.open::<MessageLine>().await?;
    while let Some(line) = stream.next().await? {
        let number = line.number;
        if lines.send(line).await.is_err() {
            return Ok(false);
        }
        *after = number;
    }
    Ok(true)
}

/// One line for a terminal, with control characters of the application escaped.
fn render(line: &MessageLine) -> String {
    let lost = match line.messages_lost {
        0 => String::new(),
        1 => "(1 message lost) ".to_owned(),
        lost => format!("({lost} messages lost) "),
    };
    // Seconds are enough for people; JSON has the rest.
    let time = line.time.to_seconds_text();
    let time = time.trim_end_matches('Z');
    let (namespace, name) = (harmless(&line.device.namespace), harmless(&line.device.name));
    let (application, topic) = (harmless(&line.application), harmless(&line.topic));
    let payload = match &line.text {
        Some(text) => harmless(text).into_owned(),
        None => {
            let bytes = BASE64_STANDARD.decode(&line.payload).unwrap_or_default();
            bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
        }
    };
    format!("{time} {namespace}/{name} {application} {topic} | {lost}{payload}")
}

#[cfg(test)]
mod tests {
    use wasmbed_control::ObjectKey;

    use super::*;

    #[test]
    fn a_line_says_when_whose_where_and_what() {
        let text = MessageLine {
            time: UnixTime::parse("2026-01-02T03:04:05.678Z").unwrap(),
            device: ObjectKey::new("default", "device-001"),
            device_uid: String::new(),
            application: "default/thermometer".to_owned(),
            application_uid: String::new(),
            topic: "temperature".to_owned(),
            boot: 1,
            sequence: 1,
            messages_lost: 0,
            payload: "MjEuNQ==".to_owned(),
            text: Some("21.5".to_owned()),
            number: 1,
        };
        let shown = "2026-01-02T03:04:05 default/device-001 default/thermometer temperature | 21.5";
        assert_eq!(render(&text), shown);
        let escaped = MessageLine { text: Some("a\u{1b}[2J".to_owned()), messages_lost: 2, ..text.clone() };
        assert!(render(&escaped).ends_with("| (2 messages lost) a\\u{1b}[2J"));
        let bytes = MessageLine { text: None, payload: "/wA=".to_owned(), ..text };
        assert!(render(&bytes).ends_with("| 0xff00"));
    }
}
