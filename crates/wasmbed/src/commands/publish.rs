//! `wasmbed publish`: a message to an application on devices, by way of the gateways and as the user of Kubernetes.

use std::{
    collections::BTreeMap,
    io::{Read as _, stdin},
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::join_all;
use wasmbed_control::gateway_api::{
    Delivered, MessageDelivered, POST_MESSAGE_DEVICES_MAX, PostMessage, PostMessageAnswer,
};
use wasmbed_protocol::limits::PAYLOAD_BYTES_MAX;
use wasmbed_telemetry::with_causes;

use super::logs::{self, Filter, Gateway, Source};
use crate::{
    cluster::ClusterArgs,
    output::{self, harmless, print},
    values,
};

/// Send a message to an application on devices.
///
/// It goes to a topic that the Application declares with direction: In. Each device answers at once, and nothing is kept for a device
/// that is not connected: the command fails unless every device has the message in the application's mailbox. Gateways let you if the
/// Kubernetes API allows you to create devices/messages.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The Application.
    application: String,
    /// The topic.
    topic: String,
    /// What it says: a text, or - for the bytes of the standard input, at most 1,024.
    #[arg(allow_hyphen_values = true)]
    payload: String,
    /// To this Device; can be repeated.
    #[arg(short, long, value_name = "NAME")]
    device: Vec<String>,
    /// To the Devices with these labels, for example site=lab.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// To all Devices of the namespace.
    #[arg(long, conflicts_with = "selector")]
    all_devices: bool,
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

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line for each device.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// A device did not take the message, no gateway could be called, or the identity is unusable.
pub(crate) async fn run(args: Args) -> Result<()> {
    let payload = payload(&args.payload)?;
    ensure!(
        !args.device.is_empty() || args.selector.is_some() || args.all_devices,
        "say where it goes: --device NAME, --selector LABELS or --all-devices"
    );
    let cluster = args.cluster.connect().await?;
    let filter = Filter {
        namespace: Some(cluster.namespace.clone()),
        application: Some(args.application.clone()),
        device: None,
    };
    if let Some(missing) = logs::missing(&cluster, &filter).await? {
        bail!(missing);
    }
    let selector = args.selector.as_deref().or(args.all_devices.then_some(""));
    let found = cluster.devices(&args.device, selector).await?;
    let mut names: Vec<String> =
        found.iter().filter_map(|device| Some(device["metadata"]["name"].as_str()?.to_owned())).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(missing) = args.device.iter().find(|name| !names.contains(name)) {
        bail!("there is no Device {missing:?} in namespace {}; see wasmbed get wdev", cluster.namespace);
    }
    ensure!(!names.is_empty(), "no Device has these labels; see wasmbed get wdev --show-labels");
    let source = logs::source(&cluster, &args.cluster, &args.gateway, args.pki.as_deref()).await?;
    source.credentials.current().await?;
    let message = PostMessage {
        namespace: cluster.namespace.clone(),
        application: args.application,
        devices: Vec::new(),
        topic: args.topic,
        payload: BASE64_STANDARD.encode(payload),
    };
    let mut failed = 0;
    for chunk in names.chunks(POST_MESSAGE_DEVICES_MAX) {
        let results = send(&source, &PostMessage { devices: chunk.to_vec(), ..message.clone() }).await?;
        for (device, delivered) in results {
            failed += usize::from(delivered != Delivered::Taken);
            print(&match args.output {
                Output::Text => format!("device/{} {}\n", harmless(&device), said(delivered)),
                Output::Json => serde_json::to_string(&MessageDelivered { device, delivered })? + "\n",
            });
        }
    }
    ensure!(failed == 0, "{failed} of {} devices did not take the message", names.len());
    Ok(())
}

fn payload(given: &str) -> Result<Vec<u8>> {
    let mut bytes = given.as_bytes().to_vec();
    if given == "-" {
        bytes.clear();
        let read = stdin().lock().take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.context("the standard input can't be read")?;
    }
    ensure!(bytes.len() <= PAYLOAD_BYTES_MAX, "a message has at most {PAYLOAD_BYTES_MAX} bytes");
    Ok(bytes)
}

/// Sends it by way of every gateway: what became of it is said by the one that a device has its session with.
async fn send(source: &Source, message: &PostMessage) -> Result<BTreeMap<String, Delivered>> {
    ensure!(!source.gateways.is_empty(), "the cluster has no DeviceGateway; is a gateway running?");
    let call = async |address: &String| {
        let gateway = Gateway::posting(address, source.credentials.clone(), "/v1/messages", message)?;
        gateway.answer::<PostMessageAnswer>().await
    };
    let mut results: BTreeMap<String, Delivered> =
        message.devices.iter().map(|device| (device.clone(), Delivered::NotConnected)).collect();
    let mut failed = Vec::new();
    for (address, answer) in source.gateways.iter().zip(join_all(source.gateways.iter().map(call)).await) {
        match answer {
            Ok(answer) => {
                for MessageDelivered { device, delivered } in answer.devices {
                    if let Some(result) =
                        results.get_mut(&device).filter(|_| delivered != Delivered::NotConnected)
                    {
                        *result = delivered;
                    }
                }
            }
            Err(error) => failed.push(format!("gateway {address}: {}", with_causes(error.as_ref()))),
        }
    }
    if failed.len() == source.gateways.len() {
        bail!("no gateway could be called: {}", failed.join("; "));
    }
    failed.iter().for_each(|failure| output::complain(&format!("warning: {failure}")));
    Ok(results)
}

/// For people.
fn said(delivered: Delivered) -> &'static str {
    match delivered {
        Delivered::Taken => "has it",
        Delivered::NoRoom => {
            "has no room for it: the application's mailbox is full, or the topic's rate is used up"
        }
        Delivered::UnknownTopic => {
            "did not take it: the Application declares no such topic with direction: In"
        }
        Delivered::NotRunning => "did not take it: the application does not run there now",
        Delivered::UnknownApplication => "did not take it: the Application does not go to this device",
        Delivered::NotConnected => "is not connected",
        Delivered::Unsupported => "did not take it: its firmware takes no messages",
        Delivered::Busy => "did not take it: it has not answered earlier ones",
        Delivered::Unanswered => "did not answer: it may have it or not",
        Delivered::Unknown => "answered something that a newer wasmbed knows",
    }
}
