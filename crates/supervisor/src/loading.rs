//! An application on its way from storage into the sandbox:
//!
//! ```text
//! Verify: the module's bytes still have their digest -> Load: scanned, validated, translated -> runs
//! ```

use alloc::{format, string::String, vec::Vec};

use wasmbed_agent::{ApplicationEvent, ModuleHasher, RunId, Start, storage::StorageError};
use wasmbed_protocol::{ReportReason, Spec, decode_spec, limits::SETTINGS_SCHEMA_BYTES_MAX};
use wasmbed_runtime::{Capabilities, Capability, Limits, Program, Runtime, engine::Engine};

use crate::{
    buses::{self, Grants},
    facts::granted,
    host::Slot,
    module_bytes::{ModuleBytes, WORK},
    platform::{Board, Storage},
    reason,
};

/// Bytes of one step over which the digest is computed.
const VERIFY_BYTES: usize = 2_048;

/// An application that runs from now on.
pub(crate) struct Loaded {
    pub(crate) slot: Slot,
    /// What it may do on buses.
    pub(crate) grants: Grants,
    /// What its module declares about settings.
    pub(crate) schema: Vec<u8>,
}

/// A start under way.
pub(crate) struct Loading {
    start: Start,
    module: ModuleBytes,
    stage: Stage,
}

enum Stage {
    Verify { hasher: ModuleHasher, offset: usize },
    Load,
}

impl Loading {
    pub(crate) fn new(start: Start) -> Self {
        let stage = Stage::Verify { hasher: ModuleHasher::default(), offset: 0 };
        Self { start, module: ModuleBytes::default(), stage }
    }

    pub(crate) fn run(&self) -> RunId {
        self.start.run
    }

    /// One step; the application once it is loaded.
    pub(crate) fn step<E: Engine>(
        &mut self,
        runtime: &mut Runtime<E>,
        storage: &mut impl Storage,
        board: &Board,
    ) -> Result<Option<Loaded>, ApplicationEvent> {
        let module = self.module.get(storage, &self.start.digest).map_err(unread)?;
        match &mut self.stage {
            Stage::Verify { hasher, offset } => {
                let rest = module.get(*offset..).ok_or(ApplicationEvent::Damaged)?;
                let part = rest.get(..VERIFY_BYTES).unwrap_or(rest);
                hasher.update(part);
                *offset += part.len();
                if part.len() < rest.len() {
                    return Ok(None);
                }
                if core::mem::take(hasher).finish() != self.start.digest {
                    return Err(ApplicationEvent::Damaged);
                }
                begin(&self.start, module, runtime, board)?;
                self.stage = Stage::Load;
                Ok(None)
            }
            Stage::Load => {
                let loaded = runtime.load_on(module, WORK).map_err(|error| not_loaded(&error))?;
                let Some(id) = loaded else { return Ok(None) };
                // A longer one is none.
                let section = runtime.settings_section(id).and_then(|section| module.get(section));
                let section = section.filter(|section| section.len() <= SETTINGS_SCHEMA_BYTES_MAX);
                loaded_of(&self.start, section.unwrap_or_default()).map(Some)
            }
        }
    }
}

fn begin<E: Engine>(
    start: &Start,
    module: &[u8],
    runtime: &mut Runtime<E>,
    board: &Board,
) -> Result<(), ApplicationEvent> {
    let spec = decode(start)?;
    let capabilities = capabilities(&spec, board)
        .map_err(|name| refused(ReportReason::Unsupported, format!("this device has no '{name}'")))?;
    if let Some((what, name)) = buses::absent(&spec, board) {
        return Err(refused(ReportReason::Unsupported, format!("this device has no {what} '{name}'")));
    }
    let args: Vec<&str> = spec.args.iter().collect();
    let env: Vec<(&str, &str)> = spec.env.iter().map(|variable| (variable.name, variable.value)).collect();
    let program = Program {
        name: spec.name.rsplit('/').next().unwrap_or(spec.name),
        module,
        limits: Limits {
            memory_bytes: u32::try_from(spec.memory_limit_bytes).unwrap_or(u32::MAX),
            cpu_ms: spec.cpu_limit_ms,
        },
        args: &args,
        env: &env,
        capabilities,
    };
    runtime.begin_load(Slot::id_of(start.uid), &program).map_err(|error| not_loaded(&error))
}

fn loaded_of(start: &Start, schema: &[u8]) -> Result<Loaded, ApplicationEvent> {
    let spec = decode(start)?;
    let (name, digest, correlation_id) = (String::from(spec.name), start.digest, start.correlation_id);
    let slot = Slot { uid: start.uid, run: start.run, name, digest, correlation_id };
    Ok(Loaded { slot, grants: Grants::of(&spec), schema: schema.to_vec() })
}

fn decode(start: &Start) -> Result<Spec<'_>, ApplicationEvent> {
    decode_spec(&start.spec)
        .map_err(|error| refused(ReportReason::Unsupported, format!("assignment not usable: {error}")))
}

fn unread(error: StorageError) -> ApplicationEvent {
    match error {
        StorageError::Missing => ApplicationEvent::Damaged,
        StorageError::Full => refused(ReportReason::StorageFailed, String::from("storage is full")),
        StorageError::Failed(message) => refused(ReportReason::StorageFailed, message),
    }
}

fn refused(reason: ReportReason, message: String) -> ApplicationEvent {
    ApplicationEvent::Refused { reason, message }
}

fn not_loaded(error: &wasmbed_runtime::LoadError) -> ApplicationEvent {
    let (reason, message) = reason::refused(error);
    refused(reason, message)
}

/// What the assignment grants, or the name of what this device doesn't have.
fn capabilities<'a>(spec: &Spec<'a>, board: &Board) -> Result<Capabilities, &'a str> {
    spec.capabilities
        .iter()
        .map(|name| match Capability::from_name(name) {
            Some(capability) if granted(board).any(|known| known == capability) => Ok(capability),
            Some(_) | None => Err(name),
        })
        .collect()
}
