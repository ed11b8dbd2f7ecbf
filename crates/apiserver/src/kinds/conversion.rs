//! Conversion between the versions of Events: `v1` and `events.k8s.io/v1` are the same objects, stored as `v1`.

use serde_json::Value;
use wasmbed_structured_merge::Convert;

/// How objects of a version relate to those in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// They are stored as they are.
    None,
    /// Events of `events.k8s.io/v1`, which are stored as `v1`.
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

impl Conversion {
    /// Converts an object of this version to the stored form.
    pub fn convert_to_stored(self, object: &mut Value) {
        match self {
            Conversion::None => {}
            Conversion::Events => rename(object, "v1", |pair| (pair.0, pair.1)),
        }
    }

    /// Converts a stored object to this version.
    pub fn convert_from_stored(self, object: &mut Value) {
        match self {
            Conversion::None => {}
            Conversion::Events => {
                rename(object, "events.k8s.io/v1", |pair| (pair.1, pair.0));
                if let Some(fields) = object.as_object_mut() {
                    let is_blank = |name: &str, value: &Value| name.starts_with("reporting") && value == "";
                    fields.retain(|name, value| !is_blank(name, value));
                }
            }
        }
    }
}

impl Convert for Conversion {
    fn convert_to_hub(self, object: &mut Value) {
        self.convert_to_stored(object);
    }

    fn convert_from_hub(self, object: &mut Value) {
        self.convert_from_stored(object);
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

    use super::Conversion;

    #[test]
    fn both_versions_show_the_same_event() {
        let shown =
            json!({"apiVersion": "events.k8s.io/v1", "note": "n", "regarding": {"name": "x"}, "reason": "R"});
        let mut event = shown.clone();
        Conversion::Events.convert_to_stored(&mut event);
        assert_eq!(
            event,
            json!({"apiVersion": "v1", "message": "n", "involvedObject": {"name": "x"}, "reason": "R"})
        );
        Conversion::Events.convert_from_stored(&mut event);
        assert_eq!(event, shown);
    }
}
