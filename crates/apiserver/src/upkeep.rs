//! Background work: the server's own objects, terminating namespaces, old Events.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::kinds::{Conversion, Kind};
use crate::resource::{Author, FieldValidation, Lifetimes, Part, Patch, Preconditions};
use crate::selector::{Facets, Selection};
use crate::status::{Reason, Status};
use crate::store::{Operation, Outcome, Pager, Read, Store, Write};

/// Interval of checks while a terminating namespace waits for finalizers.
const NAMESPACE_INTERVAL: Duration = Duration::from_millis(500);
/// Objects that are read at once where there may be many.
const PAGE: usize = 256;
/// Interval of checks for old Events and CertificateSigningRequests.
const AGE_INTERVAL: Duration = Duration::from_secs(60);

/// Creates or updates the namespace `default` and the definitions, which clients may read.
pub(crate) async fn seed(store: &Store, definitions: &[Value]) -> Result<(), Status> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    ensure(store, store.kinds().namespaces(), namespace).await?;
    if let Some(kind) = store.kinds().get("apiextensions.k8s.io", "v1", "customresourcedefinitions") {
        for definition in definitions {
            let mut object = definition.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.remove("status");
            }
            ensure(store, kind, object).await?;
            establish(store, kind, definition).await?;
        }
    }
    Ok(())
}

/// Creates an object, or patches it.
async fn ensure(store: &Store, kind: &Arc<Kind>, object: Value) -> Result<(), Status> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let patch = Patch::Merge(object.clone());
    let create = Operation::Create { object, duplicates: Vec::new() };
    match store.write(internal(kind, None, "", create)).await {
        Err(status) if status.reason() == Reason::AlreadyExists => {}
        other => return other.map(|_| ()),
    }
    let patch = Operation::Patch { part: Part::Main, patch };
    store.write(internal(kind, None, &name, patch)).await.map(|_| ())
}

/// Tools wait for these conditions before they use a kind.
async fn establish(store: &Store, kind: &Arc<Kind>, definition: &Value) -> Result<(), Status> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let snapshot = store.snapshot()?;
    let stored = snapshot.get(&kind.key("", name))?.unwrap_or_default();
    let stored: Value = serde_json::from_slice(&stored).map_err(Status::internal)?;
    let condition = |ty: &str, reason: &str| {
        json!({
            "type": ty, "status": "True", "reason": reason, "message": "the kind is served",
            "lastTransitionTime": stored["metadata"]["creationTimestamp"],
        })
    };
    let status = json!({"status": {
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": [definition["spec"]["versions"][0]["name"]],
        "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
    }});
    let patch = Operation::Patch { part: Part::Status, patch: Patch::Merge(status) };
    store.write(internal(kind, None, name, patch)).await.map(|_| ())
}

fn internal(kind: &Arc<Kind>, namespace: Option<String>, name: &str, operation: Operation) -> Write {
    Write {
        kind: Arc::clone(kind),
        namespace,
        name: name.to_owned(),
        operation,
        manager: "wasmbed-apiserver".into(),
        author: Arc::new(Author::default()),
        dry_run: false,
        validation: FieldValidation::Ignore,
        constraints: Vec::new(),
    }
}

/// Runs until the server stops.
pub(crate) async fn run(store: Store, limits: &Limits, shutdown: CancellationToken) {
    let Some(mut changed) = store.feed(store.kinds().namespaces()).map(|feed| feed.subscribe()) else {
        debug_assert!(false, "each kind has a feed");
        return;
    };
    let mut minute = tokio::time::interval(AGE_INTERVAL);
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut terminating = true;
    loop {
        let done = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = minute.tick() => drop_old(&store, limits).await,
            Ok(()) = changed.changed() => end_namespaces(&store).await.map(|some| terminating = some),
            () = tokio::time::sleep(NAMESPACE_INTERVAL), if terminating => {
                end_namespaces(&store).await.map(|some| terminating = some)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "background work failed and is retried");
        }
    }
}

/// Calls `work` once a minute until the server stops.
pub(crate) async fn every_minute(shutdown: CancellationToken, work: impl Fn()) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = minute.tick() => work(),
        }
    }
}

/// Deletes the content of terminating namespaces, and those that are empty. Returns whether one is left.
async fn end_namespaces(store: &Store) -> Result<bool, Status> {
    let namespaces = store.kinds().namespaces();
    let mut waiting = false;
    let terminating = Selection::parse(namespaces, Some(""), None, Some("status.phase=Terminating"))?;
    for stored in read(store, namespaces, &terminating)? {
        let namespace = Facets::of(namespaces, &stored).name;
        let within = Selection::within(&namespace);
        for kind in
            store.kinds().iter().filter(|kind| kind.namespaced && kind.conversion() == Conversion::None)
        {
            for stored in read(store, kind, &within)? {
                delete(store, kind, &stored).await?;
            }
        }
        let vacated = store.write(internal(namespaces, None, &namespace, Operation::RemoveIfEmpty)).await;
        waiting |= vacated.is_ok_and(|applied| applied.outcome != Outcome::Removed);
    }
    Ok(waiting)
}

