//! `wasmbed module symbolize`: the places of a stack trace as functions, files and lines of a person's own module.
//!
//! A device names functions by their index and operators by their byte in the module that it runs. That module may be the
//! person's file or what packing made of it; packing keeps the indices of functions, and which operator became which is
//! found by packing the file again. Debug information (DWARF) counts from the beginning of the code section
//! (<https://yurydelendik.github.io/webassembly-dwarf/>, "Code addresses").

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use sha2::{Digest as _, Sha256};
use wasmbed_scan::Features;
use wasmparser::{KnownCustom, Parser, Payload};

use super::{
    anatomy::{Anatomy, ReadError},
    lower::{Moved, lower_noting},
    names::{self, demangled},
    pack::{PackError, with_tables_whole},
};
use crate::output;

/// A place in a stack trace, as a device names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePlace {
    /// Index of the function; none if only the byte is known.
    pub function: Option<u32>,
    /// Byte of the module that the device runs; none if the device had no memory to find it.
    pub offset: Option<u32>,
}

/// Why a place can't be found in a module.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolizeError {
    /// It is not a place of this module, nor of what packing makes of it.
    #[error(
        "this is no trace of this module: {place} is in neither the file ({file}) nor what packing makes of it \
         ({packed}); `kubectl get device NAME -o yaml` shows the digest of the module that trapped"
    )]
    AnotherModule {
        /// The place.
        place: String,
        /// Digest of the file.
        file: String,
        /// Digest of its packed form, or why it can't be packed.
        packed: String,
    },
}

/// One source position: functions that were inlined have one each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    /// The function.
    pub function: Option<String>,
    /// `FILE:LINE:COLUMN`, as far as it is known.
    pub position: Option<String>,
}

/// A place of a trace with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolized {
    /// The place.
    pub place: TracePlace,
    /// The function's name from the name section.
    pub name: Option<String>,
    /// The innermost first; empty without debug information.
    pub sources: Vec<SourcePlace>,
    /// Packing made this function; the module has none like it.
    pub is_stand_in: bool,
}

/// Where the functions of a module are.
struct Layout {
    /// Functions without a body.
    imported: u32,
    /// Of the others, the bytes of each body.
    bodies: Vec<Range<u64>>,
    /// Contents of the code section.
    code: u64,
}

impl Layout {
    fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut layout = Self { imported: 0, bodies: Vec::new(), code: 0 };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let is_function = matches!(import?.ty, wasmparser::TypeRef::Func(_));
                        layout.imported += u32::from(is_function);
                    }
                }
                Payload::CodeSectionStart { unchecked_range, .. } => layout.code = unchecked_range.start,
                Payload::CodeSectionEntry(body) => layout.bodies.push(body.range()),
                _ => {}
            }
        }
        Ok(layout)
    }

    /// The number of the body that has this place, and the byte within it.
    fn find(&self, place: TracePlace) -> Option<(usize, Option<u64>)> {
        let offset = place.offset.map(u64::from);
        let body = match place.function {
            Some(function) => usize::try_from(function.checked_sub(self.imported)?).ok()?,
            None => {
                self.bodies.iter().position(|body| offset.is_some_and(|offset| body.contains(&offset)))?
            }
        };
        let range = self.bodies.get(body)?;
        match offset {
            Some(offset) if !range.contains(&offset) => None,
            Some(offset) => Some((body, Some(offset - range.start))),
            None => Some((body, None)),
        }
    }
}

/// What packing makes of a module, and where its operators came from.
struct PackedForm {
    digest: String,
    layout: Layout,
    /// Of each body of the file its operators: first byte in the new body, byte in the file.
    operators: Vec<Vec<(u64, u64)>>,
}

