//! CertificateSigningRequests beyond their schema, as in Kubernetes (`pkg/apis/certificates/validation` and
//! `pkg/registry/certificates`).
//!
//! ```text
//!            approval            status
//! Pending ──▶ Approved ──▶ Approved, Issued
//!    │            └──────▶ Approved, Failed
//!    └──────▶ Denied
//! ```

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::nom;
use x509_parser::oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY;
use x509_parser::prelude::{FromDer, Pem, X509Certificate};

use super::request::{Author, Part};
use crate::kinds::Kind;
use crate::names;
use crate::status::{Cause, Status};

/// Bytes of one request with its certificate at most: a chain of 8 KiB, a request with another one, and their field managers.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the requests of one user that are stored at once: of 10,000 devices that join within the hour for which finished
/// requests are kept.
pub(crate) const REQUESTS_BYTES_PER_USER_MAX: usize = 64 * 1024 * 1024;
/// The same of all users.
pub(crate) const REQUESTS_BYTES_MAX: usize = 256 * 1024 * 1024;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// Conditions that are final: their status is True, and they can't be removed.
const FINAL: [&str; 3] = [APPROVED, DENIED, FAILED];

/// The usages of the API, in the order of Kubernetes' messages.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Seconds that may be asked for at least.
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// Characters of a signer's name at most: a subdomain, a slash, and a subdomain with a label.
const SIGNER_MAX: usize = 253 + 1 + 253 + 63 + 1;
/// Characters of a subdomain.
const SUBDOMAIN_MAX: usize = 253;

/// Fields of bytes, which JSON has in base64.
const BYTES: [(&str, &str); 2] = [("spec", "request"), ("status", "certificate")];

/// Brings bytes into one form: base64 without line breaks, and no empty certificate.
pub(super) fn canonicalize(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    if !kind.is_signing_request() {
        return Ok(());
    }
    for (parent, name) in BYTES {
        let Some(fields) = object.get_mut(parent).and_then(Value::as_object_mut) else { continue };
        let Some(Value::String(text)) = fields.get_mut(name) else { continue };
        text.retain(|c| !matches!(c, '\r' | '\n'));
        if STANDARD.decode(text.as_bytes()).is_err() {
            return Err(Status::bad_request(format!(
                "{0} in version {1:?} cannot be handled as a {0}: {parent}.{name} must be in base64",
                kind.kind, kind.version
            )));
        }
        if text.is_empty() {
            fields.remove(name);
        }
    }
    Ok(())
}

/// Sets in a new request who asks, and an empty status.
pub(super) fn set_author(kind: &Kind, object: &mut Value, author: &Author) {
    if !kind.is_signing_request() {
        return;
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        for name in ["username", "uid", "groups", "extra"] {
            spec.remove(name);
        }
        spec.insert("username".into(), json!(author.name));
        if !author.groups.is_empty() {
            spec.insert("groups".into(), json!(author.groups));
        }
        if let Some(credential) = &author.credential {
            spec.insert("extra".into(), json!({ CREDENTIAL: [credential] }));
        }
    }
    object["status"] = json!({});
}

/// Name of the attribute that says with which credential a user authenticated.
pub(crate) const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Restores what no update changes, and sets the times of conditions.
pub(super) fn complete_update(kind: &Kind, part: Part, current: &Value, object: &mut Value, now: &str) {
    if !kind.is_signing_request() {
        return;
    }
    object["spec"] = current["spec"].clone();
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    if part == Part::Main {
        return;
    }
    let old = conditions(current);
    if part == Part::Status {
        keep_approval(old, object);
    }
    for condition in conditions_mut(object) {
        let is_absent = |condition: &Value, name: &str| condition[name].as_str().is_none_or(str::is_empty);
        if !condition.is_object() {
            continue;
        }
        if is_absent(condition, "lastUpdateTime") {
            condition["lastUpdateTime"] = json!(now);
        }
        if is_absent(condition, "lastTransitionTime") {
            let same = old.iter().find(|old| {
                old["type"] == condition["type"]
                    && old["status"] == condition["status"]
                    && !is_absent(old, "lastTransitionTime")
            });
            condition["lastTransitionTime"] =
                same.map_or_else(|| json!(now), |same| same["lastTransitionTime"].clone());
        }
    }
}

