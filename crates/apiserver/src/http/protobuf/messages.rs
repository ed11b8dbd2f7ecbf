//! Fields of the supported messages, with the numbers of `generated.proto` in `k8s.io/apimachinery` and `k8s.io/api`
//! (v0.36). Numbers are stable.

/// A message: its fields.
pub(super) type Message = &'static [Field];

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Number on the wire.
    pub(super) number: u64,
    /// Name in JSON.
    pub(super) name: &'static str,
    pub(super) content: Content,
    pub(super) presence: Presence,
}

/// Presence of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// A value in Go: clients always send it, and its zero value means absence.
    Value,
    /// A pointer in Go: absent unless it is sent; its zero value is a value.
    Pointer,
    /// A list.
    Repeated,
}

/// Type of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Text,
    /// Base64 in JSON.
    Bytes,
    Int32,
    Int64,
    Bool,
    /// RFC 3339 to the second in JSON.
    Time,
    /// RFC 3339 to the microsecond in JSON.
    MicroTime,
    /// A map of texts; repeated pairs on the wire.
    TextMap,
    /// A map of bytes, which are base64 in JSON.
    BytesMap,
    /// A map of lists of texts.
    TextListMap,
    /// A map of quantities: texts, each in a message of its own.
    QuantityMap,
    /// Any JSON, as bytes within a message.
    Json,
    Message(Message),
}

use Content::{
    Bool, Bytes, BytesMap, Int32, Int64, Json, MicroTime, QuantityMap, Text, TextListMap, TextMap, Time,
};
use Presence::{Pointer, Repeated, Value};

const fn field(number: u64, name: &'static str, content: Content, presence: Presence) -> Field {
    Field { number, name, content, presence }
}

const fn text(number: u64, name: &'static str) -> Field {
    field(number, name, Text, Value)
}

/// The message of a kind, lists apart.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<Message> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "Event") => EVENT,
        ("v1", "Secret") => SECRET,
        ("v1", "ResourceQuota") => RESOURCE_QUOTA,
        ("v1", "Status") => STATUS,
        ("events.k8s.io/v1", "Event") => EVENTS_EVENT,
        ("coordination.k8s.io/v1", "Lease") => LEASE,
        ("certificates.k8s.io/v1", "CertificateSigningRequest") => SIGNING_REQUEST,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SELF_SUBJECT_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => SELF_SUBJECT_ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SubjectAccessReview") => SUBJECT_ACCESS_REVIEW,
        // Each group registers it under its own version.
        (_, "DeleteOptions") => DELETE_OPTIONS,
        _ => return None,
    })
}

/// A list: its metadata, then its items.
pub(super) const LIST_METADATA: u64 = 1;
/// See [`LIST_METADATA`].
pub(super) const LIST_ITEMS: u64 = 2;

pub(super) const LIST_META: Message = &[
    text(1, "selfLink"),
    text(2, "resourceVersion"),
    text(3, "continue"),
    field(4, "remainingItemCount", Int64, Pointer),
];

const OBJECT_META: Message = &[
    text(1, "name"),
    text(2, "generateName"),
    text(3, "namespace"),
    text(4, "selfLink"),
    text(5, "uid"),
    text(6, "resourceVersion"),
    field(7, "generation", Int64, Value),
    field(8, "creationTimestamp", Time, Value),
    field(9, "deletionTimestamp", Time, Pointer),
    field(10, "deletionGracePeriodSeconds", Int64, Pointer),
    field(11, "labels", TextMap, Repeated),
    field(12, "annotations", TextMap, Repeated),
    field(13, "ownerReferences", Content::Message(OWNER_REFERENCE), Repeated),
    field(14, "finalizers", Text, Repeated),
    field(17, "managedFields", Content::Message(MANAGED_FIELDS), Repeated),
];

const METADATA: Field = field(1, "metadata", Content::Message(OBJECT_META), Value);