impl PackedForm {
    /// For devices with these features.
    fn of(bytes: &[u8], devices: Features) -> Result<Self, PackError> {
        let anatomy = Anatomy::read(bytes)?;
        // What can't be packed runs nowhere unless it needs no packing.
        super::pack_for(bytes, devices)?;
        let mut operators = vec![Vec::new(); anatomy.functions as usize];
        let devices = with_tables_whole(devices);
        let packed = lower_noting(bytes, &anatomy, devices, &mut |Moved { body, to, from }| {
            if let Some(operators) = operators.get_mut(body) {
                operators.push((to as u64, from));
            }
        })?;
        let layout = Layout::read(&packed)?;
        Ok(Self { digest: digest(&packed), layout, operators })
    }

    /// The byte of the file; none where packing made the function.
    fn origin(&self, body: usize, offset: u64) -> Option<u64> {
        let operators = self.operators.get(body)?;
        let behind = operators.partition_point(|(to, _)| *to <= offset);
        operators.get(behind.checked_sub(1)?).map(|(_, from)| *from)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// A person's module, and what can be said of places in it.
pub struct Symbolizer<'a> {
    layout: Layout,
    digest: String,
    /// For devices of this version, and for the first ones.
    packed: [Result<PackedForm, PackError>; 2],
    names: BTreeMap<u32, String>,
    debug: Option<addr2line::Context<Slice<'a>>>,
}

impl<'a> Symbolizer<'a> {
    /// Reads a module as its toolchain made it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        Anatomy::read(bytes)?;
        let mut names = BTreeMap::new();
        let mut sections = BTreeMap::new();
        for payload in Parser::new(0).parse_all(bytes) {
            if let Payload::CustomSection(section) = payload? {
                if let KnownCustom::Name(subsections) = section.as_known() {
                    names.extend(names::of_functions(subsections));
                }
                sections.insert(section.name(), section.data());
            }
        }
        let section = |id: gimli::SectionId| {
            let data = sections.get(id.name()).copied().unwrap_or_default();
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        let has_debug = sections.contains_key(".debug_info");
        let dwarf = gimli::Dwarf::load(section).ok().filter(|_| has_debug);
        let debug = dwarf.and_then(|dwarf| addr2line::Context::from_dwarf(dwarf).ok());
        let layout = Layout::read(bytes)?;
        let packed =
            [Features::DEVICES, Features::FIRST_DEVICES].map(|devices| PackedForm::of(bytes, devices));
        Ok(Self { layout, digest: digest(bytes), packed, names, debug })
    }

    /// Whether the module has debug information.
    pub fn has_debug_information(&self) -> bool {
        self.debug.is_some()
    }

    /// The places of one trace. All of them have to be in one module: what packing makes of the file, or the file itself.
    pub fn symbolize(&self, places: &[TracePlace]) -> Result<Vec<Symbolized>, SymbolizeError> {
        let in_packed = |packed: &PackedForm, place: &TracePlace| {
            let (body, offset) = packed.layout.find(*place)?;
            let origin = offset.and_then(|offset| packed.origin(body, offset));
            Some(self.describe(*place, body, origin, body >= self.layout.bodies.len()))
        };
        let in_file = |place: &TracePlace| {
            let (body, _) = self.layout.find(*place)?;
            Some(self.describe(*place, body, place.offset.map(u64::from), false))
        };
        for packed in self.packed.iter().flatten() {
            if let Some(found) = places.iter().map(|place| in_packed(packed, place)).collect() {
                return Ok(found);
            }
        }
        if let Some(found) = places.iter().map(in_file).collect() {
            return Ok(found);
        }
        let [newest, _] = &self.packed;
        let packed = match newest {
            Ok(packed) => packed.digest.clone(),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let strange = places.iter().find(|place| in_file(place).is_none());
        Err(SymbolizeError::AnotherModule {
            place: strange.map(ToString::to_string).unwrap_or_default(),
            file: self.digest.clone(),
            packed,
        })
    }

    fn describe(&self, place: TracePlace, body: usize, origin: Option<u64>, is_stand_in: bool) -> Symbolized {
        let function = u32::try_from(body).unwrap_or(u32::MAX).saturating_add(self.layout.imported);
        let name = self.names.get(&function).filter(|_| !is_stand_in);
        let sources = match origin.filter(|_| !is_stand_in) {
            Some(origin) => self.sources(origin.saturating_sub(self.layout.code)),
            None => Vec::new(),
        };
        Symbolized {
            place: TracePlace { function: Some(function), ..place },
            name: name.map(|name| demangled(name)),
            sources,
            is_stand_in,
        }
    }

    /// What debug information says of a byte of the code section.
    fn sources(&self, address: u64) -> Vec<SourcePlace> {
        let mut sources = Vec::new();
        let Some(debug) = &self.debug else { return sources };
        // Debug information that is damaged says nothing.
        let Ok(mut frames) = debug.find_frames(address).skip_all_loads() else { return sources };
        while let Ok(Some(frame)) = frames.next() {
            let function = frame.function.as_ref().and_then(|name| {
                let name = name.raw_name().ok()?;
                Some(demangled(&name))
            });
            let position = frame.location.and_then(|location| {
                let file = location.file?;
                let line = location.line.map(|line| format!(":{line}")).unwrap_or_default();
                let column = location.column.filter(|_| !line.is_empty());
                Some(format!("{file}{line}{}", column.map(|column| format!(":{column}")).unwrap_or_default()))
            });
            sources.push(SourcePlace { function, position });
        }
        sources
    }
}

impl fmt::Display for TracePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.function, self.offset) {
            (Some(function), Some(offset)) => write!(f, "function {function}, offset {offset:#x}"),
            (Some(function), None) => write!(f, "function {function}"),
            (None, Some(offset)) => write!(f, "offset {offset:#x}"),
            (None, None) => f.write_str("no place"),
        }
    }
}

