//! Groups of operators beyond WebAssembly 1.0.

use core::fmt;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)+) => {
        /// A set of feature groups beyond WebAssembly 1.0. The bits are part of the host interface and never change
        /// their meaning: devices send them in their facts.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Features(u64);

        impl Features {
            $($(#[$doc])* pub const $name: Features = Features(1 << $bit);)+

            /// Every group with its name.
            pub const NAMES: &'static [(Features, &'static str)] = &[$((Features::$name, $text)),+];
        }
    };
}

features! {
    /// `i32.extend8_s` and its four siblings.
    SIGN_EXTENSION = 0, "sign-extension operators";
    /// `i32.trunc_sat_f32_s` and its seven siblings.
    SATURATING_FLOAT = 1, "saturating float-to-int operators";
    /// `memory.copy`, `memory.fill`, passive segments, the data count section.
    BULK_MEMORY = 2, "bulk memory operators";
    /// More than one result, blocks with parameters.
    MULTI_VALUE = 3, "multi-value";
    /// `externref`, `ref.*`, `table.*`, typed `select`, long `call_indirect`, several tables.
    REFERENCE_TYPES = 4, "reference types";
    /// Memories with pages of one byte.
    CUSTOM_PAGE_SIZES = 5, "custom page sizes";
    /// Imported or exported mutable globals.
    MUTABLE_GLOBALS = 6, "mutable globals";
    /// Arithmetic in constant expressions.
    EXTENDED_CONST = 7, "extended constant expressions";
    /// `return_call`.
    TAIL_CALL = 8, "tail calls";
    /// 128-bit vectors, relaxed or not.
    SIMD = 9, "SIMD";
    /// Atomics and shared memory.
    THREADS = 10, "threads";
    /// `try`, `throw`, tags.
    EXCEPTIONS = 11, "exceptions";
    /// Memories with 64-bit addresses.
    MEMORY64 = 12, "memory64";
    /// More than one memory.
    MULTI_MEMORY = 13, "multiple memories";
    /// Structs, arrays and typed function references.
    GC = 14, "garbage-collected types";
    /// A start section: a function that runs before the entry.
    START_FUNCTION = 15, "start functions";
}

impl Features {
    /// No group: WebAssembly 1.0 as it was published.
    pub const NONE: Features = Features(0);

    /// What devices run: their engine, and so the scan before it.
    pub const DEVICES: Features = Features::FIRST_DEVICES
        .union(Features::SIGN_EXTENSION)
        .union(Features::SATURATING_FLOAT)
        .union(Features::BULK_MEMORY)
        .union(Features::MULTI_VALUE)
        .union(Features::REFERENCE_TYPES)
        .union(Features::EXTENDED_CONST)
        .union(Features::TAIL_CALL)
        .union(Features::START_FUNCTION);

    /// What devices have run since the first of them, and so every device does.
    pub const FIRST_DEVICES: Features = Features::MUTABLE_GLOBALS.union(Features::CUSTOM_PAGE_SIZES);

    /// The set with these bits; unknown bits are kept.
    pub fn from_bits(bits: u64) -> Features {
        Features(bits)
    }

    /// The bits of the set.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether every group of the other set is in this one.
    pub fn contains(self, other: Features) -> bool {
        other.without(self).is_empty()
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn insert(&mut self, other: Features) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (feature, name) in Features::NAMES {
            if self.contains(*feature) {
                if !first {
                    f.write_str(", ")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}
