//! The objects that a request selects: by namespace, labels and fields.

use super::facets::Facets;
use super::label::{LabelRequirement, parse_labels};
use crate::kinds::{Conversion, Kind};
use crate::status::Status;

/// Bytes of one selector at most: each object is compared with all of it, for a watch at each change.
const SELECTOR_BYTES_MAX: usize = 16 * 1_024;
/// Requirements of both selectors of a request at most.
const TERMS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Name,
    Namespace,
    Selectable(usize),
}

/// A selection of objects of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// One namespace, or all.
    namespace: Option<String>,
    labels: Vec<LabelRequirement>,
    /// Field, value, and whether they must be equal.
    fields: Vec<(Field, String, bool)>,
}

impl Selection {
    /// All objects of a namespace.
    pub fn within(namespace: &str) -> Selection {
        Selection { namespace: Some(namespace.to_owned()), ..Selection::default() }
    }

    /// Parses a request's `labelSelector` and `fieldSelector`. The namespace of cluster-scoped objects is empty, whatever
    /// `namespace` is.
    pub fn parse(
        kind: &Kind,
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Selection, Status> {
        for text in [labels, fields].into_iter().flatten() {
            if text.len() > SELECTOR_BYTES_MAX {
                let why =
                    format!("a selector has at most {SELECTOR_BYTES_MAX} bytes, this one has {}", text.len());
                return Err(Status::bad_request(why));
            }
        }
        let selection = Selection {
            namespace: if kind.namespaced { namespace.map(str::to_owned) } else { Some(String::new()) },
            labels: parse_labels(labels.unwrap_or_default())
                .map_err(|error| Status::bad_request(error.to_string()))?,
            fields: parse_fields(kind, fields.unwrap_or_default())?,
        };
        let terms = selection.labels.len() + selection.fields.len();
        if terms > TERMS_MAX {
            let why = format!("selectors have at most {TERMS_MAX} terms together, these have {terms}");
            return Err(Status::bad_request(why));
        }
        Ok(selection)
    }

    /// Whether it selects all objects, of its namespace if it has one.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only namespace that can match, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The only name that can match, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _, equal)| *field == Field::Name && *equal)
            .map(|(_, name, _)| name.as_str())
    }

    /// Whether it selects a stored object.
    pub fn fits(&self, kind: &Kind, object: &[u8]) -> bool {
        serde_json::from_slice(object).is_ok_and(|object| self.matches(&Facets::of(kind, &object)))
    }

    /// Whether it selects the object with these facets.
    pub fn matches(&self, facets: &Facets) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == facets.namespace)
            && self.labels.iter().all(|label| label.matches(&facets.labels))
            && self.fields.iter().all(|(field, wanted, equal)| {
                let value = match field {
                    Field::Name => &facets.name,
                    Field::Namespace => &facets.namespace,
                    Field::Selectable(index) => match facets.fields.get(*index) {
                        Some(value) => value,
                        None => {
                            debug_assert!(false, "the facets are of another kind");
                            return false;
                        }
                    },
                };
                (value == wanted) == *equal
            })
    }
}

fn parse_fields(kind: &Kind, selector: &str) -> Result<Vec<(Field, String, bool)>, Status> {
    let mut fields = Vec::new();
    for term in selector.split(',').filter(|term| !term.trim().is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (path, value, true)
        } else {
            return Err(Status::bad_request(format!(
                "invalid selector: '{selector}'; can't understand '{term}'"
            )));
        };
        let path = path.trim().trim_start_matches('.');
        let field = match path {
            "metadata.name" => Field::Name,
            "metadata.namespace" => Field::Namespace,
            path => {
                let stored = match (kind.conversion(), path.strip_prefix("regarding.")) {
                    (Conversion::Events, Some(below)) => format!("involvedObject.{below}"),
                    (Conversion::Events | Conversion::None, _) => path.to_owned(),
                };
                let index = kind.selectable.iter().position(|known| *known == stored);
                let unsupported = || Status::bad_request(unsupported(kind, path));
                Field::Selectable(index.ok_or_else(unsupported)?)
            }
        };
        fields.push((field, value.trim().to_owned(), equal));
    }
    Ok(fields)
}

fn unsupported(kind: &Kind, path: &str) -> String {
    if kind.counts_generations || !kind.selectable.is_empty() {
        return format!("field label not supported: {path}");
    }
    format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selection;
    use crate::kinds::Kinds;
    use crate::selector::Facets;

    fn matches(labels: &str, fields: &str) -> bool {
        let kinds = Kinds::new(&[]).unwrap();
        let events = kinds.get("", "v1", "events").unwrap();
        let facets = Facets::of(
            events,
            &json!({"metadata": {"name": "n", "namespace": "ns", "labels": {"a": "1", "x.y/b": ""}},
                    "involvedObject": {"kind": "Device", "name": "d"}}),
        );
        Selection::parse(events, None, Some(labels), Some(fields)).unwrap().matches(&facets)
    }

    #[test]
    fn labels() {
        for yes in [
            "",
            "a",
            "a=1",
            "a==1,x.y/b",
            "a in (1, 2)",
            "a notin (2),!c",
            "c!=1",
            "x.y/b=",
            "a!=2",
            "c notin (1)",
        ] {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in ["c", "a=2", "!a", "a notin (1,2)", "a in (2)", "c in (1)", "a!=1"] {
            assert!(!matches(no, ""), "{no}");
        }
    }

    #[test]
    fn fields() {
        for yes in [
            "metadata.name=n",
            "metadata.namespace!=other",
            "involvedObject.kind=Device,involvedObject.name==d",
            "reason=",
        ] {
            assert!(matches("", yes), "{yes}");
        }
        assert!(!matches("", "involvedObject.name=e"));
    }

    #[test]
    fn invalid_selectors_are_refused() {
        let kinds = Kinds::new(&[]).unwrap();
        let events = kinds.get("", "v1", "events").unwrap();
        let (many, long) = (vec!["a"; 257].join(","), "a".repeat(16 * 1_024 + 1));
        for (labels, fields) in [(many.as_str(), ""), (long.as_str(), "")] {
            let refused = Selection::parse(events, None, Some(labels), Some(fields)).unwrap_err();
            assert!(refused.message().contains("at most"), "{refused}");
        }
        for (labels, fields) in
            [("", "spec.a=1"), ("", "nonsense"), ("a within (b)", ""), ("a b", ""), ("=1", "")]
        {
            let refused = Selection::parse(events, None, Some(labels), Some(fields)).unwrap_err();
            assert_eq!(refused.reason().code(), 400, "{labels} {fields}");
        }
        let other = kinds.get("events.k8s.io", "v1", "events").unwrap();
        assert!(Selection::parse(other, None, None, Some("regarding.name=d")).is_ok());
    }
}