async fn drop_old(store: &Store, limits: &Limits) -> Result<(), Status> {
    drop_events(store, limits.event_lifetime).await?;
    drop_signing_requests(store, limits.lifetimes(), Timestamp::now()).await
}

async fn drop_signing_requests(store: &Store, lifetimes: Lifetimes, now: Timestamp) -> Result<(), Status> {
    let Some(kind) = store.kinds().get("certificates.k8s.io", "v1", "certificatesigningrequests") else {
        debug_assert!(false, "CertificateSigningRequests are a built-in kind");
        return Ok(());
    };
    let mut after = None;
    // A page at a time: users can fill some hundred megabytes with them.
    loop {
        let (found, next) = {
            let snapshot = store.snapshot()?;
            let pager =
                Pager { selection: &Selection::default(), after: after.as_deref(), limit: Some(PAGE) };
            let page = pager.read(kind, &snapshot)?;
            let mut found = Vec::new();
            for stored in &page.objects {
                let stored: Value = serde_json::from_slice(stored).map_err(Status::internal)?;
                if lifetimes.are_over(&stored, now) {
                    found.push(stored);
                }
            }
            (found, page.next)
        };
        for stored in found {
            delete(store, kind, &stored).await?;
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
        tokio::task::yield_now().await;
    }
}

async fn drop_events(store: &Store, lifetime: Duration) -> Result<(), Status> {
    let Some(kind) = store.kinds().get("", "v1", "events") else {
        debug_assert!(false, "Events are a built-in kind");
        return Ok(());
    };
    let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let oldest = Timestamp::now().as_second().saturating_sub(lifetime);
    for stored in read(store, kind, &Selection::default())? {
        if last_seen(&stored).is_none_or(|seen| seen < oldest) {
            delete(store, kind, &stored).await?;
        }
    }
    Ok(())
}

/// When an Event last happened, in seconds.
fn last_seen(event: &Value) -> Option<i64> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.iter().filter_map(|time| time.as_str()?.parse::<Timestamp>().ok()).map(Timestamp::as_second).max()
}

fn read(store: &Store, kind: &Kind, selection: &Selection) -> Result<Vec<Value>, Status> {
    let snapshot = store.snapshot()?;
    let page = Pager { selection, after: None, limit: None }.read(kind, &snapshot)?;
    page.objects.iter().map(|stored| serde_json::from_slice(stored).map_err(Status::internal)).collect()
}

async fn delete(store: &Store, kind: &Arc<Kind>, stored: &Value) -> Result<(), Status> {
    let facets = Facets::of(kind, stored);
    let uid = stored["metadata"]["uid"].as_str().map(str::to_owned);
    let conditions = Preconditions { uid, resource_version: None };
    let write = internal(kind, Some(facets.namespace), &facets.name, Operation::Delete { conditions });
    match store.write(write).await {
        Err(status) if !matches!(status.reason(), Reason::NotFound | Reason::Conflict) => Err(status),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Signers;
    use crate::store::tests::disk::World;

    const REQUEST: &str = include_str!("../tests/accept/request.base64");

    async fn names(store: &Store, kind: &Kind) -> Vec<String> {
        let found = read(store, kind, &Selection::default()).unwrap();
        found.iter().map(|request| Facets::of(kind, request).name).collect()
    }

    #[tokio::test]
    async fn signing_requests_go_when_their_time_is_over() {
        let world = World::new().await;
        let store = &world.store;
        let kind = store.kinds().get("certificates.k8s.io", "v1", "certificatesigningrequests").unwrap();
        // More than a page.
        for index in 0..=PAGE {
            let object = json!({
                "apiVersion": "certificates.k8s.io/v1", "kind": kind.kind, "metadata": {"name": format!("r{index}")},
                "spec": {"request": REQUEST, "signerName": "example.com/s", "usages": ["client auth"]},
            });
            let create = Operation::Create { object, duplicates: Vec::new() };
            store.write(internal(kind, None, "", create)).await.unwrap();
        }
        let denied = json!({"status": {"conditions": [{"type": "Denied", "status": "True"}]}});
        let patch = Operation::Patch { part: Part::Approval, patch: Patch::Merge(denied) };
        let mut write = internal(kind, None, "r7", patch);
        let refused = store.write(write.clone()).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Forbidden, "an author without signers");
        write.author = Arc::new(Author { approves: Signers::All, ..Author::default() });
        store.write(write).await.unwrap();
        let lifetimes =
            Lifetimes { finished: Duration::from_secs(3_600), pending: Duration::from_secs(86_400) };
        let after = |hours: u64| Timestamp::now() + Duration::from_secs(3_600 * hours);
        drop_signing_requests(store, lifetimes, Timestamp::now()).await.unwrap();
        assert_eq!(names(store, kind).await.len(), PAGE + 1);
        drop_signing_requests(store, lifetimes, after(2)).await.unwrap();
        let left = names(store, kind).await;
        assert!(left.len() == PAGE && !left.contains(&"r7".to_owned()), "{left:?}");
        drop_signing_requests(store, lifetimes, after(25)).await.unwrap();
        assert_eq!(names(store, kind).await, [""; 0]);
    }
}
