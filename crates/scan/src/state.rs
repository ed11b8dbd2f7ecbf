//! What the scan has read so far: the rules that several sections and the function bodies share.

use alloc::vec::Vec;

use crate::error::{Count, ScanError};
use crate::features::Features;
use crate::info::ModuleInfo;
use crate::interface::{Capabilities, ValueType};
use crate::limits::ScanLimits;
use crate::reader::Reader;

/// A function type: where its parameters begin in the module, and how many values go in and out.
#[derive(Clone, Copy)]
pub(crate) struct TypeAt {
    pub(crate) position: u32,
    pub(crate) params: u32,
    pub(crate) results: u32,
}

/// A scan under way.
pub(crate) struct Scan<'m, 'l> {
    pub(crate) limits: &'l ScanLimits,
    pub(crate) info: ModuleInfo,
    pub(crate) types: Vec<TypeAt>,
    /// Type of each function, imports first.
    pub(crate) functions: Vec<u32>,
    pub(crate) imported_functions: u32,
    /// The export `_start`, once seen.
    pub(crate) start: Option<Export<'m>>,
    /// The export `run`, once seen.
    pub(crate) run: Option<Export<'m>>,
}

/// An export that may be the entry.
#[derive(Clone, Copy)]
pub(crate) struct Export<'m> {
    pub(crate) name: &'m str,
    pub(crate) kind: u8,
    pub(crate) index: u32,
}

impl<'m, 'l> Scan<'m, 'l> {
    pub(crate) fn new(size: u32, limits: &'l ScanLimits) -> Scan<'m, 'l> {
        let info = ModuleInfo {
            size,
            entry: None,
            imports: Vec::new(),
            capabilities: Capabilities::NONE,
            features: Features::NONE,
            memory_min_bytes: 0,
            memory_max_bytes: None,
            page_bytes: 65_536,
            has_memory: false,
            grows_memory: false,
            functions: 0,
            globals: 0,
            exports: 0,
            table_elements: 0,
            code_bytes: 0,
            custom_bytes: 0,
            load_bytes_estimate: 0,
        };
        Scan {
            limits,
            info,
            types: Vec::new(),
            functions: Vec::new(),
            imported_functions: 0,
            start: None,
            run: None,
        }
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

    pub(crate) fn arity_of_function(
        &self,
        function: u32,
        reader: &Reader<'_>,
    ) -> Result<(u32, u32), ScanError> {
        match self.functions.get(function as usize) {
            Some(type_index) => self.arity_of_type(*type_index, reader),
            None => Err(reader.malformed("a function that isn't there")),
        }
    }

    pub(crate) fn arity_of_type(
        &self,
        type_index: u32,
        reader: &Reader<'_>,
    ) -> Result<(u32, u32), ScanError> {
        match self.types.get(type_index as usize) {
            Some(at) => Ok((at.params, at.results)),
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

    pub(crate) fn value_types(&mut self, reader: &mut Reader<'m>, count: u32) -> Result<(), ScanError> {
        for _ in 0..count {
            if let Err(feature) = reader.value_type()? {
                self.need(feature, None)?;
            }
        }
        Ok(())
    }

    /// The value types of a type, for messages and comparisons. `None` when one of them is beyond WebAssembly 1.0.
    pub(crate) fn signature(
        &self,
        type_index: u32,
        reader: &Reader<'m>,
    ) -> Result<(Vec<ValueType>, Vec<ValueType>), ScanError> {
        let at =
            self.types.get(type_index as usize).ok_or_else(|| reader.malformed("a type that isn't there"))?;
        let mut reader = reader.at(at.position);
        let mut list = || {
            let count = reader.u32()?;
            let mut types = Vec::new();
            for _ in 0..count {
                match reader.value_type()? {
                    Ok(value_type) => types.push(value_type),
                    Err(feature) => return Err(ScanError::Unsupported { feature, function: None }),
                }
            }
            Ok(types)
        };
        Ok((list()?, list()?))
    }

    /// A constant expression, to its end. There are no imported globals, so `global.get` has nothing to read.
    pub(crate) fn constant(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let mut operators = 0;
        loop {
            match reader.byte()? {
                0x0b => break,
                0x41 => drop(reader.s32()?),
                0x42 => drop(reader.s64()?),
                0x43 => drop(reader.bytes(4)?),
                0x44 => drop(reader.bytes(8)?),
                0x23 => {
                    reader.u32()?;
                    self.need(Features::EXTENDED_CONST, None)?;
                }
                0x6a..=0x6c | 0x7c..=0x7e => self.need(Features::EXTENDED_CONST, None)?,
                0xd0 => {
                    reader.byte()?;
                    self.need(Features::REFERENCE_TYPES, None)?;
                }
                0xd2 => {
                    reader.u32()?;
                    self.need(Features::REFERENCE_TYPES, None)?;
                }
                0xfd => return Err(ScanError::Unsupported { feature: Features::SIMD, function: None }),
                _ => return Err(reader.malformed("an operator that no constant expression has")),
            }
            operators += 1;
        }
        if operators == 0 { Err(reader.malformed("an empty constant expression")) } else { Ok(()) }
    }
}
