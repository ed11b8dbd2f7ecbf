//! `kubectl wasmbed label`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use super::devices::Chosen;
use crate::output::print_line;

/// Set labels of devices, by which Applications select them, or remove some.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// A label to set, as KEY=VALUE; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", required_unless_present = "remove")]
    set: Vec<String>,
    /// A label to remove; can be repeated.
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A label is none, or the API refused it.
pub(super) async fn run(args: Args) -> Result<()> {
    let mut labels = Map::new();
    for label in &args.set {
        let (key, value) = label
            .split_once('=')
            .with_context(|| format!("{label:?} is not KEY=VALUE, for example site=lab"))?;
        ensure!(labels.insert(key.to_owned(), value.into()).is_none(), "the label {key} is set twice");
    }
    for key in &args.remove {
        ensure!(labels.insert(key.clone(), Value::Null).is_none(), "the label {key} is set and removed");
    }
    let (place, devices) = args.chosen.find().await?;
    let labels = Value::Object(labels);
    for device in &devices {
        place.set_labels(device, &labels).await?;
        print_line(&format!("{} labelled", device.key()));
    }
    Ok(())
}
