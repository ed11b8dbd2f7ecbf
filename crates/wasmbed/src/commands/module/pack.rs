//! Packing: a module as a toolchain made it becomes one that every device can run, or is refused by name.

use std::collections::BTreeMap;

use wasmparser::{Validator, WasmFeatures};

use super::{
    advice,
    anatomy::{Anatomy, Memory, ReadError, Use},
    feature::{Feature, Treatment},
    info::memory_text,
    lower::{self, LowerError},
    toolchain::Toolchain,
};
use crate::output::{grouped, times};

/// What every device engine runs: version 1.0, mutable globals (so do all of them) and custom page sizes.
pub(crate) const DEVICE_FEATURES: WasmFeatures = WasmFeatures::WASM1.union(WasmFeatures::CUSTOM_PAGE_SIZES);

/// A module ready for devices.
#[derive(Debug)]
pub struct Packed {
    /// The module.
    pub bytes: Vec<u8>,
    /// Bytes before packing.
    pub bytes_before: usize,
    /// Its memory.
    pub memory: Option<Memory>,
    /// What was rewritten, and how often.
    pub lowered: Vec<(Feature, u32)>,
    /// Who made it, as far as it says.
    pub toolchain: Toolchain,
    /// What packing couldn't do and the toolchain can, for people.
    pub advice: Vec<String>,
}

impl Packed {
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
        for (feature, count) in &self.lowered {
            lines.push(("rewritten", format!("{feature}, {}", times(*count))));
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
    /// It uses what no device runs and packing can't rewrite.
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
    /// Packing made an invalid module: a defect of this program.
    #[error("packing failed, which is a defect of wasmbed and not of the module: {0}")]
    Defect(String),
}

impl From<LowerError> for PackError {
    fn from(error: LowerError) -> Self {
        Self::Defect(error.to_string())
    }
}

/// Packs a module. Packing what is packed already changes nothing.
pub fn pack(bytes: &[u8]) -> Result<Packed, PackError> {
    let anatomy = Anatomy::read(bytes)?;
    let toolchain = Toolchain::detect(&anatomy);
    let refused: BTreeMap<_, _> = anatomy
        .features
        .iter()
        .filter(|(feature, _)| feature.treatment() == Treatment::Refused)
        .map(|(feature, first)| (*feature, first.clone()))
        .collect();
    if !refused.is_empty() {
        let advice = advice::for_features(toolchain, refused.keys().copied());
        return Err(PackError::Unsupported { features: refused, advice });
    }
    let packed = lower::lower(bytes, &anatomy)?;
    Validator::new_with_features(DEVICE_FEATURES)
        .validate_all(&packed)
        .map_err(|error| PackError::Defect(error.to_string()))?;
    let after = Anatomy::read(&packed)?;
    if after.exported_function("_start").is_none() && after.exported_function("run").is_none() {
        let exports = anatomy.exports.into_iter().map(|export| export.name).collect();
        return Err(PackError::NoEntry { exports });
    }
    let lowered = anatomy
        .features
        .iter()
        .filter(|(feature, _)| feature.treatment() == Treatment::Lowered)
        .map(|(feature, used)| (*feature, used.count))
        .collect();
    let advice = advice::for_memory(toolchain, after.memory).into_iter().collect();
    Ok(Packed { bytes: packed, bytes_before: bytes.len(), memory: after.memory, lowered, toolchain, advice })
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
