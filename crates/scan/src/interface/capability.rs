//! What an application may be allowed beyond the baseline.

use core::fmt;

/// A permission that the manifest has to name; every one is denied unless it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Read and set pins.
    Gpio,
    /// Read sensors.
    Sensor,
    /// Keep data on the device that outlives a restart.
    KeyValue,
    /// Reach devices on I2C buses.
    I2c,
    /// Talk to chips on SPI buses.
    Spi,
    /// Publish messages.
    Messages,
    /// Send and receive through UARTs.
    Uart,
}

impl Capability {
    /// Every capability, in the order of the documentation.
    pub const ALL: [Capability; 7] = [
        Capability::Gpio,
        Capability::Sensor,
        Capability::KeyValue,
        Capability::I2c,
        Capability::Spi,
        Capability::Uart,
        Capability::Messages,
    ];

    /// The name used in manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Gpio => "gpio",
            Capability::Sensor => "sensor",
            Capability::KeyValue => "key-value",
            Capability::I2c => "i2c",
            Capability::Spi => "spi",
            Capability::Messages => "messages",
            Capability::Uart => "uart",
        }
    }

    /// The capability with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Capability> {
        Capability::ALL.into_iter().find(|capability| capability.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Capability::Gpio => 1,
            Capability::Sensor => 2,
            Capability::KeyValue => 4,
            Capability::I2c => 8,
            Capability::Messages => 16,
            Capability::Uart => 32,
            Capability::Spi => 64,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities; the default is the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    /// No capability: the baseline of log, arguments, environment, clock, random and wait.
    pub const NONE: Capabilities = Capabilities(0);
    /// Every capability.
    pub const ALL: Capabilities = Capabilities(127);

    /// This set with one more capability.
    #[must_use]
    pub fn with(self, capability: Capability) -> Capabilities {
        Capabilities(self.0 | capability.bit())
    }

    /// Whether the capability is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// The capabilities in the set.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.contains(*capability))
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<T: IntoIterator<Item = Capability>>(iter: T) -> Self {
        iter.into_iter().fold(Capabilities::NONE, Capabilities::with)
    }
}
