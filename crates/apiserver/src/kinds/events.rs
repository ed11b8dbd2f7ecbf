//! Events have two faces over the same objects: `v1` and `events.k8s.io/v1`. They are stored as `v1`.

use serde_json::Value;

use super::Kind;
use crate::names;
use crate::status::Cause;

/// How a kind's objects relate to what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Stored,
    /// `events.k8s.io/v1`.
    Events,
}

/// Field names: in `events.k8s.io/v1` and in `v1`.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

impl Form {
    /// From what a client sends to what is stored.
    pub fn store(self, object: &mut Value) {
        match self {
            Form::Stored => {}
            Form::Events => rename(object, "v1", |pair| (pair.0, pair.1)),
        }
    }

    /// From what is stored to what a client sees.
    pub fn show(self, object: &mut Value) {
        match self {
            Form::Stored => {}
            Form::Events => {
                rename(object, "events.k8s.io/v1", |pair| (pair.1, pair.0));
                if let Some(fields) = object.as_object_mut() {
                    let is_blank = |name: &str, value: &Value| name.starts_with("reporting") && value == "";
                    fields.retain(|name, value| !is_blank(name, value));
                }
            }
        }
    }

    /// What is wrong with an Event beyond its schema.
    pub(crate) fn judge(self, kind: &Kind, object: &Value, is_new: bool) -> Vec<Cause> {
        if kind.kind != "Event" || kind.is_custom() {
            return Vec::new();
        }
        let mut causes = Vec::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = match self {
            Form::Stored => &object["involvedObject"]["namespace"],
            Form::Events => &object["regarding"]["namespace"],
        };
        let (about, namespace) = (text(about), text(&object["metadata"]["namespace"]));
        let fits = if about.is_empty() { SHARED.contains(&namespace.as_str()) } else { about == namespace };
        if !fits {
            let shown = format!("{about:?}");
            causes.push(Cause::invalid("involvedObject.namespace", &shown, "does not match event.namespace"));
        }
        if self == Form::Events && is_new {
            causes.extend(judge_new(object));
        }
        causes
    }
}

/// Namespaces whose Events may be about what is in none.
const SHARED: [&str; 2] = ["default", "kube-system"];

/// `events.k8s.io/v1` asks for more than `v1`.
fn judge_new(event: &Value) -> Vec<Cause> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    if text("eventTime").is_empty() {
        return vec![Cause::required("eventTime", "")];
    }
    let mut causes = Vec::new();
    let controller = text("reportingController");
    if controller.is_empty() {
        causes.push(Cause::required("reportingController", ""));
    } else {
        let wrong = names::key(controller).into_iter();
        causes
            .extend(wrong.map(|why| Cause::invalid("reportingController", &format!("{controller:?}"), why)));
    }
    for name in ["reportingInstance", "action", "reason"] {
        if text(name).is_empty() {
            causes.push(Cause::required(name, ""));
        }
    }
    let ty = text("type");
    if !["Normal", "Warning"].contains(&ty) {
        causes.push(Cause::invalid("type", "\"\"", format!("has invalid value: {ty}")));
    }
    causes
}

fn rename(
    object: &mut Value,
    api_version: &str,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(fields) = object.as_object_mut() else { return };
    if fields.contains_key("apiVersion") {
        fields.insert("apiVersion".into(), api_version.into());
    }
    for pair in RENAMED {
        let (from, to) = direction(pair);
        if let Some(value) = fields.remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Form;

    #[test]
    fn both_faces_show_the_same_event() {
        let shown =
            json!({"apiVersion": "events.k8s.io/v1", "note": "n", "regarding": {"name": "x"}, "reason": "R"});
        let mut event = shown.clone();
        Form::Events.store(&mut event);
        assert_eq!(
            event,
            json!({"apiVersion": "v1", "message": "n", "involvedObject": {"name": "x"}, "reason": "R"})
        );
        Form::Events.show(&mut event);
        assert_eq!(event, shown);
    }
}
