//! ResourceQuotas: what is refused, and what their statuses say.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{World, create, delete, holder, kinds, leases, patch, write};
use crate::kinds::Kind;
use crate::selector::Selection;
use crate::status::{Reason, Status};
use crate::store::{Change, Constraint, Disk, History, Operation, Store, Write};

const LEASES: &str = "count/leases.coordination.k8s.io";

fn quotas(world: &World) -> Arc<Kind> {
    Arc::clone(world.memory.kinds().get("", "v1", "resourcequotas").unwrap())
}

fn quota(world: &World, name: &str, hard: Value) -> Write {
    create(&quotas(world), name, json!({ "hard": hard }))
}

fn refusal(refused: Result<crate::store::Applied, Status>) -> String {
    let status = refused.unwrap_err();
    assert_eq!(status.reason(), Reason::Forbidden, "{status}");
    status.message().to_owned()
}

impl World {
    fn status(&self, name: &str) -> Value {
        self.memory.get(&quotas(self), "default", name).unwrap()["status"].clone()
    }
}

#[test]
fn a_create_beyond_a_quota_is_refused_in_the_words_of_kubernetes() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    world.write(&create(&leases, "before", json!({}))).unwrap();
    world.write(&quota(&world, "q", json!({LEASES: 2, "count/secrets": "0"}))).unwrap();
    let hard = json!({LEASES: "2", "count/secrets": "0"});
    assert_eq!(world.status("q"), json!({"hard": hard, "used": {LEASES: "1", "count/secrets": "0"}}));
    world.write(&create(&leases, "a", json!({}))).unwrap();
    let refused = refusal(world.write(&create(&leases, "b", json!({}))));
    assert_eq!(
        refused,
        format!(
            "leases.coordination.k8s.io \"b\" is forbidden: exceeded quota: q, requested: {LEASES}=1, used: {LEASES}=2, limited: {LEASES}=2"
        )
    );
    // What is there already, what is only tried, and what is applied.
    let mut tried = create(&leases, "b", json!({}));
    tried.dry_run = true;
    assert_eq!(refusal(world.write(&tried)), refused);
    refusal(world.write(&create(&leases, "a", json!({}))));
    let object = json!({"apiVersion": leases.api_version(), "kind": leases.kind, "metadata": {"name": "b"}});
    let applied = Operation::Apply {
        part: crate::resource::Part::Main,
        object,
        duplicates: Vec::new(),
        force: false,
        creation: Ok(Vec::new()),
    };
    assert_eq!(refusal(world.write(&write(&leases, "b", applied))), refused);
    assert_eq!(world.status("q")["used"][LEASES], "2");
    // What exists changes freely, and a place that is left can be taken.
    world.write(&patch(&leases, "a", holder("x"))).unwrap();
    world.write(&delete(&leases, "before")).unwrap();
    assert_eq!(world.status("q")["used"][LEASES], "1");
    world.write(&create(&leases, "b", json!({}))).unwrap();
}

#[test]
fn all_quotas_of_a_namespace_hold_and_none_of_another() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    let namespaces = Arc::clone(world.memory.kinds().namespaces());
    world.write(&create(&namespaces, "other", json!({}))).unwrap();
    world.write(&quota(&world, "wide", json!({LEASES: 9}))).unwrap();
    world.write(&quota(&world, "narrow", json!({LEASES: 1}))).unwrap();
    world.write(&create(&leases, "a", json!({}))).unwrap();
    let refused = refusal(world.write(&create(&leases, "b", json!({}))));
    assert!(refused.contains("exceeded quota: narrow"), "{refused}");
    assert_eq!(world.status("wide")["used"][LEASES], "1");
    let mut elsewhere = create(&leases, "b", json!({}));
    elsewhere.namespace = Some("other".into());
    world.write(&elsewhere).unwrap();
    // A higher bound holds at once, as does a lower one, which takes nothing away.
    let raised = patch(&quotas(&world), "narrow", json!({"spec": {"hard": {LEASES: 2}}}));
    world.write(&raised).unwrap();
    world.write(&create(&leases, "b", json!({}))).unwrap();
    let lowered = patch(&quotas(&world), "wide", json!({"spec": {"hard": {LEASES: 0}}}));
    world.write(&lowered).unwrap();
    assert_eq!(world.status("wide"), json!({"hard": {LEASES: "0"}, "used": {LEASES: "2"}}));
    world.write(&delete(&quotas(&world), "wide")).unwrap();
    world.write(&delete(&quotas(&world), "narrow")).unwrap();
    world.write(&create(&leases, "c", json!({}))).unwrap();
}

#[test]
fn a_write_that_another_rule_refuses_uses_no_place() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    world.write(&quota(&world, "q", json!({LEASES: 1}))).unwrap();
    let mut constrained = create(&leases, "a", json!({}));
    constrained.constraints = vec![Arc::new(Constraint::compile("false", "never").unwrap())];
    world.write(&constrained).unwrap_err();
    world.write(&create(&leases, "a", json!({"leaseDurationSeconds": 0}))).unwrap_err();
    let large = json!({"holderIdentity": "x".repeat(4 << 20)});
    assert_eq!(
        world.write(&create(&leases, "a", large)).unwrap_err().reason(),
        Reason::RequestEntityTooLarge
    );
    assert_eq!(world.status("q")["used"][LEASES], "0");
    world.write(&create(&leases, "a", json!({}))).unwrap();
}

