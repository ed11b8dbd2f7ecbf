//! What `get` asks the API server for.

use anyhow::{Context, Result};
use serde_json::Value;

use super::table::Table;
use crate::cluster::{Cluster, ClusterArgs, Resource, encode_query};
use crate::commands::settings::At;

/// What a table is asked for with.
pub(super) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects in one answer, as kubectl asks for them; more are fetched page by page.
const PAGE: u32 = 500;

/// Show objects of the cluster.
///
/// Without a kind: devices, applications, gateways and modules. `get settings APPLICATION` asks the gateways what the settings of an
/// application are on its devices.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kinds, with commas between: wdev, wapp, wgw, wmod or their full names; also events, namespaces, settings.
    #[arg(value_name = "KIND[,KIND]")]
    pub(super) kinds: Option<String>,
    /// One object's name; KIND/NAME will do as well.
    #[arg(conflicts_with_all = ["all_namespaces", "selector", "field_selector"])]
    pub(super) name: Option<String>,
    /// Objects of all namespaces.
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
    /// Only objects with these labels, for example site=lab.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
    /// Only objects with these fields, for example status.phase=Connected.
    #[arg(long, value_name = "FIELDS")]
    pub(super) field_selector: Option<String>,
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Go on and print every change.
    #[arg(short, long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) settings: At,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
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

pub(super) async fn read_table(
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
pub(super) fn path(
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

pub(super) fn not_found(resource: &Resource, args: &Args) -> String {
    match &args.name {
        Some(name) => format!("{} was not found", resource.object_name(name)),
        None => format!("the API server does not list {}", resource.plural),
    }
}
