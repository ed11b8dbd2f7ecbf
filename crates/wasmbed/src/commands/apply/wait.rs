//! Waits for Applications to be Ready, or to have succeeded if they are not always started again, and says meanwhile how
//! far they are.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::write::Applied;
use crate::{
    cluster::Cluster,
    output::{self, harmless},
};

/// How often the Applications are read while waiting.
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns when every Application among `applied` is where it is to come to, in its newest generation: its `Succeeded`
/// condition is true if `restart_policy` is not `Always`, and otherwise `Ready` has been true for `min_ready`, of which the
/// controller has seen to `min_ready_seconds`.
///
/// # Errors
/// One failed on a device for a reason that does not pass, or the time is over; says why.
pub(super) async fn until_done(
    cluster: &Cluster,
    applied: &[Applied],
    timeout: Duration,
    min_ready: Duration,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for object in applied.iter().filter(|object| object.resource.kind == "Application") {
        let name = object.resource.object_name(&object.name);
        let mut last = String::new();
        let mut held: Option<(String, Instant)> = None;
        loop {
            let Some(live) = cluster.read(&object.path).await? else { bail!("{name} was deleted meanwhile") };
            let now = Instant::now();
            let look = Look::of(&live, min_ready);
            if look.progress != last {
                output::print_line(&format!("{name}: {}", look.progress));
                last.clone_from(&look.progress);
            }
            if let Some(failure) = look.failure {
                bail!("{name} failed: {failure}");
            }
            held = look.since.map(|since| match held {
                Some((before, seen)) if before == since => (before, seen),
                Some(_) | None => (since, now),
            });
            if held.as_ref().is_some_and(|(_, seen)| now.duration_since(*seen) >= look.hold) {
                break;
            }
            if now >= deadline {
                bail!("{name} is not {} after {} s: {last}", look.goal, timeout.as_secs());
            }
            sleep(INTERVAL).await;
        }
    }
    Ok(())
}

/// What one reading of an Application says.
#[derive(Debug, PartialEq)]
struct Look {
    /// The condition that is waited for.
    goal: &'static str,
    /// Since when it has been true, as the condition says.
    since: Option<String>,
    /// How long it has to be seen so.
    hold: Duration,
    /// For people.
    progress: String,
    /// Why waiting for longer is no use.
    failure: Option<String>,
}

/// Reasons of failures that pass by themselves, or once something else was applied.
const PASSING: [&str; 10] = [
    "ModuleNotFound",
    "ModuleGone",
    "OutOfMemory",
    "OutOfFlash",
    "TooManyApplications",
    "QuotaExceeded",
    "StorageFailed",
    "RetriesExhausted",
    "DeviceNotFound",
    "Unknown",
];
/// Reasons why a run ended. With the policy `OnFailure` another one may succeed.
const ENDS: [&str; 6] = ["Exited", "ExitedWithError", "Trapped", "CpuLimit", "MemoryLimit", "StackLimit"];

