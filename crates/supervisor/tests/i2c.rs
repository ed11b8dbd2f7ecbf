//! Applications on an I2C bus that a test is the controller of: one that answers, one that hangs.
#![cfg(test)]

mod support;

use std::{cell::RefCell, rc::Rc};

use support::*;
use wasmbed_protocol::{ApplicationState, ReportReason};
use wasmbed_supervisor::{
    memory::SharedBus,
    platform::bus::{Controller, Error, Progress, Transfer},
};

/// Writes one byte to 0x48 and reads two, for ever, and logs what it read or the error as a letter; `pause` is between two.
fn reader(pause: &str) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "i2c_transfer" (func $i2c (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\00\00\00\00\40\00\00\00\01\00\00\00\01\00\00\00\50\00\00\00\02\00\00\00")
            (func (export "run") (local $result i32)
                (loop
                    (local.set $result (call $i2c (i32.const 0) (i32.const 0x48) (i32.const 0) (i32.const 2)))
                    (if (local.get $result)
                        (then
                            (i32.store8 (i32.const 96) (i32.sub (i32.const 32) (local.get $result)))
                            (call $log (i32.const 96) (i32.const 1)))
                        (else (call $log (i32.const 80) (i32.const 2))))
                    {pause}
                    (br 0))))"#
    ))
}

/// Logs a line every 10 ms.
fn ticker() -> Wanted {
    Wanted::wat(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "tick")
            (func (export "run")
                (loop (call $wait (i32.const 10)) (call $log (i32.const 0) (i32.const 4)) (br 0))))"#,
    )
}

/// What the bus does with each transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Answer,
    Fail(Error),
    /// It is never over; the device holds the clock, or clocks go on.
    Hang(Progress),
}

struct Bus {
    does: Does,
    transfers: u32,
    given_up: u32,
    under_way: bool,
}

impl Controller for Bus {
    fn step(&mut self, transfer: &mut Transfer, _: u64) -> Progress {
        self.transfers += u32::from(!self.under_way);
        self.under_way = matches!(self.does, Does::Hang(_));
        match self.does {
            Does::Answer => {
                transfer.bytes_mut().copy_from_slice(b".ok");
                Progress::Done(Ok(()))
            }
            Does::Fail(error) => Progress::Done(Err(error)),
            Does::Hang(progress) => progress,
        }
    }

    fn give_up(&mut self, _: u64) -> bool {
        self.given_up += u32::from(self.under_way);
        self.under_way = false;
        true
    }
}

fn lines(world: &World, number: u8) -> impl Iterator<Item = &str> {
    world.gateway.logs.iter().filter(move |(from, ..)| *from == uid(number)).map(|(.., line)| line.as_str())
}

fn world(does: Does) -> (World, Rc<RefCell<Bus>>) {
    let bus = Rc::new(RefCell::new(Bus { does, transfers: 0, given_up: 0, under_way: false }));
    let mut world = World::new();
    world.device.platform().peripherals.i2c = Some(SharedBus(bus.clone()));
    (world, bus)
}

#[test]
fn what_is_read_reaches_the_application_and_so_does_why_not() {
    let (mut world, bus) = world(Does::Answer);
    world.gateway.set(1, reader("(call $wait (i32.const 50))").i2c("i2c0", 0x48, 1_000));
    world.gateway.send_desired(&world.link);
    world.until("a line", 10_000, |world| lines(world, 1).any(|line| line == "ok"));
    // Nobody acknowledges: the letter of 60 beyond the space.
    bus.borrow_mut().does = Does::Fail(Error::NoAcknowledgeAddress);
    world.until("an error", 10_000, |world| lines(world, 1).any(|line| line == "\\"));
}

#[test]
fn a_bus_that_hangs_holds_nobody_up_and_is_freed_when_its_application_goes() {
    for progress in [Progress::Working, Progress::Waiting] {
        let (mut world, bus) = world(Does::Hang(progress));
        world.gateway.set(1, reader("").i2c("i2c0", 0x48, 1_000));
        world.gateway.send_desired(&world.link);
        world.gateway.set(2, ticker());
        world.gateway.send_desired(&world.link);
        world.until("a transfer", 10_000, |_| bus.borrow().under_way);
        let before = lines(&world, 2).count();
        world.run_for(1_000);
        let ticks = lines(&world, 2).count() - before;
        assert!(ticks > 90, "{ticks} lines of its neighbour in a second");
        assert_eq!(world.state(1), Some((ApplicationState::Running, ReportReason::None)));
        assert!(world.device.session().is_some());
        world.gateway.remove(1);
        world.gateway.send_desired(&world.link);
        world.until("the bus is free", 5_000, |_| bus.borrow().given_up == 1);
        assert_eq!(bus.borrow().transfers, 1);
        // The next one has it at once.
        bus.borrow_mut().does = Does::Answer;
        world.gateway.set(3, reader("(call $wait (i32.const 50))").i2c("i2c0", 0x48, 1_000));
        world.gateway.send_desired(&world.link);
        world.until("a line", 10_000, |world| lines(world, 3).any(|line| line == "ok"));
    }
}

#[test]
fn an_application_that_clocks_without_end_has_what_it_was_granted() {
    let (mut world, bus) = world(Does::Answer);
    // Five bytes on the bus each time: two addresses, one written, two read.
    world.gateway.set(1, reader("").i2c("i2c0", 0x48, 100));
    world.gateway.send_desired(&world.link);
    world.until("it runs", 10_000, |_| bus.borrow().transfers > 0);
    world.run_for(10_000);
    let transfers = bus.borrow().transfers;
    assert!((200..=222).contains(&transfers), "{transfers} transfers in ten seconds");
}

#[test]
fn a_bus_that_was_not_granted_or_is_not_there_is_told() {
    let (mut world, bus) = world(Does::Answer);
    // 44 beyond the space, and 76.
    world.gateway.set(1, reader("(call $wait (i32.const 50))").capabilities(&["i2c"]));
    world.gateway.send_desired(&world.link);
    world.gateway.set(2, reader("(call $wait (i32.const 50))").i2c("i2c0", 0x49, 1_000));
    world.gateway.send_desired(&world.link);
    world.until("not granted", 10_000, |world| lines(world, 1).any(|line| line == "L"));
    world.until("another address", 10_000, |world| lines(world, 2).any(|line| line == "l"));
    assert_eq!(bus.borrow().transfers, 0);
    world.gateway.set(3, reader("").i2c("i2c1", 0x48, 1_000));
    world.gateway.send_desired(&world.link);
    world.until("refused", 10_000, |world| {
        world.state(3).is_some_and(|(state, _)| state == ApplicationState::Failed)
    });
    let report = &world.gateway.reports[&uid(3)];
    assert_eq!(report.reason, ReportReason::Unsupported);
    assert_eq!(report.message, "this device has no I2C bus 'i2c1'");
    let denied = Wanted { capabilities: vec![], ..reader("") };
    world.gateway.set(4, denied);
    world.gateway.send_desired(&world.link);
    world.until("denied", 10_000, |world| {
        world.state(4).is_some_and(|(state, _)| state == ApplicationState::Failed)
    });
    assert_eq!(world.gateway.reports[&uid(4)].reason, ReportReason::CapabilityDenied);
}
