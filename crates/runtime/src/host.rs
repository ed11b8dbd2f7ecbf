//! The device, as the sandbox reaches it.

use core::fmt;

pub use wasmbed_peripherals::{bus, i2c, spi, uart};

/// Names an application: its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub [u8; 16]);

/// Bytes of a key in the key-value store.
pub const KEY_BYTES_MAX: usize = 64;
/// Bytes of a value in the key-value store.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Bytes of a topic's name.
pub const TOPIC_BYTES_MAX: usize = 64;
/// Bytes of a message.
pub const PAYLOAD_BYTES_MAX: usize = 1_024;
/// Bytes of a setting's name.
pub const SETTING_NAME_BYTES_MAX: usize = 32;
/// Bytes of a setting's value, as its application gets it: one of a bool, eight of an int (little-endian), those of a text.
pub const SETTING_VALUE_BYTES_MAX: usize = 64;
/// Bytes of a message that came in, as its application gets it: source, length of the topic, topic, payload.
pub const RECEIVED_BYTES_MAX: usize = 2 + TOPIC_BYTES_MAX + PAYLOAD_BYTES_MAX;
/// Bytes of one log line; a longer one is cut into several.
pub const LOG_LINE_BYTES_MAX: usize = 256;

/// Why a key-value operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValueError {
    /// No room left, on the device or within this application's share.
    NoSpace,
    /// Storage failed.
    Storage,
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyValueError::NoSpace => "no space left for key-value data",
            KeyValueError::Storage => "key-value storage failed",
        })
    }
}

/// The late answer to a host call that [`Host`] left pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion<'a> {
    /// Of `key_value_get`: the value, or that there is none.
    Value(Option<&'a [u8]>),
    /// Of `key_value_put`.
    Stored,
    /// Of `key_value_delete`: whether the key was there.
    Deleted(bool),
    /// Of any of them.
    Failed(KeyValueError),
    /// Of `i2c_transfer` and `spi_transfer`: the bytes of all operations, one after the other.
    Transferred(Result<&'a [u8], bus::Error>),
    /// Of `uart_read`: the bytes that came.
    Received(Result<&'a [u8], uart::Error>),
    /// Of `uart_write`: how many bytes went.
    Sent(Result<usize, uart::Error>),
}

/// An answer that may come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Here it is.
    Ready(T),
    /// The application sleeps until [`Runtime::complete`](crate::Runtime::complete) is called for it.
    Pending,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is kept until it arrived, as long as the device runs.
    Taken,
    /// There is no room for it now, or the topic's rate is used up.
    NotNow,
    /// The application may not publish to that topic.
    UnknownTopic,
}

/// Why a pin or a sensor did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeripheralError {
    /// This device has no such pin or sensor, or not for this use.
    NotFound,
    /// It is there and did not work.
    Failed,
    /// The application was granted other pins, or not this pin's edges.
    Denied,
}

/// Edges of a pin that an application watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// From low to high.
    pub rising: bool,
    /// From high to low.
    pub falling: bool,
}

/// The pins, sensors and buses of a board. The defaults say that there are none.
pub trait Peripherals {
    /// The level of a pin.
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        let _ = pin;
        Err(PeripheralError::NotFound)
    }

    /// Sets the level of a pin.
    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        let _ = (pin, level);
        Err(PeripheralError::NotFound)
    }

    /// A measurement in thousandths of the sensor's unit (m°C, mV, ...).
    fn sensor_read(&mut self, sensor: u32) -> Result<i32, PeripheralError> {
        let _ = sensor;
        Err(PeripheralError::NotFound)
    }

    /// The controller of an I2C bus: `i2c0` is bus 0. Only buses that the device names in its facts are asked for.
    fn i2c(&mut self, bus: u8) -> Option<&mut dyn bus::Controller> {
        let _ = bus;
        None
    }

    /// The controller of an SPI bus: `spi0.1` is on bus 0. Only buses that the device names in its facts are asked for.
    fn spi(&mut self, bus: u8) -> Option<&mut dyn bus::Controller> {
        let _ = bus;
        None
    }

    /// A UART: `uart0` is port 0. Only UARTs that the device names in its facts are asked for.
    fn uart(&mut self, port: u8) -> Option<&mut dyn uart::Port> {
        let _ = port;
        None
    }
}

/// A board without pins and sensors.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeripherals;

impl Peripherals for NoPeripherals {}

/// The device, as the sandbox sees it. Every call must return within a millisecond or so: it runs inside a slice.
pub trait Host {
    /// Microseconds of a monotonic clock.
    fn now_us(&mut self) -> u64;

    /// Milliseconds since 1970 in UTC, once the device knows them.
    fn unix_ms(&mut self) -> Option<u64>;

