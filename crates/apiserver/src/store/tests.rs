pub(crate) mod disk;
mod quotas;

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Applied, Change, Constraint, Disk, History, Machine, Memory, Operation, Outcome, Pager, Read, Store,
    Write,
};
use crate::kinds::{Kind, Kinds};
use crate::resource::{Author, FieldValidation, Moment, Part, Patch, Preconditions};
use crate::selector::Selection;
use crate::status::{Reason, Status};

/// More than a feed returns at a time.
const LEASES: u64 = 600;
const HISTORY: History = History { events: 1_000, bytes: 4 << 20 };

fn kinds() -> Arc<Kinds> {
    Arc::new(Kinds::new(&[]).unwrap())
}

fn leases(kinds: &Kinds) -> Arc<Kind> {
    Arc::clone(kinds.get("coordination.k8s.io", "v1", "leases").unwrap())
}

fn write(kind: &Arc<Kind>, name: &str, operation: Operation) -> Write {
    Write {
        kind: Arc::clone(kind),
        namespace: kind.namespaced.then(|| "default".to_owned()),
        name: name.to_owned(),
        operation,
        manager: "test".into(),
        author: Arc::new(Author::default()),
        dry_run: false,
        validation: FieldValidation::Strict,
        constraints: Vec::new(),
    }
}

fn create(kind: &Arc<Kind>, name: &str, spec: Value) -> Write {
    let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
    write(kind, "", Operation::Create { object, duplicates: Vec::new() })
}

fn patch(kind: &Arc<Kind>, name: &str, patch: Value) -> Write {
    write(kind, name, Operation::Patch { part: Part::Main, patch: Patch::Merge(patch) })
}

fn delete(kind: &Arc<Kind>, name: &str) -> Write {
    write(kind, name, Operation::Delete { conditions: Preconditions::default() })
}

fn holder(name: &str) -> Value {
    json!({"spec": {"holderIdentity": name}})
}

struct World {
    memory: Memory,
    uids: u128,
}

impl World {
    fn new() -> World {
        let mut world = World { memory: Memory::new(kinds(), HISTORY), uids: 0 };
        let namespaces = Arc::clone(world.memory.kinds().namespaces());
        world.write(&create(&namespaces, "default", json!({}))).unwrap();
        world
    }

    fn write(&mut self, write: &Write) -> Result<Applied, Status> {
        self.uids += 1;
        let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::from_u128(self.uids) };
        self.memory.write(write, moment)
    }
}

#[test]
fn each_change_has_the_next_revision_and_is_in_the_history() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    let start = world.memory.revision();
    let created = world.write(&create(&leases, "a", json!({}))).unwrap();
    assert_eq!(created.outcome, Outcome::Created);
    world.write(&patch(&leases, "a", holder("x"))).unwrap();
    let same = world.write(&patch(&leases, "a", holder("x"))).unwrap();
    assert!(same.event.is_none());
    let removed = world.write(&delete(&leases, "a")).unwrap();
    assert_eq!(removed.outcome, Outcome::Removed);
    let last: Value = serde_json::from_slice(removed.event.unwrap().object()).unwrap();
    assert_eq!(
        last["metadata"]["resourceVersion"],
        (start + 3).to_string(),
        "a deletion has a version of its own"
    );
    let seen = world.memory.since(&leases, start, 10).unwrap();
    let seen: Vec<(u64, Change)> =
        seen.iter().map(|event| (event.revision() - start, event.change())).collect();
    assert_eq!(seen, [(1, Change::Added), (2, Change::Modified), (3, Change::Deleted)]);
    assert!(world.memory.get(&leases, "default", "a").is_none());
    world.memory.restart();
    assert!(world.memory.since(&leases, start, 10).is_err());
}

#[test]
fn a_refused_write_uses_no_revision() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    world.write(&create(&leases, "a", json!({}))).unwrap();
    let before = world.memory.revision();
    let mut elsewhere = create(&leases, "b", json!({}));
    elsewhere.namespace = Some("nowhere".into());
    let mut constrained = create(&leases, "b", json!({"holderIdentity": "x"}));
    constrained.constraints =
        vec![Arc::new(Constraint::compile("object.spec.holderIdentity == 'y'", "only y").unwrap())];
    let mut idle = patch(&leases, "a", json!({}));
    idle.constraints = constrained.constraints.clone();
    let mut dry = create(&leases, "b", json!({}));
    dry.dry_run = true;
    for (write, reason) in [
        (create(&leases, "a", json!({})), Some(Reason::AlreadyExists)),
        (patch(&leases, "b", json!({})), Some(Reason::NotFound)),
        (delete(&leases, "b"), Some(Reason::NotFound)),
        (elsewhere, Some(Reason::NotFound)),
        (constrained, Some(Reason::Forbidden)),
        (idle, Some(Reason::Forbidden)),
        (patch(&leases, "a", json!({"spec": {"leaseDurationSeconds": 0}})), Some(Reason::Invalid)),
        (dry, None),
    ] {
        let answer = world.write(&write);
        assert_eq!(answer.as_ref().err().map(|status| status.reason()), reason, "{answer:?}");
        assert_eq!(world.memory.revision(), before);
    }
    assert!(world.memory.get(&leases, "default", "b").is_none());
}

