//! Events have two faces over the same objects: `v1` and `events.k8s.io/v1`. They are stored as `v1`.

use serde_json::Value;

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
            Form::Events => rename(object, "events.k8s.io/v1", |pair| (pair.1, pair.0)),
        }
    }
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