const OWNER_REFERENCE: Message = &[
    text(1, "kind"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    field(6, "controller", Bool, Pointer),
    field(7, "blockOwnerDeletion", Bool, Pointer),
];

const MANAGED_FIELDS: Message = &[
    text(1, "manager"),
    text(2, "operation"),
    text(3, "apiVersion"),
    field(4, "time", Time, Pointer),
    text(6, "fieldsType"),
    field(7, "fieldsV1", Json, Pointer),
    text(8, "subresource"),
];

const STATUS: Message = &[
    field(1, "metadata", Content::Message(LIST_META), Value),
    text(2, "status"),
    text(3, "message"),
    text(4, "reason"),
    field(5, "details", Content::Message(STATUS_DETAILS), Pointer),
    field(6, "code", Int32, Value),
];

const STATUS_DETAILS: Message = &[
    text(1, "name"),
    text(2, "group"),
    text(3, "kind"),
    field(4, "causes", Content::Message(STATUS_CAUSE), Repeated),
    field(5, "retryAfterSeconds", Int32, Value),
    text(6, "uid"),
];

const STATUS_CAUSE: Message = &[text(1, "reason"), text(2, "message"), text(3, "field")];

const DELETE_OPTIONS: Message = &[
    field(1, "gracePeriodSeconds", Int64, Pointer),
    field(2, "preconditions", Content::Message(PRECONDITIONS), Pointer),
    field(3, "orphanDependents", Bool, Pointer),
    field(4, "propagationPolicy", Text, Pointer),
    field(5, "dryRun", Text, Repeated),
    field(6, "ignoreStoreReadErrorWithClusterBreakingPotential", Bool, Pointer),
];

const PRECONDITIONS: Message = &[field(1, "uid", Text, Pointer), field(2, "resourceVersion", Text, Pointer)];

const NAMESPACE: Message = &[
    METADATA,
    field(2, "spec", Content::Message(&[field(1, "finalizers", Text, Repeated)]), Value),
    field(3, "status", Content::Message(NAMESPACE_STATUS), Value),
];

const NAMESPACE_STATUS: Message =
    &[text(1, "phase"), field(2, "conditions", Content::Message(NAMESPACE_CONDITION), Repeated)];

const NAMESPACE_CONDITION: Message = &[
    text(1, "type"),
    text(2, "status"),
    field(4, "lastTransitionTime", Time, Value),
    text(5, "reason"),
    text(6, "message"),
];

const EVENT: Message = &[
    METADATA,
    field(2, "involvedObject", Content::Message(OBJECT_REFERENCE), Value),
    text(3, "reason"),
    text(4, "message"),
    field(5, "source", Content::Message(EVENT_SOURCE), Value),
    field(6, "firstTimestamp", Time, Value),
    field(7, "lastTimestamp", Time, Value),
    field(8, "count", Int32, Value),
    text(9, "type"),
    field(10, "eventTime", MicroTime, Value),
    field(11, "series", Content::Message(EVENT_SERIES), Pointer),
    text(12, "action"),
    field(13, "related", Content::Message(OBJECT_REFERENCE), Pointer),
    text(14, "reportingComponent"),
    text(15, "reportingInstance"),
];

const EVENTS_EVENT: Message = &[
    METADATA,
    field(2, "eventTime", MicroTime, Value),
    field(3, "series", Content::Message(EVENT_SERIES), Pointer),
    text(4, "reportingController"),
    text(5, "reportingInstance"),
    text(6, "action"),
    text(7, "reason"),
    field(8, "regarding", Content::Message(OBJECT_REFERENCE), Value),
    field(9, "related", Content::Message(OBJECT_REFERENCE), Pointer),
    text(10, "note"),
    text(11, "type"),
    field(12, "deprecatedSource", Content::Message(EVENT_SOURCE), Value),
    field(13, "deprecatedFirstTimestamp", Time, Value),
    field(14, "deprecatedLastTimestamp", Time, Value),
    field(15, "deprecatedCount", Int32, Value),
];

const EVENT_SOURCE: Message = &[text(1, "component"), text(2, "host")];

const EVENT_SERIES: Message =
    &[field(1, "count", Int32, Value), field(2, "lastObservedTime", MicroTime, Value)];

const OBJECT_REFERENCE: Message = &[
    text(1, "kind"),
    text(2, "namespace"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    text(6, "resourceVersion"),
    text(7, "fieldPath"),
];

const SECRET: Message = &[
    METADATA,
    field(2, "data", BytesMap, Repeated),
    text(3, "type"),
    field(4, "stringData", TextMap, Repeated),
    field(5, "immutable", Bool, Pointer),
];

const RESOURCE_QUOTA: Message = &[
    METADATA,
    field(2, "spec", Content::Message(RESOURCE_QUOTA_SPEC), Value),
    field(3, "status", Content::Message(RESOURCE_QUOTA_STATUS), Value),
];

const RESOURCE_QUOTA_SPEC: Message = &[
    field(1, "hard", QuantityMap, Repeated),
    field(2, "scopes", Text, Repeated),
    field(3, "scopeSelector", Content::Message(SCOPE_SELECTOR), Pointer),
];

const RESOURCE_QUOTA_STATUS: Message =
    &[field(1, "hard", QuantityMap, Repeated), field(2, "used", QuantityMap, Repeated)];

const SCOPE_SELECTOR: Message =
    &[field(1, "matchExpressions", Content::Message(SCOPE_REQUIREMENT), Repeated)];

const SCOPE_REQUIREMENT: Message =
    &[text(1, "scopeName"), text(2, "operator"), field(3, "values", Text, Repeated)];

const LEASE: Message = &[METADATA, field(2, "spec", Content::Message(LEASE_SPEC), Value)];

const LEASE_SPEC: Message = &[
    field(1, "holderIdentity", Text, Pointer),
    field(2, "leaseDurationSeconds", Int32, Pointer),
    field(3, "acquireTime", MicroTime, Pointer),
    field(4, "renewTime", MicroTime, Pointer),
    field(5, "leaseTransitions", Int32, Pointer),
    field(6, "strategy", Text, Pointer),
    field(7, "preferredHolder", Text, Pointer),
];

const SIGNING_REQUEST: Message = &[
    METADATA,
    field(2, "spec", Content::Message(SIGNING_REQUEST_SPEC), Value),
    field(3, "status", Content::Message(SIGNING_REQUEST_STATUS), Value),
];

const SIGNING_REQUEST_SPEC: Message = &[
    field(1, "request", Bytes, Value),
    text(2, "username"),
    text(3, "uid"),
    field(4, "groups", Text, Repeated),
    field(5, "usages", Text, Repeated),
    field(6, "extra", TextListMap, Repeated),
    text(7, "signerName"),
    field(8, "expirationSeconds", Int32, Pointer),
];

const SIGNING_REQUEST_STATUS: Message = &[
    field(1, "conditions", Content::Message(SIGNING_REQUEST_CONDITION), Repeated),
    field(2, "certificate", Bytes, Value),
];

const SIGNING_REQUEST_CONDITION: Message = &[
    text(1, "type"),
    text(2, "reason"),
    text(3, "message"),
    field(4, "lastUpdateTime", Time, Value),
    field(5, "lastTransitionTime", Time, Value),
    text(6, "status"),
];

const SELF_SUBJECT_REVIEW: Message = &[
    METADATA,
    field(2, "status", Content::Message(&[field(1, "userInfo", Content::Message(USER_INFO), Value)]), Value),
];

const USER_INFO: Message = &[
    text(1, "username"),
    text(2, "uid"),
    field(3, "groups", Text, Repeated),
    field(4, "extra", TextListMap, Repeated),
];

const SELF_SUBJECT_ACCESS_REVIEW: Message = &[
    METADATA,
    field(2, "spec", Content::Message(ACCESS_REVIEW_SPEC), Value),
    field(3, "status", Content::Message(ACCESS_REVIEW_STATUS), Value),
];

const SUBJECT_ACCESS_REVIEW: Message = &[
    METADATA,
    field(2, "spec", Content::Message(SUBJECT_ACCESS_REVIEW_SPEC), Value),
    field(3, "status", Content::Message(ACCESS_REVIEW_STATUS), Value),
];

const SUBJECT_ACCESS_REVIEW_SPEC: Message = &[
    field(1, "resourceAttributes", Content::Message(RESOURCE_ATTRIBUTES), Pointer),
    field(2, "nonResourceAttributes", Content::Message(&[text(1, "path"), text(2, "verb")]), Pointer),
    text(3, "user"),
    field(4, "groups", Text, Repeated),
    field(5, "extra", TextListMap, Repeated),
    text(6, "uid"),
];

const ACCESS_REVIEW_SPEC: Message = &[
    field(1, "resourceAttributes", Content::Message(RESOURCE_ATTRIBUTES), Pointer),
    field(2, "nonResourceAttributes", Content::Message(&[text(1, "path"), text(2, "verb")]), Pointer),
];

const RESOURCE_ATTRIBUTES: Message = &[
    text(1, "namespace"),
    text(2, "verb"),
    text(3, "group"),
    text(4, "version"),
    text(5, "resource"),
    text(6, "subresource"),
    text(7, "name"),
];

const ACCESS_REVIEW_STATUS: Message = &[
    field(1, "allowed", Bool, Value),
    text(2, "reason"),
    text(3, "evaluationError"),
    field(4, "denied", Bool, Value),
];