#[test]
fn a_deleted_namespace_is_removed_once_it_is_empty() {
    let mut world = World::new();
    let namespaces = Arc::clone(world.memory.kinds().namespaces());
    let leases = leases(world.memory.kinds());
    world.write(&create(&namespaces, "lab", json!({}))).unwrap();
    let mut lease = create(&leases, "a", json!({}));
    lease.namespace = Some("lab".into());
    world.write(&lease).unwrap();
    assert_eq!(world.write(&delete(&namespaces, "default")).unwrap_err().reason(), Reason::Forbidden);
    world.write(&delete(&namespaces, "lab")).unwrap();
    assert_eq!(world.memory.get(&namespaces, "", "lab").unwrap()["status"]["phase"], "Terminating");
    let mut other = create(&leases, "b", json!({}));
    other.namespace = Some("lab".into());
    assert_eq!(world.write(&other).unwrap_err().details().causes[0].reason(), "NamespaceTerminating");
    let vacate = write(&namespaces, "lab", Operation::RemoveIfEmpty);
    assert_eq!(world.write(&vacate).unwrap().outcome, Outcome::Stored);
    let mut gone = delete(&leases, "a");
    gone.namespace = Some("lab".into());
    world.write(&gone).unwrap();
    assert_eq!(world.write(&vacate).unwrap().outcome, Outcome::Removed);
}

#[test]
fn lists_are_read_in_pages() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    for name in ["a", "b", "c", "d"] {
        world.write(&create(&leases, name, json!({}))).unwrap();
        world
            .write(&patch(
                &leases,
                name,
                json!({"metadata": {"labels": {"odd": (name == "a" || name == "c").to_string()}}}),
            ))
            .unwrap();
    }
    let (all, _) = world.memory.list(&leases, &Selection::default()).unwrap();
    assert_eq!((all.objects.len(), all.next), (4, None));
    let odd = Selection::parse(&leases, Some("default"), Some("odd=true"), None).unwrap();
    assert_eq!(world.memory.list(&leases, &odd).unwrap().0.objects.len(), 2);
    let named = Selection::parse(&leases, Some("default"), None, Some("metadata.name=b")).unwrap();
    assert_eq!(world.memory.list(&leases, &named).unwrap().0.objects.len(), 1);
    let elsewhere = Selection::within("other");
    assert!(world.memory.list(&leases, &elsewhere).unwrap().0.objects.is_empty());
}

/// The same writes lead to the same objects in memory and on disk.
#[test]
fn memory_and_disk_agree() {
    let kinds = kinds();
    let leases = leases(&kinds);
    let namespaces = kinds.namespaces();
    let writes = [
        create(namespaces, "default", json!({})),
        create(&leases, "a", json!({})),
        create(&leases, "b", json!({})),
        patch(&leases, "a", holder("x")),
        delete(&leases, "b"),
        create(&leases, "b", json!({"holderIdentity": "y"})),
    ];
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), None).unwrap();
    let mut machine = Machine::new(Arc::clone(&kinds), 0);
    let mut memory = Memory::new(Arc::clone(&kinds), HISTORY);
    for (index, write) in writes.iter().enumerate() {
        let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::from_u128(index as u128) };
        memory.write(write, moment).unwrap();
        let transaction = disk.begin().unwrap();
        machine.apply(&mut disk.open_objects(&transaction).unwrap(), write, moment).unwrap();
        Disk::commit(transaction, machine.revision()).unwrap();
    }
    let snapshot = disk.snapshot().unwrap();
    assert_eq!(snapshot.revision(), memory.revision());
    let selection = Selection::default();
    for kind in kinds.iter() {
        let on_disk =
            Pager { selection: &selection, after: None, limit: None }.read(kind, &snapshot).unwrap();
        assert_eq!(on_disk.objects, memory.list(kind, &selection).unwrap().0.objects);
    }
}

