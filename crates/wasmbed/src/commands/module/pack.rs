//! Packing: a module as a toolchain made it becomes one that devices can run, or is refused by name.

use std::collections::BTreeMap;

use wasm_encoder::{CustomSection, Section};
use wasmbed_protocol::{SCHEMA_SECTION, Schema, SchemaError};
use wasmbed_scan::Features;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::{
    advice,
    anatomy::{Anatomy, Memory, ReadError, Use},
    feature::{Feature, Treatment},
    info::memory_text,
    lower::{self, LowerError},
    names::{self, NamesKept},
    toolchain::Toolchain,
};
use crate::output::{grouped, times};

/// What a validator calls the groups. The two that it has no name for are part of version 1.0 there.
const VALIDATED: [(Features, WasmFeatures); 8] = [
    (Features::CUSTOM_PAGE_SIZES, WasmFeatures::CUSTOM_PAGE_SIZES),
    (Features::SIGN_EXTENSION, WasmFeatures::SIGN_EXTENSION),
    (Features::SATURATING_FLOAT, WasmFeatures::SATURATING_FLOAT_TO_INT),
    (Features::BULK_MEMORY, WasmFeatures::BULK_MEMORY),
    (Features::MULTI_VALUE, WasmFeatures::MULTI_VALUE),
    (Features::REFERENCE_TYPES, WasmFeatures::REFERENCE_TYPES),
    (Features::EXTENDED_CONST, WasmFeatures::EXTENDED_CONST),
    (Features::TAIL_CALL, WasmFeatures::TAIL_CALL),
];

/// A module ready for devices.
#[derive(Debug)]
pub struct Packed {
    /// The module.
    pub bytes: Vec<u8>,
    /// Bytes before packing.
    pub bytes_before: usize,
    /// Its memory.
    pub memory: Option<Memory>,
    /// What it uses beyond version 1.0 and the devices run, and how often.
    pub kept: Vec<(Feature, u32)>,
    /// What was rewritten, and how often.
    pub lowered: Vec<(Feature, u32)>,
    /// What the names of functions cost, if they were to be kept.
    pub names: Option<NamesKept>,
    /// Who made it, as far as it says.
    pub toolchain: Toolchain,
    /// What packing couldn't do and the toolchain can, for people.
    pub advice: Vec<String>,
}

impl Packed {
    /// The same with the names that `original`, the module before packing, has for functions with a body: a device then names
    /// them where they trap. They take storage, and no memory while the module runs.
    ///
    /// # Errors
    /// The original can't be read.
    pub fn with_names(mut self, original: &[u8]) -> Result<Self, PackError> {
        let (section, kept) = names::section(original)?;
        self.bytes.extend(section);
        self.names = Some(kept);
        if kept.functions == 0 {
            self.advice.push(
                "there are no names to keep: build without stripping them (`strip = \"debuginfo\"` or `false` in Cargo's \
                 profile, `-g` or no `--strip-all` for clang and zig)"
                    .to_owned(),
            );
        }
        Ok(self)
    }

    /// Sizes, memory, what was rewritten and advice, for a terminal.
    pub fn report(&self) -> String {
        let mut lines = vec![
            ("made by", self.toolchain.name().to_string()),
            (
                "size",
                format!(
                    "{} bytes, before {}",
                    grouped(self.bytes.len() as u64),
                    grouped(self.bytes_before as u64)
                ),
            ),
            ("memory", self.memory.as_ref().map_or("none".to_string(), memory_text)),
        ];
        if !self.kept.is_empty() {
            let kept: Vec<String> = self.kept.iter().map(|(feature, _)| feature.to_string()).collect();
            lines.push(("kept", format!("{}: devices run it as it is", kept.join(", "))));
        }
        for (feature, count) in &self.lowered {
            lines.push(("rewritten", format!("{feature}, {}", times(*count))));
        }
        if let Some(NamesKept { functions, bytes }) = self.names {
            let (functions, bytes) = (grouped(functions.into()), grouped(bytes as u64));
            lines.push(("names", format!("of {functions} functions: {bytes} of these bytes")));
        }
        lines.extend(self.advice.iter().map(|advice| ("advice", advice.clone())));
        lines.into_iter().map(|(name, value)| format!("{name:<11}{value}\n")).collect()
    }
}

/// Why a module can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It isn't a valid module.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It uses what the devices don't run and packing can't rewrite.
    #[error("{}", unsupported_message(.features, .advice))]
    Unsupported {
        /// Each feature with its first use.
        features: BTreeMap<Feature, Use>,
        /// How its toolchain leaves them out.
        advice: Vec<String>,
    },
    /// It has nothing that a device could run.
    #[error(
        "no entry: the module exports neither `_start` nor `run`{}; a WASI command has the first, a library \
         needs `run` exported", exports_message(.exports)
    )]
    NoEntry {
        /// What it exports instead.
        exports: Vec<String>,
    },
    /// What it declares about settings is no schema.
    #[error("section `{SCHEMA_SECTION}`: {0}")]
    Settings(#[from] SchemaError),
    /// Packing made an invalid module: a defect of this program.
    #[error("packing failed, which is a defect of wasmbed and not of the module: {0}")]
    Defect(String),
}

