//! Who changed what a controller acts on: a line for each generation of an Application and a Device. By uid, generation and
//! resourceVersion it is found in the API server's audit log, and by correlation id in the logs of gateways.

use std::collections::HashMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
    jiff::Timestamp,
};
use wasmbed_control::fleet::correlation_id;
use wasmbed_protocol::ApplicationUid;

/// The generations that were seen of one kind, by uid.
#[derive(Debug)]
pub(crate) struct Changes {
    kind: &'static str,
    seen: HashMap<String, i64>,
}

impl Changes {
    pub(crate) fn of(kind: &'static str) -> Self {
        Self { kind, seen: HashMap::new() }
    }

    /// An object as the watch shows it; `observed` is the generation that its status speaks of. One that is seen for the first time,
    /// as all are when a controller starts, is a change only if nobody has acted on it yet.
    pub(crate) fn see(&mut self, metadata: &ObjectMeta, observed: Option<i64>) {
        let (Some(uid), Some(generation)) = (&metadata.uid, metadata.generation) else { return };
        let before = self.seen.insert(uid.clone(), generation);
        if before.or(observed).is_some_and(|known| known >= generation) {
            return;
        }
        let author = author(metadata.managed_fields.as_deref().unwrap_or_default());
        let correlation = uid.parse::<ApplicationUid>().ok().filter(|_| self.kind == "Application");
        let correlation = correlation.map(|uid| tracing::field::display(correlation_id(uid, generation)));
        tracing::info!(
            target: "audit",
            kind = self.kind,
            namespace = metadata.namespace,
            name = metadata.name,
            uid,
            generation,
            resource_version = metadata.resource_version,
            field_manager = author.map(|author| author.manager),
            changed_at = author.map(|author| tracing::field::display(author.at)),
            correlation_id = correlation,
            "changed"
        );
    }

    pub(crate) fn forget(&mut self, metadata: &ObjectMeta) {
        let Some(uid) = &metadata.uid else { return };
        self.seen.remove(uid);
        tracing::info!(
            target: "audit",
            kind = self.kind,
            namespace = metadata.namespace,
            name = metadata.name,
            uid,
            generation = metadata.generation,
            resource_version = metadata.resource_version,
            "deleted"
        );
    }
}

/// Who wrote what a person wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Author<'a> {
    manager: &'a str,
    at: Timestamp,
}

/// Whoever wrote last, statuses aside.
fn author(managers: &[ManagedFieldsEntry]) -> Option<Author<'_>> {
    let of_the_object = managers.iter().filter(|entry| entry.subresource.is_none());
    let authors = of_the_object
        .filter_map(|entry| Some(Author { manager: entry.manager.as_deref()?, at: entry.time.as_ref()?.0 }));
    authors.max_by_key(|author| author.at)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn metadata(generation: i64, managers: &Value) -> ObjectMeta {
        serde_json::from_value(json!({
            "namespace": "lab",
            "name": "blink",
            "uid": "00000000-0000-4000-8000-000000000001",
            "generation": generation,
            "resourceVersion": "7",
            "managedFields": managers,
        }))
        .unwrap()
    }

    /// The lines that are written while `act` runs.
    fn lines(act: impl FnOnce()) -> Vec<Value> {
        use std::{
            io::Write,
            sync::{Arc, Mutex},
        };
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl Write for Written {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = written.0.lock().unwrap();
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn each_generation_is_one_line_with_its_author() {
        let managers = json!([
            { "manager": "ci", "operation": "Apply", "time": "2026-01-02T03:04:05Z" },
            { "manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T03:04:06Z" },
            { "manager": "wasmbed-controller", "operation": "Update", "time": "2026-01-02T03:04:07Z", "subresource": "status" },
        ]);
        let mut changes = Changes::of("Application");
        let lines = lines(|| {
            changes.see(&metadata(3, &managers), Some(2));
            changes.see(&metadata(3, &managers), Some(3));
            changes.see(&metadata(4, &json!([])), Some(3));
            changes.forget(&metadata(4, &json!([])));
        });
        let said: Vec<_> = lines
            .iter()
            .map(|line| (line["fields"]["message"].as_str(), &line["fields"]["generation"]))
            .collect();
        assert_eq!(
            said,
            [(Some("changed"), &json!(3)), (Some("changed"), &json!(4)), (Some("deleted"), &json!(4))]
        );
        let first = &lines[0]["fields"];
        assert_eq!(lines[0]["target"], "audit");
        assert_eq!(first["field_manager"], "kubectl-edit");
        assert_eq!(first["changed_at"], "2026-01-02T03:04:06Z");
        assert_eq!(first["uid"], "00000000-0000-4000-8000-000000000001");
        let uid = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(first["correlation_id"], correlation_id(uid, 3).to_string());
    }

    #[test]
    fn what_is_known_when_a_controller_starts_is_no_change() {
        let lines = lines(|| {
            let mut changes = Changes::of("Device");
            changes.see(&metadata(3, &json!([])), Some(3));
        });
        assert_eq!(lines, Vec::<Value>::new());
    }
}
