//! A board's file: its keys, and what must hold between their values.

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::Deserialize;

/// Below the stack: what the memory protection of the processors guards.
pub(crate) const GUARD_KIB: u32 = 4;
/// The name of the memory that holds the code.
pub(crate) const FLASH: &str = "flash";
/// The name of the memory that holds the stack and the statics.
pub(crate) const RAM: &str = "ram";
/// Sections that linker scripts have beside those of the further memories.
const SECTIONS: [&str; 8] = ["arena", "bss", "data", "heap", "init", "rodata", "text", "uninit"];
/// What stands for something else in QEMU's arguments.
const PLACEHOLDERS: [&str; 4] = ["{code}", "{data}", "{memory}", "{network}"];
/// The device protocol's bound for a board's name.
const NAME_BYTES_MAX: usize = 64;
/// Pins have numbers below this.
const PINS_MAX: u32 = 1_024;

/// What a device may name together, in the protocol.
const PERIPHERALS_MAX: usize = 16;
/// Buses of one kind; below ten, so that their names are in the order of their numbers.
const BUSES_MAX: usize = 10;
/// I2C's fast mode.
const I2C_KHZ_MAX: u32 = 400;
/// What can be granted of an SPI bus, in the protocol.
const SPI_KHZ: std::ops::RangeInclusive<u32> = 10..=50_000;
/// Chip selects of a bus; below ten as well.
const CHIP_SELECTS_MAX: u8 = 8;

/// A file of `boards/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// The file's name without its extension.
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) status: String,
    pub(crate) verified: String,
    pub(crate) target: String,
    pub(crate) memory: BTreeMap<String, Region>,
    pub(crate) stack: Stack,
    pub(crate) heap: Share,
    pub(crate) arena: Share,
    pub(crate) data_flash: DataFlash,
    pub(crate) budget: Budget,
    #[serde(default)]
    pub(crate) pins: Vec<Pins>,
    #[serde(default)]
    pub(crate) i2c: Vec<Bus>,
    #[serde(default)]
    pub(crate) spi: Vec<Spi>,
    #[serde(default)]
    pub(crate) uart: Vec<Uart>,
    pub(crate) qemu: Option<Qemu>,
}

/// A range of addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Region {
    pub(crate) start: u32,
    pub(crate) kib: u32,
}

/// The stack, at the bottom of `memory.ram` above its guard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stack {
    pub(crate) kib: u32,
}

/// A part of one of the memories.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    pub(crate) kib: u32,
    #[serde(default = "ram")]
    pub(crate) memory: String,
}

fn ram() -> String {
    RAM.to_owned()
}

/// The data flash, where the processor reads it, and how it is divided.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataFlash {
    pub(crate) start: u32,
    pub(crate) kib: u32,
    pub(crate) erase_kib: u32,
    pub(crate) identity_blocks: u32,
    pub(crate) segment_blocks: u32,
    pub(crate) segments: u32,
    pub(crate) module_blocks: u32,
    pub(crate) module_kib_max: u32,
}

/// What the image may take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) flash_kib: u32,
    pub(crate) ram_kib: u32,
}

/// Pins of one sort.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    pub(crate) pins: Vec<u32>,
    pub(crate) what: String,
    #[serde(default)]
    pub(crate) output: bool,
}

/// A bus that applications may use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bus {
    pub(crate) number: u8,
    pub(crate) what: String,
    pub(crate) clock_khz: u32,
}

/// An SPI bus whose chip selects applications may use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spi {
    pub(crate) number: u8,
    pub(crate) what: String,
    pub(crate) chip_selects: u8,
    pub(crate) clock_khz: u32,
}

/// A UART that applications may use; the console is none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uart {
    pub(crate) number: u8,
    pub(crate) what: String,
}

/// How QEMU is told to be the board.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Qemu {
    pub(crate) program: String,
    pub(crate) package: String,
    pub(crate) code: Code,
    pub(crate) arguments: Vec<String>,
    /// End-to-end test programs that a test run repeats with the board; without the key all that can be.
    pub(crate) gate: Option<Vec<String>>,
}

