//! Events. Their names follow from what they say, so that a call that is made again writes the same object.

use k8s_openapi::{
    api::core::v1::{Event as EventObject, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use wasmbed_api::{GROUP, VERSION};
use wasmbed_control::{
    ObjectKey,
    kubernetes::{Event, Occurrence},
};

use crate::{CallError, Caller};

impl Caller {
    /// Writes an Event once.
    ///
    /// # Errors
    /// It was not written, or that is not known; another call does no harm.
    pub async fn write_event(&self, event: &Event) -> Result<(), CallError> {
        let occurrence = Occurrence { number: 0, count: 1, first_unix_ms: event.unix_ms };
        let object = self.event_object(event, name(event), occurrence);
        match self.create(&event.regarding.key.namespace, &object).await {
            Ok(_) => Ok(()),
            // It was written before.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes an Event, or counts up the object that an earlier occurrence made. `boot_id` tells the processes apart that
    /// number their Events.
    ///
    /// # Errors
    /// It was not written, or that is not known; another call does no harm.
    pub async fn count_event(
        &self,
        event: &Event,
        occurrence: Occurrence,
        boot_id: &str,
    ) -> Result<(), CallError> {
        let regarding = &event.regarding.key;
        let name = numbered_name(&regarding.name, boot_id, occurrence.number);
        let object = self.event_object(event, name.clone(), occurrence);
        if occurrence.count > 1 {
            let key = ObjectKey::new(regarding.namespace.as_str(), name);
            let again = json!({ "count": object.count, "lastTimestamp": object.last_timestamp });
            match self.merge::<EventObject>(&key, &again).await {
                // It has expired, or was never written: it is made again with its count.
                Err(error) if error.status() == Some(404) => {}
                result => return result.map(|_| ()),
            }
        }
        self.create(&regarding.namespace, &object).await.map(|_| ())
    }

    fn event_object(&self, event: &Event, name: String, occurrence: Occurrence) -> EventObject {
        let Event { regarding, warning, reason, message, unix_ms } = event;
        EventObject {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(regarding.key.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some(regarding.kind.to_owned()),
                namespace: Some(regarding.key.namespace.clone()),
                name: Some(regarding.key.name.clone()),
                uid: Some(regarding.uid.clone()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            },
            type_: Some(if *warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.as_str().to_owned()),
            message: Some(message.clone()),
            count: Some(i32::try_from(occurrence.count).unwrap_or(i32::MAX)),
            first_timestamp: time(occurrence.first_unix_ms),
            last_timestamp: time(*unix_ms),
            source: Some(EventSource {
                component: Some(self.component().to_owned()),
                host: Some(self.instance().to_owned()),
            }),
            reporting_component: Some(self.component().to_owned()),
            reporting_instance: Some(self.instance().to_owned()),
            ..EventObject::default()
        }
    }
}

/// Kubernetes' times have whole seconds.
fn time(unix_ms: u64) -> Option<Time> {
    i64::try_from(unix_ms / 1_000).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).map(Time)
}

/// Names in Kubernetes have at most 253 characters.
fn name(event: &Event) -> String {
    const STEM_CHARS_MAX: usize = 200;
    let mut hash = Sha256::new();
    hash.update(event.unix_ms.to_be_bytes());
    for text in [&event.regarding.uid, event.reason.as_str(), &event.message] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let suffix = hex::encode(&hash.finalize()[..8]);
    let stem: String = event.regarding.key.name.chars().take(STEM_CHARS_MAX).collect();
    format!("{}.{suffix}", stem.trim_end_matches(['.', '-']))
}

/// Of a process and its number within it.
fn numbered_name(object: &str, boot_id: &str, number: u64) -> String {
    format!("{object:.220}.{boot_id:.16}{number:x}")
}

#[cfg(test)]
mod tests {
    use wasmbed_api::ReasonCode;
    use wasmbed_control::kubernetes::Regarding;

    use super::*;

    fn event(object: &str, uid: &str, unix_ms: u64, reason: ReasonCode, message: &str) -> Event {
        let regarding = Regarding::application(ObjectKey::new("n", object), uid);
        Event { regarding, warning: false, reason, message: message.to_owned(), unix_ms }
    }

    #[test]
    fn an_event_has_one_name_and_another_event_has_another() {
        let first = name(&event("a", "u", 7, ReasonCode::Exited, "m"));
        assert_eq!(first, name(&event("a", "u", 7, ReasonCode::Exited, "m")));
        assert!(first.starts_with("a.") && first.len() == 18, "{first}");
        for other in [
            event("a", "v", 7, ReasonCode::Exited, "m"),
            event("a", "u", 8, ReasonCode::Exited, "m"),
            event("a", "u", 7, ReasonCode::Trapped, "m"),
            event("a", "u", 7, ReasonCode::Exited, "n"),
        ] {
            assert_ne!(first, name(&other));
        }
        assert!(name(&event(&"a".repeat(253), "u", 7, ReasonCode::Exited, "m")).len() <= 253);
        assert!(numbered_name(&"a".repeat(253), &"0".repeat(32), u64::MAX).len() <= 253);
    }
}