impl From<LowerError> for PackError {
    fn from(error: LowerError) -> Self {
        Self::Defect(error.to_string())
    }
}

/// Packs a module for devices of this version. Packing what is packed already changes nothing.
pub fn pack(bytes: &[u8]) -> Result<Packed, PackError> {
    pack_for(bytes, Features::DEVICES)
}

/// Packs a module for devices that run these groups of operators beyond version 1.0: what they don't run is rewritten, and
/// nothing else.
pub fn pack_for(bytes: &[u8], devices: Features) -> Result<Packed, PackError> {
    let devices = with_tables_whole(devices);
    let anatomy = Anatomy::read(bytes)?;
    let toolchain = Toolchain::detect(&anatomy);
    let refused: BTreeMap<_, _> = anatomy
        .features
        .iter()
        .filter(|(feature, _)| feature.treatment(devices) == Treatment::Refused)
        .map(|(feature, first)| (*feature, first.clone()))
        .collect();
    if !refused.is_empty() {
        let advice = advice::for_features(toolchain, refused.keys().copied());
        return Err(PackError::Unsupported { features: refused, advice });
    }
    let settings = settings_section(bytes)?;
    let mut packed = lower::lower(bytes, &anatomy, devices)?;
    packed.extend(settings);
    Validator::new_with_features(validated(devices))
        .validate_all(&packed)
        .map_err(|error| PackError::Defect(error.to_string()))?;
    let after = Anatomy::read(&packed)?;
    if after.exported_function("_start").is_none() && after.exported_function("run").is_none() {
        let exports = anatomy.exports.into_iter().map(|export| export.name).collect();
        return Err(PackError::NoEntry { exports });
    }
    let treated = |wanted: Treatment| {
        let features = anatomy.features.iter();
        let treated = features.filter(|(feature, _)| feature.treatment(devices) == wanted);
        treated.map(|(feature, used)| (*feature, used.count)).collect()
    };
    Ok(Packed {
        kept: treated(Treatment::Kept),
        lowered: treated(Treatment::Lowered),
        bytes: packed,
        bytes_before: bytes.len(),
        names: None,
        memory: after.memory,
        toolchain,
        advice: advice::for_memory(toolchain, after.memory).into_iter().collect(),
    })
}

/// The section in which a module declares its settings, which devices read; nothing where it has none.
fn settings_section(bytes: &[u8]) -> Result<Vec<u8>, PackError> {
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::CustomSection(section) = payload.map_err(ReadError::from)?
            && section.name() == SCHEMA_SECTION
        {
            return section_of(section.data());
        }
    }
    Ok(Vec::new())
}

fn section_of(schema: &[u8]) -> Result<Vec<u8>, PackError> {
    Schema::parse(schema)?;
    let mut section = Vec::new();
    CustomSection { name: SCHEMA_SECTION.into(), data: schema.into() }.append_to(&mut section);
    Ok(section)
}

/// The module with this schema first, which is the one that counts.
///
/// # Errors
/// It is no schema, or the bytes are no module.
pub(super) fn declaring(bytes: &[u8], schema: &[u8]) -> Result<Vec<u8>, PackError> {
    /// Magic number and version.
    const HEAD_BYTES: usize = 8;
    let (head, rest) = bytes.split_at(HEAD_BYTES.min(bytes.len()));
    Ok([head, &section_of(schema)?, rest].concat())
}

/// Segments are written in the forms of both proposals or of none.
pub(super) fn with_tables_whole(devices: Features) -> Features {
    let tables = Features::BULK_MEMORY.union(Features::REFERENCE_TYPES);
    if devices.contains(tables) { devices } else { devices.without(tables) }
}

fn validated(devices: Features) -> WasmFeatures {
    let groups = VALIDATED.iter().filter(|(group, _)| devices.contains(*group));
    groups.fold(WasmFeatures::WASM1, |all, (_, group)| all.union(*group))
}

fn unsupported_message(features: &BTreeMap<Feature, Use>, advice: &[String]) -> String {
    let mut message = "the module uses what devices don't run and packing can't rewrite".to_string();
    for (feature, used) in features {
        message.push_str(&format!("\n  {feature}: {} (first in {})", times(used.count), used.first));
    }
    for line in advice {
        message.push_str(&format!("\n  advice: {line}"));
    }
    message
}

fn exports_message(exports: &[String]) -> String {
    /// Enough to recognise the module by.
    const SHOWN_MAX: usize = 8;
    match exports {
        [] => " (it exports nothing)".to_string(),
        some => {
            let shown: Vec<_> = some.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
            let more = if some.len() > SHOWN_MAX { ", …" } else { "" };
            format!(" (it exports {}{more})", shown.join(", "))
        }
    }
}
