//! Waits for Applications to be Ready, and says meanwhile how far they are.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Applied;
use crate::{
    cluster::Cluster,
    output::{self, harmless},
};

/// How often the Applications are read while waiting.
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns when the `Ready` condition of every Application among `applied` is true for its newest generation.
pub(super) async fn until_ready(cluster: &Cluster, applied: &[Applied], timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for object in applied.iter().filter(|object| object.resource.kind == "Application") {
        let name = object.resource.object_name(&object.name);
        let mut last = String::new();
        loop {
            let Some(live) = cluster.read(&object.path).await? else { bail!("{name} was deleted meanwhile") };
            let (ready, progress) = progress(&live);
            if progress != last {
                output::print_line(&format!("{name}: {progress}"));
                last.clone_from(&progress);
            }
            if ready {
                break;
            }
            if Instant::now() >= deadline {
                bail!("{name} is not Ready after {} s: {progress}", timeout.as_secs());
            }
            sleep(INTERVAL).await;
        }
    }
    Ok(())
}

/// Whether the newest generation is Ready, and what to tell a person.
fn progress(live: &Value) -> (bool, String) {
    let status = &live["status"];
    let generation = live["metadata"]["generation"].as_i64();
    if status["observedGeneration"].as_i64() != generation {
        return (false, "waiting for the controller".to_owned());
    }
    let conditions = status["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let (phase, count) =
        (status["phase"].as_str().unwrap_or("Pending"), status["ready"].as_str().unwrap_or("0/0"));
    let text = |field: &str| ready.and_then(|condition| condition[field].as_str()).unwrap_or_default();
    (text("status") == "True", format!("{phase}, {count} running: {}", harmless(text("message"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_newest_generation_counts() {
        let live = |observed: i64, status: &str| {
            json!({
                "metadata": {"generation": 2},
                "status": {
                    "observedGeneration": observed, "phase": "Running", "ready": "1/2",
                    "conditions": [{"type": "Ready", "status": status, "message": "one is away"}],
                },
            })
        };
        assert_eq!(progress(&live(1, "True")), (false, "waiting for the controller".to_owned()));
        assert_eq!(progress(&live(2, "True")), (true, "Running, 1/2 running: one is away".to_owned()));
        assert!(!progress(&live(2, "False")).0);
        assert!(!progress(&json!({"metadata": {"generation": 1}})).0);
    }
}
