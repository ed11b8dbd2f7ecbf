//! The bit-banged controller on two open-drain lines with a device at their other end, which may answer, hold the clock, hold the
//! data line, or be dead.
#![cfg(test)]

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use embedded_hal::{
    delay::DelayNs,
    digital::{ErrorType, InputPin, OutputPin},
};
use wasmbed_peripherals::{
    bus::{BYTES_MAX, Controller, Direction, Error, Progress, Transfer},
    i2c::{Address, BitBanged, HELD_US_MAX, TRANSFER_US_MAX},
};

const CLOCK_HZ: u32 = 100_000;

/// A device with 256 registers: the first byte written is a register's number, which each byte moves on.
#[derive(Default)]
struct Memory {
    registers: Vec<u8>,
    pointer: usize,
    /// Bytes that it takes before it acknowledges no more.
    takes: Option<usize>,
}

/// What the device makes of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Bits of a byte that comes, the first one of a transfer being the address.
    Taking {
        bits: u8,
        byte: u8,
        is_address: bool,
        is_pointer: bool,
    },
    Acknowledging {
        next: Next,
    },
    Giving {
        bits: u8,
        byte: u8,
    },
    Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Take { is_pointer: bool },
    Give,
}

/// Two lines, what each side does to them, and the device.
struct Bus {
    controller: [bool; 2],
    device: [bool; 2],
    before: [bool; 2],
    state: State,
    address: u8,
    memory: Memory,
    /// Reads of the clock line for which the device holds it at each acknowledgement.
    stretches: u32,
    held: u32,
    /// What holds a line whatever happens.
    stuck: [bool; 2],
    /// Starts (S), stops (P) and bytes on the line, acknowledged (+) or not (-).
    log: String,
    /// Time that was waited.
    ns: u64,
}

const SCL: usize = 0;
const SDA: usize = 1;

impl Bus {
    fn level(&self, line: usize) -> bool {
        let held = line == SCL && self.held > 0;
        self.controller[line] && self.device[line] && !self.stuck[line] && !held
    }

    /// Somebody let go of a line or pulled it.
    fn changed(&mut self) {
        let now = [self.level(SCL), self.level(SDA)];
        let before = std::mem::replace(&mut self.before, now);
        match (before, now) {
            ([true, true], [true, false]) => {
                self.log.push('S');
                self.state = State::Taking { bits: 0, byte: 0, is_address: true, is_pointer: false };
            }
            ([true, false], [true, true]) => {
                self.log.push('P');
                self.state = State::Idle;
            }
            ([false, _], [true, data]) => self.rose(data),
            ([true, _], [false, _]) => self.fell(),
            _ => {}
        }
    }

    fn rose(&mut self, data: bool) {
        match &mut self.state {
            State::Taking { bits, byte, .. } => (*byte, *bits) = (*byte << 1 | u8::from(data), *bits + 1),
            State::Giving { bits, .. } => *bits += 1,
            State::Asking => {
                self.log.push(if data { '-' } else { '+' });
                self.state = if data { State::Idle } else { self.give() };
            }
            State::Idle | State::Acknowledging { .. } => {}
        }
    }

    /// The device changes the data line while the clock is low.
    fn fell(&mut self) {
        self.device[SDA] = true;
        match self.state {
            State::Taking { bits: 8, byte, is_address, is_pointer } => {
                self.take(byte, is_address, is_pointer);
                self.held = self.stretches;
            }
            State::Acknowledging { next: Next::Take { is_pointer } } => {
                self.state = State::Taking { bits: 0, byte: 0, is_address: false, is_pointer };
            }
            State::Acknowledging { next: Next::Give } => self.state = self.give(),
            State::Giving { bits: 8, .. } => self.state = State::Asking,
            State::Idle | State::Taking { .. } | State::Giving { .. } | State::Asking => {}
        }
        if let State::Giving { bits, byte } = self.state {
            self.device[SDA] = byte & 0x80 >> bits != 0;
        }
        self.before[SDA] = self.level(SDA);
    }

