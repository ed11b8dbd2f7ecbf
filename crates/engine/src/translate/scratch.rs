//! What the translator keeps while it works on one function: the stacks of validation, with where each value is, and
//! where it is in the code.
#![allow(unsafe_code)]

use crate::region::Place;
use crate::types::ValueType;

/// Values on the operand stack of a function.
pub(crate) const OPERANDS: usize = 256;
/// Blocks within each other, the function's own among them.
pub(crate) const FRAMES: usize = 192;
/// Parameters and locals of a function.
pub(crate) const LOCALS: usize = 1_280;
/// Tables of a module.
pub(crate) const TABLES: usize = 32;

/// No code position, no local.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a value on the operand stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// In its own slot.
    Slot = 0,
    /// In the slot of a local, whose number is the entry's value.
    Local = 1,
    /// It is a constant: the entry's value, sign-extended where the type has 64 bits.
    Const = 2,
    /// In the accumulator. One entry at most.
    Accumulator = 3,
}

/// A value on the operand stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) value_type: ValueType,
    pub(crate) kind: Kind,
    /// Its own slot, whether it is there or not.
    pub(crate) slot: u16,
    pub(crate) value: u32,
}

/// What kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Construct {
    Function = 0,
    Block = 1,
    Loop = 2,
    If = 3,
    Else = 4,
}

/// A block that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) block: Construct,
    /// What follows in the block is never executed.
    pub(crate) unreachable: bool,
    /// The block itself is never entered.
    pub(crate) dead: bool,
    pub(crate) block_type: BlockType,
    /// Entries of the operand stack below the block's.
    pub(crate) height: u16,
    /// The slot at which the block's parameters and results begin.
    pub(crate) slot: u16,
    /// Of a loop the code position of its beginning; of others the last branch to its end, from which all others can be
    /// reached.
    pub(crate) place: u32,
    /// Of an `if` the word of the branch to `else`, and the operator that it belongs to.
    pub(crate) other: u32,
    pub(crate) other_from: u32,
}

/// The type of a block: no value, one value, or the index of a function type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockType(pub(crate) u32);

impl BlockType {
    pub(crate) const EMPTY: BlockType = BlockType(u32::MAX);

    pub(crate) fn value(value_type: ValueType) -> BlockType {
        BlockType(1 << 31 | u32::from(value_type.byte()))
    }
}

/// All of it. A block of zeros is one.
pub(crate) struct Scratch {
    pub(crate) entries: [Entry; OPERANDS],
    pub(crate) frames: [Frame; FRAMES],
    pub(crate) local_types: [u8; LOCALS],
    pub(crate) local_slots: [u16; LOCALS],
    pub(crate) table_types: [u8; TABLES],
}

impl Scratch {
    /// Numbers of 64 bits that hold one.
    pub(crate) const WORDS: usize = size_of::<Scratch>().div_ceil(8);

    /// One in a block of [`Self::WORDS`].
    pub(crate) fn in_block(block: &mut [u64]) -> &mut Scratch {
        assert!(
            block.len() >= Scratch::WORDS && align_of::<Scratch>() <= align_of::<u64>(),
            "room for the scratch"
        );
        block.fill(0);
        // SAFETY: large enough and aligned; zero is a value of each of its fields, of the enumerations the first one.
        unsafe { &mut *block.as_mut_ptr().cast::<Scratch>() }
    }
}

/// Where the translator is in the code, and what it knows about the operators before that place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emitter {
    /// Where the code begins in the region.
    pub(crate) code: Place,
    /// The next word, counted from there, and the first one that can't be written.
    pub(crate) position: u32,
    pub(crate) capacity: u32,
    /// Whether what is translated can't be reached: nothing is written.
    pub(crate) dead: bool,
    /// The last operator, if nothing arrives behind it, and the one right before it.
    pub(crate) last: u32,
    pub(crate) last_op: u16,
    pub(crate) before: u32,
    pub(crate) before_op: u16,
    /// The module's operators that they do the work of.
    pub(crate) last_from: u32,
    pub(crate) before_from: u32,
    /// The operand of the last operator that says where its result goes.
    pub(crate) into: u32,
    /// The local whose value the accumulator has; the one it had before the last comparison.
    pub(crate) acc_local: u32,
    pub(crate) compared_acc_local: u32,
}

impl Emitter {
    pub(crate) const fn new() -> Emitter {
        Emitter {
            code: Place(0),
            position: 0,
            capacity: 0,
            dead: false,
            last: NONE,
            last_op: 0,
            before: NONE,
            before_op: 0,
            last_from: 0,
            before_from: 0,
            into: NONE,
            acc_local: NONE,
            compared_acc_local: NONE,
        }
    }
}

/// Branches to one label that are resolved before the next operator, in parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixing {
    /// The one that comes next.
    pub(crate) place: u32,
    /// Where they go.
    pub(crate) target: u32,
}

/// A table of branches whose targets are being read: once to check them and to write its entries, and once more where
/// values have to be moved on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    /// The last one's place, and the one that comes next.
    pub(crate) count: u32,
    pub(crate) at: u32,
    /// Where the entries begin in the code, and the targets in the module.
    pub(crate) table: u32,
    pub(crate) offset: u32,
    /// Values that each carries.
    pub(crate) carried: Option<usize>,
    pub(crate) detours: bool,
    pub(crate) second: bool,
    /// The detour that was written last, by its depth.
    pub(crate) latest: Option<(u32, u32)>,
}
