//! `wasmbed module check`: what a device would say about a module, without a device.
//!
//! The device's own scan decides. It stops at the first thing it refuses, so the module is also looked through for
//! everything else, and whether packing would help is tried out.

use wasmbed_control::fleet::translate;
use wasmbed_protocol::{SCHEMA_SECTION, Schema};
use wasmbed_scan::{
    Capabilities, Capability, Features, HostFunction, LOAD_FIXED_BYTES, ModuleInfo, ScanError, ScanLimits,
    scan,
};

use super::anatomy::{Anatomy, Import};
use super::feature::{Feature, Treatment};
use super::pack::{PackError, pack};
use crate::output::{grouped, times};

/// What a module is checked against.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// The Application's `memory_limit`, bytes.
    pub memory_limit_bytes: u64,
    /// What a device has for applications, bytes.
    pub device_memory_bytes: u64,
    /// What the Application's `capabilities` grant; absent checks nothing.
    pub capabilities: Option<Capabilities>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Each would make a device, or the fit check before it, refuse the module.
    pub refused: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Checks a module as it is.
pub fn check(bytes: &[u8], options: &CheckOptions) -> Findings {
    let mut findings = Findings::default();
    let limits = ScanLimits::default();
    let anatomy = Anatomy::read(bytes);
    match scan(bytes, &limits) {
        Ok(info) => {
            check_resources(bytes, &info, options, &mut findings);
            check_settings(bytes, &info, &mut findings);
            if let Ok(anatomy) = &anatomy {
                findings.notes.extend(on_older_devices(anatomy));
            }
        }
        Err(error) => {
            if let Ok(anatomy) = &anatomy {
                findings.refused.extend(refusals(anatomy, limits.host_functions));
            }
            // What only the scan looks at: counts and depths.
            if !names_what_refusals_name(&error) || findings.refused.is_empty() {
                findings.refused.insert(0, error.to_string());
            }
            if packing_helps(bytes, &limits) {
                findings
                    .notes
                    .push("`wasmbed module pack` (and `apply`) make it a module that devices accept".into());
            }
        }
    }
    // The scan looks at structure; types are validated by the engine, and here.
    if let Err(error) = anatomy
        && findings.refused.is_empty()
    {
        findings.refused.push(error.to_string());
    }
    findings
}

/// What devices of before this version, which run less, need of a module that this version's run.
fn on_older_devices(anatomy: &Anatomy) -> Option<String> {
    let named = |wanted: Treatment| {
        let treated = |feature: &Feature| feature.treatment(Features::FIRST_DEVICES) == wanted;
        let names: Vec<_> = anatomy.features.keys().copied().filter(treated).map(Feature::name).collect();
        names.join(", ")
    };
    match (named(Treatment::Lowered), named(Treatment::Refused)) {
        (_, refused) if !refused.is_empty() => {
            Some(format!("devices of before this version may not run it, for {refused}"))
        }
        (lowered, _) if !lowered.is_empty() => Some(format!(
            "devices of before this version may run it only after `wasmbed module pack --lower`, for {lowered}"
        )),
        _ => None,
    }
}

/// Whether a device would accept the module once it is packed.
fn packing_helps(bytes: &[u8], limits: &ScanLimits) -> bool {
    pack(bytes).is_ok_and(|packed| scan(&packed.bytes, limits).is_ok())
}

/// Whether [`refusals`] says the same with more detail.
fn names_what_refusals_name(error: &ScanError) -> bool {
    matches!(
        error,
        ScanError::UnknownImport { .. }
            | ScanError::ImportKind { .. }
            | ScanError::ImportType { .. }
            | ScanError::EntryType { .. }
            | ScanError::Unsupported { .. }
    )
}

/// Every import, entry and feature that speaks against a module.
fn refusals(anatomy: &Anatomy, host: &[HostFunction]) -> Vec<String> {
    let mut lines: Vec<String> =
        anatomy.imports.iter().filter_map(|import| import_problem(import, host)).collect();
    for export in &anatomy.exports {
        if ["_start", "run"].contains(&export.name.as_str()) && export.ty != "func ()" {
            lines.push(format!("entry '{}' is {}, a device starts func ()", export.name, export.ty));
        }
    }
    for (feature, used) in &anatomy.features {
        match feature.treatment(Features::DEVICES) {
            Treatment::Kept => {}
            Treatment::Lowered => {
                lines.push(format!(
                    "{feature}, {} (first in {}): pack rewrites it",
                    times(used.count),
                    used.first
                ));
            }
            Treatment::Refused => {
                lines.push(format!(
                    "{feature}, {} (first in {}): no device runs it",
                    times(used.count),
                    used.first
                ));
            }
        }
    }
    lines
}

