//! What the scan has read so far: the rules that several sections and the function bodies share.

use alloc::vec::Vec;

use crate::error::{Count, ScanError};
use crate::features::Features;
use crate::info::ModuleInfo;
use crate::interface::ValueType;
use crate::limits::ScanLimits;
use crate::reader::{Place, Reader};

/// A function type: where its parameters begin in the module, and how many values go in and out.
#[derive(Clone, Copy)]
pub(crate) struct TypeAt {
    pub(crate) position: u32,
    pub(crate) params: u16,
    pub(crate) results: u16,
}

/// Types of parameters and of results.
pub(crate) type Types = (Vec<ValueType>, Vec<ValueType>);

/// A block under way.
pub(crate) struct Frame {
    /// Operand height at its start, its parameters taken off.
    pub(crate) base: u32,
    pub(crate) params: u32,
    pub(crate) results: u32,
    pub(crate) kind: FrameKind,
}

#[derive(PartialEq, Eq)]
pub(crate) enum FrameKind {
    Function,
    Block,
    Loop,
    If,
    Else,
}

/// The function whose body is under way.
#[derive(Default)]
pub(crate) struct Body {
    /// Its index with the imports, as tools print it.
    pub(crate) function: u32,
    pub(crate) frames: Vec<Frame>,
    pub(crate) height: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Header,
    /// A section, or the module's end.
    Section,
    /// An item of the section, or its end.
    Items,
    /// An element of a segment, or its end.
    Elements {
        left: u32,
        expressions: bool,
    },
    /// An operator of a function, or its end.
    Operators,
    /// A target of a `br_table`, and so many behind it.
    Targets {
        left: u32,
    },
    /// Nothing: the module was refused or accepted.
    Ended,
}

/// A scan under way.
///
/// ```text
/// Header -> Section -> Items -> Section -> ... -> Ended
///                      | ^
///                      +-+-- Elements: a segment's
///                      +-+-- Operators <-> Targets: a function's
/// ```
pub struct Scan {
    pub(crate) limits: ScanLimits,
    pub(crate) phase: Phase,
    pub(crate) place: Place,
    /// Number of the section, where it ends while one of its functions is read, and its items that are left.
    pub(crate) section: u8,
    pub(crate) section_end: usize,
    pub(crate) items: u32,
    /// How many of the sections that come in order were begun, by their places in that order.
    pub(crate) sections_done: usize,
    pub(crate) has_code: bool,
    pub(crate) has_data: bool,
    /// Work of this step: about an operator each.
    pub(crate) worked: u32,
    pub(crate) info: ModuleInfo,
    pub(crate) types: Vec<TypeAt>,
    /// Type of each function, imports first.
    pub(crate) functions: Vec<u16>,
    pub(crate) imported_functions: u32,
    pub(crate) body: Body,
    pub(crate) element_segments: u32,
    pub(crate) segment_elements: u32,
    /// What the data count says.
    pub(crate) data_segments: Option<u32>,
    pub(crate) grows_tables: bool,
    /// Values carried so far by calls, blocks and branches.
    pub(crate) carried: u32,
    /// The export `_start`, once seen.
    pub(crate) start: Option<Export>,
    /// The export `run`, once seen.
    pub(crate) run: Option<Export>,
}

/// An export that may be the entry.
#[derive(Clone, Copy)]
pub(crate) struct Export {
    pub(crate) kind: u8,
    pub(crate) index: u32,
}

impl Scan {
    /// A scan that has not begun.
    pub fn new(limits: &ScanLimits) -> Scan {
        Scan {
            limits: limits.clone(),
            phase: Phase::Header,
            place: Place::default(),
            section: 0,
            section_end: 0,
            items: 0,
            sections_done: 0,
            has_code: false,
            has_data: false,
            worked: 0,
            info: ModuleInfo::of_size(0),
            types: Vec::new(),
            functions: Vec::new(),
            imported_functions: 0,
            body: Body::default(),
            element_segments: 0,
            segment_elements: 0,
            data_segments: None,
            grows_tables: false,
            carried: 0,
            start: None,
            run: None,
        }
    }

    /// Counts work of this step.
    pub(crate) fn work(&mut self, work: u32) {
        self.worked = self.worked.saturating_add(work);
    }

    /// Notes a feature; refuses it where the engine doesn't run it.
    pub(crate) fn need(&mut self, feature: Features, function: Option<u32>) -> Result<(), ScanError> {
        self.info.features.insert(feature);
        if self.limits.features.contains(feature) {
            Ok(())
        } else {
            Err(ScanError::Unsupported { feature, function })
        }
    }

