//! `wasmbed apply`: manifests into the cluster, or a WebAssembly file as an Application.

mod adopt;
mod manifest;
mod selector;
mod wait;
mod wasm;
mod write;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{cluster::ClusterArgs, output};
use manifest::Manifest;
use wasm::{Ready, WasmArgs};

/// Most that traps does so at once, and a crash loop begins again after a second.
const MIN_READY_S: u64 = 5;

/// Create or update objects from manifests, or deploy a WebAssembly file.
///
/// Manifests are YAML or JSON, any number of documents in a file, a folder or standard input. A single file that is a
/// WebAssembly module becomes an Application: it is packed, and stored in a separate Module if it is large.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Manifests, folders of manifests, - for standard input, or one WebAssembly file.
    #[arg(required_unless_present = "filename", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Same as PATH.
    #[arg(short, long, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Print the objects as YAML instead of applying them.
    #[arg(long)]
    print: bool,
    /// Let the API server validate everything without changing anything.
    #[arg(long, conflicts_with = "print")]
    dry_run: bool,
    /// Take over fields that another writer set to a different value, instead of failing with a conflict.
    #[arg(long, conflicts_with = "print")]
    force_conflicts: bool,
    /// Wait until the applied Applications are Ready, or have succeeded if their restart_policy is not Always.
    ///
    /// Exits with an error as soon as one of them failed permanently.
    #[arg(long, conflicts_with_all = ["print", "dry_run"])]
    wait: bool,
    /// Timeout in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
    /// How many seconds an application must run without exiting to count as Ready [default: 5 with --wait].
    ///
    /// For a WebAssembly file it becomes min_ready_seconds of the Application. --wait keeps watching for the part that an
    /// Application's min_ready_seconds does not cover.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..=3600))]
    min_ready: Option<i32>,
    #[command(flatten)]
    wasm: WasmArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// An input could not be read, or the API server rejected an object; everything else was applied.
pub async fn run(args: Args) -> Result<()> {
    let paths: Vec<PathBuf> = args.paths.iter().chain(&args.filename).cloned().collect();
    let module = match paths.as_slice() {
        [path] => wasm::read_if_module(path)?,
        _ => None,
    };
    let mut ready = match &module {
        Some(module) => Some(Ready::new(&args.wasm, &paths[0], module, args.wasm.devices())?),
        None => None,
    };
    let mut manifests = match &ready {
        Some(ready) => wasm::manifests(&args.wasm, args.min_ready, &paths[0], ready)?,
        None => {
            let min_ready = args.min_ready.filter(|_| !args.wait).map(|_| "--min-ready without --wait");
            if let Some(flag) = args.wasm.first_given().or(min_ready) {
                bail!("{flag} is for a single WebAssembly file; in a manifest, set the field instead");
            }
            manifest::read_all(&paths)?
        }
    };
    ensure!(!manifests.is_empty(), "there is no object in what was given");
    if args.print {
        ready.iter().for_each(Ready::report);
        return print_all(&manifests);
    }
    let cluster = args.cluster.connect().await?;
    if let (Some(module), Some(packed)) = (&module, ready.take()) {
        let packed = packed.lowered_if_needed(&cluster, &args.wasm, &paths[0], module).await?;
        packed.report();
        manifests = wasm::manifests(&args.wasm, args.min_ready, &paths[0], &packed)?;
    }
    let applied = write::apply_all(&cluster, &manifests, args.dry_run, args.force_conflicts).await?;
    if let Some(application) = manifests.last().filter(|_| module.is_some() && !args.dry_run) {
        wasm::drop_unused_modules(&cluster, &application.name).await?;
    }
    if args.wait {
        let min_ready = args.min_ready.and_then(|seconds| u64::try_from(seconds).ok());
        let min_ready = Duration::from_secs(min_ready.unwrap_or(MIN_READY_S));
        wait::until_done(&cluster, &applied, Duration::from_secs(args.timeout), min_ready).await?;
    }
    Ok(())
}

fn print_all(manifests: &[Manifest]) -> Result<()> {
    for (index, manifest) in manifests.iter().enumerate() {
        let separator = if index == 0 { "" } else { "---\n" };
        let yaml = serde_saphyr::to_string(&manifest.object).context("can't write the object as YAML")?;
        output::print(&format!("{separator}{yaml}"));
    }
    Ok(())
}
