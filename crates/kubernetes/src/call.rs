//! How calls end.

use std::time::Duration;

use kube::runtime::watcher;
use wasmbed_control::kubernetes::WriteOutcome;
use wasmbed_telemetry::with_causes;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API's answer, or the connection to it.
    #[error("{}", describe_error(.0))]
    Api(#[from] kube::Error),
    /// The peer: an answer that is not shown, since it may have secrets.
    #[error("{0}")]
    Unusable(&'static str),
    /// I/O: no answer came; the call may or may not have taken effect.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl CallError {
    /// HTTP status of the API's answer; `None` if there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            Self::Api(_) | Self::Timeout(_) | Self::Unusable(_) => None,
        }
    }

    /// Whether the object has changed since it was read, or already exists.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Whether the API works, even though it said no.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.status().is_some_and(|status| status < 500)
    }
}

/// The error and its causes, without the whole answer.
#[must_use]
pub fn describe_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => with_causes(other),
    }
}

/// The same for a watch.
#[must_use]
pub fn describe_watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe_error(error),
        other => with_causes(other),
    }
}

/// What the end of a call means for the decisions.
#[must_use]
pub fn outcome<T>(result: Result<T, CallError>) -> WriteOutcome<T> {
    let error = match result {
        Ok(value) => return WriteOutcome::Done(value),
        Err(error) => error,
    };
    match &error {
        CallError::Api(kube::Error::Api(status)) => match status.code {
            404 => WriteOutcome::NotFound,
            409 => WriteOutcome::Conflict,
            429 => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                WriteOutcome::Throttled { retry_after_ms: u64::from(seconds) * 1_000 }
            }
            400..=499 => WriteOutcome::Rejected(error.to_string()),
            _ => WriteOutcome::Unavailable(error.to_string()),
        },
        CallError::Api(_) | CallError::Timeout(_) | CallError::Unusable(_) => {
            WriteOutcome::Unavailable(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{Status, StatusDetails};

    use super::*;

    fn answer(code: u16) -> Result<(), CallError> {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 3,
        };
        let status = Status { code, details: Some(details), ..Status::default() };
        Err(CallError::Api(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn every_answer_has_its_outcome() {
        assert_eq!(outcome(Ok(7)), WriteOutcome::Done(7));
        assert_eq!(outcome(answer(409)), WriteOutcome::Conflict);
        assert_eq!(outcome(answer(404)), WriteOutcome::NotFound);
        assert_eq!(outcome(answer(429)), WriteOutcome::Throttled { retry_after_ms: 3_000 });
        assert!(matches!(outcome(answer(422)), WriteOutcome::Rejected(_)));
        assert!(matches!(outcome(answer(503)), WriteOutcome::Unavailable(_)));
        let timeout = Err::<(), _>(CallError::Timeout(Duration::from_secs(15)));
        assert_eq!(outcome(timeout), WriteOutcome::Unavailable("no answer within 15 s".to_owned()));
    }

    #[test]
    fn an_answer_proves_that_the_api_works_unless_it_is_its_own_failure() {
        let error = |code| answer(code).unwrap_err();
        assert!(error(403).is_answer() && error(409).is_answer() && !error(503).is_answer());
        assert!(!CallError::Timeout(Duration::ZERO).is_answer());
        assert!(error(409).is_conflict() && !error(404).is_conflict());
    }
}
