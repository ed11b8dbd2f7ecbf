//! Asks the Kubernetes API what somebody may do (SubjectAccessReview).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::Semaphore;
use wasmbed_api::GROUP;
use wasmbed_control::{
    Now,
    access::{Action, Look, Reviews, Subject},
    kubernetes::WriteOutcome,
};

use crate::CallError;

/// Questions on their way at once.
const QUESTIONS_MAX: usize = 16;
/// For a place among those and for an answer.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Called for each question that was asked, with how that ended and how long it took.
type OnAsked = Box<dyn Fn(&WriteOutcome<bool>, Duration) + Send + Sync>;

/// Asks, and keeps answers for as long as they count.
pub struct Reviewer {
    api: Api<SubjectAccessReview>,
    reviews: Mutex<Reviews>,
    places: Semaphore,
    started: Instant,
    on_asked: OnAsked,
}

/// It is not known whether somebody may do something: then it may not.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Load: it is asked in the name of this user, or of all, as much as is allowed.
    #[error("too much is asked at once; try again in {} s", .0.as_secs() + 1)]
    Busy(Duration),
    /// The Kubernetes API did not answer.
    #[error("the Kubernetes API does not say: {0}")]
    Unavailable(CallError),
}

impl Reviewer {
    /// Asks this API.
    pub fn new(
        client: Client,
        on_asked: impl Fn(&WriteOutcome<bool>, Duration) + Send + Sync + 'static,
    ) -> Self {
        Self {
            api: Api::all(client),
            reviews: Mutex::default(),
            places: Semaphore::new(QUESTIONS_MAX),
            started: Instant::now(),
            on_asked: Box::new(on_asked),
        }
    }

    /// Whether the user may do one of these.
    ///
    /// # Errors
    /// It may do none of those of which that is known, and of one it is not known.
    pub async fn may_any(&self, subject: &Subject, actions: &[Action]) -> Result<bool, ReviewError> {
        let mut unknown = None;
        for action in actions {
            match self.may(subject, action).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => unknown = Some(error),
            }
        }
        unknown.map_or(Ok(false), Err)
    }

    /// Whether the user may do this.
    ///
    /// # Errors
    /// That is not known.
    pub async fn may(&self, subject: &Subject, action: &Action) -> Result<bool, ReviewError> {
        let look = self.reviews().look(self.now(), subject, action);
        match look {
            Look::Allowed => Ok(true),
            Look::Denied => Ok(false),
            Look::Busy { retry_ms } => Err(ReviewError::Busy(Duration::from_millis(retry_ms))),
            Look::Ask => {
                let started = Instant::now();
                let asked = self.ask(subject, action).await;
                let answer = asked.as_ref().ok().copied();
                self.reviews().handle_answer(self.now(), subject, action, answer);
                let ended = match &asked {
                    Ok(allowed) => WriteOutcome::Done(*allowed),
                    Err(error) => ending(error),
                };
                (self.on_asked)(&ended, started.elapsed());
                asked.map_err(ReviewError::Unavailable)
            }
        }
    }

    async fn ask(&self, subject: &Subject, action: &Action) -> Result<bool, CallError> {
        let review = review(subject, action);
        let call = async {
            let _place = self.places.acquire().await;
            self.api.create(&PostParams::default(), &review).await
        };
        let answered = tokio::time::timeout(REVIEW_TIMEOUT, call).await;
        let answered = answered.map_err(|_| CallError::Timeout(REVIEW_TIMEOUT))??;
        Ok(answered.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    fn reviews(&self) -> MutexGuard<'_, Reviews> {
        self.reviews.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { ms: millis(self.started.elapsed()), unix_ms: millis(unix) }
    }
}

/// What an error means beside the outcomes of other calls.
fn ending(error: &CallError) -> WriteOutcome<bool> {
    match error.status() {
        Some(400..=499) => WriteOutcome::Rejected(error.to_string()),
        Some(_) | None => WriteOutcome::Unavailable(error.to_string()),
    }
}

fn review(subject: &Subject, action: &Action) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        verb: Some(action.verb.to_owned()),
        resource: Some(action.resource.to_owned()),
        subresource: Some(action.subresource.to_owned()),
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        metadata: ObjectMeta::default(),
        spec: SubjectAccessReviewSpec {
            user: Some(subject.user.clone()),
            groups: Some(subject.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        status: None,
    }
}
