//! Applications with values of Secrets, in the small world.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use wasmbed_api::{ApplicationConfig, EnvFrom, ReasonCode, SecretKeyRef, SecretRef};
use wasmbed_protocol::{ValuesMac, decode_spec};

use super::*;
use crate::Hidden;

const KEY: [u8; 32] = [9; 32];

fn values(data: &[(&str, &[u8])]) -> SecretOutcome {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), Hidden::new(value.to_vec())));
    SecretOutcome::Found(SecretValues::read(data))
}

fn whole(name: &str) -> EnvFrom {
    let secret = SecretRef { name: name.to_owned(), optional: None };
    EnvFrom { secret_ref: Some(secret), ..EnvFrom::default() }
}

fn one(variable: &str, name: &str, key: &str) -> EnvFrom {
    let secret = SecretKeyRef { name: name.to_owned(), key: key.to_owned(), optional: None };
    EnvFrom { secret_key_ref: Some(secret), name: Some(variable.to_owned()), ..EnvFrom::default() }
}

fn optional(mut entry: EnvFrom) -> EnvFrom {
    entry.secret_ref.iter_mut().for_each(|secret| secret.optional = Some(true));
    entry.secret_key_ref.iter_mut().for_each(|secret| secret.optional = Some(true));
    entry
}

/// Controllers have a key, and an application of every device names these.
fn world(entries: Vec<EnvFrom>) -> World {
    let mut world = World::new(1, 1);
    world.values_key = Some(ValuesKey::new(&KEY));
    world.connect("device-000", "gateway-0");
    world.lead();
    world.apply_application("app", 1, all());
    world.change_application("app", |object| object.spec.config.env_from = entries);
    world
}

/// What the device runs of the application: its environment, and what hides it.
fn environment(world: &World) -> Option<(BTreeMap<String, String>, Option<ValuesMac>)> {
    let entry = world.devices["device-000"].1.runs.first()?;
    let bytes = STANDARD.decode(&*entry.spec).unwrap();
    let spec = decode_spec(&bytes).unwrap();
    let env = spec.env.iter().map(|variable| (variable.name.to_owned(), variable.value.to_owned()));
    Some((env.collect(), spec.values_mac))
}

fn variables(world: &World) -> Vec<(String, String)> {
    environment(world).map(|(env, _)| env.into_iter().collect()).unwrap_or_default()
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn stalled(world: &World) -> (String, String, String) {
    condition(world, "app", "Stalled")
}

#[test]
fn values_of_secrets_are_the_environment_in_the_order_of_precedence() {
    let prefixed = EnvFrom { prefix: Some("WIFI_".to_owned()), ..whole("wifi") };
    let mut world = world(vec![whole("base"), prefixed, one("TOKEN", "api", "token")]);
    world.secrets.insert("base".to_owned(), values(&[("TOKEN", b"lower"), ("own", b"lower"), ("b", b"2")]));
    world.secrets.insert("wifi".to_owned(), values(&[("ssid", b"lab"), ("key", "pässword".as_bytes())]));
    world.secrets.insert("api".to_owned(), values(&[("token", b"t0ken"), ("other", b"unused")]));
    world.change_application("app", |object| {
        object.spec.config.env = [("own".to_owned(), "plain".to_owned())].into();
    });
    world.advance(2_000);
    let wanted =
        [("TOKEN", "t0ken"), ("WIFI_key", "pässword"), ("WIFI_ssid", "lab"), ("b", "2"), ("own", "plain")];
    assert_eq!(variables(&world), texts(&wanted));
    assert!(environment(&world).unwrap().1.is_some());
    assert_eq!(world.status("app").phase, ApplicationPhase::Running);
    for shown in [format!("{:?}", world.fleet), format!("{:?}", world.gateways["gateway-0"].sets)] {
        for secret in ["t0ken", "pässword", &STANDARD.encode("t0ken"), "116, 48, 107, 101, 110"] {
            assert!(!shown.contains(secret), "{secret} is shown");
        }
    }
}

#[test]
fn a_changed_secret_is_a_new_spec_within_its_interval_and_nothing_else_is() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"1")]));
    world.advance(2_000);
    let (revision, puts) = (world.devices["device-000"].1.revision, world.puts);
    world.advance(180_000);
    assert_eq!((world.devices["device-000"].1.revision, world.puts), (revision, puts));
    world.secrets.insert("a".to_owned(), values(&[("A", b"2")]));
    world.advance(61_000);
    assert_eq!(variables(&world), texts(&[("A", "2")]));
    assert_eq!(world.devices["device-000"].1.revision, revision + 1);
    // A new generation has it read at once.
    world.secrets.insert("a".to_owned(), values(&[("A", b"3")]));
    world.change_application("app", |object| object.spec.config.args = vec!["x".to_owned()]);
    world.advance(1_000);
    assert_eq!(variables(&world), texts(&[("A", "3")]));
}

