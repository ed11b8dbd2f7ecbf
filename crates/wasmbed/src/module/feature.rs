//! The WebAssembly features beyond the first version that a module can use, and what packing does about each.

use serde::Serialize;

/// A named part of WebAssembly that goes beyond version 1.0.
///
/// The names are those of the proposals at <https://github.com/WebAssembly/proposals>, split where packing treats
/// the parts of one proposal differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Globals that are imported or exported and mutable.
    MutableGlobals,
    /// A memory whose page is not 64 KiB.
    CustomPageSizes,
    /// `i32.extend8_s` and its four relatives.
    SignExtension,
    /// `i32.trunc_sat_f32_s` and its seven relatives.
    SaturatingTruncation,
    /// `memory.copy` and `memory.fill`.
    MemoryCopyFill,
    /// A `call_indirect` whose table index takes more than one byte.
    LongTableIndex,
    /// `select` that names its type.
    TypedSelect,
    /// Element segments written in a form of the reference types proposal.
    ElementForms,
    /// The section that declares the number of data segments.
    DataCount,
    /// A block type given by the index of a function type that version 1.0 can write in one byte.
    IndexedBlockType,
    /// A start section or an `_initialize` export, which have to run before the entry.
    Initialiser,
    /// Segments that are copied at run time, by `memory.init` or `table.init`.
    PassiveSegments,
    /// Operators that read or write a table: `table.get`, `table.copy`, `table.init` and their relatives.
    TableOperators,
    /// `externref` and `funcref` values, `ref.null`, `ref.func` and `ref.is_null`.
    ReferenceTypes,
    /// More than one table.
    MultipleTables,
    /// Functions or blocks with several results, or blocks with parameters.
    MultiValue,
    /// 128-bit vectors, relaxed or not.
    Simd,
    /// Shared memory and atomic operators.
    Threads,
    /// `return_call` and its relatives.
    TailCalls,
    /// `try_table`, `throw` and the older form of the same.
    Exceptions,
    /// 64-bit addresses.
    Memory64,
    /// More than one memory.
    MultiMemory,
    /// Constant expressions with more than one operator.
    ExtendedConst,
    /// Structs, arrays and typed function references.
    GarbageCollection,
    /// 128-bit integer arithmetic.
    WideArithmetic,
    /// Anything else, all of it at an early stage.
    Experimental,
}

/// What packing does with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Every device engine runs it.
    Kept,
    /// Packing rewrites it in terms of version 1.0.
    Lowered,
    /// The module is refused.
    Refused,
}

impl Feature {
    /// What packing does with it.
    pub fn treatment(self) -> Treatment {
        match self {
            Self::MutableGlobals | Self::CustomPageSizes => Treatment::Kept,
            Self::SignExtension
            | Self::SaturatingTruncation
            | Self::MemoryCopyFill
            | Self::LongTableIndex
            | Self::TypedSelect
            | Self::ElementForms
            | Self::DataCount
            | Self::IndexedBlockType
            | Self::Initialiser => Treatment::Lowered,
            Self::PassiveSegments
            | Self::TableOperators
            | Self::ReferenceTypes
            | Self::MultipleTables
            | Self::MultiValue
            | Self::Simd
            | Self::Threads
            | Self::TailCalls
            | Self::Exceptions
            | Self::Memory64
            | Self::MultiMemory
            | Self::ExtendedConst
            | Self::GarbageCollection
            | Self::WideArithmetic
            | Self::Experimental => Treatment::Refused,
        }
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MutableGlobals => "mutable globals",
            Self::CustomPageSizes => "custom page sizes",
            Self::SignExtension => "sign extension",
            Self::SaturatingTruncation => "saturating conversions",
            Self::MemoryCopyFill => "memory.copy and memory.fill",
            Self::LongTableIndex => "long table indices",
            Self::TypedSelect => "typed select",
            Self::ElementForms => "newer element segments",
            Self::DataCount => "data count",
            Self::IndexedBlockType => "indexed block types",
            Self::Initialiser => "start function",
            Self::PassiveSegments => "passive segments",
            Self::TableOperators => "table operators",
            Self::ReferenceTypes => "reference types (externref, funcref)",
            Self::MultipleTables => "several tables",
            Self::MultiValue => "multi-value",
            Self::Simd => "SIMD",
            Self::Threads => "threads",
            Self::TailCalls => "tail calls",
            Self::Exceptions => "exceptions",
            Self::Memory64 => "memory64",
            Self::MultiMemory => "multi-memory",
            Self::ExtendedConst => "extended constant expressions",
            Self::GarbageCollection => "garbage collection and typed function references",
            Self::WideArithmetic => "wide arithmetic",
            Self::Experimental => "an experimental proposal",
        }
    }
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The proposal that an operator belongs to, or nothing for version 1.0.
pub(crate) fn of_operator(operator: &wasmparser::Operator<'_>) -> Option<Feature> {
    use wasmparser::Operator as Op;
    match operator {
        Op::MemoryCopy { .. } | Op::MemoryFill { .. } => return Some(Feature::MemoryCopyFill),
        Op::TypedSelect { ty } if !ty.is_reference_type() => return Some(Feature::TypedSelect),
        Op::TableGet { .. }
        | Op::TableSet { .. }
        | Op::TableGrow { .. }
        | Op::TableSize { .. }
        | Op::TableFill { .. }
        | Op::TableCopy { .. }
        | Op::TableInit { .. }
        | Op::ElemDrop { .. } => return Some(Feature::TableOperators),
        _ => {}
    }
    macro_rules! classify {
        ($( @$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            match operator {
                $( Op::$op { .. } => of_proposal(stringify!($proposal)), )*
                // `Operator` is non-exhaustive; the macro above lists every variant of this version.
                _ => Some(Feature::Experimental),
            }
        };
    }
    wasmparser::for_each_operator!(classify)
}

/// The feature behind the name by which `wasmparser` groups its operators.
fn of_proposal(proposal: &str) -> Option<Feature> {
    Some(match proposal {
        "mvp" => return None,
        "sign_extension" => Feature::SignExtension,
        "saturating_float_to_int" => Feature::SaturatingTruncation,
        // `memory.init` and `data.drop`: the rest of bulk memory is told apart above.
        "bulk_memory" => Feature::PassiveSegments,
        "reference_types" => Feature::ReferenceTypes,
        "simd" | "relaxed_simd" => Feature::Simd,
        "threads" | "acquire_release_atomics" | "shared_everything_threads" => Feature::Threads,
        "tail_call" => Feature::TailCalls,
        "exceptions" | "legacy_exceptions" => Feature::Exceptions,
        "gc" | "function_references" | "custom_descriptors" => Feature::GarbageCollection,
        "wide_arithmetic" => Feature::WideArithmetic,
        _ => Feature::Experimental,
    })
}