/// What `{code}` is.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Code {
    /// The ELF file.
    #[serde(rename = "elf")]
    Elf,
    /// An image as long as `memory.flash`.
    #[serde(rename = "flash image")]
    FlashImage,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) struct Invalid {
    file: String,
    key: String,
    problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.file, self.key, self.problem)
    }
}

impl std::error::Error for Invalid {}

/// Reads a file's text and checks it.
///
/// # Errors
/// The file and the key, and what is wrong.
pub(crate) fn read(name: &str, text: &str) -> Result<Definition, Invalid> {
    let file = format!("boards/{name}.toml");
    let parsed: Result<Definition, _> = toml::from_str(text);
    let mut definition = match parsed {
        Ok(definition) => definition,
        Err(error) => {
            return Err(Invalid {
                file,
                key: String::new(),
                problem: error.to_string().trim_end().to_owned(),
            });
        }
    };
    definition.name = name.to_owned();
    match check(&definition) {
        Ok(()) => Ok(definition),
        Err((key, problem)) => Err(Invalid { file, key: format!("{key}: "), problem }),
    }
}

/// A key, and what is wrong with its value.
type Problem = (String, String);

fn ensure(holds: bool, key: &str, problem: impl FnOnce() -> String) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err((key.to_owned(), problem())) }
}

