//! The WebAssembly features beyond the first version that a module can use, and what packing does about each.

use serde::Serialize;
use wasmbed_scan::Features;

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
    /// A start section: a function that has to run before the entry.
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
    /// The devices run it.
    Kept,
    /// Packing rewrites it in terms of version 1.0.
    Lowered,
    /// The module is refused.
    Refused,
}

/// Whether packing can rewrite a feature in terms of version 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewriting {
    Known,
    /// Or not needed: every device has run it.
    None,
}

/// Every feature: whether packing can rewrite it, the groups under which the device's scan reports it, and what a person
/// calls it. The scan tells fewer apart; what it reports under no group it refuses with an error of its own.
const TABLE: &[(Feature, Rewriting, Features, &str)] = &[
    (Feature::MutableGlobals, Rewriting::None, Features::MUTABLE_GLOBALS, "mutable globals"),
    (Feature::CustomPageSizes, Rewriting::None, Features::CUSTOM_PAGE_SIZES, "custom page sizes"),
    (Feature::SignExtension, Rewriting::Known, Features::SIGN_EXTENSION, "sign extension"),
    (Feature::SaturatingTruncation, Rewriting::Known, Features::SATURATING_FLOAT, "saturating conversions"),
    (Feature::MemoryCopyFill, Rewriting::Known, Features::BULK_MEMORY, "memory.copy and memory.fill"),
    (Feature::LongTableIndex, Rewriting::Known, Features::REFERENCE_TYPES, "long table indices"),
    (Feature::TypedSelect, Rewriting::Known, Features::REFERENCE_TYPES, "typed select"),
    (Feature::ElementForms, Rewriting::Known, TABLES, "newer element segments"),
    (Feature::DataCount, Rewriting::Known, Features::BULK_MEMORY, "data count"),
    (Feature::IndexedBlockType, Rewriting::Known, Features::MULTI_VALUE, "indexed block types"),
    (Feature::Initialiser, Rewriting::Known, Features::START_FUNCTION, "start function"),
    (Feature::PassiveSegments, Rewriting::None, Features::BULK_MEMORY, "passive segments"),
    (Feature::TableOperators, Rewriting::None, TABLES, "table operators"),
    (
        Feature::ReferenceTypes,
        Rewriting::None,
        Features::REFERENCE_TYPES,
        "reference types (externref, funcref)",
    ),
    (Feature::MultipleTables, Rewriting::None, Features::REFERENCE_TYPES, "several tables"),
    (Feature::MultiValue, Rewriting::None, Features::MULTI_VALUE, "multi-value"),
    (Feature::Simd, Rewriting::None, Features::SIMD, "SIMD"),
    (Feature::Threads, Rewriting::None, Features::THREADS, "threads"),
    (Feature::TailCalls, Rewriting::None, Features::TAIL_CALL, "tail calls"),
    (Feature::Exceptions, Rewriting::None, Features::EXCEPTIONS, "exceptions"),
    (Feature::Memory64, Rewriting::None, Features::MEMORY64, "memory64"),
    (Feature::MultiMemory, Rewriting::None, Features::MULTI_MEMORY, "multi-memory"),
    (Feature::ExtendedConst, Rewriting::None, Features::EXTENDED_CONST, "extended constant expressions"),
    (
        Feature::GarbageCollection,
        Rewriting::None,
        Features::GC,
        "garbage collection and typed function references",
    ),
    (Feature::WideArithmetic, Rewriting::None, Features::NONE, "wide arithmetic"),
    (Feature::Experimental, Rewriting::None, Features::NONE, "an experimental proposal"),
];

/// What speaks of tables is in two proposals.
const TABLES: Features = Features::BULK_MEMORY.union(Features::REFERENCE_TYPES);

impl Feature {
    /// What packing does with it for devices that run these groups.
    pub fn treatment(self, devices: Features) -> Treatment {
        let (_, rewriting, groups, _) = *self.row();
        if !groups.is_empty() && devices.contains(groups) {
            return Treatment::Kept;
        }
        match rewriting {
            Rewriting::Known => Treatment::Lowered,
            Rewriting::None => Treatment::Refused,
        }
    }

    /// The groups under which the device's scan reports it.
    pub fn groups(self) -> Features {
        self.row().2
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    /// A test holds the table against the order of the variants.
    fn row(self) -> &'static (Self, Rewriting, Features, &'static str) {
        &TABLE[self as usize]
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
        Op::TypedSelect { ty } => {
            return Some(match ty {
                wasmparser::ValType::Ref(ty) if ty.is_func_ref() || ty.is_extern_ref() => {
                    Feature::ReferenceTypes
                }
                wasmparser::ValType::Ref(_) => Feature::GarbageCollection,
                wasmparser::ValType::V128 => Feature::Simd,
                _ => Feature::TypedSelect,
            });
        }
        Op::RefNull { hty } if !matches!(*hty, wasmparser::HeapType::FUNC | wasmparser::HeapType::EXTERN) => {
            return Some(Feature::GarbageCollection);
        }
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

#[cfg(test)]
mod tests {
    use wasmbed_scan::ScanLimits;

    use super::*;

    #[test]
    fn the_table_has_one_row_for_each_feature() {
        for (index, (feature, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*feature as usize, index, "{feature}");
        }
        assert_eq!(TABLE.len(), Feature::Experimental as usize + 1);
    }

    #[test]
    fn the_table_names_every_group_of_the_scan() {
        let named = TABLE.iter().fold(Features::NONE, |all, row| all.union(row.2));
        for (group, name) in Features::NAMES {
            assert!(named.contains(*group), "{name}");
        }
    }

    #[test]
    fn what_packing_keeps_is_what_devices_run() {
        let device = ScanLimits::default().features;
        for (feature, rewriting, groups, _) in TABLE {
            let runs = !groups.is_empty() && device.contains(*groups);
            assert_eq!(feature.treatment(device) == Treatment::Kept, runs, "{feature}");
            assert!(runs || *rewriting == Rewriting::None, "{feature}: what can be rewritten is run by now");
            let first = feature.treatment(Features::FIRST_DEVICES);
            let runs = !groups.is_empty() && Features::FIRST_DEVICES.contains(*groups);
            assert_eq!(first == Treatment::Kept, runs, "{feature}");
            assert_eq!(first == Treatment::Lowered, *rewriting == Rewriting::Known, "{feature}");
        }
    }
}
