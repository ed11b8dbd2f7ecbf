//! What is kept of a module once its bytes are gone: enough for the fit check.

use wasmbed_api::{DeviceFacts, ReasonCode};
use wasmbed_protocol::{ModuleDigest, SCHEMA_SECTION, Schema};
use wasmbed_scan::{Features, LOAD_PERMILLE, ModuleInfo, Refusal, ScanError, ScanLimits, scan};

use super::translation::{Translated, translate};

/// A module without its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleFacts {
    /// SHA-256 of the bytes.
    pub digest: ModuleDigest,
    /// Size in bytes.
    pub size: u32,
    /// What it needs of a device, or why no device can run it.
    pub needs: Result<ModuleNeeds, ModuleRefusal>,
}

/// What a module needs of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModuleNeeds {
    /// Host functions as `module.name`.
    pub imports: Vec<String>,
    /// Capabilities that its imports need.
    pub capabilities: Vec<&'static str>,
    /// Operator groups beyond WebAssembly 1.0.
    pub features: Vec<&'static str>,
    /// What it takes of a device's arena.
    pub footprint: Footprint,
    /// What it declares about settings: the content of that section.
    pub settings: String,
}

/// What an application can't do without in a device's arena. Memory that it may grow by is not in it: a device gives out
/// what is left, and growing fails in the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the module that are loaded: all but its custom sections.
    pub loaded_bytes: u64,
    /// Bytes that loading takes whatever the module's size: stack, table, host functions.
    pub fixed_bytes: u64,
    /// Linear memory that it starts with, bytes.
    pub linear_bytes: u64,
    /// What the engine of this build makes of it, where that could be found out.
    pub translated: Option<Translated>,
}

impl Footprint {
    fn of(info: &ModuleInfo, translated: Option<Translated>) -> Self {
        let loaded_bytes = u64::from(info.size.saturating_sub(info.custom_bytes));
        let scaled = loaded_bytes * u64::from(LOAD_PERMILLE) / 1_000;
        Self {
            loaded_bytes,
            fixed_bytes: info.load_bytes_estimate.saturating_sub(scaled),
            linear_bytes: info.memory_min_bytes,
            translated,
        }
    }

    /// What is known exactly for that device: it has the engine of this build.
    fn exact(&self, device: &DeviceFacts) -> Option<Translated> {
        self.translated.filter(|_| device.engine == wasmbed_engine::NAME)
    }

    /// Whether the bytes for that device are exact, and not an estimate.
    #[must_use]
    pub fn is_exact(&self, device: &DeviceFacts) -> bool {
        self.exact(device).is_some()
    }

    /// Bytes of it that it takes on that device whatever the module's size.
    #[must_use]
    pub fn fixed_bytes(&self, device: &DeviceFacts) -> u64 {
        self.exact(device).map_or(self.fixed_bytes, |translated| translated.stack_bytes)
    }

    /// Arena bytes that that device needs beside all that is kept, while it loads the module.
    #[must_use]
    pub fn loading_bytes(&self, device: &DeviceFacts) -> u64 {
        self.exact(device).map_or(0, |translated| translated.loading_bytes)
    }

    /// Arena bytes of the loaded module on that device, linear memory apart.
    #[must_use]
    pub fn module_bytes(&self, device: &DeviceFacts) -> u64 {
        if let Some(translated) = self.exact(device) {
            return translated.module_bytes;
        }
        let factor = u64::try_from(device.load_permille).unwrap_or(0);
        (self.loaded_bytes.saturating_mul(factor) / 1_000).saturating_add(self.fixed_bytes)
    }

    /// Arena bytes in all on that device.
    #[must_use]
    pub fn bytes(&self, device: &DeviceFacts) -> u64 {
        self.module_bytes(device).saturating_add(self.linear_bytes)
    }
}

/// Why no device can run a module.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleRefusal {
    /// For programs.
    pub reason: ReasonCode,
    /// For people.
    pub message: String,
}

impl ModuleFacts {
    /// Hashes and scans a module.
    #[must_use]
    pub fn analyze(bytes: &[u8]) -> Self {
        Self {
            digest: ModuleDigest::of(bytes),
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            needs: needs(bytes),
        }
    }
}

