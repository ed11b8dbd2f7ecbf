//! `wasmbed module info`: what a module consists of.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmbed_scan::Features;

use super::{
    anatomy::{Anatomy, Memory, ReadError},
    feature::{Feature, Treatment},
    toolchain::Toolchain,
};
use crate::output::{grouped, times};

/// A module described for people or, as JSON, for programs.
#[derive(Debug, Serialize)]
pub struct Info {
    /// Bytes of the file.
    pub bytes: usize,
    /// SHA-256 of the file, in hexadecimal: the digest that devices report.
    pub digest: String,
    /// Who made it, as far as it says.
    pub toolchain: Toolchain,
    /// What devices do with each feature that it uses.
    pub treatment: Vec<FeatureTreatment>,
    /// The rest.
    #[serde(flatten)]
    pub anatomy: Anatomy,
}

/// One feature and what packing does with it.
#[derive(Debug, Serialize)]
pub struct FeatureTreatment {
    /// The feature.
    pub feature: Feature,
    /// What packing does.
    pub treatment: Treatment,
}

impl Info {
    /// Reads a module.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let anatomy = Anatomy::read(bytes)?;
        let treatment = anatomy
            .features
            .keys()
            .map(|feature| FeatureTreatment {
                feature: *feature,
                treatment: feature.treatment(Features::DEVICES),
            })
            .collect();
        Ok(Self {
            bytes: bytes.len(),
            digest: hex::encode(Sha256::digest(bytes)),
            toolchain: Toolchain::detect(&anatomy),
            treatment,
            anatomy,
        })
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let anatomy = &self.anatomy;
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<11}{value}");
        };
        line("size", format!("{} bytes", grouped(self.bytes as u64)));
        line("digest", format!("sha256:{}", self.digest));
        line("made by", self.toolchain.name().to_string());
        for producer in &anatomy.producers {
            line("", producer.clone());
        }
        line("memory", anatomy.memory.as_ref().map_or("none".to_string(), memory_text));
        line("functions", anatomy.functions.to_string());
        line("globals", anatomy.globals.to_string());
        line("table", format!("{} entries", anatomy.table_entries));
        line("data", format!("{} bytes", grouped(anatomy.data_bytes)));
        let mut list = |name: &str, items: Vec<String>| {
            let _ = writeln!(text, "{name}{}", if items.is_empty() { "\n  none" } else { "" });
            for item in items {
                let _ = writeln!(text, "  {item}");
            }
        };
        list(
            "sections",
            anatomy.sections.iter().map(|s| format!("{:<24}{:>9} bytes", s.name, grouped(s.bytes))).collect(),
        );
        let imports = anatomy.imports.iter();
        list("imports", imports.map(|i| format!("{}.{} {}", i.module, i.name, i.ty)).collect());
        list("exports", anatomy.exports.iter().map(|e| format!("{} {}", e.name, e.ty)).collect());
        let features = anatomy.features.iter().map(|(feature, used)| {
            let treatment = match feature.treatment(Features::DEVICES) {
                Treatment::Kept => "devices run it",
                Treatment::Lowered => "`wasmbed module pack` rewrites it",
                Treatment::Refused => "no device runs it",
            };
            format!("{feature}: {}, first in {}; {treatment}", times(used.count), used.first)
        });
        list("features beyond WebAssembly 1.0", features.collect());
        text
    }
}

/// `17 pages of 64 KiB, 1,088 KiB`
pub(crate) fn memory_text(memory: &Memory) -> String {
    let size = |bytes: u64| match bytes % 1024 {
        0 if bytes > 0 => format!("{} KiB", grouped(bytes / 1024)),
        _ => format!("{} bytes", grouped(bytes)),
    };
    let pages = match (memory.pages, memory.page_bytes) {
        (_, 1) => size(memory.bytes()),
        (1, page) => format!("1 page of {}", size(page)),
        (pages, page) => format!("{pages} pages of {}, {}", size(page), size(memory.bytes())),
    };
    let most = match memory.pages_max {
        Some(max) if max == memory.pages => ", fixed".to_string(),
        Some(max) => format!(", growing to {}", size(max.saturating_mul(memory.page_bytes))),
        None => ", growing".to_string(),
    };
    format!("{pages}{most}{}", if memory.imported { ", imported" } else { "" })
}