#[test]
fn a_status_is_the_servers_and_watches_see_it() {
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    let start = world.memory.revision();
    world.write(&quota(&world, "q", json!({LEASES: 1, "cpu": "1"}))).unwrap();
    let written = json!({"status": {"hard": {LEASES: "7"}, "used": {LEASES: "0"}}});
    let patch = crate::resource::Patch::Merge(written);
    let part = crate::resource::Part::Status;
    world.write(&write(&quotas(&world), "q", Operation::Patch { part, patch })).unwrap();
    let status = json!({"hard": {LEASES: "1", "cpu": "1"}, "used": {LEASES: "0"}});
    assert_eq!(world.status("q"), status);
    world.write(&create(&leases, "a", json!({}))).unwrap();
    let seen = world.memory.since(&quotas(&world), start, 10).unwrap();
    let seen: Vec<(u64, Change)> =
        seen.iter().map(|event| (event.revision() - start, event.change())).collect();
    // Created, its status, the client's, the server's again; then the lease, and what is used.
    let modified = [2, 3, 4, 6].map(|revision| (revision, Change::Modified));
    assert_eq!(seen, [&[(1, Change::Added)][..], &modified].concat());
    let stored = world.memory.get(&quotas(&world), "default", "q").unwrap();
    assert_eq!(stored["metadata"]["resourceVersion"], (start + 6).to_string());
}

#[test]
fn what_others_count_stays_as_they_say() {
    const BYTES: &str = "wasmbed.github.io/module-bytes";
    let mut world = World::new();
    let leases = leases(world.memory.kinds());
    world.write(&quota(&world, "q", json!({LEASES: 2, BYTES: "1Mi"}))).unwrap();
    let say = |world: &World, used: Value| {
        let patch = crate::resource::Patch::Merge(json!({"status": {"used": used}}));
        let part = crate::resource::Part::Status;
        write(&quotas(world), "q", Operation::Patch { part, patch })
    };
    let said = say(&world, json!({BYTES: "77", LEASES: "9", "example.com/other": "1", "pods": "5"}));
    world.write(&said).unwrap();
    let hard = json!({LEASES: "2", BYTES: "1Mi"});
    assert_eq!(world.status("q"), json!({"hard": hard, "used": {LEASES: "0", BYTES: "77"}}));
    world.write(&create(&leases, "a", json!({}))).unwrap();
    assert_eq!(world.status("q"), json!({"hard": hard, "used": {LEASES: "1", BYTES: "77"}}));
    let patch = crate::resource::Patch::Merge(json!({"spec": {"hard": {BYTES: null}}}));
    let part = crate::resource::Part::Main;
    world.write(&write(&quotas(&world), "q", Operation::Patch { part, patch })).unwrap();
    assert_eq!(world.status("q"), json!({"hard": {LEASES: "2"}, "used": {LEASES: "1"}}));
}

#[tokio::test]
async fn two_creates_at_once_do_not_both_get_the_last_place() {
    let kinds = kinds();
    let leases = leases(&kinds);
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), None).unwrap();
    let history = History { events: 1_000, bytes: 4 << 20 };
    let (store, ended) = Store::start(Arc::clone(&kinds), disk, history, |_| {}).unwrap();
    store.write(create(kinds.namespaces(), "default", json!({}))).await.unwrap();
    let quotas = kinds.get("", "v1", "resourcequotas").unwrap();
    store.write(create(quotas, "q", json!({"hard": {LEASES: 7}}))).await.unwrap();
    let all = (0..40).map(|index| store.write(create(&leases, &format!("l{index}"), json!({}))));
    let answers = futures::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    drop(store);
    ended.await.unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Delete(u8),
    Bound(u8),
    Unbound,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Step::Create),
        3 => (0..8_u8).prop_map(Step::Delete),
        1 => (0..6_u8).prop_map(Step::Bound),
        1 => Just(Step::Unbound),
    ]
}

proptest! {
    /// Against a model: what is there, and the bound.
    #[test]
    fn what_is_used_is_what_is_there(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = World::new();
        let leases = leases(world.memory.kinds());
        let (mut there, mut bound) = (BTreeSet::new(), None::<u8>);
        for step in steps {
            match step {
                Step::Create(name) => {
                    let room = bound.is_none_or(|bound| there.len() < usize::from(bound));
                    let made = world.write(&create(&leases, &format!("l{name}"), json!({}))).is_ok();
                    prop_assert_eq!(made, room && !there.contains(&name));
                    if made {
                        there.insert(name);
                    }
                }
                Step::Delete(name) => {
                    let removed = world.write(&delete(&leases, &format!("l{name}"))).is_ok();
                    prop_assert_eq!(removed, there.remove(&name));
                }
                Step::Bound(most) => {
                    let spec = json!({"spec": {"hard": {LEASES: most}}});
                    let written = match bound {
                        None => world.write(&quota(&world, "q", spec["spec"]["hard"].clone())),
                        Some(_) => world.write(&patch(&quotas(&world), "q", spec)),
                    };
                    prop_assert!(written.is_ok());
                    bound = Some(most);
                }
                Step::Unbound => {
                    prop_assert_eq!(world.write(&delete(&quotas(&world), "q")).is_ok(), bound.take().is_some());
                }
            }
            let (page, _) = world.memory.list(&leases, &Selection::default()).unwrap();
            prop_assert_eq!(page.objects.len(), there.len());
            if let Some(bound) = bound {
                let status = json!({"hard": {LEASES: bound.to_string()}, "used": {LEASES: there.len().to_string()}});
                prop_assert_eq!(world.status("q"), status);
            }
        }
    }
}
