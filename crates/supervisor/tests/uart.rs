//! Applications at a UART that a test is the other end of.
#![cfg(test)]

mod support;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use support::*;
use wasmbed_protocol::{ApplicationState, ReportReason};
use wasmbed_supervisor::{
    memory::SharedPort,
    platform::uart::{Error, Port},
};

/// A UART that keeps so many bytes until they are read, and takes so many until they are out.
struct Uart {
    opened: Vec<u32>,
    closed: u32,
    comes: VecDeque<u8>,
    is_overrun: bool,
    /// What went out.
    went: Vec<u8>,
    room: usize,
}

const BUFFER: usize = 64;

impl Uart {
    /// What the other end sends; without room it is lost.
    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.comes.len() < BUFFER {
                true => self.comes.push_back(*byte),
                false => self.is_overrun = true,
            }
        }
    }
}

impl Port for Uart {
    fn open(&mut self, baud: u32) -> Result<(), Error> {
        self.opened.push(baud);
        self.comes.clear();
        Ok(())
    }

    fn close(&mut self) {
        self.closed += 1;
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.comes.is_empty() && std::mem::take(&mut self.is_overrun) {
            return Err(Error::Overrun);
        }
        let count = buffer.len().min(self.comes.len());
        for (place, byte) in buffer.iter_mut().zip(self.comes.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let count = bytes.len().min(self.room);
        self.went.extend(&bytes[..count]);
        Ok(count)
    }

    fn is_sent(&mut self) -> Result<bool, Error> {
        Ok(self.room > 0)
    }
}

/// Reads for ever, and logs what came or the error as a letter. Waits so long for each, in milliseconds.
fn reader(timeout_ms: i32) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "uart_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "run") (local $count i32)
                (loop
                    (local.set $count
                        (call $read (i32.const 0) (i32.const {timeout_ms}) (i32.const 0) (i32.const 256)))
                    (if (i32.lt_s (local.get $count) (i32.const 0))
                        (then
                            (i32.store8 (i32.const 0) (i32.sub (i32.const 32) (local.get $count)))
                            (call $log (i32.const 0) (i32.const 1)))
                        (else (call $log (i32.const 0) (local.get $count))))
                    (br 0))))"#
    ))
}

