//! Kubernetes' `Status`: how every refusal is told to a client.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// A machine-readable reason; the HTTP code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 401: no valid client certificate.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409 on a create.
    AlreadyExists,
    /// 409: the object changed meanwhile, or a precondition failed.
    Conflict,
    /// 410: the history that was asked for is gone.
    Expired,
    /// 422: the object is well-formed and not acceptable.
    Invalid,
    /// 400.
    BadRequest,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 500, where Kubernetes gives no reason.
    Unknown,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
}

impl Reason {
    /// HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::Invalid => 422,
            Reason::BadRequest => 400,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::TooManyRequests => 429,
            Reason::InternalError | Reason::Unknown => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }

    /// The word that stands in `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::Invalid => "Invalid",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::Unknown => "",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `FieldValueInvalid` and its like.
    pub reason: &'static str,
    /// What is wrong, with the value.
    pub message: String,
    /// Path as people write it: `spec.env[0].name`.
    pub field: String,
}

impl Cause {
    /// The value can't be accepted.
    pub fn invalid(field: &str, value: &str, why: impl std::fmt::Display) -> Cause {
        Cause::new("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"))
    }

    /// The field is missing.
    pub fn required(field: &str, why: &str) -> Cause {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Cause::new("FieldValueRequired", field, message)
    }

    /// The change isn't allowed.
    pub fn forbidden(field: &str, why: impl std::fmt::Display) -> Cause {
        Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    pub(crate) fn new(reason: &'static str, field: &str, message: String) -> Cause {
        Cause {
            reason,
            message: cut(message, CAUSE_BYTES_MAX),
            field: field[..field.floor_char_boundary(CAUSE_BYTES_MAX)].to_owned(),
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Decides the HTTP code.
    pub reason: Reason,
    /// For people, in the words of Kubernetes where tools read them.
    pub message: String,
    /// For programs.
    pub details: Box<Details>,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object, if one was meant.
    pub name: Option<String>,
    /// Group and plural (for Invalid: the kind) of what was meant.
    pub target: Option<(String, String)>,
    /// Uid of the object in question.
    pub uid: Option<String>,
    /// What is wrong, field by field.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// With which a list that expired goes on, inconsistently.
    pub goes_on: Option<String>,
    /// Shown even where there is nothing to show.
    pub always: bool,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A refusal without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Status {
        Status { reason, message: cut(message.into(), MESSAGE_BYTES_MAX), details: Box::default() }
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(Reason::BadRequest, message)
    }

    /// 500; the message names what failed inside.
    pub fn internal(message: impl std::fmt::Display) -> Status {
        Status::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 500 without a reason, as Kubernetes tells what it doesn't classify.
    pub fn unknown(message: impl Into<String>) -> Status {
        Status::new(Reason::Unknown, message)
    }

    /// 429 with a pause.
    pub fn busy(message: &str) -> Status {
        Status::new(Reason::TooManyRequests, message)
            .with(Details { retry_after: Some(1), ..Details::default() })
    }

    /// 410: list again.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(Reason::Expired, message)
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Status {
        Status::about(Reason::NotFound, kind, name, format!("{} \"{name}\" not found", kind.qualified()))
    }

    /// 409 for a create.
    pub fn already_exists(kind: &Kind, name: &str) -> Status {
        Status::about(
            Reason::AlreadyExists,
            kind,
            name,
            format!("{} \"{name}\" already exists", kind.qualified()),
        )
    }

    /// 409 for a write that raced another.
    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Status::about(Reason::Conflict, kind, name, message)
    }

    /// The same, naming the kind and not the resource, as deletes do.
    pub(crate) fn conflict_of(kind: &Kind, name: &str, why: &str) -> Status {
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        let message = format!("Operation cannot be fulfilled on {}{group} \"{name}\": {why}", kind.kind);
        let target = Some((kind.group.clone(), kind.kind.clone()));
        Status::new(Reason::Conflict, message).with(Details {
            name: Some(name.to_owned()),
            target,
            ..Details::default()
        })
    }

    /// 422 that names the resource and not the kind, as checks before an object's own do.
    pub(crate) fn invalid_resource(kind: &Kind, name: &str, cause: Cause) -> Status {
        let told = format!("{} \"{name}\" is invalid: {}: {}", kind.qualified(), cause.field, cause.message);
        let target = Some((kind.group.clone(), kind.plural.clone()));
        let details =
            Details { name: Some(name.to_owned()), target, causes: vec![cause], ..Details::default() };
        Status::new(Reason::Invalid, told).with(details)
    }

    /// 403 for an object.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Status {
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.qualified());
        Status::about(Reason::Forbidden, kind, name, message)
    }

    /// 422 with its causes; there is at least one.
    pub fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Status {
        let told = told(&causes);
        let kind_name =
            if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let target = Some((kind.group.clone(), kind.kind.clone()));
        let details = Details { name: Some(name.to_owned()), target, causes, ..Details::default() };
        Status::new(Reason::Invalid, format!("{kind_name} \"{name}\" is invalid: {told}")).with(details)
    }

    /// 422 for the options of a request.
    pub fn invalid_options(options: &str, causes: Vec<Cause>) -> Status {
        let group = "meta.k8s.io";
        let message = format!("{options}.{group} \"\" is invalid: {}", told(&causes));
        let target = Some((group.to_owned(), options.to_owned()));
        Status::new(Reason::Invalid, message).with(Details { target, causes, ..Details::default() })
    }

    fn about(reason: Reason, kind: &Kind, name: &str, message: String) -> Status {
        let target = Some((kind.group.clone(), kind.plural.clone()));
        Status::new(reason, message).with(Details {
            name: Some(name.to_owned()),
            target,
            ..Details::default()
        })
    }

    /// The same refusal with details for programs.
    pub fn with(self, mut details: Details) -> Status {
        details.causes.truncate(CAUSES_TOLD_MAX);
        details.name = details.name.map(|name| cut(name, CAUSE_BYTES_MAX));
        Status { details: Box::new(details), ..self }
    }

    /// The document that goes over the wire.
    pub fn to_json(&self) -> Value {
        let mut details = serde_json::Map::new();
        if let Some(name) = self.details.name.as_ref().filter(|name| !name.is_empty()) {
            details.insert("name".into(), json!(name));
        }
        if let Some((group, kind)) = &self.details.target {
            if !group.is_empty() {
                details.insert("group".into(), json!(group));
            }
            if !kind.is_empty() {
                details.insert("kind".into(), json!(kind));
            }
        }
        if let Some(uid) = &self.details.uid {
            details.insert("uid".into(), json!(uid));
        }
        if !self.details.causes.is_empty() {
            let causes = self.details.causes.iter().map(|cause| {
                let mut told = json!({"reason": cause.reason, "message": cause.message});
                if !cause.field.is_empty() {
                    told["field"] = json!(cause.field);
                }
                told
            });
            details.insert("causes".into(), causes.collect());
        }
        if let Some(seconds) = self.details.retry_after {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
            "code": self.reason.code(),
        });
        if let Some(goes_on) = &self.details.goes_on {
            status["metadata"] = json!({ "continue": goes_on });
        }
        if self.reason == Reason::Unknown
            && let Some(fields) = status.as_object_mut()
        {
            fields.remove("reason");
        }
        if !details.is_empty() || self.details.always {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// Bytes of a refusal's message, and of what is told of one cause, at most: what a client sent is quoted in them.
const MESSAGE_BYTES_MAX: usize = 16 * 1_024;
const CAUSE_BYTES_MAX: usize = 4 * 1_024;
/// Causes told at most, whoever found them.
const CAUSES_TOLD_MAX: usize = 256;

/// The text, cut between two characters if it has more bytes.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str("...");
        text.shrink_to_fit();
    }
    text
}

fn told(causes: &[Cause]) -> String {
    let told: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
