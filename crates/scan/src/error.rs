//! Why a module is refused: a message for people, a code for programs.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::features::Features;
use crate::interface::{Signature, ValueType};

/// The kind of a refusal, for programs; the message of the error is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a module, or a damaged one.
    InvalidModule,
    /// More bytes than accepted.
    ModuleTooLarge,
    /// A count or depth above its bound.
    TooComplex,
    /// Operators or sections that the engine does not run.
    UnsupportedFeature,
    /// An import that the device lacks, or has with another type.
    UnknownImport,
    /// No usable entry, or one that may not be.
    InvalidEntry,
    /// An import whose capability is not granted.
    CapabilityDenied,
    /// More linear memory at the start than the application's limit.
    MemoryLimit,
    /// Not enough arena left on the device.
    OutOfMemory,
    /// The device already runs as many applications as it can.
    TooManyApplications,
    /// Arguments or environment above their bounds, or an application loaded twice.
    InvalidProgram,
}

/// What a scan counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Count {
    Types,
    Parameters,
    Imports,
    Functions,
    Globals,
    Exports,
    Tables,
    TableElements,
    ElementSegments,
    SegmentElements,
    DataSegments,
    ConstantOperators,
    ConstantOperands,
}

impl Count {
    fn noun(self) -> &'static str {
        match self {
            Count::Types => "types",
            Count::Parameters => "parameters in one type",
            Count::Imports => "imports",
            Count::Functions => "functions",
            Count::Globals => "globals",
            Count::Exports => "exports",
            Count::Tables => "tables",
            Count::TableElements => "table elements",
            Count::ElementSegments => "element segments",
            Count::SegmentElements => "elements in segments",
            Count::DataSegments => "data segments",
            Count::ConstantOperators => "operators in a constant expression",
            Count::ConstantOperands => "values on the stack of a constant expression",
        }
    }
}

/// An import whose type is not the one offered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportType {
    /// Import module.
    pub module: String,
    /// Name within it.
    pub name: String,
    /// Parameters and results that the module asks for.
    pub found: (Vec<ValueType>, Vec<ValueType>),
    /// Parameters and results that are offered.
    pub expected: (&'static [ValueType], &'static [ValueType]),
}

impl fmt::Display for ImportType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "import '{}.{}' has type {}, here it is {}",
            Short(&self.module),
            Short(&self.name),
            Signature(&self.found.0, &self.found.1),
            Signature(self.expected.0, self.expected.1)
        )
    }
}