    /// Fills `bytes` from a cryptographic random source.
    fn random(&mut self, bytes: &mut [u8]);

    /// One line of an application's log, at most [`LOG_LINE_BYTES_MAX`] bytes and without its line feed; not necessarily
    /// UTF-8. `lines_lost` were dropped before this one because the application wrote faster than it may.
    fn log(&mut self, application: AppId, text: &[u8], lines_lost: u32);

    /// Copies the value of a key to the start of `value` and answers its length, or `None` when there is no such key.
    /// `value` holds [`VALUE_BYTES_MAX`].
    fn key_value_get(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>>;

    /// Stores a value; once answered with `Ok`, it must survive a loss of power.
    fn key_value_put(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &[u8],
    ) -> Answer<Result<(), KeyValueError>>;

    /// Removes a key and answers whether it was there.
    fn key_value_delete(&mut self, application: AppId, key: &[u8]) -> Answer<Result<bool, KeyValueError>>;

    /// Takes a message of at most [`PAYLOAD_BYTES_MAX`]. With `drop_oldest` older messages of the application make room.
    fn publish(&mut self, application: AppId, topic: &[u8], payload: &[u8], drop_oldest: bool) -> Published;

    /// Copies the oldest message that came in for the application to the start of `message`, which holds
    /// [`RECEIVED_BYTES_MAX`], and answers its length, or `None` when there is none. It goes if it has at most `room` bytes.
    fn receive(&mut self, application: AppId, message: &mut [u8], room: usize) -> Option<usize> {
        let _ = (application, message, room);
        None
    }

    /// Whether there is a message that came in for the application.
    fn has_message(&mut self, application: AppId) -> bool {
        let _ = application;
        false
    }

    /// Copies the value of a setting to the start of `value`, which holds [`SETTING_VALUE_BYTES_MAX`], and answers its length, or
    /// `None` when the application's module does not declare it.
    fn setting(&mut self, application: AppId, name: &[u8], value: &mut [u8]) -> Option<usize> {
        let _ = (application, name, value);
        None
    }

    /// Whether a setting of the application changed since it last asked for one.
    fn has_changed_setting(&mut self, application: AppId) -> bool {
        let _ = application;
        false
    }

    /// Takes a transfer for the bus of this number among those of its target's kind, if the application may make it. Of an SPI
    /// target only the chip select counts. The answer is a [`Completion::Transferred`].
    fn transfer(&mut self, application: AppId, bus: u32, transfer: bus::Transfer) -> Result<(), bus::Error> {
        let _ = (application, bus, transfer);
        Err(bus::Error::NoBus)
    }

    /// Waits, until `until_us` at the latest, for at least one byte from a UART, and takes `room` of them at most. The answer is a
    /// [`Completion::Received`].
    fn uart_read(
        &mut self,
        application: AppId,
        port: u32,
        room: usize,
        until_us: u64,
    ) -> Result<(), uart::Error> {
        let _ = (application, port, room, until_us);
        Err(uart::Error::NoPort)
    }

    /// Gives bytes to a UART until all have been taken, or it is `until_us`; without any it waits until those taken before are out.
    /// The answer is a [`Completion::Sent`].
    fn uart_write(
        &mut self,
        application: AppId,
        port: u32,
        bytes: &[u8],
        until_us: u64,
    ) -> Result<(), uart::Error> {
        let _ = (application, port, bytes, until_us);
        Err(uart::Error::NoPort)
    }

    /// The level of a pin.
    fn gpio_read(&mut self, application: AppId, pin: u32) -> Result<bool, PeripheralError> {
        let _ = application;
        self.peripherals().gpio_read(pin)
    }

    /// Sets the level of a pin.
    fn gpio_write(&mut self, application: AppId, pin: u32, level: bool) -> Result<(), PeripheralError> {
        let _ = application;
        self.peripherals().gpio_write(pin, level)
    }

    /// Counts these edges of a pin from now on, and none of before.
    fn gpio_watch(&mut self, application: AppId, pin: u32, edges: Edges) -> Result<(), PeripheralError> {
        let _ = (application, pin, edges);
        Err(PeripheralError::Denied)
    }

    /// How many edges of a pin there were since the last call.
    fn gpio_edges(&mut self, application: AppId, pin: u32) -> Result<u32, PeripheralError> {
        let _ = (application, pin);
        Err(PeripheralError::Denied)
    }

    /// Whether edges that were not asked for yet end a wait that begins now; it counts as one that they ended.
    fn take_wake(&mut self, application: AppId) -> bool {
        let _ = application;
        false
    }

    /// The board's pins and sensors.
    fn peripherals(&mut self) -> &mut dyn Peripherals;
}