/// Restores the approval in a status: a signer that sends back what it read changes nothing of it. Conditions that were added
/// or removed are refused later.
fn keep_approval(old: &[Value], object: &mut Value) {
    for ty in [APPROVED, DENIED] {
        let is_of = |condition: &&Value| condition["type"] == ty;
        let was: Vec<&Value> = old.iter().filter(is_of).collect();
        if was.len() == conditions(object).iter().filter(is_of).count() {
            let is = conditions_mut(object).iter_mut().filter(|condition| condition["type"] == ty);
            is.zip(was).for_each(|(is, was)| *is = was.clone());
        }
    }
}

/// Adds the times that conditions lack, as nulls: their writer owns them, as in Kubernetes, where they are zero.
pub(super) fn complete_conditions(kind: &Kind, part: Part, object: &mut Value) {
    if !kind.is_signing_request() || part == Part::Main {
        return;
    }
    for fields in conditions_mut(object).iter_mut().filter_map(Value::as_object_mut) {
        for name in ["lastUpdateTime", "lastTransitionTime"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
}

fn conditions_mut(request: &mut Value) -> &mut [Value] {
    let found = request.get_mut("status").and_then(|status| status.get_mut("conditions"));
    found.and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

fn conditions(request: &Value) -> &[Value] {
    request["status"]["conditions"].as_array().map_or(&[], Vec::as_slice)
}

fn has(request: &Value, ty: &str) -> bool {
    conditions(request).iter().any(|condition| condition["type"] == ty)
}

fn certificate(request: &Value) -> &str {
    request["status"]["certificate"].as_str().unwrap_or_default()
}

/// Validates a request beyond its schema; objects of other kinds are valid.
pub(super) fn validate(kind: &Kind, object: &Value, old: Option<&Value>, part: Part) -> Vec<Cause> {
    if !kind.is_signing_request() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    // The rest can't be changed.
    if old.is_none() {
        validate_spec(&object["spec"], &mut causes);
    }
    validate_conditions(conditions(object), &mut causes);
    if let Err(why) = check_certificate(certificate(object)) {
        causes.push(Cause::invalid("status.certificate", "\"<certificate data>\"", why));
    }
    if let Some(old) = old {
        validate_change(old, object, part, &mut causes);
    }
    causes
}

fn validate_spec(spec: &Value, causes: &mut Vec<Cause>) {
    let text = |name: &str| spec[name].as_str().unwrap_or_default();
    if let Err(why) = check_request(text("request")) {
        causes.push(Cause::invalid("spec.request", &spec["request"].to_string(), why));
    }
    let usages: Vec<&str> =
        spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if usages.is_empty() {
        causes.push(Cause::required("spec.usages", ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let field = format!("spec.usages[{index}]");
        if !USAGES.contains(usage) {
            causes.push(unsupported(&field, usage, &USAGES));
        }
        if usages[..index].contains(usage) {
            causes.push(duplicate(&field, usage));
        }
    }
    match text("signerName") {
        "kubernetes.io/legacy-unknown" => causes.push(Cause::invalid(
            "spec.signerName",
            "\"kubernetes.io/legacy-unknown\"",
            "the legacy signerName is not allowed via this API version",
        )),
        signer => validate_signer(signer, causes),
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|s| *s < EXPIRATION_SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.push(Cause::invalid("spec.expirationSeconds", &seconds.to_string(), why));
    }
}

fn unsupported(field: &str, value: &str, known: &[&str]) -> Cause {
    let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
    let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
    Cause::new("FieldValueNotSupported", field, message)
}

fn duplicate(field: &str, value: &str) -> Cause {
    Cause::new("FieldValueDuplicate", field, format!("Duplicate value: {value:?}"))
}

fn validate_signer(signer: &str, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.signerName";
    if signer.is_empty() {
        return causes.push(Cause::required(FIELD, ""));
    }
    let mut invalid =
        |value: &str, why: String| causes.push(Cause::invalid(FIELD, &json!(value).to_string(), why));
    let parts: Vec<&str> = signer.split('/').collect();
    let &[domain, path] = parts.as_slice() else {
        invalid(
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'".into(),
        );
        return;
    };
    let labels: Vec<&str> = domain.split('.').collect();
    for label in &labels {
        for why in names::label(label) {
            invalid(domain, format!("validating label {label:?}: {why}"));
        }
    }
    if labels.len() < 2 {
        invalid(domain, "should be a domain with at least two segments separated by dots".into());
    }
    for label in path.split('.') {
        for why in names::subdomain(label) {
            invalid(path, format!("validating label {label:?}: {why}"));
        }
    }
    let too_long = |most: usize| {
        Cause::new("FieldValueTooLong", FIELD, format!("Too long: may not be more than {most} bytes"))
    };
    if domain.len() > SUBDOMAIN_MAX {
        causes.push(too_long(SUBDOMAIN_MAX));
    }
    if signer.len() > SIGNER_MAX {
        causes.push(too_long(SIGNER_MAX));
    }
}

fn validate_conditions(conditions: &[Value], causes: &mut Vec<Cause>) {
    for (index, condition) in conditions.iter().enumerate() {
        let field = |name: &str| format!("status.conditions[{index}].{name}");
        let (ty, status) = (condition["type"].as_str().unwrap_or_default(), condition["status"].as_str());
        if ty.is_empty() {
            causes.push(Cause::required(&field("type"), ""));
        }
        let allowed = if FINAL.contains(&ty) { &["True"][..] } else { &["False", "True", "Unknown"] };
        match status.unwrap_or_default() {
            "" => causes.push(Cause::required(&field("status"), "")),
            status if !allowed.contains(&status) => {
                causes.push(unsupported(&field("status"), status, allowed))
            }
            _ => {}
        }
        let before = &conditions[..index];
        let other = match ty {
            APPROVED => Some(DENIED),
            DENIED => Some(APPROVED),
            _ => None,
        };
        if other.is_some_and(|other| before.iter().any(|before| before["type"] == other)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            causes.push(Cause::invalid("status.conditions", &json!(ty).to_string(), why));
        }
        if before.iter().any(|before| before["type"] == ty) {
            causes.push(duplicate(&field("type"), ty));
        }
    }
}

/// Drops what the schema says about repeated conditions, which [`validate`] says in the words of Kubernetes.
pub(super) fn drop_repeated(kind: &Kind, causes: &mut Vec<Cause>) {
    let is_of_schema = |cause: &Cause| {
        cause.reason() == "FieldValueDuplicate"
            && cause.field().starts_with("status.conditions[")
            && cause.field().ends_with(']')
    };
    if kind.is_signing_request() {
        causes.retain(|cause| !is_of_schema(cause));
    }
}

fn validate_change(old: &Value, new: &Value, part: Part, causes: &mut Vec<Cause>) {
    let of = |request: &Value, ty: &str| -> Vec<Value> {
        conditions(request).iter().filter(|condition| condition["type"] == ty).cloned().collect()
    };
    for ty in FINAL {
        if of(new, ty).len() < of(old, ty).len() {
            let why = format!("updates may not remove a condition of type {ty:?}");
            causes.push(Cause::forbidden("status.conditions", why));
        }
    }
    for ty in [APPROVED, DENIED].into_iter().filter(|_| part != Part::Approval) {
        let (was, is) = (of(old, ty), of(new, ty));
        if is.len() > was.len() {
            let why = format!("updates may not add a condition of type {ty:?}");
            causes.push(Cause::forbidden("status.conditions", why));
        } else if is.len() == was.len() && is != was {
            let why = format!("updates may not modify a condition of type {ty:?}");
            causes.push(Cause::forbidden("status.conditions", why));
        }
    }
    if certificate(new) != certificate(old) {
        if part != Part::Status {
            causes.push(Cause::forbidden("status.certificate", "updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            let why = "updates may not modify existing certificate content";
            causes.push(Cause::forbidden("status.certificate", why));
        }
    }
}

/// What is wrong with a PKCS#10 request. The texts are Kubernetes' where it has one.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Block,
    #[error("the PKCS#10 request can't be decoded: {0}")]
    Encoding(nom::Err<X509Error>),
    #[error("data follow the PKCS#10 request")]
    Rest,
    #[error("x509: ECDSA verification failure")]
    EcdsaSignature,
    #[error("the signature of the request can't be verified: {0}")]
    Signature(X509Error),
}

/// Whether the bytes are a PKCS#10 request, signed by the key that it names.
fn check_request(encoded: &str) -> Result<(), RequestError> {
    let pem = STANDARD.decode(encoded).unwrap_or_default();
    let first = Pem::iter_from_buffer(&pem).next();
    let Some(Ok(block)) =
        first.filter(|block| matches!(block, Ok(block) if block.label == "CERTIFICATE REQUEST"))
    else {
        return Err(RequestError::Block);
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(RequestError::Encoding)?;
    if !rest.is_empty() {
        return Err(RequestError::Rest);
    }
    request.verify_signature().map_err(|error| match error {
        X509Error::SignatureVerificationError if is_ecdsa(&request) => RequestError::EcdsaSignature,
        error => RequestError::Signature(error),
    })
}

fn is_ecdsa(request: &X509CertificationRequest<'_>) -> bool {
    request.certification_request_info.subject_pki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
}

/// What is wrong with an issued certificate. The texts are Kubernetes' where it has one.
#[derive(Debug, thiserror::Error)]
enum ChainError {
    #[error("no PEM block headers are permitted")]
    Pem,
    #[error("only CERTIFICATE PEM blocks are allowed, found {0:?}")]
    Block(String),
    #[error("found CERTIFICATE PEM block containing 0 certificates")]
    Empty,
    #[error("a certificate can't be decoded: {0}")]
    Encoding(nom::Err<X509Error>),
    #[error("must contain at least one CERTIFICATE PEM block")]
    NoBlock,
}

/// Whether the bytes are certificates as PEM, or none.
fn check_certificate(encoded: &str) -> Result<(), ChainError> {
    if encoded.is_empty() {
        return Ok(());
    }
    let pem = STANDARD.decode(encoded).unwrap_or_default();
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|_| ChainError::Pem)?;
        if block.label != "CERTIFICATE" {
            return Err(ChainError::Block(block.label));
        }
        let mut rest = block.contents.as_slice();
        if rest.is_empty() {
            return Err(ChainError::Empty);
        }
        while !rest.is_empty() {
            rest = X509Certificate::from_der(rest).map_err(ChainError::Encoding)?.0;
        }
        blocks += 1;
    }
    if blocks == 0 { Err(ChainError::NoBlock) } else { Ok(()) }
}

/// Whether the author may write this part of the request: an approver approves for its signers, and a signer signs.
pub(crate) fn check_signer(
    kind: &Kind,
    part: Part,
    author: &Author,
    old: &Value,
    new: &Value,
) -> Result<(), Status> {
    if !kind.is_signing_request() {
        return Ok(());
    }
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let (may, verb) = match part {
        Part::Main => return Ok(()),
        Part::Approval => (author.approves.has(signer), "approve"),
        // Metadata aren't a status.
        Part::Status if conditions(old) == conditions(new) && certificate(old) == certificate(new) => {
            return Ok(());
        }
        Part::Status => (author.signs.has(signer), "sign"),
    };
    if may {
        return Ok(());
    }
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(kind.names(), name, why))
}

/// How long requests are kept.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// After the last change of one that is issued, denied or failed.
    pub finished: Duration,
    /// From the creation of any other.
    pub pending: Duration,
}

impl Lifetimes {
    /// Whether the request is past its time. Clients set the times of conditions, so that none is kept for longer than both
    /// lifetimes after its creation.
    pub fn are_over(self, request: &Value, now: Timestamp) -> bool {
        let age = |time: &Value| {
            let time = time.as_str().and_then(|time| time.parse::<Timestamp>().ok())?;
            Some(now.as_second().saturating_sub(time.as_second()))
        };
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (finished, pending) = (seconds(self.finished), seconds(self.pending));
        let Some(since_creation) = age(&request["metadata"]["creationTimestamp"]) else { return true };
        if since_creation > pending.saturating_add(finished) {
            return true;
        }
        let is_final = has(request, DENIED) || has(request, FAILED);
        if !is_final && certificate(request).is_empty() {
            return since_creation > pending;
        }
        let changes = conditions(request).iter().filter_map(|condition| age(&condition["lastUpdateTime"]));
        // A signer that sets no condition besides the certificate leaves no other time than that of the approval.
        changes.min().unwrap_or(since_creation) > finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(status: Value) -> Value {
        json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status})
    }

    fn over(request: &Value, now: &str) -> bool {
        let lifetimes =
            Lifetimes { finished: Duration::from_secs(3_600), pending: Duration::from_secs(24 * 3_600) };
        lifetimes.are_over(request, now.parse().unwrap())
    }

    fn condition(ty: &str, updated: &str) -> Value {
        json!({"type": ty, "status": "True", "lastUpdateTime": updated})
    }

    #[test]
    fn finished_requests_are_kept_for_an_hour_and_others_for_a_day() {
        let pending = request(json!({}));
        assert!(!over(&pending, "2026-01-02T00:00:00Z"));
        assert!(over(&pending, "2026-01-02T00:00:01Z"));
        // Approved, and not issued yet.
        let approved = request(json!({"conditions": [condition("Approved", "2026-01-01T00:00:00Z")]}));
        assert!(!over(&approved, "2026-01-02T00:00:00Z"));
        assert!(over(&approved, "2026-01-02T00:00:01Z"));
        let mut issued = request(json!({"conditions": [condition("Approved", "2026-01-01T05:00:00Z")]}));
        issued["status"]["certificate"] = json!("AAAA");
        for finished in [
            issued,
            request(json!({"conditions": [condition("Denied", "2026-01-01T05:00:00Z")]})),
            request(json!({"conditions": [
                condition("Approved", "2026-01-01T00:00:00Z"), condition("Failed", "2026-01-01T05:00:00Z"),
            ]})),
        ] {
            assert!(!over(&finished, "2026-01-01T06:00:00Z"), "{finished}");
            assert!(over(&finished, "2026-01-01T06:00:01Z"), "{finished}");
        }
    }

    #[test]
    fn no_client_keeps_a_request_for_ever() {
        let denied = request(json!({"conditions": [condition("Denied", "2999-01-01T00:00:00Z")]}));
        assert!(!over(&denied, "2026-01-02T01:00:00Z"));
        assert!(over(&denied, "2026-01-02T01:00:01Z"));
        // Nor does a time that can't be read.
        assert!(over(&json!({"metadata": {"creationTimestamp": "yesterday"}}), "2026-01-01T00:00:00Z"));
        // Nor the clock of the server, put back.
        assert!(!over(&request(json!({})), "2025-01-01T00:00:00Z"));
    }

    #[test]
    fn signers_are_named_whole_or_by_domain() {
        use super::super::Signers;
        let named = |name: &str| Signers::Named([name.to_owned()].into());
        assert!(named("example.com/a").has("example.com/a"));
        assert!(!named("example.com/a").has("example.com/b"));
        assert!(named("example.com/*").has("example.com/b"));
        for other in ["sub.example.com/b", "example.com", "example.com.evil.org/b", "", "/b"] {
            assert!(!named("example.com/*").has(other), "{other}");
        }
        assert!(!named("*").has("example.com/a"));
        assert!(!named("/*").has("nothing"));
        assert!(!Signers::default().has("example.com/a"));
    }

    #[test]
    fn bytes_have_one_form() {
        let kinds = crate::kinds::Kinds::new(&[]).unwrap();
        let kind = kinds.get("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
        let mut object = json!({"spec": {"request": "AA\r\nAA\n"}, "status": {"certificate": ""}});
        canonicalize(kind, &mut object).unwrap();
        assert_eq!(object, json!({"spec": {"request": "AAAA"}, "status": {}}));
        for wrong in ["%%%", "AAA", "AA AA"] {
            let refused = canonicalize(kind, &mut json!({"spec": {"request": wrong}})).unwrap_err();
            assert_eq!(refused.reason().code(), 400, "{wrong}");
        }
    }
}
