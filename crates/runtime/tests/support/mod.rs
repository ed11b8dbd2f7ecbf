//! A device for tests: a clock that the test moves, a log that it can read, key-value data in a map.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use wasmbed_runtime::peripherals::{bus, uart};
use wasmbed_runtime::{
    Answer, AppId, Capabilities, Edges, Event, Host, Interpreter, KeyValueError, Limits, LoadError, Metering,
    PeripheralError, Peripherals, Program, Published, Runtime, RuntimeConfig,
};

/// Ten thousand units of fuel are a millisecond: the same on every machine.
pub(crate) const FUEL_PER_MS: u32 = 10_000;

pub(crate) struct TestHost {
    /// Added to real time when there is one.
    pub(crate) now_us: u64,
    pub(crate) real_time: Option<Instant>,
    pub(crate) unix_ms: Option<u64>,
    pub(crate) lines: Vec<(AppId, String)>,
    pub(crate) lines_lost: u64,
    pub(crate) data: BTreeMap<(AppId, Vec<u8>), Vec<u8>>,
    /// Whether key-value calls are left pending.
    pub(crate) pending: bool,
    pub(crate) storage_error: Option<KeyValueError>,
    /// Transfers that wait for their answer, or why there are none.
    pub(crate) transfers: Result<Vec<(AppId, u32, bus::Transfer)>, bus::Error>,
    /// What was asked of UARTs: port, room or bytes, last moment; or why nothing is to be had of them.
    pub(crate) uart: Result<Vec<(u32, Asked, u64)>, uart::Error>,
    /// What every `publish` is answered.
    pub(crate) published: Published,
    pub(crate) messages: Vec<(AppId, Vec<u8>, Vec<u8>, bool)>,
    /// Those that came in, oldest first.
    pub(crate) received: VecDeque<Vec<u8>>,
    /// What `setting_get` finds.
    pub(crate) settings: Vec<(&'static str, Vec<u8>)>,
    pub(crate) setting_changed: bool,
    /// Which edges of pin 2 are watched, and how many there were; other pins were not granted.
    pub(crate) watched: Edges,
    pub(crate) edges: u32,
    pub(crate) board: Board,
}

#[derive(Default)]
pub(crate) struct Board {
    pub(crate) pins: [bool; 4],
}

impl Peripherals for Board {
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        self.pins.get(pin as usize).copied().ok_or(PeripheralError::NotFound)
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        *self.pins.get_mut(pin as usize).ok_or(PeripheralError::NotFound)? = level;
        Ok(())
    }

    fn sensor_read(&mut self, sensor: u32) -> Result<i32, PeripheralError> {
        match sensor {
            0 => Ok(-21_500),
            1 => Err(PeripheralError::Failed),
            _ => Err(PeripheralError::NotFound),
        }
    }
}

/// What a program asked of a UART.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read(usize),
    Write(Vec<u8>),
}

impl TestHost {
    pub(crate) fn new() -> TestHost {
        TestHost {
            now_us: 1_000_000,
            real_time: None,
            unix_ms: Some(1_700_000_000_123),
            lines: Vec::new(),
            lines_lost: 0,
            data: BTreeMap::new(),
            pending: false,
            storage_error: None,
            transfers: Ok(Vec::new()),
            uart: Ok(Vec::new()),
            published: Published::Taken,
            messages: Vec::new(),
            received: VecDeque::new(),
            settings: Vec::new(),
            setting_changed: false,
            watched: Edges::default(),
            edges: 0,
            board: Board::default(),
        }
    }

    /// One whose clock is the machine's.
    pub(crate) fn real_time() -> TestHost {
        TestHost { real_time: Some(Instant::now()), ..TestHost::new() }
    }

    pub(crate) fn lines_of(&self, id: AppId) -> Vec<&str> {
        self.lines.iter().filter(|(from, _)| *from == id).map(|(_, line)| line.as_str()).collect()
    }
}

impl Host for TestHost {
    fn now_us(&mut self) -> u64 {
        self.now_us + self.real_time.map_or(0, |start| start.elapsed().as_micros() as u64)
    }

