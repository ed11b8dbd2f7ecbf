//! What an Application is granted of a device's buses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{GPIO_NAME_PATTERN, I2C_NAME_PATTERN, SPI_NAME_PATTERN, UART_NAME_PATTERN};

/// Buses, chips, UARTs and pins by name, each with what of it is granted. A device names those that it has in `status.facts.peripherals`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeripheralGrants {
    /// I2C buses; they need the capability `i2c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = PERIPHERALS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub i2c: Vec<I2cGrant>,
    /// UARTs; they need the capability `uart`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = PERIPHERALS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub uart: Vec<UartGrant>,
    /// Chips on SPI buses; they need the capability `spi`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = PERIPHERALS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub spi: Vec<SpiGrant>,
    /// Pins; they need the capability `gpio`. An application that names pins may use these alone, and may watch their edges; one
    /// that names none may use all pins, and watch none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = PERIPHERALS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gpio: Vec<GpioGrant>,
}

impl PeripheralGrants {
    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.i2c.is_empty() && self.uart.is_empty() && self.spi.is_empty() && self.gpio.is_empty()
    }
}

/// Entries of each list of `peripherals`.
const PERIPHERALS_MAX: u64 = 10;

/// A share of an I2C bus. Its clock is the device's own business, since others use it too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct I2cGrant {
    /// Of the bus: `i2c0`.
    #[schemars(length(min = 4, max = 4), regex(pattern = I2C_NAME_PATTERN))]
    pub name: String,
    /// 7-bit addresses of the devices that it may talk to, 8 (0x08) to 119 (0x77).
    #[schemars(length(min = 1, max = 16), inner(range(min = 8, max = 119)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<i32>,
    /// Bytes on the bus at most, addresses among them; those of one second at once. What is beyond waits.
    #[serde(default = "bytes_per_second_default")]
    #[schemars(range(min = 1, max = 100_000))]
    pub bytes_per_second: i32,
}

impl Default for I2cGrant {
    fn default() -> Self {
        Self { name: String::new(), addresses: Vec::new(), bytes_per_second: bytes_per_second_default() }
    }
}

/// A UART, with eight data bits, no parity and one stop bit. On a device one application at a time has it: the first that uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UartGrant {
    /// Of the UART: `uart0`.
    #[schemars(length(min = 5, max = 5), regex(pattern = UART_NAME_PATTERN))]
    pub name: String,
    /// Bits per second.
    #[serde(default = "baud_default")]
    #[schemars(range(min = 300, max = 1_000_000))]
    pub baud: i32,
    /// Bytes that it may send and receive at most, both together; those of one second at once. What is beyond waits, and what
    /// comes meanwhile may be lost.
    #[serde(default = "bytes_per_second_default")]
    #[schemars(range(min = 1, max = 100_000))]
    pub bytes_per_second: i32,
}

impl Default for UartGrant {
    fn default() -> Self {
        Self { name: String::new(), baud: baud_default(), bytes_per_second: bytes_per_second_default() }
    }
}

/// A chip on an SPI bus, and how it is talked to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpiGrant {
    /// Of the chip select: `spi0.1` is the second one of the first bus.
    #[schemars(length(min = 6, max = 6), regex(pattern = SPI_NAME_PATTERN))]
    pub name: String,
    /// The clock's polarity times two, and its phase.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3))]
    pub mode: i32,
    /// The clock at most, thousands each second. A device that has none as fast takes a slower one.
    #[serde(default = "clock_khz_default")]
    #[schemars(range(min = 10, max = 50_000))]
    pub clock_khz: i32,
    /// Bytes on the bus at most, with one for each selection of the chip. What a second allows may be had at once.
    #[serde(default = "bytes_per_second_default")]
    #[schemars(range(min = 1, max = 100_000))]
    pub bytes_per_second: i32,
}

impl Default for SpiGrant {
    fn default() -> Self {
        Self {
            name: String::new(),
            mode: 0,
            clock_khz: clock_khz_default(),
            bytes_per_second: bytes_per_second_default(),
        }
    }
}

fn clock_khz_default() -> i32 {
    1_000
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpioGrant {
    /// Of the pin: `gpio2`.
    #[schemars(length(min = 5, max = 8), regex(pattern = GPIO_NAME_PATTERN))]
    pub name: String,
    /// How often each second its edges may end a wait, all of which may come at once. The edges between are counted.
    #[serde(default = "edges_per_second_default")]
    #[schemars(range(min = 1, max = 1_000))]
    pub edges_per_second: i32,
}

impl Default for GpioGrant {
    fn default() -> Self {
        Self { name: String::new(), edges_per_second: edges_per_second_default() }
    }
}

fn edges_per_second_default() -> i32 {
    10
}

fn baud_default() -> i32 {
    9_600
}

fn bytes_per_second_default() -> i32 {
    1_000
}