    /// Counts values that an operator of this function carries.
    pub(crate) fn carry(&mut self, values: u32, function: u32) -> Result<(), ScanError> {
        /// What a module of no size may carry.
        const LEAST: u32 = 4_096;
        self.carried = self.carried.saturating_add(values);
        let limit = self.info.size.saturating_mul(self.limits.carried_per_byte).saturating_add(LEAST);
        if self.carried > limit { Err(ScanError::CarriesTooMuch { function, limit }) } else { Ok(()) }
    }

    pub(crate) fn arity_of_function(
        &self,
        function: u32,
        reader: &Reader<'_>,
    ) -> Result<(u32, u32), ScanError> {
        match self.functions.get(function as usize) {
            Some(type_index) => self.arity_of_type(u32::from(*type_index), reader),
            None => Err(reader.malformed("a function that isn't there")),
        }
    }

    pub(crate) fn arity_of_type(
        &self,
        type_index: u32,
        reader: &Reader<'_>,
    ) -> Result<(u32, u32), ScanError> {
        match self.types.get(type_index as usize) {
            Some(at) => Ok((u32::from(at.params), u32::from(at.results))),
            None => Err(reader.malformed("a type that isn't there")),
        }
    }

    /// Reads a count and holds it against its limit before anything is done with it.
    pub(crate) fn count(&self, reader: &mut Reader<'_>, what: Count, limit: u32) -> Result<u32, ScanError> {
        let count = reader.u32()?;
        if count > limit {
            return Err(ScanError::TooMany { what, count, limit });
        }
        // Each takes at least one byte.
        if count as usize > reader.remaining() {
            return Err(reader.malformed("a count of more than there is"));
        }
        Ok(count)
    }

    pub(crate) fn value_types(&mut self, reader: &mut Reader<'_>, count: u32) -> Result<(), ScanError> {
        self.work(count / 4);
        for _ in 0..count {
            if let Err(feature) = reader.value_type()? {
                self.need(feature, None)?;
            }
        }
        Ok(())
    }

    /// The value types of a type, for messages and comparisons. `None` when one of them is a reference.
    pub(crate) fn signature(&self, type_index: u32, reader: &Reader<'_>) -> Result<Option<Types>, ScanError> {
        let at =
            self.types.get(type_index as usize).ok_or_else(|| reader.malformed("a type that isn't there"))?;
        let mut reader = reader.at(at.position);
        let mut list = || {
            let count = reader.u32()?;
            let mut types = Vec::new();
            types.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
            for _ in 0..count {
                match reader.value_type()? {
                    Ok(value_type) => types.push(value_type),
                    Err(_) => return Ok(None),
                }
            }
            Ok(Some(types))
        };
        let Some(params) = list()? else { return Ok(None) };
        Ok(list()?.map(|results| (params, results)))
    }

    /// A constant expression, to its end. Nothing imports a global, and other ones it may not read.
    pub(crate) fn constant(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (mut operators, mut height) = (0, 0u32);
        loop {
            match reader.byte()? {
                0x0b => break,
                0x41 => drop(reader.s32()?),
                0x42 => drop(reader.s64()?),
                0x43 => drop(reader.bytes(4)?),
                0x44 => drop(reader.bytes(8)?),
                0x23 => return Err(ScanError::Unsupported { feature: Features::GC, function: None }),
                0x6a..=0x6c | 0x7c..=0x7e => {
                    self.need(Features::EXTENDED_CONST, None)?;
                    height = height.saturating_sub(2);
                }
                0xd0 => {
                    self.need(Features::REFERENCE_TYPES, None)?;
                    self.reference_type(reader, None)?;
                }
                0xd2 => {
                    self.need(Features::REFERENCE_TYPES, None)?;
                    reader.u32()?;
                }
                0xfd => return Err(ScanError::Unsupported { feature: Features::SIMD, function: None }),
                0xfb => return Err(ScanError::Unsupported { feature: Features::GC, function: None }),
                _ => return Err(reader.malformed("an operator that no constant expression has")),
            }
            operators += 1;
            height += 1;
            let limits = &self.limits;
            for (what, count, limit) in [
                (Count::ConstantOperators, operators, limits.constant_operators),
                (Count::ConstantOperands, height, limits.constant_operands),
            ] {
                if count > limit {
                    return Err(ScanError::TooMany { what, count, limit });
                }
            }
        }
        self.work(operators);
        if operators == 0 { Err(reader.malformed("an empty constant expression")) } else { Ok(()) }
    }

    /// `funcref` or `externref`. Whoever reads one has said already which feature that is.
    pub(crate) fn reference_type(
        &self,
        reader: &mut Reader<'_>,
        function: Option<u32>,
    ) -> Result<u8, ScanError> {
        match reader.byte()? {
            known @ (0x70 | 0x6f) => Ok(known),
            0x63..=0x6e | 0x71..=0x74 => Err(ScanError::Unsupported { feature: Features::GC, function }),
            _ => Err(reader.malformed("an unknown type of references")),
        }
    }
}