    fn take(&mut self, byte: u8, is_address: bool, is_pointer: bool) {
        self.log.push_str(&format!(" {byte:02x}"));
        let is_taken = match is_address {
            true => byte >> 1 == self.address,
            false => self.memory.takes != Some(0),
        };
        self.log.push(if is_taken { '+' } else { '-' });
        if !is_taken {
            self.state = State::Idle;
            return;
        }
        self.device[SDA] = false;
        if is_address {
            let next = if byte & 1 == 1 { Next::Give } else { Next::Take { is_pointer: true } };
            self.state = State::Acknowledging { next };
            return;
        }
        if let Some(left) = &mut self.memory.takes {
            *left -= 1;
        }
        if is_pointer {
            self.memory.pointer = byte.into();
        } else {
            self.memory.registers[self.memory.pointer] = byte;
            self.memory.pointer = (self.memory.pointer + 1) % 256;
        }
        self.state = State::Acknowledging { next: Next::Take { is_pointer: false } };
    }

    fn give(&mut self) -> State {
        let byte = self.memory.registers[self.memory.pointer];
        self.memory.pointer = (self.memory.pointer + 1) % 256;
        self.log.push_str(&format!(" {byte:02x}"));
        State::Giving { bits: 0, byte }
    }
}

#[derive(Clone)]
struct Line(Rc<RefCell<Bus>>, usize);

impl ErrorType for Line {
    type Error = Infallible;
}

impl InputPin for Line {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        let mut bus = self.0.borrow_mut();
        if self.1 == SCL && bus.held > 0 {
            bus.held -= 1;
            bus.changed();
            return Ok(false);
        }
        Ok(bus.level(self.1))
    }
    fn is_low(&mut self) -> Result<bool, Infallible> {
        self.is_high().map(|high| !high)
    }
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), Infallible> {
        let mut bus = self.0.borrow_mut();
        bus.controller[self.1] = false;
        bus.changed();
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        let mut bus = self.0.borrow_mut();
        bus.controller[self.1] = true;
        bus.changed();
        Ok(())
    }
}

struct Delay(Rc<RefCell<Bus>>);

impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        self.0.borrow_mut().ns += u64::from(ns);
    }
}

struct World {
    bus: Rc<RefCell<Bus>>,
    controller: BitBanged<Line, Line, Delay>,
    now_us: u64,
}

impl World {
    fn new() -> Self {
        let memory = Memory { registers: (0..=255).collect(), ..Memory::default() };
        let bus = Rc::new(RefCell::new(Bus {
            controller: [true; 2],
            device: [true; 2],
            before: [true; 2],
            state: State::Idle,
            address: 0x48,
            memory,
            stretches: 0,
            held: 0,
            stuck: [false; 2],
            log: String::new(),
            ns: 0,
        }));
        let (scl, sda) = (Line(bus.clone(), SCL), Line(bus.clone(), SDA));
        let controller = BitBanged::new(scl, sda, Delay(bus.clone()), CLOCK_HZ);
        Self { bus, controller, now_us: 0 }
    }

    /// One step, which takes what it waits for, and a microsecond of the loop around it.
    fn step(&mut self, transfer: &mut Transfer) -> Progress {
        let before_ns = self.bus.borrow().ns;
        let progress = self.controller.step(transfer, self.now_us);
        let waited_us = (self.bus.borrow().ns - before_ns) / 1_000;
        // A byte with a start is ten clocks of 10 µs; freeing the bus takes as many.
        assert!(waited_us <= 110, "a step took {waited_us} µs");
        self.now_us += waited_us + 1;
        progress
    }

    fn run(&mut self, transfer: &mut Transfer) -> Result<(), Error> {
        loop {
            if let Progress::Done(outcome) = self.step(transfer) {
                return outcome;
            }
        }
    }

    fn log(&self) -> String {
        std::mem::take(&mut self.bus.borrow_mut().log)
    }
}

