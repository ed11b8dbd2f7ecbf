//! Who may call what: controllers by their role, people by what the Kubernetes API says of them.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Semaphore;
use wasmbed_control::{
    access::{ALLOWED_MS, Action, Subject},
    harmless,
};
use wasmbed_kubernetes::{ReviewError, Reviewer};
use wasmbed_pki::{Role, ServicePeer};

use crate::openapi::Callers;

/// Questions to the Kubernetes API in the name of one person at once.
pub(crate) const QUESTIONS_OF_CALLER_MAX: usize = 4;
/// How often a stream that lasts is authorised again.
const AGAIN_EVERY: Duration = Duration::from_millis(ALLOWED_MS);
/// Bytes of a name in messages.
const SHOWN_BYTES_MAX: usize = 256;

/// Who calls.
#[derive(Clone)]
pub(crate) enum Who {
    /// A service, by its role.
    Service(Role),
    /// A person.
    Person(Arc<Person>),
}

/// A person with a certificate.
pub(crate) struct Person {
    subject: Subject,
    /// End of the certificate, seconds since 1970-01-01T00:00:00Z.
    not_after_unix_s: i64,
}

impl Who {
    pub(crate) fn of(peer: &ServicePeer) -> Self {
        match peer {
            ServicePeer::Service(peer) => Self::Service(peer.id.role()),
            ServicePeer::Operator { id, facts } => Self::Person(Arc::new(Person {
                subject: Subject { user: id.user().to_owned(), groups: id.groups().to_vec() },
                not_after_unix_s: facts.not_after,
            })),
        }
    }

    pub(crate) fn is_controller(&self) -> bool {
        matches!(self, Self::Service(Role::Controller))
    }
}

impl Person {
    /// A connection may outlive the certificate that it began with; its rights do not.
    fn is_over(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(now).unwrap_or(i64::MAX) >= self.not_after_unix_s
    }
}

/// Why a call is not let through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unauthorized {
    /// Peer: it calls what is for others.
    #[error("this call is for {0}")]
    OtherCallers(&'static str),
    /// Peer: its certificate is of a version in which operators were services.
    #[error(
        "operators have certificates below a root of their own by now: log in with wasmbed login, or issue one with wasmbed pki issue operator"
    )]
    FormerOperator,
    /// Peer: its certificate has ended while it was connected.
    #[error("the certificate has expired: log in again with wasmbed login")]
    Expired,
    /// Peer: the Kubernetes API says that it may not.
    #[error(
        "user {user:?} may not {action}: what is missing is a binding to a role with the rule {rule}, as the ClusterRole of Wasmbed's operators has it"
    )]
    Denied { user: String, action: String, rule: String },
    /// Load, or the Kubernetes API does not say.
    #[error("whether user {user:?} may {action} is not known: {error}")]
    Unknown { user: String, action: String, error: ReviewError },
}

/// Whether the caller is one that an operation is for at all. People are asked about by the operation itself, which knows what for.
pub(crate) fn is_for(callers: Callers, who: &Who) -> Result<(), Unauthorized> {
    match (callers, who) {
        (_, Who::Service(Role::Operator)) => Err(Unauthorized::FormerOperator),
        (_, Who::Person(person)) if person.is_over() => Err(Unauthorized::Expired),
        (Callers::Everybody, _)
        | (Callers::Controllers, Who::Service(Role::Controller))
        | (Callers::People, Who::Person(_)) => Ok(()),
        (Callers::Controllers, _) => Err(Unauthorized::OtherCallers("controllers alone")),
        (Callers::People, Who::Service(_)) => Err(Unauthorized::OtherCallers(
            "people, as whom the Kubernetes API knows them: log in with wasmbed login",
        )),
    }
}

/// A right that was given, and that has to hold for as long as it is used.
pub(crate) struct Right {
    reviewer: Arc<Reviewer>,
    questions: Arc<Semaphore>,
    person: Arc<Person>,
    /// One of them has to be allowed.
    actions: Vec<Action>,
    checked: Instant,
}

impl Right {
    /// Asks whether the caller may do one of these.
    pub(crate) async fn obtain(
        reviewer: &Arc<Reviewer>,
        questions: &Arc<Semaphore>,
        who: &Who,
        actions: Vec<Action>,
    ) -> Result<Self, Unauthorized> {
        let Who::Person(person) = who else { return Err(Unauthorized::OtherCallers("people")) };
        let mut right = Self {
            reviewer: Arc::clone(reviewer),
            questions: Arc::clone(questions),
            person: Arc::clone(person),
            actions,
            checked: Instant::now(),
        };
        right.check().await?;
        Ok(right)
    }

    /// Asks again if the last answer is some time ago.
    pub(crate) async fn hold(&mut self) -> Result<(), Unauthorized> {
        if self.person.is_over() {
            return Err(Unauthorized::Expired);
        }
        if self.checked.elapsed() < AGAIN_EVERY {
            return Ok(());
        }
        self.check().await
    }

    async fn check(&mut self) -> Result<(), Unauthorized> {
        let subject = &self.person.subject;
        let user = harmless(&subject.user, SHOWN_BYTES_MAX).into_owned();
        let action = self.actions.first().map(Action::to_string).unwrap_or_default();
        let place = self.questions.acquire().await;
        let answer = self.reviewer.may_any(subject, &self.actions).await;
        drop(place);
        match answer {
            Ok(true) => {
                self.checked = Instant::now();
                Ok(())
            }
            Ok(false) => {
                let rule = self.actions.first().map(Action::rule).unwrap_or_default();
                Err(Unauthorized::Denied { user, action, rule })
            }
            Err(error) => Err(Unauthorized::Unknown { user, action, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(not_after_unix_s: i64) -> Who {
        let subject = Subject { user: "ada".to_owned(), groups: Vec::new() };
        Who::Person(Arc::new(Person { subject, not_after_unix_s }))
    }

    #[test]
    fn each_call_is_for_those_that_it_is_for() {
        let everybody = [Callers::Controllers, Callers::People, Callers::Everybody];
        let may = |who: &Who| everybody.map(|callers| is_for(callers, who).is_ok());
        assert_eq!(may(&Who::Service(Role::Controller)), [true, false, true]);
        assert_eq!(may(&person(i64::MAX)), [false, true, true]);
        for nobody in [Who::Service(Role::Operator), Who::Service(Role::Gateway), person(1)] {
            assert!(!may(&nobody)[0] && !may(&nobody)[1]);
        }
        assert!(matches!(is_for(Callers::People, &person(1)), Err(Unauthorized::Expired)));
        let former = is_for(Callers::People, &Who::Service(Role::Operator));
        assert!(former.unwrap_err().to_string().contains("wasmbed login"));
    }
}