/// Scans with every feature that the scan can follow: whether a device runs them its facts say.
fn needs(bytes: &[u8]) -> Result<ModuleNeeds, ModuleRefusal> {
    let features = Features::NAMES.iter().fold(Features::NONE, |all, (feature, _)| all.union(*feature));
    let limits = ScanLimits { features, ..ScanLimits::default() };
    let info = scan(bytes, &limits).map_err(|error| refusal(&error))?;
    let translated = translate(bytes, &info).map_err(|error| ModuleRefusal {
        reason: ReasonCode::InvalidModule,
        message: format!("invalid module: {error}"),
    })?;
    Ok(ModuleNeeds {
        imports: info
            .imports
            .iter()
            .map(|import| format!("{}.{}", import.function.module(), import.function.name()))
            .collect(),
        capabilities: info.capabilities.iter().map(wasmbed_scan::Capability::name).collect(),
        features: Features::NAMES
            .iter()
            .filter(|(feature, _)| info.features.contains(*feature))
            .map(|(_, name)| *name)
            .collect(),
        footprint: Footprint::of(&info, translated),
        settings: declared_settings(bytes, &info)?,
    })
}

fn declared_settings(bytes: &[u8], info: &ModuleInfo) -> Result<String, ModuleRefusal> {
    let section = info.settings_section().and_then(|section| bytes.get(section)).unwrap_or_default();
    match Schema::parse(section) {
        Ok(_) => Ok(String::from_utf8_lossy(section).into_owned()),
        Err(error) => Err(ModuleRefusal {
            reason: ReasonCode::InvalidModule,
            message: format!("invalid module: section {SCHEMA_SECTION}: {error}"),
        }),
    }
}

fn refusal(error: &ScanError) -> ModuleRefusal {
    let reason = match error.code() {
        Refusal::InvalidModule | Refusal::TooComplex | Refusal::InvalidEntry | Refusal::InvalidProgram => {
            ReasonCode::InvalidModule
        }
        Refusal::ModuleTooLarge => ReasonCode::ModuleTooLarge,
        Refusal::UnsupportedFeature => ReasonCode::UnsupportedFeature,
        Refusal::UnknownImport => ReasonCode::UnknownImport,
        Refusal::CapabilityDenied => ReasonCode::CapabilityDenied,
        Refusal::MemoryLimit => ReasonCode::MemoryLimit,
        Refusal::OutOfMemory => ReasonCode::OutOfMemory,
        Refusal::TooManyApplications => ReasonCode::TooManyApplications,
    };
    ModuleRefusal { reason, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_module_are_refused_in_words() {
        let facts = ModuleFacts::analyze(b"base64 of something else");
        let refusal = facts.needs.unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::InvalidModule);
        assert!(refusal.message.contains("not a WebAssembly module"), "{}", refusal.message);
        assert_eq!(facts.size, 24);
    }

    #[test]
    fn imports_memory_and_capabilities_are_read_from_the_bytes() {
        let bytes = wat::parse_str(
            r#"(module (import "wasmbed" "gpio_read" (func (param i32) (result i32)))
               (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
               (memory 2) (func (export "_start") (drop (i32.extend8_s (i32.const 1)))))"#,
        )
        .unwrap();
        let needs = ModuleFacts::analyze(&bytes).needs.unwrap();
        assert_eq!(needs.imports, ["wasmbed.gpio_read", "wasi_snapshot_preview1.proc_exit"]);
        assert_eq!(needs.capabilities, ["gpio"]);
        assert_eq!(needs.features, ["sign-extension operators"]);
        assert_eq!(needs.footprint.linear_bytes, 131_072);
        assert_eq!(needs.footprint.loaded_bytes, bytes.len() as u64, "it has no custom section");
        assert!(needs.footprint.fixed_bytes > 0);
        let translated = needs.footprint.translated.unwrap();
        // It calls nothing: its own frame.
        assert_eq!(translated.stack_bytes, 12, "{translated:?}");
        assert!((50..200).contains(&translated.module_bytes), "{translated:?}");
    }

    #[test]
    fn what_does_not_validate_runs_nowhere() {
        let bytes =
            wat::parse_str(r#"(module (func (export "_start") (i32.add (i64.const 1) (i32.const 1)) drop))"#);
        let refusal = ModuleFacts::analyze(&bytes.unwrap()).needs.unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::InvalidModule);
        assert!(refusal.message.contains("i64"), "{}", refusal.message);
    }

    #[test]
    fn an_unknown_import_is_named() {
        let bytes =
            wat::parse_str(r#"(module (import "env" "launch" (func)) (func (export "_start")))"#).unwrap();
        let refusal = ModuleFacts::analyze(&bytes).needs.unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::UnknownImport);
        assert!(refusal.message.contains("env.launch"), "{}", refusal.message);
    }
}
