//! Applications that talk to chips on an SPI bus of which a test is the driver: chips that answer, one that is not there, a controller
//! that hangs.
#![cfg(test)]

mod support;

use std::{cell::RefCell, rc::Rc};

use embedded_hal_nb::{
    nb,
    spi::{ErrorKind, ErrorType, FullDuplex},
};
use support::*;
use wasmbed_protocol::{ApplicationState, ReportReason};
use wasmbed_supervisor::{
    memory::SharedBus,
    platform::spi::{Device, Lines, Words},
};

/// Exchanges two bytes with a chip, for ever, and logs what came or the error as a letter; `pause` is between two.
fn reader(chip_select: u32, pause: &str) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "spi_transfer" (func $spi (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\02\00\00\00\40\00\00\00\02\00\00\00")
            (func (export "run") (local $result i32)
                (loop
                    (i32.store16 (i32.const 64) (i32.const 0x6261))
                    (local.set $result
                        (call $spi (i32.const 0) (i32.const {chip_select}) (i32.const 0) (i32.const 1)))
                    (if (local.get $result)
                        (then
                            (i32.store8 (i32.const 96) (i32.sub (i32.const 32) (local.get $result)))
                            (call $log (i32.const 96) (i32.const 1)))
                        (else (call $log (i32.const 64) (i32.const 2))))
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

/// A controller with chips that answer each letter with its capital; the line that nobody drives is high.
#[derive(Default)]
struct Bus {
    is_absent: bool,
    /// No word ever comes to its end.
    hangs: bool,
    selected: Option<Device>,
    selections: Vec<Device>,
    under_way: Option<u8>,
}

struct Driver(Rc<RefCell<Bus>>);

impl Lines for Driver {
    fn select(&mut self, device: Device) -> bool {
        let mut bus = self.0.borrow_mut();
        bus.under_way = None;
        bus.selected = Some(device);
        bus.selections.push(device);
        true
    }

    fn release(&mut self) {
        self.0.borrow_mut().selected = None;
    }
}

impl ErrorType for Driver {
    type Error = ErrorKind;
}

impl FullDuplex<u8> for Driver {
    fn read(&mut self) -> nb::Result<u8, ErrorKind> {
        let mut bus = self.0.borrow_mut();
        if bus.hangs {
            return Err(nb::Error::WouldBlock);
        }
        let word = bus.under_way.take().ok_or(nb::Error::WouldBlock)?;
        Ok(if bus.is_absent { 0xff } else { word.to_ascii_uppercase() })
    }

    fn write(&mut self, word: u8) -> nb::Result<(), ErrorKind> {
        self.0.borrow_mut().under_way = Some(word);
        Ok(())
    }
}

fn lines(world: &World, number: u8) -> impl Iterator<Item = &str> {
    world.gateway.logs.iter().filter(move |(from, ..)| *from == uid(number)).map(|(.., line)| line.as_str())
}

fn world() -> (World, Rc<RefCell<Bus>>) {
    let bus = Rc::new(RefCell::new(Bus::default()));
    let mut world = World::new();
    let words = Rc::new(RefCell::new(Words::new(Driver(bus.clone()))));
    world.device.platform().peripherals.spi = Some(SharedBus(words));
    (world, bus)
}

fn run(world: &mut World, number: u8, wanted: Wanted) {
    world.gateway.set(number, wanted);
    world.gateway.send_desired(&world.link);
}

const SLOWLY: &str = "(call $wait (i32.const 50))";

#[test]
fn what_a_chip_answers_reaches_the_application_that_was_granted_it() {
    let (mut world, bus) = world();
    run(&mut world, 1, reader(1, SLOWLY).spi("spi0.1", 1_000));
    world.until("an answer", 10_000, |world| lines(world, 1).any(|line| line == "AB"));
    // As it was granted.
    let granted = Device { chip_select: 1, mode: 3, clock_khz: 500 };
    assert!(bus.borrow().selections.iter().all(|device| *device == granted));
    assert!(bus.borrow().selected.is_none(), "it is selected during a transfer alone");
}

#[test]
fn a_chip_that_is_not_there_reads_as_a_line_that_nobody_drives() {
    let (mut world, bus) = world();
    bus.borrow_mut().is_absent = true;
    let wanted = Wanted::wat(
        r#"(module
            (import "wasmbed" "spi_transfer" (func $spi (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\01\00\00\00\40\00\00\00\02\00\00\00nobody")
            (func (export "run")
                (if (call $spi (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)) (then unreachable))
                (if (i32.ne (i32.load16_u (i32.const 64)) (i32.const 0xffff)) (then unreachable))
                (call $log (i32.const 12) (i32.const 6))))"#,
    );
    run(&mut world, 1, wanted.spi("spi0.0", 1_000));
    world.until("nobody", 10_000, |world| lines(world, 1).any(|line| line == "nobody"));
}

#[test]
fn a_controller_that_hangs_holds_nobody_up_and_is_told() {
    let (mut world, bus) = world();
    bus.borrow_mut().hangs = true;
    run(&mut world, 1, reader(0, "").spi("spi0.0", 1_000));
    run(&mut world, 2, ticker());
    // 73 beyond the space.
    world.until("a timeout", 10_000, |world| lines(world, 1).any(|line| line == "i"));
    assert!(world.device.session().is_some());
    let before = lines(&world, 2).count();
    world.run_for(1_000);
    let ticks = lines(&world, 2).count() - before;
    assert!(ticks > 90, "{ticks} lines of its neighbour in a second");
    assert_eq!(world.state(1), Some((ApplicationState::Running, ReportReason::None)));
    // Its application goes in the middle of a word: the chip is let go of, and the next one has the bus.
    world.until("a transfer", 10_000, |_| bus.borrow().selected.is_some());
    world.gateway.remove(1);
    world.gateway.send_desired(&world.link);
    world.until("the chip is let go of", 5_000, |_| bus.borrow().selected.is_none());
    bus.borrow_mut().hangs = false;
    run(&mut world, 3, reader(1, SLOWLY).spi("spi0.1", 1_000));
    world.until("an answer", 10_000, |world| lines(world, 3).any(|line| line == "AB"));
}

#[test]
fn an_application_that_clocks_a_chip_without_end_has_what_it_was_granted() {
    let (mut world, bus) = world();
    // Three bytes each time: two, and one for the selection.
    run(&mut world, 1, reader(0, "").spi("spi0.0", 90));
    world.until("it runs", 10_000, |_| !bus.borrow().selections.is_empty());
    let neighbour = reader(1, "(call $wait (i32.const 100))").spi("spi0.1", 1_000);
    run(&mut world, 2, neighbour);
    world.until("its neighbour", 10_000, |world| lines(world, 2).count() > 0);
    let (before, lines_before) = (bus.borrow().selections.len(), lines(&world, 2).count());
    world.run_for(10_000);
    let neighbour = lines(&world, 2).count() - lines_before;
    assert!(neighbour > 90, "{neighbour} transfers of its neighbour in ten seconds");
    let own = bus.borrow().selections[before..].iter().filter(|device| device.chip_select == 0).count();
    assert!((290..=332).contains(&own), "{own} transfers in ten seconds");
}

#[test]
fn a_chip_that_was_not_granted_or_is_not_there_is_told() {
    let (mut world, bus) = world();
    // 44 beyond the space, and 76.
    run(&mut world, 1, reader(0, SLOWLY).capabilities(&["spi"]));
    run(&mut world, 2, reader(0, SLOWLY).spi("spi0.1", 1_000));
    world.until("not granted", 10_000, |world| lines(world, 1).any(|line| line == "L"));
    world.until("another chip", 10_000, |world| lines(world, 2).any(|line| line == "l"));
    assert!(bus.borrow().selections.is_empty());
    run(&mut world, 3, reader(2, "").spi("spi0.2", 1_000));
    world.until("refused", 10_000, |world| {
        world.state(3).is_some_and(|(state, _)| state == ApplicationState::Failed)
    });
    let report = &world.gateway.reports[&uid(3)];
    assert_eq!(report.reason, ReportReason::Unsupported);
    assert_eq!(report.message, "this device has no SPI chip select 'spi0.2'");
    run(&mut world, 4, Wanted { capabilities: vec![], ..reader(0, "") });
    world.until("denied", 10_000, |world| {
        world.state(4).is_some_and(|(state, _)| state == ApplicationState::Failed)
    });
    assert_eq!(world.gateway.reports[&uid(4)].reason, ReportReason::CapabilityDenied);
}
