//! `get --watch`: the table, then a line for every change.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::Value;

use super::{
    request::{Args, Output, TABLE, path, read_table},
    table::{self, Table},
};
use crate::{
    cluster::{Cluster, Resource},
    output::{harmless, print},
};

/// Pause before a watch that ended is begun again, so that a server in trouble isn't pressed.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    cluster: &Cluster,
    resource: &Resource,
    args: &Args,
    namespace: Option<&str>,
) -> Result<()> {
    let shown = read_table(cluster, resource, args, namespace).await?;
    let mut printer = Printer::new(args, resource);
    printer.print(&shown);
    let mut version =
        shown.resource_version.context("the API server sent no resourceVersion to watch from")?;
    loop {
        match follow(cluster, resource, args, namespace, &mut version, &mut printer).await? {
            End::Closed => {}
            End::Expired => {
                let shown = read_table(cluster, resource, args, namespace).await?;
                printer.print(&shown);
                version =
                    shown.resource_version.context("the API server sent no resourceVersion to watch from")?;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a watch ended.
enum End {
    /// The server closed it, as it does from time to time.
    Closed,
    /// The server no longer knows the version.
    Expired,
}

async fn follow(
    cluster: &Cluster,
    resource: &Resource,
    args: &Args,
    namespace: Option<&str>,
    version: &mut String,
    printer: &mut Printer,
) -> Result<End> {
    let request = http::Request::get(watch_path(resource, args, namespace, version)?)
        .header(http::header::ACCEPT, TABLE)
        .body(Vec::new())
        .context("can't make a request")?;
    let stream = match cluster.client.request_stream(request).await {
        Ok(stream) => stream,
        Err(kube::Error::Api(status)) if status.code == 410 => return Ok(End::Expired),
        Err(error) => return Err(cluster.explain(error)),
    };
    let mut lines = std::pin::pin!(stream.lines());
    while let Some(line) = lines.next().await {
        // A connection that breaks is one that ended.
        let Ok(line) = line else { return Ok(End::Closed) };
        let event: Value =
            serde_json::from_str(&line).context("the API server sent a watch event that is no JSON")?;
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ERROR") if object["code"] == 410 => return Ok(End::Expired),
            Some("ERROR") => {
                bail!(
                    "the watch ended: {}",
                    harmless(object["message"].as_str().unwrap_or("no reason given"))
                )
            }
            Some("BOOKMARK") => {}
            _ => printer.print(&Table::parse(object)?),
        }
        let row = &object["rows"][0]["object"]["metadata"]["resourceVersion"];
        if let Some(newer) = row.as_str().or_else(|| object["metadata"]["resourceVersion"].as_str()) {
            newer.clone_into(version);
        }
    }
    Ok(End::Closed)
}

fn watch_path(resource: &Resource, args: &Args, namespace: Option<&str>, version: &str) -> Result<String> {
    // One object is watched by its name within the collection.
    let fields = args
        .name
        .as_ref()
        .map(|name| format!("metadata.name={name}"))
        .or_else(|| args.field_selector.clone());
    let collection = Args { name: None, field_selector: fields, ..args.clone() };
    let watch = [
        ("watch", "true".to_owned()),
        ("allowWatchBookmarks", "true".to_owned()),
        ("resourceVersion", version.to_owned()),
    ];
    path(resource, &collection, namespace, &watch)
}

/// Prints rows below one heading, as wide as the first ones need.
struct Printer {
    wide: bool,
    namespaces: bool,
    names: Option<Resource>,
    heading: Option<(Table, Vec<usize>)>,
}

impl Printer {
    fn new(args: &Args, resource: &Resource) -> Self {
        Self {
            wide: args.output == Output::Wide,
            namespaces: args.all_namespaces && resource.namespaced,
            names: (args.output == Output::Name).then(|| resource.clone()),
            heading: None,
        }
    }

    fn print(&mut self, table: &Table) {
        if let Some(resource) = &self.names {
            table.rows.iter().for_each(|row| print(&(resource.object_name(&row.name) + "\n")));
            return;
        }
        // The server sends the columns once for a watch.
        let mut table = table.clone();
        if let (true, Some((first, _))) = (table.columns.is_empty(), &self.heading) {
            table.columns.clone_from(&first.columns);
        }
        let rows = table.lines(self.wide, self.namespaces, None);
        let (_, widths) = self.heading.get_or_insert_with(|| {
            let heading = table.heading(self.wide, self.namespaces);
            let widths = table::widths(&heading, &rows);
            print(&(table::lay_out(&heading, &widths) + "\n"));
            (table.clone(), widths)
        });
        rows.iter().for_each(|row| print(&(table::lay_out(row, widths) + "\n")));
    }
}