fn transfer(address: u32, operations: &[(Direction, &[u8])]) -> Transfer {
    let mut transfer = Transfer::new(Address::new(address).unwrap());
    for (direction, bytes) in operations {
        let room = transfer.push(*direction, bytes.len()).unwrap();
        if *direction == Direction::Write {
            room.copy_from_slice(bytes);
        }
    }
    transfer
}

use Direction::{Read, Write};

#[test]
fn operations_become_starts_bytes_and_a_stop_as_embedded_hal_says() {
    let mut world = World::new();
    for (operations, line, read) in [
        (&[(Write, &[7][..]), (Read, &[0, 0])][..], "S 90+ 07+S 91+ 07+ 08-P", &[7, 8][..]),
        (&[(Write, &[7, 0xaa]), (Write, &[0x55])], "S 90+ 07+ aa+ 55+P", &[]),
        (&[(Write, &[7]), (Read, &[0]), (Read, &[0])], "S 90+ 07+S 91+ aa+ 55-P", &[0xaa, 0x55]),
        (&[(Write, &[])], "S 90+P", &[]),
        (&[(Write, &[]), (Read, &[0])], "S 90+S 91+ 09-P", &[9]),
        (&[(Read, &[0]), (Write, &[1]), (Read, &[0])], "S 91+ 0a-S 90+ 01+S 91+ 01-P", &[10, 1]),
    ] {
        let mut transfer = transfer(0x48, operations);
        assert_eq!(world.run(&mut transfer), Ok(()), "{line}");
        assert_eq!(world.log(), line);
        let mut offset = 0;
        let mut got: Vec<u8> = Vec::new();
        for operation in transfer.operations() {
            if operation.direction == Read {
                got.extend(&transfer.bytes()[offset..offset + operation.bytes]);
            }
            offset += operation.bytes;
        }
        assert_eq!(got, read);
    }
}

#[test]
fn it_clocks_no_faster_than_the_bus_may_go_and_not_much_slower() {
    let mut world = World::new();
    let mut transfer = transfer(0x48, &[(Write, &[0; BYTES_MAX])]);
    assert_eq!(world.run(&mut transfer), Ok(()));
    let clocks = 9 * (BYTES_MAX as u64 + 1);
    let ns = world.bus.borrow().ns / clocks;
    assert!((10_000..10_100).contains(&ns), "{ns} ns for a clock");
}

#[test]
fn a_device_that_is_not_there_or_takes_no_more_is_told() {
    let mut world = World::new();
    assert_eq!(world.run(&mut transfer(0x49, &[(Read, &[0])])), Err(Error::NoAcknowledgeAddress));
    assert_eq!(world.log(), "S 93-P");
    world.bus.borrow_mut().memory.takes = Some(2);
    let mut long = transfer(0x48, &[(Write, &[1, 2, 3, 4])]);
    assert_eq!(world.run(&mut long), Err(Error::NoAcknowledgeData));
    assert_eq!(world.log(), "S 90+ 01+ 02+ 03-P");
}

#[test]
fn a_device_may_hold_the_clock_and_the_loop_goes_on_meanwhile() {
    let mut world = World::new();
    world.bus.borrow_mut().stretches = 3;
    let mut transfer = transfer(0x48, &[(Write, &[7]), (Read, &[0])]);
    let mut waits = 0;
    loop {
        match world.step(&mut transfer) {
            Progress::Working => {}
            Progress::Waiting => waits += 1,
            Progress::Done(outcome) => break assert_eq!(outcome, Ok(())),
        }
    }
    assert_eq!((world.log().as_str(), waits), ("S 90+ 07+S 91+ 07-P", 9));
}

