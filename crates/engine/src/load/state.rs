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

/// The items of a section that differ, in order. They lie at the high end, and are fewer bytes than the call stack, which is
/// taken last: no module needs more memory for them.
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

/// A function was declared by an export, a global or a segment, so that code may refer to it.
pub(crate) const DECLARED: u16 = 1 << 15;
