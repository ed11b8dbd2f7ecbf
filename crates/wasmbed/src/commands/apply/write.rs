//! Server-side apply: one PATCH an object, merged by the API server, which knows who set which field.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use http::Method;
use serde_json::{Value, json};
use wasmbed_telemetry::with_causes;

use super::{
    adopt::{FIELD_MANAGER, adopt},
    manifest::Manifest,
};
use crate::{
    cluster::{Cluster, Resource},
    output,
};

/// Fields of the metadata that change although nothing was configured.
const BOOKKEEPING: [&str; 4] = ["managedFields", "resourceVersion", "generation", "creationTimestamp"];

/// An object that was applied.
pub(super) struct Applied {
    pub(super) resource: Resource,
    pub(super) path: String,
    pub(super) name: String,
}

/// Applies all objects, also after one was refused, and prints what became of each.
///
/// # Errors
/// Why the only object was refused, or how many of several were.
pub(super) async fn apply_all(
    cluster: &Cluster,
    manifests: &[Manifest],
    dry_run: bool,
    force: bool,
) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    let mut refused = 0_usize;
    let mut resources = BTreeMap::new();
    for manifest in manifests {
        match apply(cluster, &mut resources, manifest, dry_run, force).await {
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
    force: bool,
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
    let path = resource.object(Some(&namespace), &manifest.name)?;
    let before = cluster.read(&path).await?;
    if let Some(before) = before.as_ref().filter(|_| !dry_run) {
        adopt(cluster, &path, before).await?;
    }
    let flags = [("&dryRun=All", dry_run), ("&force=true", force)];
    let flags: String = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
    let uri = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{flags}");
    let content_type = "application/apply-patch+yaml";
    let after = cluster.send(Method::PATCH, &uri, content_type, &object).await.map_err(with_remedy)?;
    let outcome = match before.map(configured) {
        None => "created",
        Some(before) if before == configured(after) => "unchanged",
        Some(_) => "configured",
    };
    Ok((Applied { resource, path, name: manifest.name.clone() }, outcome))
}

/// Says what helps against fields of other writers.
fn with_remedy(error: anyhow::Error) -> anyhow::Error {
    if error.to_string().starts_with("Apply failed with") {
        return anyhow!("{error}; leave these fields out, or take them over with --force-conflicts");
    }
    error
}

/// The object without what the API server keeps about it.
fn configured(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|field, _| !BOOKKEEPING.contains(&field.as_str()));
    }
    object
}
