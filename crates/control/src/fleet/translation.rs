//! What a module takes of a device's memory, found out by translating it as the device does.

use wasmbed_engine::{Config, Error, ErrorKind, FunctionType, Imports, Loader, Progress};
use wasmbed_scan::{ModuleInfo, STACK_SLOTS};

/// Linear memory with which a module is translated here; one that begins with more has its needs estimated. No device that
/// is a microcontroller has as much.
const LINEAR_BYTES_MAX: u64 = 16 << 20;
/// Bytes of translated code for each byte of the module at most; what goes beyond is estimated, and refused by a device.
const EXPANSION_MAX: u64 = 12;

/// Bytes that a module takes of the arena of a device that has the engine of this build. They depend on the module alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// What is kept, linear memory apart: code, tables, globals, call stack.
    pub module_bytes: u64,
    /// The call stack's, of those.
    pub stack_bytes: u64,
    /// What there has to be beside it while the module is loaded.
    pub loading_bytes: u64,
}

/// Translates a module that the scan has accepted; `None` where it is beyond what is translated here.
///
/// # Errors
/// It does not validate.
pub fn translate(module: &[u8], info: &ModuleInfo) -> Result<Option<Translated>, Error> {
    if info.memory_min_bytes > LINEAR_BYTES_MAX {
        return Ok(None);
    }
    let loading = Loader::SCRATCH_BYTES as u64 + u64::from(STACK_SLOTS) * 4;
    let bytes = info.memory_min_bytes + module.len() as u64 * EXPANSION_MAX + loading + 65_536;
    let mut block = vec![0; usize::try_from(bytes.div_ceil(8)).unwrap_or(0)];
    let config = Config {
        stack_slots: STACK_SLOTS,
        memory_bytes: u32::try_from(info.memory_min_bytes).unwrap_or(u32::MAX),
        table_growth: info.table_growth_wanted(),
    };
    let mut source = module;
    let Some(mut loader) = Loader::new(&mut block, &source, config) else { return Ok(None) };
    loop {
        match loader.step(&mut source, &Scanned, u32::MAX) {
            Ok(Progress::Done) => break,
            Ok(Progress::More) => {}
            Err(Error { kind: ErrorKind::Memory { .. }, .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let most_bytes = loader.bytes_most() as u64;
    let Some(instance) = loader.finish() else { return Ok(None) };
    let kept_bytes = instance.bytes() as u64;
    Ok(Some(Translated {
        module_bytes: kept_bytes.saturating_sub(info.memory_min_bytes),
        stack_bytes: instance.stack_bytes() as u64,
        loading_bytes: most_bytes.saturating_sub(kept_bytes),
    }))
}

/// The imports of a module that was scanned: all of them are host functions.
struct Scanned;

impl Imports for Scanned {
    fn find(&self, _: &str, _: &str, _: FunctionType<'_>) -> Option<u16> {
        Some(0)
    }
}
