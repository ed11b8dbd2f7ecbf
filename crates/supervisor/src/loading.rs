//! Applications on their way from storage into the sandbox: one at a time, and some of the work in each round, so that
//! neighbours keep their slices and the link its turns while a large module is loaded.
//!
//! ```text
//! queue -> Verify: the module's bytes still have their digest -> Load: scanned, validated, translated -> runs
//! ```

use alloc::{borrow::Cow, collections::VecDeque, format, string::String, vec::Vec};

use wasmbed_agent::{ApplicationEvent, ModuleHasher, RunId, Start, storage::StorageError};
use wasmbed_protocol::{ModuleDigest, ReportReason, Spec, decode_spec};
use wasmbed_runtime::{Capabilities, Capability, Limits, Program, Runtime, engine::Engine};

use crate::{
    facts::granted,
    host::Slot,
    platform::{Board, Storage},
    reason,
};

/// Bytes of one step over which the digest is computed.
const VERIFY_BYTES: usize = 2_048;
/// Work of one step of loading: some 100 operators, about 70,000 instructions of a board.
const LOAD_WORK: u32 = 100;

/// What came of a start.
pub(crate) type Outcome = (RunId, Result<Slot, ApplicationEvent>);

/// The starts that the agent asked for and that are not done yet.
#[derive(Default)]
pub(crate) struct Loading {
    queue: VecDeque<Start>,
    current: Option<Current>,
}

struct Current {
    start: Start,
    /// The module's bytes, where storage has to copy them.
    copy: Option<Vec<u8>>,
    stage: Stage,
}

enum Stage {
    Verify { hasher: ModuleHasher, offset: usize },
    Load,
}

impl Loading {
    /// Takes a start.
    pub(crate) fn push(&mut self, start: Start) {
        self.queue.push_back(start);
    }

    /// Whether there is something to load.
    pub(crate) fn is_busy(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// Gives up a start; false if it is not one of these.
    pub(crate) fn cancel<E: Engine>(&mut self, run: RunId, runtime: &mut Runtime<E>) -> bool {
        if self.current.take_if(|current| current.start.run == run).is_some() {
            runtime.cancel_load();
            return true;
        }
        let before = self.queue.len();
        self.queue.retain(|start| start.run != run);
        self.queue.len() < before
    }

    /// One step; what came of a start if that was its last.
    pub(crate) fn step<E: Engine>(
        &mut self,
        runtime: &mut Runtime<E>,
        storage: &mut impl Storage,
        board: &Board,
    ) -> Option<Outcome> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => Current::new(self.queue.pop_front()?),
        };
        let outcome = match current.step(runtime, storage, board) {
            Ok(None) => {
                self.current = Some(current);
                return None;
            }
            Ok(Some(slot)) => Ok(slot),
            Err(event) => Err(event),
        };
        Some((current.start.run, outcome))
    }
}

impl Current {
    fn new(start: Start) -> Self {
        Self { start, copy: None, stage: Stage::Verify { hasher: ModuleHasher::default(), offset: 0 } }
    }

    fn step<E: Engine>(
        &mut self,
        runtime: &mut Runtime<E>,
        storage: &mut impl Storage,
        board: &Board,
    ) -> Result<Option<Slot>, ApplicationEvent> {
        let module = module(&mut self.copy, storage, &self.start.digest)?;
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
                let loaded = runtime.load_on(module, LOAD_WORK).map_err(|error| not_loaded(&error))?;
                loaded.map(|_| slot(&self.start)).transpose()
            }
        }
    }
}

/// The module's bytes: where they lie, or a copy that is kept as long as they are needed.
fn module<'a>(
    copy: &'a mut Option<Vec<u8>>,
    storage: &'a mut impl Storage,
    digest: &ModuleDigest,
) -> Result<&'a [u8], ApplicationEvent> {
    if copy.is_none() {
        match storage.module(digest) {
            Ok(Cow::Borrowed(mapped)) => return Ok(mapped),
            Ok(Cow::Owned(bytes)) => *copy = Some(bytes),
            Err(StorageError::Missing) => return Err(ApplicationEvent::Damaged),
            Err(StorageError::Full) => {
                return Err(refused(ReportReason::StorageFailed, String::from("storage is full")));
            }
            Err(StorageError::Failed(message)) => return Err(refused(ReportReason::StorageFailed, message)),
        }
    }
    Ok(copy.as_deref().unwrap_or_default())
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

fn slot(start: &Start) -> Result<Slot, ApplicationEvent> {
    let name = String::from(decode(start)?.name);
    let (digest, correlation_id) = (start.digest, start.correlation_id);
    Ok(Slot { uid: start.uid, run: start.run, name, digest, correlation_id })
}

fn decode(start: &Start) -> Result<Spec<'_>, ApplicationEvent> {
    decode_spec(&start.spec)
        .map_err(|error| refused(ReportReason::Unsupported, format!("assignment not usable: {error}")))
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