fn check(board: &Definition) -> Result<(), Problem> {
    ensure(is_name(&board.name) && board.name.len() <= NAME_BYTES_MAX, "the file's name", || {
        format!("{:?} is not lower-case letters, digits and dashes, {NAME_BYTES_MAX} at most", board.name)
    })?;
    for (key, text) in [
        ("description", &board.description),
        ("status", &board.status),
        ("verified", &board.verified),
        ("target", &board.target),
    ] {
        // They stand in tables.
        ensure(!text.is_empty() && !text.contains(['|', '\n']), key, || {
            "is empty, or has `|` or a new line".into()
        })?;
    }
    check_memory(board)?;
    check_shares(board)?;
    check_data_flash(&board.data_flash)?;
    check_budget(board)?;
    check_pins(&board.pins)?;
    let chip_selects: usize = board.spi.iter().map(|bus| usize::from(bus.chip_selects)).sum();
    let pins: usize = board.pins.iter().map(|pins| pins.pins.len()).sum();
    let named = pins + board.i2c.len() + chip_selects + board.uart.len();
    ensure(named <= PERIPHERALS_MAX, "pins", || {
        format!(
            "pins, buses, chip selects and UARTs together are {named}, more than the {PERIPHERALS_MAX} that a device may name"
        )
    })?;
    check_buses(&board.i2c)?;
    check_spi(&board.spi)?;
    check_numbers("uart", board.uart.iter().map(|uart| (uart.number, uart.what.as_str())))?;
    board.qemu.as_ref().map_or(Ok(()), |qemu| check_qemu(board, qemu))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn range(start: u32, kib: u32) -> Range<u64> {
    u64::from(start)..u64::from(start) + u64::from(kib) * 1_024
}

/// All memories and the data flash are within the address space, and none overlaps another.
fn check_memory(board: &Definition) -> Result<(), Problem> {
    for name in [FLASH, RAM] {
        ensure(board.memory.contains_key(name), "memory", || format!("has no `{name}`"))?;
    }
    let mut ranges = Vec::new();
    for (name, region) in &board.memory {
        let key = format!("memory.{name}");
        ensure(is_name(name) && !name.contains('-'), &key, || "is not lower-case letters and digits".into())?;
        ensure(!SECTIONS.contains(&name.as_str()), &key, || "is the name of a section".into())?;
        ranges.push((key, range(region.start, region.kib)));
    }
    ranges.push(("data_flash".to_owned(), range(board.data_flash.start, board.data_flash.kib)));
    for (index, (key, range)) in ranges.iter().enumerate() {
        ensure(!range.is_empty(), key, || "kib is 0".into())?;
        ensure(range.end <= 1 << 32, key, || format!("it ends at {:#x}, beyond 32 bits", range.end))?;
        for (other, taken) in &ranges[..index] {
            let apart = range.end <= taken.start || taken.end <= range.start;
            ensure(apart, key, || {
                format!(
                    "{:#x}..{:#x} overlaps {other}, {:#x}..{:#x}",
                    range.start, range.end, taken.start, taken.end
                )
            })?;
        }
    }
    Ok(())
}

/// Stack with guard, heap and arena fit the memories that they are in.
fn check_shares(board: &Definition) -> Result<(), Problem> {
    let mut taken = BTreeMap::from([(RAM, u64::from(board.stack.kib) + u64::from(GUARD_KIB))]);
    ensure(board.stack.kib > 0 && board.stack.kib.is_multiple_of(GUARD_KIB), "stack.kib", || {
        format!("{} is not a multiple of the guard's {GUARD_KIB}", board.stack.kib)
    })?;
    let guard_bytes = GUARD_KIB * 1_024;
    let start = board.memory.get(RAM).map_or(0, |region| region.start);
    ensure(start.is_multiple_of(guard_bytes), "memory.ram.start", || {
        format!("{start:#x} is not a multiple of the guard's {guard_bytes:#x}")
    })?;
    for (key, share) in [("heap", &board.heap), ("arena", &board.arena)] {
        ensure(share.kib > 0, &format!("{key}.kib"), || "is 0".into())?;
        let name = share.memory.as_str();
        let known = board.memory.contains_key(name) && name != FLASH;
        ensure(known, &format!("{key}.memory"), || format!("{name:?} is no RAM of [memory]"))?;
        *taken.entry(name).or_default() += u64::from(share.kib);
    }
    for (name, kib) in taken {
        let size = board.memory.get(name).map_or(0, |region| region.kib);
        ensure(kib <= size.into(), &format!("memory.{name}.kib"), || {
            format!("stack with guard, heap and arena take {kib} of {size} there")
        })?;
    }
    Ok(())
}

/// The layout fits the flash, and the largest module its part of it.
fn check_data_flash(flash: &DataFlash) -> Result<(), Problem> {
    let at_least = [
        ("erase_kib", flash.erase_kib, 1),
        ("identity_blocks", flash.identity_blocks, 1),
        ("segment_blocks", flash.segment_blocks, 1),
        ("segments", flash.segments, 2),
        ("module_blocks", flash.module_blocks, 1),
        ("module_kib_max", flash.module_kib_max, 1),
    ];
    for (key, value, least) in at_least {
        ensure(value >= least, &format!("data_flash.{key}"), || format!("{value} is below {least}"))?;
    }
    let erase_kib = u64::from(flash.erase_kib);
    let blocks = u64::from(flash.identity_blocks)
        + u64::from(flash.segment_blocks) * u64::from(flash.segments)
        + u64::from(flash.module_blocks);
    // Both factors have 34 bits at most.
    let needed = u128::from(blocks) * u128::from(erase_kib);
    ensure(needed <= flash.kib.into(), "data_flash.kib", || {
        format!(
            "identity, segments and modules take {blocks} blocks of {erase_kib} KiB, {needed} of {} KiB",
            flash.kib
        )
    })?;
    let modules = u64::from(flash.module_blocks) * erase_kib;
    ensure(u64::from(flash.module_kib_max) <= modules, "data_flash.module_kib_max", || {
        format!("{} is more than the {modules} KiB for modules", flash.module_kib_max)
    })
}

fn check_budget(board: &Definition) -> Result<(), Problem> {
    let flash = board.memory.get(FLASH).map_or(0, |region| region.kib);
    ensure((1..=flash).contains(&board.budget.flash_kib), "budget.flash_kib", || {
        format!("{} is not within 1..={flash}, the size of memory.flash", board.budget.flash_kib)
    })?;
    let memories = board.memory.iter().filter(|(name, _)| *name != FLASH);
    let memories: u64 = memories.map(|(_, region)| u64::from(region.kib)).sum();
    let most = memories - u64::from(board.stack.kib) - u64::from(GUARD_KIB);
    ensure((1..=most).contains(&board.budget.ram_kib.into()), "budget.ram_kib", || {
        format!("{} is not within 1..={most}, what all memories have beside the stack", board.budget.ram_kib)
    })
}

fn check_pins(all: &[Pins]) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeSet::new();
    for pins in all {
        ensure(!pins.what.is_empty() && !pins.what.contains(['|', '\n']), "pins.what", || {
            "is empty, or has `|` or a new line".into()
        })?;
        ensure(!pins.pins.is_empty(), "pins.pins", || format!("{:?} has none", pins.what))?;
        for pin in &pins.pins {
            ensure(*pin < PINS_MAX, "pins.pins", || format!("{pin} is not below {PINS_MAX}"))?;
            ensure(seen.insert(*pin), "pins.pins", || format!("{pin} is there twice"))?;
        }
    }
    Ok(())
}

