//! `wasmbed apply`: manifests into the cluster, or a WebAssembly file as an Application.

mod manifest;
mod merge;
mod selector;
mod wait;
mod wasm;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use wasmbed_telemetry::with_causes;

use crate::{
    cluster::{Cluster, ClusterArgs, Resource},
    output,
};
use manifest::Manifest;
use wasm::WasmArgs;

/// Where kubectl keeps what was last applied; the same, so that both can be used on one object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Kubernetes takes annotations of 256 KiB in total; what is larger is applied without a memory of it.
const LAST_APPLIED_BYTES_MAX: usize = 240 * 1024;
/// Most that traps does so at once, and a crash loop begins again after a second.
const MIN_READY_S: u64 = 5;
/// How the API server names this writer.
const FIELD_MANAGER: &str = "wasmbed-apply";

/// Create or update objects from manifests, or deploy a WebAssembly file.
///
/// Manifests are YAML or JSON, any number of documents in a file, a folder or standard input. A single file that is a
/// WebAssembly module becomes an Application: it is packed, and put into a Module of its own if it is large.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Manifests, folders of manifests, - for standard input, or one WebAssembly file.
    #[arg(required_unless_present = "filename", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The same as PATH.
    #[arg(short, long, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Print the objects as YAML instead of applying them.
    #[arg(long)]
    print: bool,
    /// Let the API server check everything and change nothing.
    #[arg(long, conflicts_with = "print")]
    dry_run: bool,
    /// Wait until the Applications applied are Ready, or have succeeded if their restart_policy is not Always.
    ///
    /// Ends with an error as soon as one failed for a reason that does not pass by itself.
    #[arg(long, conflicts_with_all = ["print", "dry_run"])]
    wait: bool,
    /// How long to wait, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
    /// How long an application has to run without an end before it counts as Ready, seconds [default: 5 with --wait].
    ///
    /// Given with a WebAssembly file, it becomes min_ready_seconds of the Application. --wait watches for what of it an
    /// Application's min_ready_seconds does not cover.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(0..=3600))]
    min_ready: Option<i32>,
    #[command(flatten)]
    wasm: WasmArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command; an error is for a person and means exit code 1.
///
/// # Errors
/// What can't be read, or what the API server refused; everything else was applied.
pub async fn run(args: Args) -> Result<()> {
    let paths: Vec<PathBuf> = args.paths.iter().chain(&args.filename).cloned().collect();
    let module = match paths.as_slice() {
        [path] => wasm::read_if_module(path)?,
        _ => None,
    };
    let from_module = module.is_some();
    let manifests = match module {
        Some(module) => wasm::manifests(&args.wasm, args.min_ready, &paths[0], module)?,
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
        return print_all(&manifests);
    }
    let cluster = args.cluster.connect().await?;
    let applied = apply_all(&cluster, &manifests, args.dry_run).await?;
    if let Some(application) = manifests.last().filter(|_| from_module && !args.dry_run) {
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

/// An object that was applied.
struct Applied {
    resource: Resource,
    path: String,
    name: String,
}

/// Applies all, also after one was refused, and says of each what became of it.
async fn apply_all(cluster: &Cluster, manifests: &[Manifest], dry_run: bool) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    let mut refused = 0_usize;
    let mut resources = BTreeMap::new();
    for manifest in manifests {
        match apply(cluster, &mut resources, manifest, dry_run).await {
            Ok((object, outcome)) => {
                let note = if dry_run { " (dry run)" } else { "" };
                output::print_line(&format!("{} {outcome}{note}", object.resource.object_name(&object.name)));
                applied.push(object);
            }
            Err(error) => {
                refused += 1;
                if let [only] = manifests {
                    return Err(error.context(only.origin.clone()));
                }
                output::complain(&format!("error: {}: {}", manifest.origin, with_causes(error.as_ref())));
            }
        }
    }
    if refused > 0 {
        bail!("{refused} of {} objects could not be applied", manifests.len());
    }
    Ok(applied)
}

async fn apply(
    cluster: &Cluster,
    resources: &mut BTreeMap<(String, String), Resource>,
    manifest: &Manifest,
    dry_run: bool,
) -> Result<(Applied, &'static str)> {
    let key = (manifest.api_version.clone(), manifest.kind.clone());
    let resource = match resources.get(&key) {
        Some(resource) => resource.clone(),
        None => {
            let resource = cluster.resource_of_kind(&key.0, &key.1).await?;
            resources.insert(key, resource.clone());
            resource
        }
    };
    let mut object = manifest.object.clone();
    // Status has other writers; the API server would drop it here too.
    object.as_object_mut().map(|fields| fields.remove("status"));
    let namespace = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => namespace.to_owned(),
        None => cluster.namespace.clone(),
    };
    if resource.namespaced {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let remembered = remember(&mut object)?;
    let collection = resource.collection(Some(&namespace));
    let path = resource.object(Some(&namespace), &manifest.name)?;
    let dry = if dry_run { "&dryRun=All" } else { "" };
    let query = format!("fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry}");
    let outcome = match cluster.read(&path).await? {
        None => {
            cluster.send(Method::POST, &format!("{collection}?{query}"), "application/json", &object).await?;
            "created"
        }
        Some(live) => {
            let patch = merge::patch(&last_applied(&live), &object, &live, remembered);
            if patch == json!({}) {
                "unchanged"
            } else {
                let content_type = "application/merge-patch+json";
                cluster.send(Method::PATCH, &format!("{path}?{query}"), content_type, &patch).await?;
                "configured"
            }
        }
    };
    Ok((Applied { resource, path, name: manifest.name.clone() }, outcome))
}

/// Puts the manifest into its own annotation, unless it is too large for one.
fn remember(object: &mut Value) -> Result<bool> {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = serde_json::to_string(object)?;
    let fits = text.len() <= LAST_APPLIED_BYTES_MAX;
    if fits {
        object["metadata"]["annotations"][LAST_APPLIED] = json!(text);
    }
    Ok(fits)
}

fn last_applied(live: &Value) -> Value {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_remembered_without_itself() {
        let mut object = json!({"metadata": {"name": "a", "annotations": {LAST_APPLIED: "old", "b": "c"}}});
        assert!(remember(&mut object).unwrap());
        assert_eq!(last_applied(&object), json!({"metadata": {"name": "a", "annotations": {"b": "c"}}}));
        let mut large = json!({"metadata": {"name": "a"}, "spec": {"wasm_bytes": "A".repeat(300_000)}});
        assert!(!remember(&mut large).unwrap());
        assert_eq!(last_applied(&large), Value::Null);
    }
}
