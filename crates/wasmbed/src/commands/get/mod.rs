//! `wasmbed get`: objects as tables, as the API server prints them.

mod request;
mod table;
mod watch;

use anyhow::{Context, Result, bail};

use super::settings;
use crate::{
    cluster::{Cluster, Resource},
    output::{self, print},
};
pub use request::{Args, Output};
use request::{not_found, path, read_table};

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// An object does not exist, or the API server rejected the request.
pub async fn run(mut args: Args) -> Result<()> {
    if args.name.is_none()
        && let Some((kind, name)) = args.kinds.as_deref().and_then(|kinds| kinds.split_once('/'))
    {
        if args.all_namespaces || args.selector.is_some() || args.field_selector.is_some() {
            bail!("one object, {name:?}, is named: leave out what selects from all of them");
        }
        (args.name, args.kinds) = (Some(name.to_owned()), Some(kind.to_owned()));
    }
    if args.kinds.as_deref() == Some(SETTINGS) {
        return show_settings(args).await;
    }
    if args.settings.device.is_some() || !args.settings.gateway.is_empty() {
        bail!("--device and --gateway are for settings: wasmbed get settings APPLICATION");
    }
    let cluster = args.cluster.connect().await?;
    let resources = resources(&cluster, args.kinds.as_deref()).await?;
    let namespace = (!args.all_namespaces).then(|| cluster.namespace.clone());
    if args.watch {
        if matches!(args.output, Output::Yaml | Output::Json) {
            bail!("--watch prints tables or names, not whole objects");
        }
        let [resource] = resources.as_slice() else { bail!("--watch needs exactly one kind") };
        return watch::run(&cluster, resource, &args, namespace.as_deref()).await;
    }
    let mut printed = false;
    for resource in &resources {
        printed |=
            show(&cluster, resource, &args, namespace.as_deref(), resources.len() > 1, printed).await?;
    }
    if !printed {
        match namespace {
            Some(namespace) => output::complain(&format!("nothing found in namespace {namespace}")),
            None => output::complain("nothing found"),
        }
    }
    Ok(())
}

/// Not a kind of the Kubernetes API: what gateways know.
const SETTINGS: &str = "settings";

async fn show_settings(args: Args) -> Result<()> {
    let output = match args.output {
        Output::Table => settings::Output::Table,
        Output::Json => settings::Output::Json,
        Output::Wide | Output::Name | Output::Yaml => {
            bail!("settings are printed as a table or with -o json")
        }
    };
    if args.watch || args.all_namespaces || args.selector.is_some() || args.field_selector.is_some() {
        bail!("settings are those of one Application, on all of its devices or with --device NAME");
    }
    let Some(application) = args.name else {
        bail!("name the Application: wasmbed get settings APPLICATION")
    };
    settings::run(settings::Args { application, at: args.settings, output, cluster: args.cluster }).await
}

async fn resources(cluster: &Cluster, kinds: Option<&str>) -> Result<Vec<Resource>> {
    let mut found = Vec::new();
    for name in kinds.unwrap_or("wdev,wapp,wgw,wmod").split(',') {
        found.push(cluster.resource_called(name.trim()).await?);
    }
    Ok(found)
}

/// Prints the objects of one kind and returns whether there were any.
async fn show(
    cluster: &Cluster,
    resource: &Resource,
    args: &Args,
    namespace: Option<&str>,
    with_kind: bool,
    after_others: bool,
) -> Result<bool> {
    match args.output {
        Output::Table | Output::Wide | Output::Name => {
            let table = read_table(cluster, resource, args, namespace).await?;
            if table.rows.is_empty() {
                return Ok(false);
            }
            if args.output == Output::Name {
                print(
                    &table
                        .rows
                        .iter()
                        .fold(String::new(), |text, row| text + &resource.object_name(&row.name) + "\n"),
                );
                return Ok(true);
            }
            if after_others {
                print("\n");
            }
            let prefix = with_kind.then_some(resource.singular.as_str());
            print(&table.render(
                args.output == Output::Wide,
                args.all_namespaces && resource.namespaced,
                prefix,
            ));
            Ok(true)
        }
        Output::Yaml | Output::Json => {
            let object = cluster
                .read(&path(resource, args, namespace, &[])?)
                .await?
                .with_context(|| not_found(resource, args))?;
            if object["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(false);
            }
            match args.output {
                Output::Json => print(&(serde_json::to_string_pretty(&object)? + "\n")),
                _ => print(&format!(
                    "{}{}",
                    if after_others { "---\n" } else { "" },
                    serde_saphyr::to_string(&object)?
                )),
            }
            Ok(true)
        }
    }
}
