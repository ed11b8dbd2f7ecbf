//! `wasmbed crds`.

use anyhow::Result;

use crate::output;

/// What to print.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Prints all CustomResourceDefinitions as one YAML stream, ready for `kubectl apply -f -`.
///
/// # Errors
/// Only if one can't be represented as YAML, which would be a bug.
pub(crate) fn run(_: &Args) -> Result<()> {
    for definition in wasmbed_api::crds() {
        output::print_line(&format!("---\n{}", wasmbed_api::crd_yaml(&definition)?.trim_end()));
    }
    Ok(())
}