#[test]
fn a_new_leader_with_the_key_comes_to_the_same_hash_and_one_with_another_does_not() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"1")]));
    world.advance(2_000);
    let before = (environment(&world), world.devices["device-000"].1.revision, world.puts);
    world.lead();
    world.advance(120_000);
    assert_eq!((environment(&world), world.devices["device-000"].1.revision, world.puts), before);
    world.values_key = Some(ValuesKey::new(&[8; 32]));
    world.lead();
    world.advance(5_000);
    let after = environment(&world).unwrap();
    assert_eq!(after.0, before.0.clone().unwrap().0);
    assert_ne!(after.1, before.0.unwrap().1, "the hash is under the key");
}

/// Without the key, who knows the hash and everything else can't try values.
#[test]
fn the_hash_depends_on_the_key_the_application_and_every_value() {
    let mac = |key: &[u8; 32], uid: u8, pairs: &[(&str, &[u8])]| {
        let SecretOutcome::Found(held) = values(pairs) else { unreachable!() };
        let state = super::super::secret::SecretState::Held(held);
        let config = ApplicationConfig { env_from: vec![whole("a")], ..ApplicationConfig::default() };
        let uid = ApplicationUid([uid; 16]);
        let key = ValuesKey::new(key);
        let env =
            super::super::secret::plan_secret_env(&super::key("app"), uid, &config, Some(&key), |_| &state);
        env.unwrap().mac().unwrap()
    };
    let one = mac(&KEY, 1, &[("A", b"1"), ("B", b"2")]);
    assert_eq!(one, mac(&KEY, 1, &[("A", b"1"), ("B", b"2")]));
    // Known answer: HMAC-SHA-256 over the label, the UID, and each text with its length, by Python's hmac.
    assert_eq!(one.to_string(), "5a1ba296b7e2c28a0acb95358502df12");
    let others = [
        mac(&[8; 32], 1, &[("A", b"1"), ("B", b"2")]),
        mac(&KEY, 2, &[("A", b"1"), ("B", b"2")]),
        mac(&KEY, 1, &[("A", b"1"), ("B", b"3")]),
        mac(&KEY, 1, &[("A", b"1B"), ("", b"2")]),
        mac(&KEY, 1, &[("A", b"1")]),
    ];
    assert!(!others.contains(&one), "{others:?}");
}

#[test]
fn a_missing_secret_or_key_is_named_with_the_remedy_and_comes_soon_after_it_is_made() {
    let mut world = world(vec![one("A", "a", "key")]);
    world.advance(2_000);
    assert!(world.runs("device-000").is_empty());
    let (status, reason, message) = stalled(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "SecretNotFound"));
    assert!(
        message.contains("names Secret a, and there is none in namespace default; create it"),
        "{message}"
    );
    assert_eq!(world.status("app").failures[0].reason, ReasonCode::SecretNotFound);
    world.secrets.insert("a".to_owned(), values(&[("other", b"m4rked")]));
    world.advance(10_000);
    let (_, reason, message) = stalled(&world);
    assert_eq!(reason, "SecretNotFound");
    assert!(message.contains("names key key of Secret a") && !message.contains("m4rked"), "{message}");
    world.secrets.insert("a".to_owned(), values(&[("key", b"1")]));
    world.advance(61_000);
    assert_eq!(variables(&world), texts(&[("A", "1")]));
    assert_eq!(stalled(&world).0, "False");
}

#[test]
fn what_may_be_missing_is_left_out() {
    let entries = vec![optional(whole("none")), optional(one("B", "a", "none")), one("A", "a", "a")];
    let mut world = world(entries);
    world.secrets.insert("a".to_owned(), values(&[("a", b"1")]));
    world.advance(2_000);
    assert_eq!(variables(&world), texts(&[("A", "1")]));
    world.change_application("app", |object| object.spec.config.env_from.truncate(2));
    world.advance(2_000);
    assert_eq!(environment(&world), Some((BTreeMap::new(), None)), "as if it named none");
}