/// Why a scan refuses a module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means; fields are what the message names"
)]
pub enum ScanError {
    NotWebAssembly,
    Component,
    Version(u32),
    TooLarge { bytes: u64, limit: u32 },
    Malformed { offset: u32, what: &'static str },
    TooMany { what: Count, count: u32, limit: u32 },
    ExportName { bytes: u32, limit: u32 },
    NameTooLong { bytes: u32, limit: u32 },
    TooManyLocals { function: u32, count: u64, limit: u32 },
    TooManyLocalGroups { function: u32, count: u32, limit: u32 },
    NestedTooDeep { function: u32, limit: u32 },
    OperandsTooDeep { function: u32, limit: u32 },
    TooManyTargets { function: u32, count: u32, limit: u32 },
    CarriesTooMuch { function: u32, limit: u32 },
    Unsupported { feature: Features, function: Option<u32> },
    UnknownOperator { function: u32, operator: u8 },
    UnknownImport { module: String, name: String },
    ImportKind { module: String, name: String, kind: &'static str },
    ImportType(Box<ImportType>),
    ImportReference { module: String, name: String },
    NoMemory,
    NoEntry,
    EntryNotFunction { entry: &'static str },
    EntryImported { entry: &'static str },
    EntryType { entry: &'static str, found: (Vec<ValueType>, Vec<ValueType>) },
    EntryReference { entry: &'static str },
}

impl ScanError {
    /// The kind of this refusal.
    pub fn code(&self) -> Refusal {
        match self {
            ScanError::NotWebAssembly
            | ScanError::Component
            | ScanError::Version(_)
            | ScanError::Malformed { .. }
            | ScanError::UnknownOperator { .. } => Refusal::InvalidModule,
            ScanError::TooLarge { .. } => Refusal::ModuleTooLarge,
            ScanError::NoMemory => Refusal::OutOfMemory,
            ScanError::TooMany { .. }
            | ScanError::ExportName { .. }
            | ScanError::NameTooLong { .. }
            | ScanError::TooManyLocals { .. }
            | ScanError::TooManyLocalGroups { .. }
            | ScanError::NestedTooDeep { .. }
            | ScanError::OperandsTooDeep { .. }
            | ScanError::TooManyTargets { .. }
            | ScanError::CarriesTooMuch { .. } => Refusal::TooComplex,
            ScanError::Unsupported { .. } => Refusal::UnsupportedFeature,
            ScanError::UnknownImport { .. }
            | ScanError::ImportKind { .. }
            | ScanError::ImportType { .. }
            | ScanError::ImportReference { .. } => Refusal::UnknownImport,
            ScanError::NoEntry
            | ScanError::EntryNotFunction { .. }
            | ScanError::EntryImported { .. }
            | ScanError::EntryType { .. }
            | ScanError::EntryReference { .. } => Refusal::InvalidEntry,
        }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::NotWebAssembly => {
                f.write_str("not a WebAssembly module: it does not begin with \\0asm")
            }
            ScanError::Component => {
                f.write_str("a WebAssembly component; compile to a core module (wasm32-wasip1)")
            }
            ScanError::Version(version) => {
                write!(f, "WebAssembly version {version}, only version 1 runs here")
            }
            ScanError::TooLarge { bytes, limit } => {
                write!(f, "module has {bytes} bytes, at most {limit} are accepted")
            }
            ScanError::Malformed { offset, what } => write!(f, "damaged module: {what} at byte {offset}"),
            ScanError::TooMany { what, count, limit } => {
                write!(f, "{count} {}, at most {limit}", what.noun())
            }
            ScanError::ExportName { bytes, limit } => {
                write!(f, "an export's name has {bytes} bytes, at most {limit}")
            }
            ScanError::NameTooLong { bytes, limit } => {
                write!(f, "a name has {bytes} bytes, at most {limit}")
            }
            ScanError::TooManyLocals { function, count, limit } => {
                write!(f, "function {function} has {count} locals, at most {limit}")
            }
            ScanError::TooManyLocalGroups { function, count, limit } => {
                write!(f, "function {function} has {count} groups of locals, at most {limit}")
            }
            ScanError::NestedTooDeep { function, limit } => {
                write!(f, "function {function} nests more than {limit} blocks")
            }
            ScanError::OperandsTooDeep { function, limit } => {
                write!(f, "function {function} keeps more than {limit} values on its operand stack")
            }
            ScanError::TooManyTargets { function, count, limit } => {
                write!(f, "function {function} has a br_table with {count} targets, at most {limit}")
            }
            ScanError::CarriesTooMuch { function, limit } => {
                write!(
                    f,
                    "calls, blocks and branches carry more than {limit} values, up to function {function}"
                )
            }
            ScanError::Unsupported { feature, function: Some(function) } => {
                write!(f, "function {function} uses {feature}, which this engine does not run")
            }
            ScanError::Unsupported { feature, function: None } => {
                write!(f, "module uses {feature}, which this engine does not run")
            }
            ScanError::UnknownOperator { function, operator } => {
                write!(f, "function {function} holds the unknown operator {operator:#04x}")
            }
            ScanError::UnknownImport { module, name } => {
                write!(f, "unknown import '{}.{}'", Short(module), Short(name))
            }
            ScanError::ImportKind { module, name, kind } => {
                write!(
                    f,
                    "import '{}.{}' is a {kind}, only functions are offered",
                    Short(module),
                    Short(name)
                )
            }
            ScanError::ImportType(import) => import.fmt(f),
            ScanError::ImportReference { module, name } => {
                write!(
                    f,
                    "import '{}.{}' passes references, host functions take and return numbers",
                    Short(module),
                    Short(name)
                )
            }
            ScanError::NoMemory => f.write_str("not enough memory left to scan the module"),
            ScanError::NoEntry => {
                f.write_str("no entry: export a function '_start' or 'run' of type () -> ()")
            }
            ScanError::EntryNotFunction { entry } => write!(f, "export '{entry}' is not a function"),
            ScanError::EntryImported { entry } => {
                write!(f, "export '{entry}' is an import; it must be a function of the module itself")
            }
            ScanError::EntryType { entry, found } => {
                write!(f, "export '{entry}' has type {}, it must be () -> ()", Signature(&found.0, &found.1))
            }
            ScanError::EntryReference { entry } => {
                write!(f, "export '{entry}' passes references, it must be () -> ()")
            }
        }
    }
}

impl core::error::Error for ScanError {}

/// A name out of a module: cut to what a message holds, without control characters.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 32;
        for c in self.0.chars().take(CHARS_MAX) {
            fmt::Write::write_char(f, if c.is_control() { '?' } else { c })?;
        }
        if self.0.chars().nth(CHARS_MAX).is_some() { f.write_str("...") } else { Ok(()) }
    }
}