#[test]
fn a_batch_that_is_not_committed_leaves_nothing() {
    let kinds = kinds();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), None).unwrap();
    let mut machine = Machine::new(Arc::clone(&kinds), 0);
    let transaction = disk.begin().unwrap();
    let write = create(kinds.namespaces(), "default", json!({}));
    let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::nil() };
    machine.apply(&mut disk.open_objects(&transaction).unwrap(), &write, moment).unwrap();
    drop(transaction);
    let snapshot = disk.snapshot().unwrap();
    assert_eq!((snapshot.revision(), snapshot.get("/namespaces//default").unwrap()), (0, None));
}

#[tokio::test]
async fn a_store_that_has_ended_can_be_opened_at_once() {
    let kinds = kinds();
    let folder = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let disk = Disk::open(folder.path(), None).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let (store, ended) = Store::start(Arc::clone(&kinds), disk, HISTORY, |_| {}).unwrap();
        let name = format!("n-{round}");
        store.write(create(kinds.namespaces(), &name, json!({}))).await.unwrap();
        drop(store);
        ended.await.unwrap();
    }
}

#[tokio::test]
async fn writers_share_commits_and_readers_see_them_in_order() {
    let kinds = kinds();
    let leases = leases(&kinds);
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), None).unwrap();
    let (report, reports) = std::sync::mpsc::channel();
    let (store, ended) =
        Store::start(Arc::clone(&kinds), disk, HISTORY, move |commit| report.send(commit.writes).unwrap())
            .unwrap();
    store.write(create(kinds.namespaces(), "default", json!({}))).await.unwrap();
    let writes = (0..LEASES).map(|n| store.write(create(&leases, &format!("l-{n}"), json!({}))));
    futures::future::try_join_all(writes).await.unwrap();
    let commits: Vec<usize> = reports.try_iter().collect();
    assert_eq!(commits.iter().sum::<usize>() as u64, LEASES + 1);
    assert!(commits.len() < 100, "{} commits for {LEASES} writes", commits.len());
    let feed = store.feed(&leases).unwrap();
    let (mut seen, mut changes) = (Vec::new(), feed.since(0).unwrap());
    loop {
        seen.extend(changes.events.iter().map(|event| event.revision()));
        if !changes.more {
            break;
        }
        changes = feed.since(changes.complete).unwrap();
    }
    assert_eq!(seen, (2..=LEASES + 1).collect::<Vec<u64>>());
    assert_eq!(changes.complete, store.snapshot().unwrap().revision());
    drop(store);
    ended.await.unwrap();
}

#[test]
fn a_secret_is_in_no_file_of_the_store_and_outlives_its_key() {
    let kinds = kinds();
    let secrets = Arc::clone(kinds.get("", "v1", "secrets").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let key = |digit: &str| format!("{}\n", digit.repeat(64));
    std::fs::write(&keys, key("1")).unwrap();
    let plain = "pdbWKT0YcbkcY9WkpTTMAA==";
    let store = folder.path().join("store");
    let open = || Disk::open(&store, Some(&keys)).unwrap();
    let disk = open();
    let mut machine = Machine::new(Arc::clone(&kinds), 0);
    let object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": plain}});
    let namespace = create(kinds.namespaces(), "default", json!({}));
    let secret = write(&secrets, "", Operation::Create { object, duplicates: Vec::new() });
    let transaction = disk.begin().unwrap();
    for write in [&namespace, &secret] {
        let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::from_u128(1) };
        machine.apply(&mut disk.open_objects(&transaction).unwrap(), write, moment).unwrap();
    }
    Disk::commit(transaction, machine.revision()).unwrap();
    let data = |disk: &Disk| {
        let stored = disk.snapshot().unwrap().get("/secrets/default/a").unwrap().unwrap();
        let object: Value = serde_json::from_slice(&stored).unwrap();
        object["data"]["k"].clone()
    };
    assert_eq!(data(&disk), plain);
    drop(disk);
    let bytes = std::fs::read(store.join("objects.redb")).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("/secrets/default/a") && !holds(plain) && !holds("\"data\""));

    // Another key before it, then without it.
    std::fs::write(&keys, key("2") + &key("1")).unwrap();
    drop(open());
    std::fs::write(&keys, key("2")).unwrap();
    assert_eq!(data(&open()), plain);
    std::fs::write(&keys, key("1")).unwrap();
    let error = Disk::open(&store, Some(&keys)).unwrap_err().to_string();
    assert!(error.contains("encrypted under another key"), "{error}");
}
