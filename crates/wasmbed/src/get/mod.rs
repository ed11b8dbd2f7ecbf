//! `wasmbed get`: objects as tables, as the API server prints them.

mod table;
mod watch;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterArgs, Resource, encode_query},
    output::{self, print},
};
use table::Table;

/// What a table is asked for with.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects in one answer, as kubectl asks for them; more are fetched page by page.
const PAGE: u32 = 500;

/// Show objects of the cluster.
///
/// Without a kind: devices, applications, gateways and modules.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kinds, with commas between: wdev, wapp, wgw, wmod or their full names; also events, namespaces.
    #[arg(value_name = "KIND[,KIND]")]
    kinds: Option<String>,
    /// One object's name; KIND/NAME will do as well.
    #[arg(conflicts_with_all = ["all_namespaces", "selector", "field_selector"])]
    name: Option<String>,
    /// Objects of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels, for example site=lab.
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only objects with these fields, for example status.phase=Connected.
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Go on and print every change.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How `get` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// The columns that matter most.
    Table,
    /// All columns.
    Wide,
    /// Names alone.
    Name,
    /// Whole objects.
    Yaml,
    /// Whole objects.
    Json,
}

/// Runs the command; an error is for a person and means exit code 1.
///
/// # Errors
/// What does not exist, or what the API server refused.
pub async fn run(mut args: Args) -> Result<()> {
    if args.name.is_none()
        && let Some((kind, name)) = args.kinds.as_deref().and_then(|kinds| kinds.split_once('/'))
    {
        if args.all_namespaces || args.selector.is_some() || args.field_selector.is_some() {
            bail!("one object, {name:?}, is named: leave out what selects from all of them");
        }
        (args.name, args.kinds) = (Some(name.to_owned()), Some(kind.to_owned()));
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

async fn resources(cluster: &Cluster, kinds: Option<&str>) -> Result<Vec<Resource>> {
    let mut found = Vec::new();
    for name in kinds.unwrap_or("wdev,wapp,wgw,wmod").split(',') {
        found.push(cluster.resource_called(name.trim()).await?);
    }
    Ok(found)
}

/// Prints the objects of one kind; whether there were any.
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

async fn read_table(
    cluster: &Cluster,
    resource: &Resource,
    args: &Args,
    namespace: Option<&str>,
) -> Result<Table> {
    let mut whole: Option<Table> = None;
    let mut token = None;
    loop {
        let mut paging = vec![("limit", PAGE.to_string())];
        paging.extend(token.take().map(|token| ("continue", token)));
        let request = http::Request::get(path(resource, args, namespace, &paging)?)
            .header(http::header::ACCEPT, TABLE)
            .body(Vec::new())
            .context("can't make a request")?;
        let answer: Value = cluster.client.request(request).await.map_err(|error| cluster.explain(error))?;
        let mut page = Table::parse(&answer)?;
        token = page.continue_token.take();
        match &mut whole {
            Some(whole) => whole.append(page),
            None => whole = Some(page),
        }
        if token.is_none() {
            return whole.with_context(|| not_found(resource, args));
        }
    }
}

/// Path of the object or, if none is named, of the collection with what selects from it and `more`.
fn path(
    resource: &Resource,
    args: &Args,
    namespace: Option<&str>,
    more: &[(&str, String)],
) -> Result<String> {
    if let Some(name) = &args.name {
        return resource.object(namespace, name);
    }
    let collection = resource.collection(namespace);
    let selectors =
        [("labelSelector", args.selector.clone()), ("fieldSelector", args.field_selector.clone())];
    let selectors = selectors.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let parameters = selectors.chain(more.iter().cloned());
    let query: Vec<String> =
        parameters.map(|(key, value)| format!("{key}={}", encode_query(&value))).collect();
    Ok(if query.is_empty() { collection } else { format!("{collection}?{}", query.join("&")) })
}

fn not_found(resource: &Resource, args: &Args) -> String {
    match &args.name {
        Some(name) => format!("{} was not found", resource.object_name(name)),
        None => format!("the API server does not list {}", resource.plural),
    }
}
