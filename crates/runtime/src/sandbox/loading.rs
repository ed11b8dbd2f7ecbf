//! An application on its way into memory, and a module that is gone through once more for the places of a trap.

use super::application::Application;
use super::program::{Limits, RuntimeConfig};
use crate::engine::{Engine, EngineError, Quota, Trace};
use crate::functions::Strings;
use crate::host::AppId;
use crate::scan::{Capabilities, EntryKind, ModuleInfo, Scan};

pub(super) struct Loading<E: Engine> {
    pub(super) id: AppId,
    pub(super) strings: Strings,
    pub(super) limits: Limits,
    /// What it may use.
    pub(super) granted: Capabilities,
    pub(super) stage: Stage<E>,
}

/// ```text
/// Scan: what it needs is found, and that it may have it -> Load: validated, translated
/// ```
#[expect(clippy::large_enum_variant, reason = "the loader that devices have is larger than a scan")]
pub(super) enum Stage<E: Engine> {
    Scan(Scan),
    Load(Scanned<E>),
}

/// A module that the scan has accepted.
pub(super) struct Scanned<E: Engine> {
    pub(super) info: ModuleInfo,
    pub(super) entry: EntryKind,
    pub(super) quota: Quota,
    /// None before it has begun.
    pub(super) loader: Option<E::Loader>,
    /// It was begun again because there was no room in one piece.
    pub(super) compacted: bool,
}

impl<E: Engine> Scanned<E> {
    /// Loads on by about this much work; the engine once it is done. An error leaves nothing in the arena.
    pub(super) fn step(
        &mut self,
        arena: &E::Arena,
        module: &[u8],
        work: u32,
    ) -> Result<Option<E>, EngineError> {
        if self.loader.is_none() {
            self.loader = Some(E::begin(arena, module, &self.info, self.quota)?);
        }
        let Some(loader) = &mut self.loader else { return Ok(None) };
        let loaded = E::load_on(loader, module, &self.info, work);
        if !matches!(loaded, Ok(None)) {
            self.loader = None;
        }
        loaded
    }
}

impl<E: Engine> Loading<E> {
    pub(super) fn into_application(self, engine: E, quota: Quota, config: &RuntimeConfig) -> Application<E> {
        Application::new(self.id, engine, self.limits, self.strings, quota, config)
    }
}

pub(super) struct Locating<E: Engine> {
    /// Its places are not known yet.
    pub(super) trace: Trace,
    /// None before it has begun.
    pub(super) loader: Option<E::Loader>,
    /// It was begun again because there was no room in one piece.
    pub(super) compacted: bool,
}

impl<E: Engine> Locating<E> {
    /// Goes on by about this much work; the trace with its places once it is done. An error leaves nothing in the arena.
    pub(super) fn step(
        &mut self,
        arena: &E::Arena,
        module: &[u8],
        heap_bytes: usize,
        work: u32,
    ) -> Result<Option<Trace>, EngineError> {
        if self.loader.is_none() {
            self.loader = Some(E::begin_locate(arena, module, heap_bytes, self.trace)?);
        }
        let Some(loader) = &mut self.loader else { return Ok(None) };
        let located = E::locate_on(loader, module, work);
        if !matches!(located, Ok(None)) {
            self.loader = None;
        }
        located
    }
}
