//! Query parameters. Each verb supports some of them; any other is an error.

use http::Method;
use serde_json::{Value, json};

use crate::resource::FieldValidation;
use crate::status::{Cause, Status};

/// A request's query.
#[derive(Clone, Debug, Default)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// Name of the options of such a request in Kubernetes, for errors.
    options: &'static str,
}

/// Supported everywhere. `pretty` only changes white space; `timeout` bounds requests, which are short here.
const EVERYWHERE: [&str; 3] = ["pretty", "timeout", "hash"];
const TABLE: [&str; 1] = ["includeObject"];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const LIST: [&str; 10] = [
    "watch",
    "limit",
    "continue",
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "allowWatchBookmarks",
    "sendInitialEvents",
];
const DELETE: [&str; 4] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];

impl Params {
    pub(super) fn parse(method: &Method, query: Option<&str>) -> Params {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        let options = match *method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => "ListOptions",
        };
        Params { pairs, options }
    }

    /// 422: an option has an invalid value.
    pub(super) fn invalid(&self, cause: Cause) -> Status {
        Status::invalid_options(self.options, vec![cause])
    }

    /// The value, also if it is empty.
    fn raw(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    pub(super) fn check_get(&self) -> Result<(), Status> {
        self.check(&[&["resourceVersion"], &TABLE])
    }

    pub(super) fn check_list(&self) -> Result<(), Status> {
        self.check(&[&LIST, &TABLE])
    }

    pub(super) fn check_write(&self) -> Result<(), Status> {
        self.check(&[&WRITE, &TABLE])
    }

    pub(super) fn check_patch(&self) -> Result<(), Status> {
        self.check(&[&WRITE, &["force"], &TABLE])
    }

    pub(super) fn check_delete(&self) -> Result<(), Status> {
        self.check(&[&DELETE])
    }

    pub(super) fn check_delete_collection(&self) -> Result<(), Status> {
        self.check(&[&DELETE, &LIST])
    }

    pub(super) fn check_nothing(&self) -> Result<(), Status> {
        self.check(&[])
    }

    fn check(&self, supported: &[&[&str]]) -> Result<(), Status> {
        for (name, _) in &self.pairs {
            let known = EVERYWHERE.contains(&name.as_str())
                || supported.iter().any(|names| names.contains(&name.as_str()));
            if !known {
                return Err(Status::bad_request(format!(
                    "the query parameter {name:?} is not supported here"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Status> {
        match self.get(name) {
            // As in Kubernetes: everything but `0` and `false` is true.
            None => Ok(false),
            Some(text) => Ok(text != "0" && !text.eq_ignore_ascii_case("false")),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        self.get(name)
            .map(|value| {
                let number: i64 = value.parse().map_err(|_| {
                    Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
                })?;
                Ok(u64::try_from(number).unwrap_or(0))
            })
            .transpose()
    }

    /// `resourceVersion`; an empty one counts as absent.
    pub(super) fn version(&self) -> Result<Option<u64>, Status> {
        let Some(value) = self.get("resourceVersion") else { return Ok(None) };
        let wrong = || {
            Status::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: invalid syntax"
            ))
        };
        value.parse().map(Some).map_err(|_| wrong())
    }

    /// Checks the combination of parameters that select versions for a list or a watch.
    pub(super) fn check_versions(&self, watch: bool) -> Result<(), Status> {
        const MATCH: &str = "resourceVersionMatch";
        let (matching, initial) = (self.get(MATCH), self.raw("sendInitialEvents"));
        let (version, token) = (self.get("resourceVersion"), self.get("continue"));
        let mut causes = Vec::new();
        let mut forbid = |field: &str, why: &str| causes.push(Cause::forbidden(field, why));
        if watch {
            if initial.is_some() && matching != Some("NotOlderThan") {
                forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if initial.is_none() && matching.is_some() {
                forbid(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if token.is_some() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if let Some(other) = matching.filter(|matching| *matching != "NotOlderThan") {
                causes.push(unsupported(MATCH, &json!(other), "\"NotOlderThan\""));
            }
        } else {
            if matching.is_some() && version.is_none() {
                forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if matching.is_some() && token.is_some() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if matching == Some("Exact") && version == Some("0") {
                forbid(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if initial.is_some() {
                forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if let Some(other) = matching.filter(|matching| !["Exact", "NotOlderThan"].contains(matching)) {
                causes.push(unsupported(MATCH, &json!(other), "\"Exact\", \"NotOlderThan\", \"\""));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid_options("ListOptions", causes)) }
    }

    pub(super) fn dry_run(&self) -> Result<bool, Status> {
        match self.raw("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(self.invalid(unsupported("dryRun", &json!([other]), "\"All\""))),
        }
    }

    pub(super) fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let supported = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
                Err(self.invalid(unsupported("fieldValidation", &json!(other), supported)))
            }
        }
    }
}

/// The cause for a value that an option doesn't support.
pub(super) fn unsupported(field: &str, value: &Value, supported: &str) -> Cause {
    let message = format!("Unsupported value: {value}: supported values: {supported}");
    Cause::new("FieldValueNotSupported", field, message)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::Params;

    fn parse(query: &str) -> Params {
        Params::parse(&Method::POST, Some(query))
    }

    #[test]
    fn unsupported_parameters_are_refused() {
        assert!(parse("limit=5&pretty=true").check_list().is_ok());
        let refused = parse("limits=5").check_list().unwrap_err();
        assert_eq!(refused.message(), "the query parameter \"limits\" is not supported here");
        assert!(parse("limit=5").check_get().is_err());
        assert!(parse("limit=x").number("limit").is_err());
        assert!(parse("dryRun=Some").dry_run().is_err());
        assert!(parse("dryRun=").dry_run().is_err());
        let refused = parse("fieldValidation=strict").field_validation().unwrap_err();
        assert_eq!(
            refused.message(),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
        assert!(parse("watch=maybe").flag("watch").unwrap());
        assert!(!parse("").flag("watch").unwrap());
    }
}
