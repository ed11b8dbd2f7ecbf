//! What both processes exchange with the Kubernetes API: how a call ended, and Events.

use wasmbed_api::{ReasonCode, kind};

use crate::ObjectKey;

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteOutcome<T> {
    /// 2xx.
    Done(T),
    /// 409: the object has changed since it was read, or it already exists. The watch shows the newer version.
    Conflict,
    /// 404.
    NotFound,
    /// 429.
    Throttled {
        /// From Retry-After; 0 if there was none.
        retry_after_ms: u64,
    },
    /// 5xx, no connection, or no answer in time: the call may or may not have taken effect.
    Unavailable(String),
    /// Another 4xx: the same call would be rejected again.
    Rejected(String),
}

impl<T> WriteOutcome<T> {
    /// The same outcome with another value of success.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> WriteOutcome<U> {
        match self {
            Self::Done(value) => WriteOutcome::Done(f(value)),
            Self::Conflict => WriteOutcome::Conflict,
            Self::NotFound => WriteOutcome::NotFound,
            Self::Throttled { retry_after_ms } => WriteOutcome::Throttled { retry_after_ms },
            Self::Unavailable(error) => WriteOutcome::Unavailable(error),
            Self::Rejected(error) => WriteOutcome::Rejected(error),
        }
    }
}

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    /// Kind of the object, of Wasmbed's API group.
    pub kind: &'static str,
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
}

impl Regarding {
    /// The Device of that key and UID.
    #[must_use]
    pub fn device(key: ObjectKey, uid: impl ToString) -> Self {
        Self { kind: kind::DEVICE, key, uid: uid.to_string() }
    }

    /// The Application of that key and UID.
    #[must_use]
    pub fn application(key: ObjectKey, uid: impl ToString) -> Self {
        Self { kind: kind::APPLICATION, key, uid: uid.to_string() }
    }
}

/// A transition that people should see in `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The object that it is about.
    pub regarding: Regarding,
    /// Whether it is a `Warning`.
    pub warning: bool,
    /// Why.
    pub reason: ReasonCode,
    /// For people.
    pub message: String,
    /// When, milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: u64,
}

/// Which Event object an Event is counted into, and how often it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Of the object, unique within this process.
    pub number: u64,
    /// How often, so far.
    pub count: u32,
    /// When first, milliseconds since 1970-01-01T00:00:00Z.
    pub first_unix_ms: u64,
}