#[test]
fn what_can_be_no_environment_is_named_and_the_last_good_values_stay() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"good")]));
    world.advance(2_000);
    let large = "m4rked".repeat(170);
    let five: Vec<(String, Vec<u8>)> = (0..5).map(|n| (format!("K{n}"), large.clone().into())).collect();
    let five: Vec<(&str, &[u8])> = five.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let many: Vec<(String, Vec<u8>)> = (0..70).map(|n| (format!("K{n}"), b"m4rked".to_vec())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let long_key = "K".repeat(65);
    let cases: [(SecretOutcome, &str, &str); 9] = [
        (values(&[("A", b"m4rked\xff")]), "SecretInvalid", "key A of Secret a is not UTF-8"),
        (values(&[("A", b"m4rked\0")]), "SecretInvalid", "key A of Secret a is not UTF-8 text without NUL"),
        (
            values(&[("A", &[b'm'; 1_025])]),
            "SecretInvalid",
            "has 1025 bytes, and a variable has at most 1024",
        ),
        (values(&[(&long_key, b"m4rked")]), "SecretInvalid", "whose name has more than 64 bytes"),
        (values(&five), "AssignmentTooLarge", "does not fit an assignment of at most 2900 bytes"),
        (values(&many[..40]), "AssignmentTooLarge", "together are 40 variables"),
        (values(&many), "SecretInvalid", "has 70 keys, and at most 64 are read"),
        (SecretOutcome::NotFound, "SecretNotFound", "create it, or mark the entry optional"),
        (
            SecretOutcome::Forbidden("403 no".to_owned()),
            "SecretForbidden",
            "ClusterRole wasmbed-secret-reader",
        ),
    ];
    for (outcome, reason, part) in cases {
        world.secrets.insert("a".to_owned(), outcome);
        world.advance(61_000);
        let (status, found, message) = stalled(&world);
        assert_eq!((status.as_str(), found.as_str()), ("True", reason), "{message}");
        assert!(message.contains(part) && message.contains("what devices run goes on"), "{message}");
        assert!(!format!("{:?}", world.status("app")).contains("m4rked"), "{message}");
        assert_eq!(variables(&world), texts(&[("A", "good")]), "{reason}");
        assert_eq!(condition(&world, "app", "Ready").0, "True", "it runs");
    }
    // A leader that never knew the good values leaves the device alone as well.
    world.lead();
    world.advance(65_000);
    assert_eq!(stalled(&world).1, "SecretForbidden");
    assert_eq!(variables(&world), texts(&[("A", "good")]));
    world.secrets.insert("a".to_owned(), values(&[("A", b"better")]));
    world.advance(61_000);
    assert_eq!((variables(&world), stalled(&world).0), (texts(&[("A", "better")]), "False".to_owned()));
}

#[test]
fn an_api_that_is_away_changes_nothing_of_what_is_known() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"1")]));
    world.advance(2_000);
    world.secrets.insert("a".to_owned(), SecretOutcome::Unavailable("no connection".to_owned()));
    world.advance(180_000);
    assert_eq!((variables(&world), stalled(&world).0), (texts(&[("A", "1")]), "False".to_owned()));
    world.lead();
    world.advance(10_000);
    assert_eq!(
        (variables(&world), stalled(&world).1),
        (texts(&[("A", "1")]), "SecretUnavailable".to_owned())
    );
}

#[test]
fn without_a_key_no_secret_is_read_and_the_status_says_so() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"1")]));
    world.advance(2_000);
    world.values_key = None;
    world.secret_reads.clear();
    world.lead();
    world.advance(120_000);
    assert_eq!(world.secret_reads, []);
    let (status, reason, message) = stalled(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "SecretsDisabled"));
    assert!(message.contains("controller.data_key_file"), "{message}");
    assert_eq!(variables(&world), texts(&[("A", "1")]), "the device is left alone");
}

