//! Bounds on the bytes of modules, in the small world. Each module has 1,000 bytes.

use proptest::prelude::*;
use wasmbed_api::ReasonCode;

use super::*;

/// One device that is connected, and a bound.
fn world(bytes: u64) -> World {
    let mut world = World::new(1, 1);
    world.connect("device-000", "gateway-0");
    world.lead();
    world.set_quota("q", Some(bytes));
    world
}

fn running(world: &World) -> Vec<String> {
    let of = |name: String| name.split_once('/').map_or_else(String::new, |(_, name)| name.to_owned());
    world.runs("device-000").into_iter().map(of).collect()
}

/// Reason and message of the condition Ready.
fn ready(world: &World, name: &str) -> (String, String) {
    let status = world.status(name);
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (ready.reason.clone(), ready.message.clone())
}

fn is_refused(world: &World, name: &str) -> bool {
    ready(world, name).0 == ReasonCode::QuotaExceeded.as_str()
}

#[test]
fn an_application_beyond_the_bound_goes_nowhere_until_there_is_room() {
    let mut world = world(2_500);
    for (name, module) in [("a", 1), ("b", 2), ("c", 3)] {
        world.apply_application(name, module, all());
        world.advance(5_000);
    }
    assert_eq!(running(&world), ["a", "b"]);
    let (reason, message) = ready(&world, "c");
    assert_eq!(reason, "QuotaExceeded");
    let key = wasmbed_api::MODULE_BYTES;
    assert!(
        message.contains(&format!(
            "exceeded quota: q, requested: {key}=1000, used: {key}=2000, limited: {key}=2500 (bytes)"
        )),
        "{message}"
    );
    // Another module goes.
    world.delete_application("a");
    world.advance(10_000);
    assert_eq!(running(&world), ["b", "c"]);
    // The bound is raised.
    world.apply_application("d", 4, all());
    world.advance(5_000);
    assert!(is_refused(&world, "d"));
    world.set_quota("q", Some(3_000));
    world.advance(5_000);
    assert_eq!(running(&world), ["b", "c", "d"]);
    // And taken away.
    world.apply_application("e", 5, all());
    world.advance(5_000);
    assert!(is_refused(&world, "e"));
    world.set_quota("q", None);
    world.advance(5_000);
    assert_eq!(running(&world), ["b", "c", "d", "e"]);
}

fn used(world: &World, quota: &str) -> Option<u64> {
    world.quota_statuses[quota].0
}

#[test]
fn the_status_says_how_many_bytes_the_modules_have() {
    let mut world = world(2_500);
    world.advance(1_000);
    assert_eq!((used(&world, "q"), world.quota_writes), (Some(0), 1));
    for (name, module) in [("a", 1), ("again", 1), ("b", 2), ("c", 3)] {
        world.apply_application(name, module, all());
    }
    world.advance(5_000);
    assert_eq!(used(&world, "q"), Some(2_000), "a module counts once, and one without a place not at all");
    assert!(world.quota_writes <= 5, "{} writes", world.quota_writes);
    // Another quota of the namespace says the same, also one below what is there.
    world.set_quota("later", Some(10));
    world.advance(1_000);
    assert_eq!((used(&world, "later"), used(&world, "q")), (Some(2_000), Some(2_000)));
    world.delete_application("b");
    world.set_quota("later", None);
    world.advance(10_000);
    assert_eq!(used(&world, "q"), Some(2_000), "what waited has its place");
    // Somebody writes something else, or another version that the watch is late to show.
    world.quota_statuses.get_mut("q").unwrap().0 = Some(7);
    world.send_quota("q");
    world.advance(2_000);
    assert_eq!(used(&world, "q"), Some(2_000));
    world.quota_statuses.get_mut("q").unwrap().1 = "unseen".to_owned();
    world.delete_application("c");
    world.advance(40_000);
    assert_eq!(used(&world, "q"), Some(1_000));
    // Another leads and has nothing to say.
    let writes = world.quota_writes;
    world.lead();
    world.advance(60_000);
    assert_eq!((used(&world, "q"), world.quota_writes), (Some(1_000), writes));
}

#[test]
fn who_does_not_lead_writes_no_quota() {
    let mut world = World::new(1, 1);
    world.connect("device-000", "gateway-0");
    world.follow();
    world.set_quota("q", Some(1));
    world.advance(60_000);
    assert_eq!((used(&world, "q"), world.quota_writes), (None, 0));
}

#[test]
fn a_namespace_that_changes_all_the_time_costs_a_write_a_second() {
    let mut world = world(100_000);
    world.advance(1_000);
    for round in 0..50 {
        if round % 2 == 0 {
            world.apply_application("a", 1, all());
        } else {
            world.delete_application("a");
        }
        world.advance(200);
    }
    assert!(world.quota_writes <= 13, "{} writes in 10 s", world.quota_writes);
}