fn check_buses(buses: &[Bus]) -> Result<(), Problem> {
    check_numbers("i2c", buses.iter().map(|bus| (bus.number, bus.what.as_str())))?;
    for bus in buses {
        ensure((1..=I2C_KHZ_MAX).contains(&bus.clock_khz), "i2c.clock_khz", || {
            format!("{} is not within 1..={I2C_KHZ_MAX}", bus.clock_khz)
        })?;
    }
    Ok(())
}

fn check_spi(buses: &[Spi]) -> Result<(), Problem> {
    check_numbers("spi", buses.iter().map(|bus| (bus.number, bus.what.as_str())))?;
    for bus in buses {
        ensure((1..=CHIP_SELECTS_MAX).contains(&bus.chip_selects), "spi.chip_selects", || {
            format!("{} is not within 1..={CHIP_SELECTS_MAX}", bus.chip_selects)
        })?;
        ensure(SPI_KHZ.contains(&bus.clock_khz), "spi.clock_khz", || {
            format!("{} is not within {SPI_KHZ:?}", bus.clock_khz)
        })?;
    }
    Ok(())
}

/// Their numbers are those that applications name, so each is there once, in its order.
fn check_numbers<'a>(kind: &str, all: impl Iterator<Item = (u8, &'a str)>) -> Result<(), Problem> {
    for (index, (number, what)) in all.enumerate() {
        let key = |field: &str| format!("{kind}.{field}");
        ensure(index < BUSES_MAX, &key("number"), || format!("there are more than {BUSES_MAX}"))?;
        ensure(usize::from(number) == index, &key("number"), || {
            format!("{number} stands where {index} belongs")
        })?;
        ensure(!what.is_empty() && !what.contains(['|', '\n']), &key("what"), || {
            "is empty, or has `|` or a new line".into()
        })?;
    }
    Ok(())
}

fn check_qemu(board: &Definition, qemu: &Qemu) -> Result<(), Problem> {
    for (key, text) in [("qemu.program", &qemu.program), ("qemu.package", &qemu.package)] {
        let is_one = is_name(text) && text.starts_with("qemu-system-");
        ensure(is_one, key, || format!("{text:?} does not begin with qemu-system-"))?;
    }
    for argument in &qemu.arguments {
        let mut rest = argument.as_str();
        while let Some((_, from)) = rest.split_once('{') {
            let end = from.find('}').map_or(from.len(), |end| end + 1);
            let placeholder = format!("{{{}", &from[..end]);
            ensure(PLACEHOLDERS.contains(&placeholder.as_str()), "qemu.arguments", || {
                format!("{placeholder} in {argument:?} is none of {}", PLACEHOLDERS.join(", "))
            })?;
            rest = &from[end..];
        }
    }
    for placeholder in ["{code}", "{data}", "{network}"] {
        ensure(
            qemu.arguments.iter().any(|argument| argument.contains(placeholder)),
            "qemu.arguments",
            || format!("{placeholder} is in none of them"),
        )?;
    }
    ensure(qemu.gate.as_ref().is_none_or(|programs| !programs.is_empty()), "qemu.gate", || {
        format!("is empty: no test would run on {}", board.name)
    })
}
