//! Where the loader is in a module, and how much of each thing it takes.

use crate::error::Error;
use crate::region::Place;

/// Where the loader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Start,
    Section,
    Items,
    /// Elements of an element segment.
    References {
        left: u32,
        to: To,
        expressions: bool,
    },
    /// Bytes of a data segment.
    Bytes {
        left: u32,
        to: u32,
    },
    /// The memory's first bytes are set to zero.
    Zero {
        left: u32,
        at: u32,
    },
    Locals {
        left: u32,
    },
    Operators,
    /// All is read: how deep calls can go.
    Depth,
    Done,
    /// What was found makes all that would follow meaningless.
    Failed(Error),
}

/// Where elements go: from this place on, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Place(Place, u32),
    Nowhere,
}

/// The items of a section that differ, in order. They lie at the high end, which gets their room back with the section.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) place: Place,
    pub(crate) count: u32,
    /// Where the high end was before.
    pub(crate) high: usize,
}

impl Order {
    pub(crate) const NONE: Order = Order { place: Place(0), count: 0, high: 0 };
}

/// What is walked to find out how deep calls can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// All calls, from what is called from outside.
    All,
    /// The same, and it is known that some come back by a table.
    Returning,
    /// Calls by an index, from each function, to find out whether any comes back.
    Direct,
}

/// What is known so far of how deep calls can go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// The host may hand in a reference to any function.
    pub(crate) any_referred: bool,
    /// Functions of whose words the type is gone.
    pub(crate) prepared: u32,
    /// Exports that come next.
    pub(crate) exports: Place,
    pub(crate) exports_left: u32,
    pub(crate) start_done: bool,
    /// Slots that calls from outside take, and their arguments, which wait while the start function runs.
    pub(crate) slots: u32,
    pub(crate) arguments: u32,
    /// Nodes on the path.
    pub(crate) path: usize,
    pub(crate) looked_at: u32,
    pub(crate) walk: Walk,
    /// Functions of which it is known that no call by an index comes back to them.
    pub(crate) walked: u32,
}

impl Depth {
    pub(crate) const fn new() -> Depth {
        Depth {
            any_referred: false,
            prepared: 0,
            exports: Place(0),
            exports_left: 0,
            start_done: false,
            slots: 0,
            arguments: 0,
            path: 0,
            looked_at: 0,
            walk: Walk::All,
            walked: 0,
        }
    }
}

pub(crate) const TYPES: u32 = 2_000;
pub(crate) const IMPORTS: u32 = 1_000;
pub(crate) const EXPORTS: u32 = 1_000;
pub(crate) const NAME_BYTES: u32 = 1_000;
pub(crate) const TYPE_VALUES: u32 = 255;
/// Functions of a module: calls name them with 16 bits.
pub(crate) const FUNCTIONS: u32 = 65_535;
pub(crate) const GLOBALS: u32 = 16_000;
pub(crate) const SEGMENTS: u32 = 65_535;
pub(crate) const PAGE: u32 = 65_536;

/// There can be a reference to a function: in a segment, a global, or made by code.
pub(crate) const REFERRED: u16 = 1 << 15;
/// A function was declared by an export, a global or a segment, so that code may refer to it.
pub(crate) const DECLARED: u16 = 1 << 14;