#[test]
fn what_runs_goes_on_whatever_becomes_of_the_bound() {
    let mut world = world(9_000);
    world.apply_application("a", 1, all());
    world.apply_application("b", 2, all());
    world.advance(5_000);
    world.set_quota("q", Some(500));
    world.advance(5_000);
    assert_eq!(running(&world), ["a", "b"]);
    assert_eq!(ready(&world, "a").0, "AllRunning");
    // Other arguments for the same module need no other place, and a module that is there takes none.
    world.change_application("a", |object| object.spec.config.args = vec!["x".to_owned()]);
    world.apply_application("c", 2, all());
    world.advance(5_000);
    assert_eq!((running(&world).len(), ready(&world, "a").0.as_str()), (3, "AllRunning"));
    // A new leader finds it so.
    let sent = world.devices["device-000"].1.runs.clone();
    world.take_over();
    world.advance(10_000);
    assert_eq!(world.devices["device-000"].1.runs, sent);
    assert_eq!(ready(&world, "a").0, "AllRunning");
    // So does one whose first bound comes later.
    world.set_quota("q", None);
    world.advance(1_000);
    world.set_quota("other", Some(0));
    world.advance(5_000);
    assert_eq!(world.devices["device-000"].1.runs, sent);
    assert_eq!(ready(&world, "c").0, "AllRunning");
}

#[test]
fn an_update_beyond_the_bound_leaves_the_earlier_module() {
    let mut world = world(2_000);
    world.apply_application("a", 1, all());
    world.apply_application("b", 2, all());
    world.advance(5_000);
    // In the place of the one before.
    world.apply_application("a", 3, all());
    world.advance(5_000);
    assert_eq!(ready(&world, "a").0, "AllRunning");
    let sent = world.devices["device-000"].1.runs.clone();
    world.set_quota("q", Some(1_500));
    world.apply_application("a", 4, all());
    world.advance(5_000);
    assert!(is_refused(&world, "a"));
    assert_eq!(world.devices["device-000"].1.runs, sent, "what runs goes on");
    assert!(ready(&world, "a").1.contains("device-000"), "{:?}", ready(&world, "a"));
    // Nobody takes the place of what goes on, and it can come back to it.
    world.apply_application("c", 5, all());
    world.advance(5_000);
    assert!(is_refused(&world, "c"));
    world.apply_application("a", 3, all());
    world.advance(5_000);
    assert_eq!(ready(&world, "a").0, "AllRunning");
    assert_eq!(world.devices["device-000"].1.runs.len(), 2);
}

#[test]
fn nothing_is_decided_before_quotas_are_listed() {
    let mut world = world(1_000);
    world.apply_application("a", 1, all());
    world.advance(5_000);
    world.apply_application("b", 2, all());
    // Another leads before anybody has decided about b: Applications are listed first, quotas after them.
    world.take_over();
    world.advance(10_000);
    assert_eq!(running(&world), ["a"]);
    assert!(is_refused(&world, "b"));
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u8, u8),
    Delete(u8),
    Bound(Option<u64>),
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_u8, 1..6_u8).prop_map(|(name, module)| Step::Apply(name, module)),
        2 => (0..5_u8).prop_map(Step::Delete),
        2 => prop::option::weighted(0.8, 0..5_u64).prop_map(Step::Bound),
        1 => Just(Step::TakeOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whatever order: what was within a bound stays within it, what runs is never stopped by one, and who
    /// is refused would not fit.
    #[test]
    fn a_bound_holds_in_the_small_world(steps in prop::collection::vec(step(), 1..14)) {
        let mut world = world(3_000);
        for step in steps {
            // What goes on of an earlier generation is known to who sent it alone.
            let goes_on = running(&world).iter().any(|name| world.quotas.contains_key("q") && is_refused(&world, name));
            if goes_on && matches!(step, Step::TakeOver) {
                break;
            }
            let before = modules(&world);
            let ran = running(&world);
            let mut deleted = None;
            match &step {
                Step::Apply(name, module) => world.apply_application(&format!("a{name}"), *module, all()),
                Step::Delete(name) => {
                    let name = format!("a{name}");
                    if world.applications.contains_key(&name) {
                        world.delete_application(&name);
                        deleted = Some(name);
                    }
                }
                Step::Bound(bytes) => world.set_quota("q", bytes.map(|bytes| bytes * 1_000)),
                Step::TakeOver => world.take_over(),
            }
            world.advance(20_000);
            for name in ran.iter().filter(|name| deleted.as_ref() != Some(name)) {
                prop_assert!(running(&world).contains(name), "{name} was stopped by {step:?}");
            }
            let after = modules(&world);
            let Some(bound) = world.quotas.get("q") else {
                prop_assert_eq!(running(&world).len(), world.applications.len());
                continue;
            };
            let bound = usize::try_from(bound / 1_000).unwrap();
            prop_assert!(after.len() <= bound.max(before.len()), "{after:?} after {step:?}, the bound is {bound}");
            for name in world.applications.keys().filter(|name| !running(&world).contains(name)) {
                prop_assert!(is_refused(&world, name), "{name}: {:?}", ready(&world, name));
                prop_assert!(after.len() >= bound, "{name} would fit: {after:?}, the bound is {bound}");
            }
        }
    }
}

/// The digests of the modules that the device has.
fn modules(world: &World) -> std::collections::BTreeSet<String> {
    world.devices["device-000"].1.runs.iter().map(|entry| entry.digest.clone()).collect()
}
