//! Settings of applications, through supervisor, agent and sandbox: what a program reads, and when.

#![cfg(test)]

#[path = "support/mod.rs"]
mod support;

use support::{Wanted, World, uid};
use wasmbed_protocol::{
    List, Setting, SettingValue, SettingValues, encode_setting_values, limits::SETTINGS_BYTES_MAX,
};

/// Logs its setting `n`, a digit, at the start and after each wait, which is an hour.
fn digits(schema: &str) -> Wanted {
    let mut wanted = Wanted::wat(
        r#"(module
            (import "wasmbed" "setting_get" (func $get (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "n is ")
            (func (export "run")
                (loop
                    (if (i32.eq (call $get (i32.const 0) (i32.const 1) (i32.const 16) (i32.const 8)) (i32.const 8))
                        (then (i32.store8 (i32.const 5) (i32.add (i32.load8_u (i32.const 16)) (i32.const 48))))
                        (else (i32.store8 (i32.const 5) (i32.const 63))))
                    (call $log (i32.const 0) (i32.const 6))
                    (call $wait (i32.const 3600000))
                    (br 0))))"#,
    );
    let name = b"wasmbed.settings";
    let length = 1 + name.len() + schema.len();
    assert!(length < 128);
    wanted.module.extend([0, length as u8, name.len() as u8]);
    wanted.module.extend(name);
    wanted.module.extend(schema.bytes());
    wanted
}

fn values(settings: &[(&str, i64)]) -> Vec<u8> {
    let settings: Vec<_> =
        settings.iter().map(|(name, value)| Setting { name, value: SettingValue::Integer(*value) }).collect();
    let mut buffer = [0; SETTINGS_BYTES_MAX];
    let length =
        encode_setting_values(&SettingValues { settings: List::new(&settings) }, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn lines(world: &World) -> Vec<&str> {
    world.gateway.logs.iter().map(|line| line.3.as_str()).collect()
}

fn last_answer(world: &World) -> Option<(u64, Vec<&str>)> {
    let (_, revision, states) = world.gateway.settings.last()?;
    Some((*revision, states.iter().map(String::as_str).collect()))
}

#[test]
fn a_change_ends_a_wait_restarts_nothing_and_is_answered() {
    let mut world = World::new();
    world.gateway.set(1, digits("n int 1..9 reported = 1\n"));
    world.until_running(&[1]);
    world.until("it says the default", 2_000, |world| lines(world) == ["n is 1"]);
    world.until("that is reported", 2_000, |world| last_answer(world) == Some((0, vec!["n Accepted 1"])));
    let begun_ms = world.now_ms;
    world.gateway.send_settings(&world.link, 1, 5, &values(&[("n", 7)]));
    world.until("it says the new one", 2_000, |world| lines(world) == ["n is 1", "n is 7"]);
    assert!(world.now_ms - begun_ms < 500, "at once");
    world.until("that is reported", 2_000, |world| last_answer(world) == Some((5, vec!["n Accepted 7"])));

    // What the module does not allow changes nothing, and the gateway is told.
    world.gateway.send_settings(&world.link, 1, 6, &values(&[("m", 1), ("n", 10)]));
    let refused = vec!["m UnknownSetting", "n OutOfRange 7"];
    world.until("that is reported", 2_000, |world| last_answer(world) == Some((6, refused.clone())));
    // A lower revision is refused as a whole, and what is no value at all too.
    world.gateway.send_settings(&world.link, 1, 5, &values(&[("n", 3)]));
    world.until("it is refused", 2_000, |world| world.gateway.errors.len() == 1);
    world.gateway.send_settings(&world.link, 1, 7, b"no values");
    world.until("that too", 2_000, |world| world.gateway.errors.len() == 2);
    assert_eq!(
        world.gateway.errors,
        ["settings of a revision lower than the one held", "values that can't be used"]
    );
    // One that is in no set here is ignored.
    world.gateway.send_settings(&world.link, 2, 1, &values(&[("n", 3)]));
    world.gateway.send_settings(&world.link, 1, 8, &values(&[]));
    world.until("the default is back", 2_000, |world| lines(world).last() == Some(&"n is 1"));
    assert_eq!(lines(&world), ["n is 1", "n is 7", "n is 1"]);
    let restarts = world.gateway.reports[&uid(1)].restarts;
    assert_eq!((restarts, world.gateway.traps.len()), (0, 0));
}

#[test]
fn values_are_there_after_a_reset_before_a_gateway_is() {
    let mut world = World::new();
    world.gateway.set(1, digits("n int 1..9 = 1\n"));
    world.until_running(&[1]);
    world.gateway.send_settings(&world.link, 1, 5, &values(&[("n", 7)]));
    world.until("it is in use", 2_000, |world| lines(world).last() == Some(&"n is 7"));
    world.gateway.send_settings(&world.link, 1, 6, &values(&[("n", 70)]));
    world.until("it is refused", 2_000, |world| last_answer(world) == Some((6, vec!["n OutOfRange"])));
    world.online = false;
    let mut world = world.reboot();
    world.until("it runs without a gateway", 20_000, |world| !world.device.platform().log.lines.is_empty());
    assert_eq!(world.device.platform().log.lines, [(uid(1), String::from("n is 7"))]);
}

#[test]
fn another_module_has_other_settings_and_a_gateway_of_before_is_told_nothing() {
    let mut world = World::new();
    world.gateway.set(1, digits("n int 1..9 = 1\n"));
    world.until_running(&[1]);
    world.gateway.send_settings(&world.link, 1, 1, &values(&[("later", 4), ("n", 7)]));
    world.until("one is not known", 2_000, |world| {
        last_answer(world) == Some((1, vec!["later UnknownSetting", "n Accepted"]))
    });
    world.gateway.set(1, digits("later int reported = 1\n"));
    world.gateway.send_desired(&world.link);
    world.until("now the other one is not", 20_000, |world| {
        last_answer(world) == Some((1, vec!["later Accepted 4", "n UnknownSetting"]))
    });
    world.gateway.set(1, digits(""));
    world.gateway.send_desired(&world.link);
    world.until("a module without any", 20_000, |world| {
        last_answer(world) == Some((1, vec!["later NoSchema", "n NoSchema"]))
    });
    assert_eq!(lines(&world).last(), Some(&"n is ?"));

    world.gateway.is_older = true;
    world.link.cut();
    world.until("a session with the older one", 60_000, |world| world.gateway.hellos.len() == 2);
    world.until_running(&[1]);
}
