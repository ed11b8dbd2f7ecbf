//! Query parameters. Each verb has a list of those it understands; any other is an error, never ignored.

use crate::resource::FieldValidation;
use crate::status::Status;

/// A request's query.
#[derive(Debug, Default)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
}

/// Understood everywhere. `pretty` changes white space alone; `timeout` bounds requests, which are short here.
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
    pub(super) fn parse(query: Option<&str>) -> Params {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        Params { pairs }
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

    fn check(&self, understood: &[&[&str]]) -> Result<(), Status> {
        for (name, _) in &self.pairs {
            let known = EVERYWHERE.contains(&name.as_str())
                || understood.iter().any(|names| names.contains(&name.as_str()));
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
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(Status::bad_request(format!("{name} must be true or false, not {other:?}"))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        self.get(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| Status::bad_request(format!("{name} must be a number, not {value:?}")))
            })
            .transpose()
    }

    pub(super) fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Status::bad_request(format!("dryRun must be All, not {other:?}"))),
        }
    }

    pub(super) fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(Status::bad_request(format!(
                "fieldValidation must be Ignore, Warn or Strict, not {other:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Params;

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(Params::parse(Some("limit=5&pretty=true")).check_list().is_ok());
        let refused = Params::parse(Some("limits=5")).check_list().unwrap_err();
        assert_eq!(refused.message, "the query parameter \"limits\" is not supported here");
        assert!(Params::parse(Some("limit=5")).check_get().is_err());
        assert!(Params::parse(Some("limit=x")).number("limit").is_err());
        assert!(Params::parse(Some("dryRun=Some")).dry_run().is_err());
        assert!(Params::parse(Some("fieldValidation=strict")).field_validation().is_err());
        assert!(Params::parse(Some("watch=maybe")).flag("watch").is_err());
        assert!(!Params::parse(None).flag("watch").unwrap());
    }
}
