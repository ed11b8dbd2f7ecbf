use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_api::ReasonCode;
use wasmbed_protocol::{
    MessageGroups, Setting, SettingResult, SettingState, SettingValue, SettingValues, SettingsAnswer,
    encode_setting_values, limits::DESIRED_MAX,
};

use super::*;
use crate::gateway_api::{
    ApplicationSettings, DeviceSettings, PutSettings, PutSettingsAnswer, SETTINGS_PER_PUT_MAX, SettingScalar,
};

const APPLICATION: &str = "00000000-0000-0000-0000-000000000001";

/// A revision of the first term.
fn revision(number: u64) -> u64 {
    (1 << 32) + number
}

fn values(settings: &[(&str, SettingValue<'_>)]) -> String {
    let settings: Vec<_> = settings.iter().map(|(name, value)| Setting { name, value: *value }).collect();
    let mut buffer = [0; 256];
    let values = SettingValues { settings: List::new(&settings) };
    let length = encode_setting_values(&values, &mut buffer).unwrap();
    STANDARD.encode(&buffer[..length])
}

fn interval(value: i64) -> String {
    values(&[("interval", SettingValue::Integer(value))])
}

fn settings(device: &str, number: u64, applications: &[(&str, String)]) -> DeviceSettings {
    let application = |(uid, values): &(&str, String)| ApplicationSettings {
        application_uid: (*uid).to_owned(),
        values: values.clone(),
    };
    DeviceSettings {
        device: ObjectKey::new("default", device),
        revision: revision(number),
        applications: applications.iter().map(application).collect(),
    }
}

fn uid_of(world: &World) -> String {
    let key = ObjectKey::new("default", "a");
    let set = world.gateway.devices[&key].delivery().held().unwrap();
    set.bodies().next().unwrap().uid().to_string()
}

fn put(
    world: &mut World,
    leader_term: u64,
    devices: Vec<DeviceSettings>,
) -> Result<PutSettingsAnswer, Refused> {
    let put = PreparedSettings::new(&PutSettings { leader_term, devices });
    world.gateway.handle_put_settings(world.now, RequestId(77), put);
    world.settle();
    let answer = world.gateway.poll_settings_answer().expect("it is answered");
    assert_eq!((answer.request, world.gateway.poll_settings_answer()), (RequestId(77), None));
    answer.result
}

/// With device `a`, which runs `default/app-1`, in a session.
fn world() -> (World, SessionId) {
    let mut world = World::new();
    world.list();
    let digest = world.upload(b"module");
    world.device("a");
    assert!(world.put(1, vec![set("a", 1, vec![entry(1, digest, 6)])]).unwrap().refused.is_empty());
    let id = begin(&mut world, Some(MessageGroups::ALL));
    world.take(id);
    (world, id)
}

fn begin(world: &mut World, groups: Option<MessageGroups>) -> SessionId {
    let id = world.connect(&identity("a"));
    world.send(id, &DeviceMessage::Hello(Hello { groups, ..hello(0, 1) }));
    id
}

fn sent(world: &mut World, id: SessionId) -> Vec<String> {
    world.take(id).into_iter().filter(|message| message.starts_with("Settings")).collect()
}

fn answer(world: &mut World, id: SessionId, number: u64, states: &[SettingState<'_>]) {
    let uid = uid_of(world).parse().unwrap();
    let revision = Revision(revision(number));
    let answer = SettingsAnswer { uid, revision, settings: List::new(states) };
    world.send(id, &DeviceMessage::SettingsAnswer(answer));
}

fn state(name: &'static str, result: SettingResult, value: Option<i64>) -> SettingState<'static> {
    SettingState { name, result, value: value.map(SettingValue::Integer) }
}

#[test]
fn settings_go_to_the_session_and_again_to_each_one_after_also_from_the_disk() {
    let (mut world, id) = world();
    let uid = uid_of(&world);
    assert_eq!(sent(&mut world, id), [""; 0], "nothing is known of them");
    let of = [(uid.as_str(), interval(500))];
    assert!(put(&mut world, 1, vec![settings("a", 1, &of)]).unwrap().refused.is_empty());
    let first = sent(&mut world, id);
    assert!(first.len() == 1 && first[0].contains(&format!("Revision({})", revision(1))), "{first:?}");
    put(&mut world, 1, vec![settings("a", 1, &of)]).unwrap();
    assert_eq!(sent(&mut world, id), [""; 0], "that is no change");

    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    let id = begin(&mut world, Some(MessageGroups::ALL));
    assert_eq!(sent(&mut world, id), first);
    // What is left out has no values any more, and the device is told.
    put(&mut world, 1, vec![settings("a", 2, &[])]).unwrap();
    let cleared = sent(&mut world, id);
    assert!(cleared.len() == 1 && cleared[0].contains("[161, 1, 128]"), "{cleared:?}");
}

#[test]
fn firmware_of_before_is_sent_none() {
    let (mut world, _) = world();
    let uid = uid_of(&world);
    put(&mut world, 1, vec![settings("a", 1, &[(uid.as_str(), interval(500))])]).unwrap();
    let id = begin(&mut world, Some(MessageGroups::ALL.without(MessageGroups::SETTINGS)));
    assert_eq!(sent(&mut world, id), [""; 0]);
    let report = world.gateway.settings_report("default", "app-1", None, None);
    assert!(report.devices[0].unsupported && report.devices[0].connected);
}

#[test]
fn what_a_device_says_is_shown_and_what_it_refuses_is_an_event_once() {
    let (mut world, id) = world();
    let uid = uid_of(&world);
    put(&mut world, 1, vec![settings("a", 1, &[(uid.as_str(), interval(5))])]).unwrap();
    let events = |world: &World| -> Vec<String> {
        let refused = world.api.events.iter().filter(|event| event.reason == ReasonCode::SettingRefused);
        refused.map(|event| event.message.clone()).collect()
    };
    for _ in 0..3 {
        let states = [
            state("interval", SettingResult::OutOfRange, Some(1_000)),
            state("level", SettingResult::Accepted, None),
        ];
        answer(&mut world, id, 1, &states);
        world.advance(5_000);
    }
    assert_eq!(
        events(&world),
        [
            "application default/app-1: `interval` is outside the range that the module declares; the values before stay in use"
        ]
    );
    let report = world.gateway.settings_report("default", "app-1", Some("a"), None);
    let [device] = report.devices.as_slice() else { panic!("{report:?}") };
    assert_eq!((device.revision, device.revision_answered), (Some(revision(1)), Some(revision(1))));
    let [interval, level] = device.settings.as_slice() else { panic!("{device:?}") };
    assert_eq!(
        (&interval.wanted, &interval.value),
        (&Some(SettingScalar::Integer(5)), &Some(SettingScalar::Integer(1_000)))
    );
    assert_eq!((interval.result.as_deref(), level.result.as_deref()), (Some("OutOfRange"), Some("Accepted")));
    assert!(world.gateway.settings_report("default", "other", None, None).devices.is_empty());
    assert!(world.gateway.settings_report("other", "app-1", None, None).devices.is_empty());

    // Of an application that no set names nothing is kept.
    let stranger =
        SettingsAnswer { uid: ApplicationUid([9; 16]), revision: Revision(1), settings: List::empty() };
    world.send(id, &DeviceMessage::SettingsAnswer(stranger));
    world.gateway.check().unwrap();
}

#[test]
fn what_can_not_be_right_is_refused_by_device() {
    let (mut world, _) = world();
    let refused = |world: &mut World, settings: DeviceSettings| -> String {
        let mut answer = put(world, 1, vec![settings]).unwrap();
        answer.refused.pop().map(|refusal| refusal.message).unwrap_or_default()
    };
    let good = || settings("a", 2, &[(APPLICATION, interval(5))]);
    assert_eq!(refused(&mut world, good()), "");
    assert!(refused(&mut world, settings("a", 1, &[])).contains("is lower than"));
    let twice = [(APPLICATION, interval(5)), (APPLICATION, interval(5))];
    assert!(refused(&mut world, settings("a", 3, &twice)).contains("occurs twice"));
    assert!(refused(&mut world, settings("a", 3, &[("app", interval(5))])).contains("application_uid"));
    assert!(refused(&mut world, settings("a", 3, &[(APPLICATION, "x".into())])).contains("not base64"));
    let garbage = [(APPLICATION, STANDARD.encode("garbage"))];
    assert!(refused(&mut world, settings("a", 3, &garbage)).contains("values of"));
    let long = [(APPLICATION, STANDARD.encode([0; 100_000]))];
    assert!(refused(&mut world, settings("a", 3, &long)).contains("values of"));
    let uids: Vec<String> =
        (0..=DESIRED_MAX).map(|index| format!("00000000-0000-0000-0000-{index:012}")).collect();
    let many: Vec<_> = uids.iter().map(|uid| (uid.as_str(), interval(5))).collect();
    assert!(refused(&mut world, settings("a", 3, &many)).contains("17 applications"));
    // One of a term that nobody leads in would be above all that come.
    let later = DeviceSettings { revision: (2 << 32) + 1, ..good() };
    assert!(refused(&mut world, later).contains("term 2"));
    let zero = DeviceSettings { revision: 0, ..good() };
    assert!(refused(&mut world, zero).contains("revision is 0"));

    let both = put(&mut world, 1, vec![settings("a", 4, &[]), settings("a", 5, &[])]).unwrap();
    assert!(both.refused.len() == 1 && both.refused[0].message.contains("twice"), "{both:?}");
    let all = vec![good(); SETTINGS_PER_PUT_MAX + 1];
    assert!(matches!(put(&mut world, 1, all), Err(Refused::Invalid(_))));
    put(&mut world, 2, Vec::new()).unwrap();
    assert!(matches!(put(&mut world, 1, vec![good()]), Err(Refused::Fenced(_))));
}