#[test]
fn a_follower_reads_nothing_and_one_that_was_deposed_knows_nothing() {
    let mut world = world(vec![whole("a")]);
    world.secrets.insert("a".to_owned(), values(&[("A", b"1")]));
    world.advance(2_000);
    world.fleet.handle_leadership(world.now, None);
    world.secret_reads.clear();
    world.advance(120_000);
    assert_eq!(world.secret_reads, []);
    // Another led meanwhile and sent other values: those of before are not sent again.
    world.secrets.insert("a".to_owned(), SecretOutcome::Unavailable("away".to_owned()));
    let puts = world.puts;
    world.take_over();
    world.advance(10_000);
    assert_eq!(world.puts, puts);
    assert!(!world.secret_reads.is_empty());
}

#[test]
fn reads_keep_to_their_pace() {
    let mut world = World::new(1, 1);
    world.values_key = Some(ValuesKey::new(&KEY));
    world.connect("device-000", "gateway-0");
    world.lead();
    for n in 0..150 {
        let name = format!("app{n:03}");
        world.apply_application(&name, 1, names(&[]));
        world.change_application(&name, |object| {
            object.spec.config.env_from = (0..16).map(|m| whole(&format!("s{}", n * 16 + m))).collect();
        });
    }
    world.advance(10_000);
    let reads = world.secret_reads.len();
    assert!((400..=501).contains(&reads), "50 a second: {reads}");
    world.advance(50_000);
    let each: BTreeMap<&String, usize> =
        world.secret_reads.iter().fold(BTreeMap::new(), |mut counts, (_, name)| {
            *counts.entry(name).or_default() += 1;
            counts
        });
    assert_eq!(each.len(), 2_400, "each has had its turn");
}

/// What happens to Secrets and to the application that names them.
#[derive(Clone, Debug)]
enum Step {
    Set(usize, Vec<(u8, u8)>),
    Remove(usize),
    Forbid(usize),
    Away(usize),
    Name(Vec<(usize, Option<u8>, bool)>),
    Targets(bool),
    Delete,
    Lead,
    Depose,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let secret = 0..3_usize;
    let data = prop::collection::vec((0..4_u8, 0..4_u8), 0..4);
    let entry = (secret.clone(), prop::option::of(0..4_u8), any::<bool>());
    let step = prop_oneof![
        4 => (secret.clone(), data).prop_map(|(secret, data)| Step::Set(secret, data)),
        1 => secret.clone().prop_map(Step::Remove),
        1 => secret.clone().prop_map(Step::Forbid),
        1 => secret.prop_map(Step::Away),
        3 => prop::collection::vec(entry, 0..4).prop_map(Step::Name),
        1 => any::<bool>().prop_map(Step::Targets),
        1 => Just(Step::Delete),
        1 => Just(Step::Lead),
        1 => Just(Step::Depose),
        6 => prop_oneof![1..50_u64, 100..5_000_u64, 60_000..70_000_u64].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..30)
}

fn entry_of((secret, key, may_miss): &(usize, Option<u8>, bool)) -> EnvFrom {
    let name = format!("s{secret}");
    let entry = match key {
        Some(key) => one(&format!("V{key}"), &name, &format!("K{key}")),
        None => whole(&name),
    };
    if *may_miss { optional(entry) } else { entry }
}

/// What Secrets hold, by name; `None`: it may not be read.
type Store = BTreeMap<String, Option<BTreeMap<String, String>>>;

/// What the environment should be, by the rules in the documentation; `None` if something is missing.
fn expected(entries: &[EnvFrom], store: &Store) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for entry in entries {
        let may_miss = [
            entry.secret_ref.as_ref().and_then(|secret| secret.optional),
            entry.secret_key_ref.as_ref().and_then(|secret| secret.optional),
        ]
        .contains(&Some(true));
        match (store.get(entry.secret().unwrap()), &entry.secret_key_ref) {
            (None, _) if may_miss => {}
            (None | Some(None), _) => return None,
            (Some(Some(data)), None) => env.extend(data.clone()),
            (Some(Some(data)), Some(reference)) => match data.get(&reference.key) {
                Some(value) => drop(env.insert(entry.name.clone().unwrap(), value.clone())),
                None if may_miss => {}
                None => return None,
            },
        }
    }
    Some(env)
}