fn import_problem(import: &Import, host: &[HostFunction]) -> Option<String> {
    let known =
        host.iter().find(|function| function.module() == import.module && function.name() == import.name);
    let name = format!("{}.{}", import.module, import.name);
    match known {
        None => {
            let hint = match import.module.as_str() {
                "env" => " (an undefined symbol: declare where it comes from, or link what defines it)",
                "wasi_unstable" => " (a snapshot before WASI preview 1: use a newer toolchain)",
                module if module.starts_with("wbg") || module.starts_with("__wbindgen") => {
                    " (wasm-bindgen's, for browsers)"
                }
                _ => "",
            };
            Some(format!("unknown import '{name}' {}{hint}", import.ty))
        }
        Some(function) => {
            let expected = function.to_string();
            let expected = expected.strip_prefix(&format!("{name} ")).unwrap_or(&expected);
            // A type without results is written `(i32) -> ()` there and `(i32)` here.
            let expected = format!("func {}", expected.strip_suffix(" -> ()").unwrap_or(expected));
            (import.ty != expected)
                .then(|| format!("import '{name}' is {}, a device has {expected}", import.ty))
        }
    }
}

fn check_resources(bytes: &[u8], info: &ModuleInfo, options: &CheckOptions, findings: &mut Findings) {
    if info.memory_min_bytes > options.memory_limit_bytes {
        findings.refused.push(format!(
            "it starts with {} bytes of memory, memory_limit is {}",
            grouped(info.memory_min_bytes),
            grouped(options.memory_limit_bytes)
        ));
    }
    let linear = info.memory_wanted_bytes(options.memory_limit_bytes);
    let (module_bytes, fixed, loading_bytes) = match translate(bytes, info) {
        Ok(Some(translated)) => {
            let fixed = (translated.stack_bytes, "for its call stack");
            (translated.module_bytes, fixed, translated.loading_bytes)
        }
        Ok(None) => (info.load_bytes_estimate, (LOAD_FIXED_BYTES, "that every application takes"), 0),
        Err(error) => return findings.refused.push(format!("invalid module: {error}")),
    };
    let kept = module_bytes + info.memory_min_bytes;
    if kept + loading_bytes > options.device_memory_bytes {
        findings.refused.push(format!(
            "it takes {} bytes of a device, and {} more while it is loaded; the device has {}",
            grouped(kept),
            grouped(loading_bytes),
            grouped(options.device_memory_bytes)
        ));
    }
    findings.notes.push(format!(
        "it takes {} bytes of a device: {} {}, {} for its code and tables, {} of memory to begin \
         with; and {} more while it is loaded",
        grouped(kept),
        grouped(fixed.0),
        fixed.1,
        grouped(module_bytes.saturating_sub(fixed.0)),
        grouped(info.memory_min_bytes),
        grouped(loading_bytes)
    ));
    if linear > info.memory_min_bytes {
        findings.notes.push(format!(
            "it can grow: a device sets aside up to {} bytes of memory for it, as far as it has them",
            grouped(linear)
        ));
    }
    for capability in Capability::ALL {
        let imports: Vec<_> = info
            .imports
            .iter()
            .filter(|import| import.function.capability() == Some(capability))
            .map(|import| import.function.name())
            .collect();
        if imports.is_empty() {
            continue;
        }
        let line = format!("capability `{capability}`, for {}", imports.join(", "));
        match options.capabilities {
            Some(granted) if !granted.contains(capability) => {
                findings.refused.push(format!("it needs the {line}, which is not granted"));
            }
            Some(_) => {}
            None => findings.notes.push(format!("the Application must grant the {line}")),
        }
    }
    let stubs: Vec<_> = info
        .imports
        .iter()
        .filter(|import| import.function.is_stub())
        .map(|import| import.function.name())
        .collect();
    if !stubs.is_empty() {
        findings
            .notes
            .push(format!("imported, but a device only answers \"not supported\": {}", stubs.join(", ")));
    }
}

/// What it declares about settings, a note for each.
fn check_settings(bytes: &[u8], info: &ModuleInfo, findings: &mut Findings) {
    let section = info.settings_section().and_then(|section| bytes.get(section)).unwrap_or_default();
    let schema = match Schema::parse(section) {
        Ok(schema) => schema,
        Err(error) => return findings.refused.push(format!("section `{SCHEMA_SECTION}`: {error}")),
    };
    for setting in schema.iter() {
        let reported = if setting.is_reported { ", reported" } else { "" };
        findings.notes.push(format!(
            "setting `{}`: {}, default {}{reported}",
            setting.name, setting.kind, setting.default
        ));
    }
}

/// The advice for a module that packing refuses, if that is the reason.
pub(crate) fn pack_advice(bytes: &[u8]) -> Vec<String> {
    match pack(bytes) {
        Ok(packed) => packed.advice,
        Err(PackError::Unsupported { advice, .. }) => advice,
        Err(
            PackError::Read(_) | PackError::NoEntry { .. } | PackError::Settings(_) | PackError::Defect(_),
        ) => Vec::new(),
    }
}