#[test]
fn a_clock_that_is_held_for_ever_ends_the_transfer_and_the_next_one_finds_the_bus_again() {
    let mut world = World::new();
    world.bus.borrow_mut().stretches = u32::MAX;
    assert_eq!(world.run(&mut transfer(0x48, &[(Read, &[0])])), Err(Error::Timeout));
    assert!((HELD_US_MAX..HELD_US_MAX + 1_000).contains(&world.now_us), "{} µs", world.now_us);
    world.bus.borrow_mut().held = 0;
    world.bus.borrow_mut().stretches = 0;
    world.log();
    assert_eq!(world.run(&mut transfer(0x48, &[(Read, &[0])])), Ok(()));
}

#[test]
fn a_device_that_holds_the_clock_a_little_at_each_bit_does_not_hold_the_bus_for_longer_than_a_transfer_may_take()
 {
    let mut world = World::new();
    world.bus.borrow_mut().stretches = 20_000;
    assert_eq!(world.run(&mut transfer(0x48, &[(Write, &[0; BYTES_MAX])])), Err(Error::Timeout));
    let limit_us = TRANSFER_US_MAX..TRANSFER_US_MAX + HELD_US_MAX;
    assert!(limit_us.contains(&world.now_us), "{} µs", world.now_us);
}

#[test]
fn a_data_line_that_is_stuck_is_told_and_so_is_a_clock_line() {
    for (line, error) in [(SDA, Error::Bus), (SCL, Error::Timeout)] {
        let mut world = World::new();
        world.bus.borrow_mut().stuck[line] = true;
        assert_eq!(world.run(&mut transfer(0x48, &[(Read, &[0])])), Err(error));
        world.bus.borrow_mut().stuck[line] = false;
        world.log();
        assert_eq!(world.run(&mut transfer(0x48, &[(Read, &[0])])), Ok(()));
    }
}

#[test]
fn a_data_line_pulled_by_another_is_lost_arbitration() {
    let mut world = World::new();
    let mut transfer = transfer(0x48, &[(Write, &[0xff])]);
    // Check and start; the address is on its way.
    while world.log().is_empty() {
        assert_eq!(world.step(&mut transfer), Progress::Working);
    }
    world.bus.borrow_mut().stuck[SDA] = true;
    assert_eq!(world.run(&mut transfer), Err(Error::ArbitrationLost));
}

/// After each step of a transfer, however far it is: the device may hold the data line for a byte of zeroes.
#[test]
fn a_transfer_given_up_anywhere_leaves_the_bus_free_for_the_next() {
    for steps in 0.. {
        let mut world = World::new();
        world.bus.borrow_mut().memory.registers[7..9].fill(0);
        world.bus.borrow_mut().stretches = 2;
        let mut given_up = transfer(0x48, &[(Write, &[7]), (Read, &[1, 1])]);
        let ended = (0..steps).any(|_| matches!(world.step(&mut given_up), Progress::Done(_)));
        let mut rounds = 0;
        while !world.controller.give_up(world.now_us) {
            world.now_us += 100;
            rounds += 1;
            assert!(rounds < 100, "it is never freed after {steps} steps");
        }
        world.log();
        let mut next = transfer(0x48, &[(Write, &[9]), (Read, &[0])]);
        assert_eq!(world.run(&mut next), Ok(()), "after {steps} steps");
        assert_eq!(
            (world.log().as_str(), next.bytes()[1]),
            ("S 90+ 09+S 91+ 09-P", 9),
            "after {steps} steps"
        );
        if ended {
            assert!(steps > 10, "{steps} steps are no transfer");
            return;
        }
    }
}

/// A reset in the middle of a byte: the device holds the data line when the controller begins.
#[test]
fn a_device_left_in_the_middle_of_a_byte_is_clocked_free() {
    let mut world = World::new();
    {
        let mut bus = world.bus.borrow_mut();
        bus.state = State::Giving { bits: 3, byte: 0 };
        bus.device[SDA] = false;
        bus.before[SDA] = false;
    }
    let mut next = transfer(0x48, &[(Write, &[9]), (Read, &[0])]);
    assert_eq!(world.run(&mut next), Ok(()));
    assert_eq!(next.bytes()[1], 9);
}
