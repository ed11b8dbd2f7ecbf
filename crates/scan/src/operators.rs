//! Operators: what follows each in the bytes, what it does to the height of the operand stack, which feature it is.

use crate::features::Features;

/// What follows an operator's byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Immediate {
    Nothing,
    /// An index.
    Index,
    /// Alignment and offset.
    Memory,
    /// The zero byte that names the one memory.
    MemoryIndex,
    /// Two of them.
    MemoryIndices,
    /// An index of a data segment, and that byte.
    DataAndMemory,
    /// An index of a data segment.
    Data,
    /// An index of an element segment.
    Elements,
    /// An index of an element segment and one of a table.
    ElementsAndTable,
    /// Two indices of tables.
    Tables,
    /// A type of references.
    ReferenceType,
    I32,
    I64,
    /// This many raw bytes.
    Raw(u32),
}

/// An operator without an influence on control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) immediate: Immediate,
    pub(crate) pops: u32,
    pub(crate) pushes: u32,
    pub(crate) feature: Features,
}

const fn plain(immediate: Immediate, pops: u32, pushes: u32) -> Option<Plain> {
    Some(Plain { immediate, pops, pushes, feature: Features::NONE })
}

const fn reference(immediate: Immediate, pops: u32, pushes: u32) -> Option<Plain> {
    Some(Plain { immediate, pops, pushes, feature: Features::REFERENCE_TYPES })
}

/// An operator of one byte that neither branches nor calls.
pub(crate) fn plain_operator(operator: u8) -> Option<Plain> {
    use Immediate::{I32, I64, Index, Memory, MemoryIndex, Nothing, Raw, ReferenceType};
    match operator {
        0x01 => plain(Nothing, 0, 0),                      // nop
        0x1a => plain(Nothing, 1, 0),                      // drop
        0x1b => plain(Nothing, 3, 1),                      // select
        0x20 | 0x23 => plain(Index, 0, 1),                 // local.get, global.get
        0x21 | 0x24 => plain(Index, 1, 0),                 // local.set, global.set
        0x22 => plain(Index, 1, 1),                        // local.tee
        0x25 => reference(Index, 1, 1),                    // table.get
        0x26 => reference(Index, 2, 0),                    // table.set
        0x28..=0x35 => plain(Memory, 1, 1),                // loads
        0x36..=0x3e => plain(Memory, 2, 0),                // stores
        0x3f => plain(MemoryIndex, 0, 1),                  // memory.size
        0x40 => plain(MemoryIndex, 1, 1),                  // memory.grow
        0x41 => plain(I32, 0, 1),                          // i32.const
        0x42 => plain(I64, 0, 1),                          // i64.const
        0x43 => plain(Raw(4), 0, 1),                       // f32.const
        0x44 => plain(Raw(8), 0, 1),                       // f64.const
        0x45 | 0x50 => plain(Nothing, 1, 1),               // eqz
        0x46..=0x4f | 0x51..=0x66 => plain(Nothing, 2, 1), // comparisons
        0x67..=0x69 | 0x79..=0x7b => plain(Nothing, 1, 1), // clz, ctz, popcnt
        0x6a..=0x78 | 0x7c..=0x8a => plain(Nothing, 2, 1), // integer arithmetic
        0x8b..=0x91 | 0x99..=0x9f => plain(Nothing, 1, 1), // abs to sqrt
        0x92..=0x98 | 0xa0..=0xa6 => plain(Nothing, 2, 1), // float arithmetic
        0xa7..=0xbf => plain(Nothing, 1, 1),               // conversions
        0xc0..=0xc4 => Some(Plain { feature: Features::SIGN_EXTENSION, ..UNARY }),
        0xd0 => reference(ReferenceType, 0, 1), // ref.null
        0xd1 => reference(Nothing, 1, 1),       // ref.is_null
        0xd2 => reference(Index, 0, 1),         // ref.func
        _ => None,
    }
}

const UNARY: Plain = Plain { immediate: Immediate::Nothing, pops: 1, pushes: 1, feature: Features::NONE };

/// `memory.grow`.
pub(crate) const MEMORY_GROW: u8 = 0x40;
/// `table.grow`, behind its prefix.
pub(crate) const TABLE_GROW: u32 = 15;

/// The feature of an operator, or of a prefix, whose immediates are not followed.
pub(crate) fn foreign_operator(operator: u8) -> Option<Features> {
    Some(match operator {
        0x06..=0x0a | 0x18 | 0x19 | 0x1f => Features::EXCEPTIONS,
        0x14 | 0x15 | 0xd3..=0xd6 | 0xfb => Features::GC,
        0xfd => Features::SIMD,
        0xfe => Features::THREADS,
        _ => return None,
    })
}

/// An operator with the prefix 0xfc.
pub(crate) fn prefixed_operator(number: u32) -> Option<Plain> {
    use Immediate::{
        Data, DataAndMemory, Elements, ElementsAndTable, Index, MemoryIndex, MemoryIndices, Tables,
    };
    let bulk = |immediate, pops| Some(Plain { immediate, pops, pushes: 0, feature: Features::BULK_MEMORY });
    match number {
        0..=7 => Some(Plain { feature: Features::SATURATING_FLOAT, ..UNARY }),
        8 => bulk(DataAndMemory, 3),     // memory.init
        9 => bulk(Data, 0),              // data.drop
        10 => bulk(MemoryIndices, 3),    // memory.copy
        11 => bulk(MemoryIndex, 3),      // memory.fill
        12 => bulk(ElementsAndTable, 3), // table.init
        13 => bulk(Elements, 0),         // elem.drop
        14 => bulk(Tables, 3),           // table.copy
        TABLE_GROW => reference(Index, 2, 1),
        16 => reference(Index, 0, 1), // table.size
        17 => reference(Index, 3, 0), // table.fill
        _ => None,
    }
}