    fn unix_ms(&mut self) -> Option<u64> {
        self.unix_ms
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = 0xa0 ^ index as u8;
        }
    }

    fn log(&mut self, application: AppId, text: &[u8], lines_lost: u32) {
        assert!(text.len() <= wasmbed_runtime::host::LOG_LINE_BYTES_MAX);
        self.lines_lost += u64::from(lines_lost);
        self.lines.push((application, String::from_utf8_lossy(text).into_owned()));
    }

    fn key_value_get(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>> {
        if self.pending {
            return Answer::Pending;
        }
        Answer::Ready(match (self.storage_error, self.data.get(&(application, key.to_vec()))) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(None),
            (None, Some(found)) => {
                value[..found.len()].copy_from_slice(found);
                Ok(Some(found.len()))
            }
        })
    }

    fn key_value_put(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &[u8],
    ) -> Answer<Result<(), KeyValueError>> {
        if self.pending {
            return Answer::Pending;
        }
        match self.storage_error {
            Some(error) => Answer::Ready(Err(error)),
            None => {
                self.data.insert((application, key.to_vec()), value.to_vec());
                Answer::Ready(Ok(()))
            }
        }
    }

    fn key_value_delete(&mut self, application: AppId, key: &[u8]) -> Answer<Result<bool, KeyValueError>> {
        if self.pending {
            return Answer::Pending;
        }
        Answer::Ready(Ok(self.data.remove(&(application, key.to_vec())).is_some()))
    }

    fn publish(&mut self, application: AppId, topic: &[u8], payload: &[u8], drop_oldest: bool) -> Published {
        if self.published == Published::Taken {
            self.messages.push((application, topic.to_vec(), payload.to_vec(), drop_oldest));
        }
        self.published
    }

    fn has_message(&mut self, _: AppId) -> bool {
        !self.received.is_empty()
    }

    fn setting(&mut self, _: AppId, name: &[u8], value: &mut [u8]) -> Option<usize> {
        self.setting_changed = false;
        let (_, set) = self.settings.iter().find(|(known, _)| known.as_bytes() == name)?;
        value[..set.len()].copy_from_slice(set);
        Some(set.len())
    }

    fn has_changed_setting(&mut self, _: AppId) -> bool {
        self.setting_changed
    }

    fn receive(&mut self, _: AppId, message: &mut [u8], room: usize) -> Option<usize> {
        let length = self.received.front()?.len();
        message[..length].copy_from_slice(self.received.front()?);
        if length <= room {
            self.received.pop_front();
        }
        Some(length)
    }

    fn transfer(&mut self, application: AppId, bus: u32, transfer: bus::Transfer) -> Result<(), bus::Error> {
        self.transfers.as_mut().map_err(|error| *error)?.push((application, bus, transfer));
        Ok(())
    }

    fn uart_read(&mut self, _: AppId, port: u32, room: usize, until_us: u64) -> Result<(), uart::Error> {
        self.uart.as_mut().map_err(|error| *error)?.push((port, Asked::Read(room), until_us));
        Ok(())
    }

    fn uart_write(&mut self, _: AppId, port: u32, bytes: &[u8], until_us: u64) -> Result<(), uart::Error> {
        let asked = Asked::Write(bytes.to_vec());
        self.uart.as_mut().map_err(|error| *error)?.push((port, asked, until_us));
        Ok(())
    }

    fn gpio_watch(&mut self, _: AppId, pin: u32, edges: Edges) -> Result<(), PeripheralError> {
        if pin != 2 {
            return Err(PeripheralError::Denied);
        }
        self.watched = edges;
        Ok(())
    }

    fn gpio_edges(&mut self, _: AppId, pin: u32) -> Result<u32, PeripheralError> {
        if pin != 2 {
            return Err(PeripheralError::Denied);
        }
        Ok(std::mem::take(&mut self.edges))
    }

    fn take_wake(&mut self, _: AppId) -> bool {
        self.edges > 0
    }

    fn peripherals(&mut self) -> &mut dyn Peripherals {
        &mut self.board
    }
}

pub(crate) const LIMITS: Limits = Limits { memory_bytes: 131_072, cpu_ms: 100 };

pub(crate) fn id(number: u8) -> AppId {
    AppId([number; 16])
}

pub(crate) fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A device whose CPU time is counted in fuel.
pub(crate) fn runtime() -> Runtime<Interpreter> {
    Runtime::new(config())
}

pub(crate) fn config() -> RuntimeConfig {
    RuntimeConfig { metering: Metering::Fixed { fuel_per_ms: FUEL_PER_MS }, ..RuntimeConfig::default() }
}

pub(crate) fn program(module: &[u8]) -> Program<'_> {
    Program { name: "test", module, limits: LIMITS, args: &[], env: &[], capabilities: Capabilities::ALL }
}

pub(crate) fn load(runtime: &mut Runtime<Interpreter>, number: u8, text: &str) -> Result<(), LoadError> {
    let module = wasm(text);
    runtime.load(id(number), &program(&module))
}

/// Runs until something ends, moving the clock over waits. At most `slices`.
pub(crate) fn run(runtime: &mut Runtime<Interpreter>, host: &mut TestHost, slices: usize) -> Option<Event> {
    for _ in 0..slices {
        let now_ms = host.now_us / 1_000;
        match runtime.next_wake(now_ms) {
            None => return None,
            Some(wake) if wake > now_ms => host.now_us = wake * 1_000,
            Some(_) => {}
        }
        if let Some(event) = runtime.run_slice(host) {
            return Some(event);
        }
    }
    None
}

/// Loads one module, runs it to its end and answers how that was.
pub(crate) fn ending(text: &str) -> Result<Event, LoadError> {
    let mut runtime = runtime();
    load(&mut runtime, 1, text)?;
    let event = run(&mut runtime, &mut TestHost::new(), 100_000).expect("it ends");
    assert_eq!(runtime.memory_used_bytes(), 0, "an ended application holds nothing");
    Ok(event)
}