impl Look {
    fn of(live: &Value, min_ready: Duration) -> Self {
        let status = &live["status"];
        let condition = |type_: &str| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.find(|condition| condition["type"] == type_)
        };
        let policy = live["spec"]["config"]["restart_policy"].as_str().unwrap_or("Always");
        let once = policy != "Always";
        let current = status["observedGeneration"].as_i64() == live["metadata"]["generation"].as_i64();
        // A controller that does not know `Succeeded` yet says at least Ready.
        let goal = match condition("Succeeded") {
            None if current => "Ready",
            Some(_) | None if once => "Succeeded",
            Some(_) | None => "Ready",
        };
        let seen_to = live["spec"]["min_ready_seconds"].as_u64().unwrap_or(0);
        let hold = match goal {
            "Ready" => min_ready.saturating_sub(Duration::from_secs(seen_to)),
            _ => Duration::ZERO,
        };
        if !current {
            let progress = "waiting for the controller".to_owned();
            return Self { goal, since: None, hold, progress, failure: None };
        }
        let reached = condition(goal).filter(|condition| condition["status"] == "True");
        let since =
            reached.map(|condition| condition["lastTransitionTime"].as_str().unwrap_or_default().to_owned());
        let lasting = |reason: &Value| {
            reason.as_str().is_some_and(|reason| {
                !(PASSING.contains(&reason) || policy == "OnFailure" && ENDS.contains(&reason))
            })
        };
        let failed = status["failures"].as_array().into_iter().flatten().find(|f| lasting(&f["reason"]));
        let failed = failed.map(|failure| {
            let text = |field: &str| failure[field].as_str().unwrap_or_default();
            format!("{}: {}: {}", text("device"), text("reason"), harmless(text("message")))
        });
        let stalled = condition("Stalled")
            .filter(|condition| condition["status"] == "True" && lasting(&condition["reason"]))
            .map(|condition| {
                let text = |field: &str| condition[field].as_str().unwrap_or_default();
                format!("{}: {}", text("reason"), harmless(text("message")))
            });
        let phase = status["phase"].as_str().unwrap_or("Pending");
        let count = status["ready"].as_str().unwrap_or("0/0");
        let message = condition(goal).and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        let progress = format!("{phase}, {count}: {}", harmless(message));
        Self { goal, since, hold, progress, failure: failed.or(stalled) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(observed: i64, status: &str) -> Value {
        json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": observed, "phase": "Running", "ready": "1/2",
                "conditions": [{
                    "type": "Ready", "status": status, "message": "one is away", "lastTransitionTime": "then",
                }],
            },
        })
    }

    fn look(live: &Value) -> Look {
        Look::of(live, Duration::from_secs(5))
    }

    #[test]
    fn only_the_newest_generation_counts() {
        let old = look(&live(1, "True"));
        assert_eq!((old.since, old.progress.as_str()), (None, "waiting for the controller"));
        let new = look(&live(2, "True"));
        assert_eq!(
            (new.since.as_deref(), new.progress.as_str()),
            (Some("then"), "Running, 1/2: one is away")
        );
        assert_eq!(look(&live(2, "False")).since, None);
        assert_eq!(look(&json!({"metadata": {"generation": 1}})).since, None);
    }

    #[test]
    fn what_the_controller_has_seen_to_need_not_be_watched_again() {
        let mut object = live(2, "True");
        assert_eq!(look(&object).hold, Duration::from_secs(5));
        object["spec"]["min_ready_seconds"] = json!(3);
        assert_eq!(look(&object).hold, Duration::from_secs(2));
        object["spec"]["min_ready_seconds"] = json!(30);
        assert_eq!(look(&object).hold, Duration::ZERO);
    }

    #[test]
    fn what_is_not_always_started_again_is_to_succeed() {
        let mut object = live(2, "True");
        object["spec"]["config"]["restart_policy"] = json!("Never");
        assert_eq!(look(&object).goal, "Ready", "an older controller");
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(json!({"type": "Succeeded", "status": "False", "message": "it still runs"}));
        let running = look(&object);
        assert_eq!((running.goal, running.since), ("Succeeded", None));
        object["status"]["conditions"][1]["status"] = json!("True");
        let done = look(&object);
        assert_eq!((done.since.is_some(), done.hold), (true, Duration::ZERO));
    }

    #[test]
    fn a_failure_that_does_not_pass_ends_the_wait_with_its_reason() {
        let mut object = live(2, "False");
        let failed =
            |reason: &str| json!([{"device": "board", "reason": reason, "message": "it went wrong"}]);
        object["status"]["failures"] = failed("Trapped");
        assert_eq!(look(&object).failure.as_deref(), Some("board: Trapped: it went wrong"));
        object["spec"]["config"]["restart_policy"] = json!("OnFailure");
        assert_eq!(look(&object).failure, None, "it is tried again");
        object["status"]["failures"] = failed("InvalidModule");
        assert!(look(&object).failure.is_some());
        object["status"]["failures"] = failed("OutOfMemory");
        assert_eq!(look(&object).failure, None, "it may pass");
        let stalled =
            json!({"type": "Stalled", "status": "True", "reason": "InvalidBase64", "message": "no"});
        object["status"]["conditions"].as_array_mut().unwrap().push(stalled);
        assert_eq!(look(&object).failure.as_deref(), Some("InvalidBase64: no"));
    }
}