/// All variables that single entries give.
fn pairs(entries: &[EnvFrom], store: &Store) -> Vec<(String, String)> {
    entries.iter().filter_map(|entry| expected(std::slice::from_ref(entry), store)).flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens to Secrets, Applications and leaders: a device runs only values that were there at some time, keeps them
    /// while something is missing, and comes to what is there; no Secret is read faster than its pace.
    #[test]
    fn devices_come_to_the_values_that_are_there(steps in steps()) {
        let mut world = world(Vec::new());
        let mut store = Store::new();
        let mut stores: Vec<Store> = Vec::new();
        let mut possible: BTreeSet<(String, String)> = BTreeSet::new();
        let mut entries: Vec<EnvFrom> = Vec::new();
        for step in steps {
            match step {
                Step::Set(secret, data) => {
                    let data: BTreeMap<String, String> =
                        data.iter().map(|(key, value)| (format!("K{key}"), format!("v{value}"))).collect();
                    let pairs: Vec<(&str, &[u8])> =
                        data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())).collect();
                    world.secrets.insert(format!("s{secret}"), values(&pairs));
                    store.insert(format!("s{secret}"), Some(data));
                }
                Step::Remove(secret) => {
                    world.secrets.remove(&format!("s{secret}"));
                    store.remove(&format!("s{secret}"));
                }
                Step::Forbid(secret) => {
                    let outcome = SecretOutcome::Forbidden("403".to_owned());
                    world.secrets.insert(format!("s{secret}"), outcome);
                    store.insert(format!("s{secret}"), None);
                }
                Step::Away(secret) => {
                    let outcome = SecretOutcome::Unavailable("away".to_owned());
                    world.secrets.insert(format!("s{secret}"), outcome);
                }
                Step::Name(named) => {
                    entries = named.iter().map(entry_of).collect();
                    if !world.applications.contains_key("app") {
                        world.apply_application("app", 1, all());
                    }
                    let entries = entries.clone();
                    world.change_application("app", |object| object.spec.config.env_from = entries);
                }
                Step::Targets(targeted) => world.change_application("app", |object| {
                    object.spec.target_devices = Some(if targeted { all() } else { names(&[]) });
                }),
                Step::Delete => {
                    world.delete_application("app");
                    world.advance(5_000);
                    entries.clear();
                }
                Step::Lead => world.lead(),
                Step::Depose => {
                    world.fleet.handle_leadership(world.now, None);
                    world.advance(1_000);
                    world.take_over();
                }
                Step::Pass(ms) => world.advance(ms),
            }
            world.settle();
            // What was read before counts until it is read again, also for an entry that is new.
            stores.push(store.clone());
            possible.extend(stores.iter().flat_map(|earlier| pairs(&entries, earlier)));
            if let Some((env, mac)) = environment(&world) {
                prop_assert_eq!(mac.is_some(), !env.is_empty());
                for pair in env {
                    prop_assert!(possible.contains(&pair), "{:?} is none of {:?}", pair, possible);
                }
            }
        }
        // Everything answers again, and time passes.
        world.secrets.retain(|_, outcome| !matches!(outcome, SecretOutcome::Unavailable(_)));
        store.retain(|name, _| world.secrets.contains_key(name));
        let before = environment(&world);
        world.advance(200_000);
        let Some((object, _)) = world.applications.get("app") else { return Ok(()) };
        let targeted = object.spec.target_devices == Some(all());
        match expected(&entries, &store) {
            Some(env) if targeted => {
                prop_assert_eq!(environment(&world).map(|(env, _)| env), Some(env));
                prop_assert_eq!(stalled(&world).0, "False");
            }
            Some(_) => prop_assert_eq!(environment(&world), None),
            None if targeted => {
                let after = environment(&world);
                prop_assert!(before.is_none() || after.is_some(), "what runs goes on");
                let pairs = after.into_iter().flat_map(|(env, _)| env);
                prop_assert!(pairs.into_iter().all(|pair| possible.contains(&pair)));
                prop_assert_eq!(stalled(&world).0, "True");
            }
            None => prop_assert_eq!(environment(&world), None),
        }
        for window in world.secret_reads.windows(51) {
            prop_assert!(window[50].0 >= window[0].0 + 1_000 || window[50].0 < window[0].0);
        }
        for name in ["s0", "s1", "s2"] {
            let reads: Vec<u64> =
                world.secret_reads.iter().filter(|(_, read)| read == name).map(|(ms, _)| *ms).collect();
            let last = world.now.ms - 130_000;
            prop_assert!(reads.iter().filter(|ms| **ms > last).count() <= 5, "{} in the last 130 s", reads.len());
        }
    }
}
