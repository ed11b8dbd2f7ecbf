//! Printer columns: cells of the Table form.

use jiff::Timestamp;
use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::{Value, json};

/// One column.
#[derive(Debug)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub ty: String,
    /// Refines the type.
    pub format: String,
    /// For people.
    pub description: String,
    /// Above 0: shown by `-o wide` alone.
    pub priority: i64,
    parts: Vec<Part>,
}

/// Description of `metadata.creationTimestamp` in Kubernetes.
pub(super) const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Why a column can't be compiled.
#[derive(Debug, thiserror::Error)]
#[error("column {name:?}: {fault}")]
pub struct ColumnError {
    name: String,
    #[source]
    fault: ColumnFault,
}

#[derive(Debug, thiserror::Error)]
enum ColumnFault {
    #[error("a brace isn't closed")]
    Brace,
    #[error("type must be string, integer, number, boolean or date")]
    Type,
    #[error("a JSONPath begins with a dot")]
    Dot,
    #[error("{0}")]
    Path(Box<JsonPathError>),
}

#[derive(Debug)]
enum Part {
    /// `.a.b.c`: most columns.
    Fields(Vec<String>),
    Query(JpQuery),
    Text(String),
}

impl Column {
    /// From an entry of `additionalPrinterColumns`. Its `jsonPath` may also be a template, `{.a}/{.b}`.
    pub(crate) fn compile(column: &Value) -> Result<Column, ColumnError> {
        let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let wrong = |fault| ColumnError { name: name.clone(), fault };
        let path = text("jsonPath");
        let mut parts = Vec::new();
        let mut rest = path.as_str();
        if !rest.contains('{') {
            parts.push(Part::path(rest).map_err(wrong)?);
            rest = "";
        }
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (inside, after) = after.split_once('}').ok_or_else(|| wrong(ColumnFault::Brace))?;
            parts.push(Part::path(inside).map_err(wrong)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let ty = text("type");
        if !["string", "integer", "number", "boolean", "date"].contains(&ty.as_str()) {
            return Err(wrong(ColumnFault::Type));
        }
        let priority = column["priority"].as_i64().unwrap_or(0);
        let mut description = text("description");
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        Ok(Column { name, ty, format: text("format"), description, priority, parts })
    }

    /// The column of kinds that define no columns.
    pub(crate) fn age() -> Column {
        Column {
            name: "Age".into(),
            ty: "date".into(),
            format: String::new(),
            description: CREATED.into(),
            priority: 0,
            parts: vec![Part::Fields(vec!["metadata".into(), "creationTimestamp".into()])],
        }
    }

    /// The cell of an object; null if there is no value.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        if let [part] = self.parts.as_slice() {
            return part.find(object).map_or(Value::Null, |value| self.shown(value, now));
        }
        let texts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Fields(_) | Part::Query(_) => part.find(object).map(plain).unwrap_or_default(),
        });
        json!(texts.collect::<String>())
    }

    /// Whether it shows the creation time.
    pub(super) fn is_age(&self) -> bool {
        let [Part::Fields(path)] = self.parts.as_slice() else { return false };
        path.iter().map(String::as_str).eq(["metadata", "creationTimestamp"])
    }

    fn shown(&self, value: &Value, now: Timestamp) -> Value {
        match (self.ty.as_str(), value) {
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => json!(since(text, now)),
                Err(_) => json!("<invalid>"),
            },
            ("date", _) | (_, Value::Null) => Value::Null,
            ("integer", Value::Number(number)) => json!(number.as_i64()),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("string", value) => json!(plain(value)),
            (_, _) => Value::Null,
        }
    }
}

impl Part {
    fn path(path: &str) -> Result<Part, ColumnFault> {
        let simple =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let below = path.strip_prefix('.').ok_or(ColumnFault::Dot)?;
        if below.split('.').all(simple) {
            return Ok(Part::Fields(below.split('.').map(str::to_owned).collect()));
        }
        let query =
            parse_json_path(&format!("${path}")).map_err(|error| ColumnFault::Path(Box::new(error)))?;
        Ok(Part::Query(query))
    }

    fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        match self {
            Part::Fields(names) => names.iter().try_fold(object, |value, name| value.get(name)),
            Part::Query(query) => {
                js_path_process(query, object).ok()?.into_iter().next().map(|found| found.val())
            }
            Part::Text(_) => None,
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The age of a time; `<unknown>` if it isn't one.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// A duration as kubectl shows ages: two units at most, coarser with age.
pub(super) fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..=0 => "0s".into(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        252_288_000.. => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{Column, human_duration};

    fn cell(ty: &str, path: &str, object: &Value) -> Value {
        let column = Column::compile(&json!({"name": "x", "type": ty, "jsonPath": path})).unwrap();
        column.cell(object, "2026-01-01T00:01:00Z".parse::<Timestamp>().unwrap())
    }

    #[test]
    fn cells_follow_their_paths() {
        let object = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"n": 3, "list": ["a", "b"], "conditions": [
                {"type": "Complete", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        assert_eq!(cell("integer", ".status.n", &object), json!(3));
        assert_eq!(cell("date", ".metadata.creationTimestamp", &object), json!("60s"));
        assert_eq!(cell("string", ".status.conditions[?(@.type==\"Ready\")].status", &object), json!("True"));
        assert_eq!(cell("string", ".status.conditions[?(@.type=='Gone')].status", &object), Value::Null);
        assert_eq!(cell("string", ".status.list", &object), json!("[\"a\",\"b\"]"));
        assert_eq!(cell("string", ".status.absent", &object), Value::Null);
        assert_eq!(cell("string", "{.metadata.name}/{.status.n}", &object), json!("n/3"));
        assert!(Column::compile(&json!({"name": "x", "type": "string", "jsonPath": "status"})).is_err());
    }

    #[test]
    fn ages_read_like_those_of_kubectl() {
        let shown = [0, 119, 125, 600, 10_800, 11_100, 90_000, 172_800, 176_400, 864_000, 63_158_400]
            .map(human_duration);
        assert_eq!(shown, ["0s", "119s", "2m5s", "10m", "3h", "3h5m", "25h", "2d", "2d1h", "10d", "2y1d"]);
    }
}