/// Writes 64 bytes for ever, within so many milliseconds, and logs an error as a letter, and then waits.
fn writer(timeout_ms: i32) -> Wanted {
    Wanted::wat(&format!(
        r#"(module
            (import "wasmbed" "uart_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "run") (local $count i32)
                (loop
                    (local.set $count
                        (call $write (i32.const 0) (i32.const 100) (i32.const 64) (i32.const {timeout_ms})))
                    (if (i32.lt_s (local.get $count) (i32.const 0))
                        (then
                            (i32.store8 (i32.const 0) (i32.sub (i32.const 32) (local.get $count)))
                            (call $log (i32.const 0) (i32.const 1))
                            (call $wait (i32.const 100))))
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

fn lines(world: &World, number: u8) -> impl Iterator<Item = &str> {
    world.gateway.logs.iter().filter(move |(from, ..)| *from == uid(number)).map(|(.., line)| line.as_str())
}

fn world() -> (World, Rc<RefCell<Uart>>) {
    let uart = Uart {
        opened: Vec::new(),
        closed: 0,
        comes: VecDeque::new(),
        is_overrun: false,
        went: Vec::new(),
        room: 16,
    };
    let uart = Rc::new(RefCell::new(uart));
    let mut world = World::new();
    world.device.platform().peripherals.uart = Some(SharedPort(uart.clone()));
    (world, uart)
}

fn run(world: &mut World, number: u8, wanted: Wanted) {
    world.gateway.set(number, wanted);
    world.gateway.send_desired(&world.link);
}

/// A letter for an error: 32 and its number.
fn letter(errno: u8) -> String {
    char::from(32 + errno).to_string()
}

const TIMEOUT: u8 = 73;
const BUSY: u8 = 10;
const OVERFLOW: u8 = 61;
const NOENT: u8 = 44;

#[test]
fn a_read_that_waits_holds_nobody_up_and_ends_with_what_comes() {
    let (mut world, uart) = world();
    run(&mut world, 1, reader(-1).uart("uart0", 1_000));
    run(&mut world, 2, ticker());
    world.until("it listens", 10_000, |_| uart.borrow().opened == [9_600]);
    let before = lines(&world, 2).count();
    world.run_for(1_000);
    let ticks = lines(&world, 2).count() - before;
    assert!(ticks > 90, "{ticks} lines of its neighbour in a second");
    assert_eq!(lines(&world, 1).count(), 0);
    // Longer than the CPU limit of 100 ms, in a loop without a wait.
    assert_eq!(world.state(1), Some((ApplicationState::Running, ReportReason::None)));
    uart.borrow_mut().hear(b"hello");
    world.until("a line", 1_000, |world| lines(world, 1).any(|line| line == "hello"));
}

#[test]
fn a_read_has_a_last_moment() {
    let (mut world, uart) = world();
    run(&mut world, 1, reader(250).uart("uart0", 1_000));
    world.until("late", 10_000, |world| lines(world, 1).any(|line| line == letter(TIMEOUT)));
    let before = lines(&world, 1).count();
    world.run_for(10_000);
    let count = lines(&world, 1).count() - before;
    assert!((38..=40).contains(&count), "{count} times too late in ten seconds");
    // Times that were over cost nothing of the rate.
    uart.borrow_mut().hear(b"late");
    world.until("what came", 1_000, |world| lines(world, 1).any(|line| line == "late"));
}

#[test]
fn what_an_application_sends_and_receives_is_what_it_was_granted() {
    let (mut world, uart) = world();
    run(&mut world, 1, writer(-1).uart("uart0", 100));
    run(&mut world, 2, ticker());
    world.until("it sends", 10_000, |_| !uart.borrow().went.is_empty());
    let before = uart.borrow().went.len();
    world.run_for(10_000);
    let went = uart.borrow().went.len() - before;
    // Those of one second at once, and what goes at once beyond them.
    assert!((900..=1_100 + 64).contains(&went), "{went} bytes in ten seconds");
    world.gateway.remove(1);
    run(&mut world, 3, reader(-1).uart("uart0", 100));
    world.until("it listens", 10_000, |_| uart.borrow().opened.len() == 2);
    let mut heard = 0;
    for _ in 0..1_000 {
        uart.borrow_mut().hear(&[b'x'; 64]);
        world.run_for(10);
        heard = lines(&world, 3).filter(|line| line.starts_with('x')).map(str::len).sum();
    }
    assert!((900..=1_100 + 64).contains(&heard), "{heard} bytes in ten seconds");
    assert_eq!(world.state(3), Some((ApplicationState::Running, ReportReason::None)));
}

#[test]
fn bytes_that_were_lost_are_told_to_the_application_and_to_people() {
    let (mut world, uart) = world();
    run(&mut world, 1, reader(-1).uart("uart0", 100_000));
    run(&mut world, 2, ticker());
    world.until("it listens", 10_000, |_| !uart.borrow().opened.is_empty());
    for _ in 0..50 {
        uart.borrow_mut().hear(&[b'x'; BUFFER + 1]);
        world.run_for(100);
    }
    let told = |world: &World| lines(world, 1).filter(|line| *line == letter(OVERFLOW)).count();
    world.until("each loss", 1_000, |world| told(world) == 50);
    let said = |world: &World| -> Vec<String> {
        lines(world, 1).filter(|line| line.starts_with("uart0: ")).map(str::to_owned).collect()
    };
    assert_eq!(said(&world), ["uart0: bytes lost 1 times since they were not read in time"]);
    // The others once, ten seconds later.
    world.until("the rest", 11_000, |world| said(world).len() == 2);
    assert_eq!(said(&world)[1], "uart0: bytes lost 49 times since they were not read in time");
    world.run_for(60_000);
    assert_eq!(said(&world).len(), 2);
}

#[test]
fn a_line_that_takes_nothing_is_told_and_holds_nobody_up() {
    let (mut world, uart) = world();
    uart.borrow_mut().room = 0;
    run(&mut world, 1, writer(200).uart("uart0", 1_000));
    run(&mut world, 2, ticker());
    world.until("late", 10_000, |world| lines(world, 1).any(|line| line == letter(TIMEOUT)));
    let before = lines(&world, 2).count();
    world.run_for(1_000);
    let ticks = lines(&world, 2).count() - before;
    assert!(ticks > 90, "{ticks} lines of its neighbour in a second");
    assert!(world.device.session().is_some());
}

#[test]
fn a_uart_has_one_application_at_a_time_and_is_closed_when_it_goes() {
    let (mut world, uart) = world();
    run(&mut world, 1, reader(-1).uart("uart0", 1_000));
    world.until("it listens", 10_000, |_| uart.borrow().opened.len() == 1);
    run(&mut world, 2, writer(200).uart("uart0", 1_000));
    world.until("busy", 10_000, |world| lines(world, 2).any(|line| line == letter(BUSY)));
    assert_eq!((uart.borrow().went.len(), uart.borrow().closed), (0, 0));
    world.gateway.remove(1);
    world.gateway.send_desired(&world.link);
    world.until("the other has it", 10_000, |_| !uart.borrow().went.is_empty());
    assert_eq!(uart.borrow().opened.len(), 2);
    let closed = uart.borrow().closed;
    world.gateway.remove(2);
    world.gateway.send_desired(&world.link);
    world.until("it is closed", 5_000, |_| uart.borrow().closed == closed + 1);
}

#[test]
fn a_uart_that_was_not_granted_or_is_not_there_is_told() {
    let (mut world, uart) = world();
    run(&mut world, 1, writer(200).capabilities(&["uart"]));
    world.until("not granted", 10_000, |world| lines(world, 1).any(|line| line == letter(NOENT)));
    assert_eq!(uart.borrow().opened.len(), 0);
    run(&mut world, 2, writer(200).uart("uart1", 1_000));
    let failed = |number| {
        move |world: &mut World| {
            world.state(number).is_some_and(|(state, _)| state == ApplicationState::Failed)
        }
    };
    world.until("refused", 10_000, failed(2));
    let report = &world.gateway.reports[&uid(2)];
    assert_eq!(report.reason, ReportReason::Unsupported);
    assert_eq!(report.message, "this device has no UART 'uart1'");
    let denied = Wanted { capabilities: vec![], ..writer(200) };
    run(&mut world, 3, denied);
    world.until("denied", 10_000, failed(3));
    assert_eq!(world.gateway.reports[&uid(3)].reason, ReportReason::CapabilityDenied);
}