impl fmt::Display for Symbolized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stand_in {
            return write!(f, "{} (made by packing)", self.place);
        }
        let name = |source: &SourcePlace| source.function.clone().or_else(|| self.name.clone());
        let Some((innermost, outer)) = self.sources.split_first() else {
            return match &self.name {
                Some(name) => write!(f, "{name} ({})", self.place),
                None => write!(f, "{}", self.place),
            };
        };
        write!(f, "{}", name(innermost).unwrap_or_else(|| "?".into()))?;
        if let Some(position) = &innermost.position {
            write!(f, " at {position}")?;
        }
        write!(f, " ({})", self.place)?;
        for source in outer {
            write!(f, "\n     inlined into {}", name(source).unwrap_or_else(|| "?".into()))?;
            if let Some(position) = &source.position {
                write!(f, " at {position}")?;
            }
        }
        Ok(())
    }
}

/// How to build so that lines are known.
pub(super) const NO_DEBUG_INFORMATION: &str = "the module has no debug information (DWARF): for files and lines build it with \
     -g (clang, zig), or with `debug = \"line-tables-only\"` and `strip = false` in Cargo's profile, and keep that file; packing drops it";

/// The places that stand in a line of text, as devices write them: `function 12, offset 0x1a3` or `function 12 (offset
/// 0x1a3)`.
pub fn places_in(line: &str) -> Vec<TracePlace> {
    let mut places = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("function ") {
        rest = &rest[at + "function ".len()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let Ok(function) = number.parse() else { continue };
        rest = behind;
        let offset = [", offset 0x", " (offset 0x"].iter().find_map(|lead| behind.strip_prefix(lead));
        let offset = offset.and_then(|offset| {
            let end = offset.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(offset.len());
            u32::from_str_radix(&offset[..end], 16).ok()
        });
        places.push(TracePlace { function: Some(function), offset });
    }
    places
}

/// Not a byte of a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no byte of a module: it is a number such as 419 or 0x1a3")]
pub(super) struct OffsetError(String);

/// Reads `0x1a3` or `419`.
pub(super) fn parse_offset(text: &str) -> Result<u32, OffsetError> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| OffsetError(text.to_owned()))
}

/// Prints a trace, a place a line.
pub(super) fn print(found: &[Symbolized]) {
    for (number, place) in found.iter().enumerate() {
        output::print_line(&format!("{number:>4}: {place}"));
    }
}
