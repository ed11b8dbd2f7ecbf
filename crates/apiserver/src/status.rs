//! Kubernetes' `Status`: the answer to every request that fails.

use serde_json::{Value, json};

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

    /// Value of the field `reason`.
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

/// Causes reported at most for one object that is validated.
pub const CAUSES_MAX: usize = 32;

/// The names of a kind in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Resource: `devices`.
    pub plural: &'a str,
    /// Kind: `Device`.
    pub kind: &'a str,
}

impl Names<'_> {
    /// `plural.group`.
    fn resource(&self) -> String {
        self.qualify(self.plural)
    }

    /// `Kind.group`.
    fn kind(&self) -> String {
        self.qualify(self.kind)
    }

    fn qualify(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_owned() } else { format!("{name}.{}", self.group) }
    }
}

/// One reason why one field is invalid.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    reason: &'static str,
    message: String,
    field: String,
}

impl Cause {
    /// `FieldValueInvalid`, for example.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// For people; quotes the value. At most 4 KiB.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Path of the field: `spec.env[0].name`. At most 4 KiB.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The cause with a message whose path is relative to `parent`, if its field is below it.
    pub(crate) fn relative_to(self, parent: &str) -> Cause {
        let relative = self.field.strip_prefix(parent).and_then(|field| field.strip_prefix('.'));
        let Some(relative) = relative else { return self };
        let message =
            self.message.replace(&format!("{} in body", self.field), &format!("{relative} in body"));
        Cause { message, ..self }
    }

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

/// Why a request failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    reason: Reason,
    message: String,
    details: Box<Details>,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object, if there is one.
    pub name: Option<String>,
    /// Group and plural of the resource; for `Invalid`, group and kind.
    pub target: Option<(String, String)>,
    /// Uid of the object.
    pub uid: Option<String>,
    /// Invalid fields.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// Token with which an expired list continues, inconsistently.
    pub continue_token: Option<String>,
    /// Serialized even if it is empty.
    pub always: bool,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// Decides the HTTP code.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// For people; the text of kube-apiserver where it has one. At most 16 KiB.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// For programs.
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// A status without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Status {
        Status { reason, message: cut(message.into(), MESSAGE_BYTES_MAX), details: Box::default() }
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(Reason::BadRequest, message)
    }

    /// 500 for a failure of this server.
    pub fn internal(message: impl std::fmt::Display) -> Status {
        Status::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 500 without a reason, as Kubernetes answers errors that it doesn't classify.
    pub fn unknown(message: impl Into<String>) -> Status {
        Status::new(Reason::Unknown, message)
    }

    /// 429 with `Retry-After: 1`.
    pub fn busy(message: &str) -> Status {
        Status::new(Reason::TooManyRequests, message)
            .with(Details { retry_after: Some(1), ..Details::default() })
    }

    /// 410: list again.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(Reason::Expired, message)
    }

    /// 404 for an object.
    pub fn not_found(names: Names<'_>, name: &str) -> Status {
        Status::about(Reason::NotFound, names, name, format!("{} \"{name}\" not found", names.resource()))
    }

    /// 409 for a create.
    pub fn already_exists(names: Names<'_>, name: &str) -> Status {
        Status::about(
            Reason::AlreadyExists,
            names,
            name,
            format!("{} \"{name}\" already exists", names.resource()),
        )
    }

    /// 409 for a write that raced another.
    pub fn conflict(names: Names<'_>, name: &str, why: impl std::fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", names.resource());
        Status::about(Reason::Conflict, names, name, message)
    }

    /// 409 that names the kind instead of the resource, as for deletes.
    pub(crate) fn conflict_of(names: Names<'_>, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", names.kind());
        let target = Some((names.group.to_owned(), names.kind.to_owned()));
        Status::new(Reason::Conflict, message).with(Details {
            name: Some(name.to_owned()),
            target,
            ..Details::default()
        })
    }

    /// 422 that names the resource instead of the kind, as for checks that precede validation.
    pub(crate) fn invalid_resource(names: Names<'_>, name: &str, cause: Cause) -> Status {
        let message =
            format!("{} \"{name}\" is invalid: {}: {}", names.resource(), cause.field, cause.message);
        let target = Some((names.group.to_owned(), names.plural.to_owned()));
        let details =
            Details { name: Some(name.to_owned()), target, causes: vec![cause], ..Details::default() };
        Status::new(Reason::Invalid, message).with(details)
    }

    /// 403 for an object.
    pub fn forbidden(names: Names<'_>, name: &str, why: impl std::fmt::Display) -> Status {
        let message = format!("{} \"{name}\" is forbidden: {why}", names.resource());
        Status::about(Reason::Forbidden, names, name, message)
    }

    /// 422 with at least one cause.
    pub fn invalid(names: Names<'_>, name: &str, causes: Vec<Cause>) -> Status {
        debug_assert!(!causes.is_empty(), "an invalid object has a cause");
        let joined = join(&causes);
        let target = Some((names.group.to_owned(), names.kind.to_owned()));
        let details = Details { name: Some(name.to_owned()), target, causes, ..Details::default() };
        Status::new(Reason::Invalid, format!("{} \"{name}\" is invalid: {joined}", names.kind()))
            .with(details)
    }

    /// 422 for the options of a request.
    pub fn invalid_options(options: &str, causes: Vec<Cause>) -> Status {
        let group = "meta.k8s.io";
        let message = format!("{options}.{group} \"\" is invalid: {}", join(&causes));
        let target = Some((group.to_owned(), options.to_owned()));
        Status::new(Reason::Invalid, message).with(Details { target, causes, ..Details::default() })
    }

    fn about(reason: Reason, names: Names<'_>, name: &str, message: String) -> Status {
        let target = Some((names.group.to_owned(), names.plural.to_owned()));
        Status::new(reason, message).with(Details {
            name: Some(name.to_owned()),
            target,
            ..Details::default()
        })
    }

    /// The same status with another message.
    pub(crate) fn with_message(self, message: String) -> Status {
        Status { message: cut(message, MESSAGE_BYTES_MAX), ..self }
    }

    /// The same status with another cause.
    pub(crate) fn with_cause(mut self, cause: Cause) -> Status {
        self.details.causes.push(cause);
        self.details.causes.truncate(STATUS_CAUSES_MAX);
        self
    }

    /// The same status with details.
    pub fn with(self, mut details: Details) -> Status {
        details.causes.truncate(STATUS_CAUSES_MAX);
        details.name = details.name.map(|name| cut(name, CAUSE_BYTES_MAX));
        Status { details: Box::new(details), ..self }
    }

    /// The document that clients receive.
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
                let mut cause_json = json!({"reason": cause.reason, "message": cause.message});
                if !cause.field.is_empty() {
                    cause_json["field"] = json!(cause.field);
                }
                cause_json
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
        if let Some(continue_token) = &self.details.continue_token {
            status["metadata"] = json!({ "continue": continue_token });
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

/// Bytes of a message, and of a cause's message and field, at most: they quote what a client sent.
const MESSAGE_BYTES_MAX: usize = 16 * 1_024;
const CAUSE_BYTES_MAX: usize = 4 * 1_024;
/// Causes of one status at most.
const STATUS_CAUSES_MAX: usize = 256;

/// The text, cut between two characters if it has more bytes.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str("...");
        text.shrink_to_fit();
    }
    text
}

fn join(causes: &[Cause]) -> String {
    let lines: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
