//! What a file of `boards/` says.

use crate::Geometry;

/// A board.
#[derive(Debug)]
pub struct Board {
    /// The name, as on the command line, in identities and in statuses.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// What it was seen to do.
    pub status: &'static str,
    /// How that is known.
    pub verified: &'static str,
    /// What its processor executes: the compiler's target.
    pub target: &'static str,
    /// Ranges of addresses: `flash` for code, `ram` for stack and statics, then any others.
    pub memories: &'static [Region],
    /// Bytes of the stack, at the bottom of `ram` above the guard of [`crate::GUARD_BYTES`].
    pub stack_bytes: u32,
    /// The system's heap.
    pub heap: Share,
    /// The memory of all applications together.
    pub arena: Share,
    /// Where the processor reads the data flash.
    pub data_flash_start: u32,
    /// How the data flash is divided.
    pub geometry: Geometry,
    /// What the firmware's image may take.
    pub budget: Budget,
    /// Pins that applications may use.
    pub pins: &'static [Pins],
    /// The names of all of them, in the order of their bytes: `gpio2`.
    pub pin_names: &'static [&'static str],
    /// I2C buses that applications may use, by number.
    pub i2c: &'static [Bus],
    /// Chip selects of SPI buses that applications may use, by the numbers of the bus and their own.
    pub spi: &'static [Chip],
    /// UARTs that applications may use, by number.
    pub uart: &'static [Uart],
    /// Capabilities that the board grants in addition to `key-value`, which every board has.
    pub capabilities: &'static [&'static str],
    /// How QEMU is told to be the board, if it can be.
    pub emulation: Option<Emulation>,
}

impl Board {
    /// The memory that holds the code.
    #[must_use]
    pub const fn code(&self) -> Region {
        self.memories[0]
    }

    /// The memory that holds the stack and the statics.
    #[must_use]
    pub const fn ram(&self) -> Region {
        self.memories[1]
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: &'static str,
    /// First address.
    pub start: u32,
    /// Its length.
    pub bytes: u32,
}

/// A part of one of the memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The memory's name.
    pub memory: &'static str,
    /// How much of it.
    pub bytes: u32,
}

/// What a firmware image may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Code and constants.
    pub flash_bytes: u64,
    /// Statics, without the stack.
    pub ram_bytes: u64,
}

/// Pins of one sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pins {
    /// Their numbers.
    pub numbers: &'static [u32],
    /// What they are.
    pub what: &'static str,
    /// Whether they can be written; all can be read.
    pub is_output: bool,
}

/// A bus, which applications are granted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bus {
    /// Its kind and its number: `i2c0`.
    pub name: &'static str,
    /// Its number.
    pub number: u8,
    /// What it is.
    pub what: &'static str,
    /// Clocks per second at most.
    pub clock_hz: u32,
}

/// A chip select of an SPI bus, which applications are granted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// The kind, the number of the bus, and its own: `spi0.1`.
    pub name: &'static str,
    /// The number of the bus.
    pub bus: u8,
    /// Where it is.
    pub what: &'static str,
    /// Clocks per second at most.
    pub clock_hz: u32,
}

/// A UART, which applications are granted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Its kind and its number: `uart0`.
    pub name: &'static str,
    /// Its number.
    pub number: u8,
    /// Where it is.
    pub what: &'static str,
}

/// How QEMU is told to be a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Its program.
    pub program: &'static str,
    /// Debian's package of it.
    pub package: &'static str,
    /// What stands for `{code}`.
    pub code: Code,
    /// Arguments; `{code}` and `{data}` stand for files, `{memory}` for bytes, `{network}` for a name.
    pub arguments: &'static [&'static str],
    /// End-to-end test programs that a test run repeats with the board, if not all.
    pub gate: Option<&'static [&'static str]>,
}

impl Emulation {
    /// Whether the board's memory can have another size.
    #[must_use]
    pub fn takes_memory(&self) -> bool {
        self.arguments.iter().any(|argument| argument.contains("{memory}"))
    }
}

/// How QEMU is given the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// As an ELF file.
    Elf,
    /// As an image of the memory `flash`.
    FlashImage,
}
