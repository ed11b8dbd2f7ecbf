//! A write of one object, and its result.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::kinds::Kind;

/// Time and randomness of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// RFC 3339 with whole seconds, UTC.
    pub now: &'a str,
    /// Fresh for each operation: the uid of an object that is created.
    pub uid: Uuid,
}

/// Treatment of unknown and of duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// The part of an object that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, if the status is a subresource.
    Main,
    /// The status.
    Status,
    /// The approval of a CertificateSigningRequest: the conditions of its status.
    Approval,
}

impl Part {
    /// The subresource; empty for the object itself.
    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Approval => "approval",
        }
    }
}

/// Who writes, and for which signers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The user.
    pub name: String,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// Credential with which the user authenticated.
    pub credential: Option<String>,
    /// Signers whose requests the user may approve and deny.
    pub approves: Signers,
    /// Signers as which the user may issue.
    pub signs: Signers,
}

/// Some signers of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signers {
    /// All of them.
    All,
    /// Those of these names; `example.com/*` are all of a domain.
    Named(Arc<[String]>),
}

impl Default for Signers {
    fn default() -> Signers {
        Signers::Named(Arc::new([]))
    }
}

impl Signers {
    /// Whether a signer is one of them.
    pub fn has(&self, signer: &str) -> bool {
        let Signers::Named(names) = self else { return true };
        let domain = signer.split_once('/').map(|(domain, _)| domain);
        names.iter().any(|name| name == signer || (domain.is_some() && name.strip_suffix("/*") == domain))
    }
}

/// Conditions on a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this version.
    pub resource_version: Option<String>,
}

/// Result of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The object stays as it is and nothing is written.
    Unchanged,
    /// The object to store with a new resourceVersion.
    Stored(Value),
    /// The object is removed; its last state.
    Removed(Value),
}

/// A write of one object: everything but its body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Kind of the object.
    pub kind: &'a Kind,
    /// Namespace in the path.
    pub namespace: Option<&'a str>,
    /// Part that is written.
    pub part: Part,
    /// Name of the field manager.
    pub manager: &'a str,
    /// Who writes.
    pub author: &'a Author,
    /// Treatment of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// Time and randomness.
    pub moment: Moment<'a>,
}
