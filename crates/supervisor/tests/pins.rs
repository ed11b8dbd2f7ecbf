//! Applications that wait for edges of pins.
#![cfg(test)]

mod support;

use support::*;
use wasmbed_protocol::{ApplicationState, ReportReason};

/// Watches pin 0 for edges, waits for a minute again and again, and logs after each wait how many edges there were, as a letter.
fn watcher(edges: u32) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "gpio_watch" (func $watch (param i32 i32) (result i32)))
            (import "wasmbed" "gpio_edges" (func $edges (param i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func $tell (param i32)
                (i32.store8 (i32.const 0) (i32.add (i32.const 65) (local.get 0)))
                (call $log (i32.const 0) (i32.const 1)))
            (func (export "run") (local $result i32)
                (local.set $result (call $watch (i32.const 0) (i32.const {edges})))
                (if (local.get $result) (then (call $tell (i32.sub (i32.const -33) (local.get $result)))))
                (loop
                    (call $wait (i32.const 60000))
                    (call $tell (call $edges (i32.const 0)))
                    (br 0))))"#
    ))
}

/// Changes pin 0 every so many milliseconds, for ever.
fn switcher(ms: u32) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "gpio_write" (func $write (param i32 i32) (result i32)))
            (import "wasmbed" "gpio_read" (func $read (param i32) (result i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func (export "run")
                (loop
                    (call $wait (i32.const {ms}))
                    (drop (call $write (i32.const 0) (i32.eqz (call $read (i32.const 0)))))
                    (br 0))))"#
    ))
    .capabilities(&["gpio"])
}

/// Logs what a read and a write of pin 1 came to, as letters.
fn other_pin() -> Wanted {
    Wanted::wat(
        r#"(module
            (import "wasmbed" "gpio_write" (func $write (param i32 i32) (result i32)))
            (import "wasmbed" "gpio_read" (func $read (param i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func (export "run")
                (i32.store8 (i32.const 0) (i32.sub (i32.const 32) (call $read (i32.const 1))))
                (i32.store8 (i32.const 1) (i32.sub (i32.const 32) (call $write (i32.const 1) (i32.const 1))))
                (call $log (i32.const 0) (i32.const 2))
                (loop (call $wait (i32.const 60000)) (br 0))))"#,
    )
}

fn run(world: &mut World, number: u8, wanted: Wanted) {
    world.gateway.set(number, wanted);
    world.gateway.send_desired(&world.link);
}

fn lines(world: &World, number: u8) -> impl Iterator<Item = &str> {
    world.gateway.logs.iter().filter(move |(from, ..)| *from == uid(number)).map(|(.., line)| line.as_str())
}

fn runs(world: &mut World, number: u8) {
    world.until("it runs", 10_000, |world| {
        world.state(number) == Some((ApplicationState::Running, ReportReason::None))
    });
    world.run_for(20);
}

#[test]
fn a_wait_ends_with_the_edge_that_was_asked_for() {
    let mut world = World::new();
    run(&mut world, 1, watcher(1).gpio("gpio0", 10));
    runs(&mut world, 1);
    world.device.platform().peripherals.pins[0] = true;
    world.until("the rising edge", 100, |world| lines(world, 1).eq(["B"]));
    world.device.platform().peripherals.pins[0] = false;
    world.run_for(5_000);
    assert!(lines(&world, 1).eq(["B"]), "the falling one ends no wait");
    // Without edges a wait takes its time.
    world.until("the wait is over", 60_000, |world| lines(world, 1).eq(["B", "A"]));
}

#[test]
fn a_flood_of_edges_ends_as_many_waits_as_were_granted_and_the_rest_is_counted() {
    let mut world = World::new();
    run(&mut world, 1, watcher(3).gpio("gpio0", 2));
    runs(&mut world, 1);
    run(&mut world, 2, switcher(5));
    runs(&mut world, 2);
    let before = lines(&world, 1).count();
    world.run_for(10_000);
    let ends = lines(&world, 1).count() - before;
    assert!((18..=23).contains(&ends), "{ends} waits ended in ten seconds");
    // Half a second has a hundred edges.
    let counts: Vec<u8> = lines(&world, 1).skip(before + 3).filter_map(|line| line.bytes().next()).collect();
    assert!(counts.iter().all(|count| *count > 65 + 40), "{counts:?}");
    assert_eq!(world.state(2), Some((ApplicationState::Running, ReportReason::None)));
}

#[test]
fn an_application_that_names_pins_has_these_alone() {
    let mut world = World::new();
    run(&mut world, 1, other_pin().gpio("gpio0", 1));
    run(&mut world, 2, other_pin().capabilities(&["gpio"]));
    // 76 beyond the space, and 0.
    world.until("denied", 10_000, |world| lines(world, 1).eq(["ll"]));
    world.until("allowed", 10_000, |world| lines(world, 2).eq(["  "]));
    // Edges go to those who named the pin.
    run(&mut world, 3, watcher(1).capabilities(&["gpio"]));
    world.until("denied", 10_000, |world| lines(world, 3).eq(["l"]));
    run(&mut world, 4, watcher(1).gpio("gpio7", 1));
    world.until("refused", 10_000, |world| {
        world.state(4).is_some_and(|(state, _)| state == ApplicationState::Failed)
    });
    assert_eq!(world.gateway.reports[&uid(4)].message, "this device has no pin 'gpio7'");
}
