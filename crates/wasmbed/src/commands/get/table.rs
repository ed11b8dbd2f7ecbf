//! Tables of the API server (`meta.k8s.io/v1 Table`), laid out for a terminal.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::output::harmless;

/// Spaces between columns, as kubectl has them.
const GAP: usize = 3;

/// A table as the server sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    pub(super) continue_token: Option<String>,
    pub(super) resource_version: Option<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: String,
    /// 0 for those that always stand, more for `-o wide`.
    priority: i64,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    namespace: String,
    cells: Vec<String>,
}

impl Table {
    /// Reads a server's answer.
    ///
    /// # Errors
    /// The server sent something else than a table.
    pub(super) fn parse(answer: &Value) -> Result<Self> {
        if answer["kind"] != "Table" {
            bail!("the API server sent no table but {}; use -o yaml", answer["kind"]);
        }
        let columns = answer["columnDefinitions"].as_array().into_iter().flatten().map(|column| Column {
            name: text(&column["name"]),
            priority: column["priority"].as_i64().unwrap_or(0),
        });
        let rows = answer["rows"].as_array().into_iter().flatten().map(|row| {
            let cells: Vec<String> = row["cells"].as_array().into_iter().flatten().map(cell).collect();
            let metadata = &row["object"]["metadata"];
            Row {
                name: metadata["name"]
                    .as_str()
                    .map_or_else(|| cells.first().cloned().unwrap_or_default(), str::to_owned),
                namespace: text(&metadata["namespace"]),
                cells,
            }
        });
        let metadata = &answer["metadata"];
        let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            columns: columns.collect(),
            rows: rows.collect(),
            continue_token: filled(&metadata["continue"]),
            resource_version: filled(&metadata["resourceVersion"]),
        })
    }

    /// Adds the rows of the next page.
    pub(super) fn append(&mut self, page: Self) {
        self.rows.extend(page.rows);
        self.resource_version = page.resource_version;
    }

    /// The table with a heading, one line for each row.
    pub(super) fn render(&self, wide: bool, namespaces: bool, kind: Option<&str>) -> String {
        let heading = self.heading(wide, namespaces);
        let rows = self.lines(wide, namespaces, kind);
        let widths = widths(&heading, &rows);
        let lines = std::iter::once(&heading).chain(&rows).map(|line| lay_out(line, &widths));
        lines.fold(String::new(), |text, line| text + &line + "\n")
    }

    /// The names of the columns shown.
    pub(super) fn heading(&self, wide: bool, namespaces: bool) -> Vec<String> {
        let shown = self.columns.iter().filter(|column| wide || column.priority == 0);
        let names = shown.map(|column| column.name.to_uppercase());
        namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(names).collect()
    }

    /// The cells of the columns shown; `kind` stands before the name.
    pub(super) fn lines(&self, wide: bool, namespaces: bool, kind: Option<&str>) -> Vec<Vec<String>> {
        let line = |row: &Row| {
            let shown =
                self.columns.iter().zip(&row.cells).filter(|(column, _)| wide || column.priority == 0);
            let mut cells: Vec<String> = shown.map(|(_, cell)| cell.clone()).collect();
            if let (Some(kind), Some(first)) = (kind, cells.first_mut()) {
                *first = format!("{kind}/{first}");
            }
            if namespaces {
                cells.insert(0, row.namespace.clone());
            }
            cells
        };
        self.rows.iter().map(line).collect()
    }
}

/// Characters that each column takes.
pub(super) fn widths(heading: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        cells.chain(heading.get(index)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..heading.len()).map(width).collect()
}

/// One line; the last column is not padded.
pub(super) fn lay_out(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, cell) in cells.iter().enumerate() {
        line.push_str(cell);
        if index + 1 < cells.len() {
            let width = widths.get(index).copied().unwrap_or(0);
            line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count()) + GAP));
        }
    }
    line
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) if text.is_empty() => "<none>".to_owned(),
        // A name or message may come from a device.
        Value::String(text) => harmless(text).into_owned(),
        other => other.to_string(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        Table::parse(&json!({
            "kind": "Table",
            "metadata": {"resourceVersion": "7", "continue": ""},
            "columnDefinitions": [
                {"name": "Name", "type": "string", "priority": 0},
                {"name": "Phase", "type": "string", "priority": 0},
                {"name": "Epoch", "type": "integer", "priority": 1},
            ],
            "rows": [
                {"cells": ["device-001", "Connected", 3], "object": {"metadata": {"name": "device-001", "namespace": "lab"}}},
                {"cells": ["b", null, null], "object": {"metadata": {"name": "b", "namespace": "lab"}}},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn columns_line_up_and_wide_ones_wait_to_be_asked_for() {
        assert_eq!(
            table().render(false, false, None),
            "NAME         PHASE\ndevice-001   Connected\nb            <none>\n"
        );
        assert_eq!(
            table().render(true, true, Some("device")),
            "NAMESPACE   NAME                PHASE       EPOCH\n\
             lab         device/device-001   Connected   3\n\
             lab         device/b            <none>      <none>\n"
        );
        assert_eq!(table().resource_version.as_deref(), Some("7"));
        assert_eq!(table().continue_token, None);
    }

    #[test]
    fn anything_but_a_table_is_refused() {
        assert!(Table::parse(&json!({"kind": "DeviceList", "items": []})).is_err());
    }
}
