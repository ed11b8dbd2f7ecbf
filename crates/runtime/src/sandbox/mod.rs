//! The sandbox: a table of loaded applications, run one slice at a time, in turn.
//!
//! One [`Runtime`] belongs to one thread at a time and may be moved between threads; any number of them may live in one
//! process and run on any number of threads at once, each with an arena of its own.

mod application;
mod event;
mod loading;
mod metering;
mod program;

use alloc::vec::Vec;
use core::ops::Range;

pub use crate::functions::ARGUMENT_BYTES_MAX;
pub use application::News;
pub use event::{Ending, Event, Exceeded, LoadError, Usage};
pub use metering::Metering;
pub use program::{Limits, Program, RuntimeConfig};

use crate::engine::{Engine, EngineError, Quota, Trace};
use crate::functions::Strings;
use crate::host::{AppId, Completion, Host};
use crate::scan::{Capabilities, ModuleInfo, Scan, ScanError};
use application::Application;
use loading::{Loading, Locating, Scanned, Stage};

/// All applications of one device.
pub struct Runtime<E: Engine> {
    // Declared before the arena: applications give their blocks back to it when they are dropped.
    applications: Vec<Application<E>>,
    /// One at a time, so that nothing is moved while memory is taken.
    loading: Option<Loading<E>>,
    locating: Option<Locating<E>>,
    arena: E::Arena,
    config: RuntimeConfig,
    /// Whose turn it is.
    turn: usize,
}

impl<E: Engine> Runtime<E> {
    /// A sandbox without applications; the arena is taken at the first load.
    pub fn new(config: RuntimeConfig) -> Runtime<E> {
        let arena = E::arena(config.arena_bytes);
        Runtime::with_arena(arena, config)
    }

    /// A sandbox without applications in an arena that is there already; [`RuntimeConfig::arena_bytes`] is to say its size.
    /// Of the features that the configuration lets pass, those that the engine doesn't run are refused.
    pub fn with_arena(arena: E::Arena, mut config: RuntimeConfig) -> Runtime<E> {
        config.scan.features = config.scan.features.intersection(E::FEATURES);
        Runtime { applications: Vec::new(), loading: None, locating: None, arena, config, turn: 0 }
    }

    /// How it was set up.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// Scans and loads a program at once. It runs when its turn comes.
    pub fn load(&mut self, id: AppId, program: &Program<'_>) -> Result<(), LoadError> {
        self.begin_load(id, program)?;
        while self.load_on(program.module, u32::MAX)?.is_none() {}
        Ok(())
    }

    /// Begins to scan and to load a program; what was being loaded is dropped. The strings of a program are copied, its
    /// module is not: it is handed to each [`load_on`](Self::load_on).
    pub fn begin_load(&mut self, id: AppId, program: &Program<'_>) -> Result<(), LoadError> {
        self.loading = None;
        if self.position(id).is_some() {
            return Err(LoadError::AlreadyLoaded);
        }
        if self.applications.len() >= self.config.applications_max {
            return Err(LoadError::TooManyApplications { limit: self.config.applications_max });
        }
        self.make_room()?;
        let strings = Strings::new(program.name, program.args, program.env)
            .map_err(|bytes| LoadError::ArgumentsTooLong { bytes, limit: ARGUMENT_BYTES_MAX })?;
        let (limits, granted) = (program.limits, program.capabilities);
        let stage = Stage::Scan(Scan::new(&self.config.scan));
        self.loading = Some(Loading { id, strings, limits, granted, stage });
        Ok(())
    }

    /// Scans and loads on what [`begin_load`](Self::begin_load) began, by about this much work: an operator, a name or a few
    /// bytes of the module each. Answers the application once it is loaded; after an error there is nothing to load on.
    pub fn load_on(&mut self, module: &[u8], work: u32) -> Result<Option<AppId>, LoadError> {
        let scanned = match &mut self.loading {
            None => return Ok(None),
            Some(Loading { stage: Stage::Load(scanned), .. }) => scanned,
            Some(Loading { stage: Stage::Scan(scan), limits, granted, .. }) => {
                let (stepped, limits, granted) = (scan.step(module, work), *limits, *granted);
                return self.end_scan_step(stepped, limits, granted).map(|()| None);
            }
        };
        let stepped = scanned.step(&self.arena, module, work);
        match stepped {
            Ok(None) => return Ok(None),
            // Once more, if there is room when the rest is moved together.
            Err(EngineError::OutOfMemory { .. }) if !scanned.compacted => {
                scanned.compacted = true;
                if self.compact() {
                    return Ok(None);
                }
            }
            Ok(Some(_)) | Err(_) => {}
        }
        let Some(mut loading) = self.loading.take() else { return Ok(None) };
        let (Some(mut engine), Stage::Load(scanned)) = (stepped?, &mut loading.stage) else {
            return Ok(None);
        };
        let (quota, settings) = (scanned.quota, scanned.info.settings_section());
        if engine.start(scanned.entry.name(), &[]).is_err() {
            return Err(LoadError::Engine(EngineError::Invalid(
                "the entry needs more call stack than there is",
            )));
        }
        let id = loading.id;
        self.applications.push(loading.into_application(engine, quota, &self.config).with_settings(settings));
        Ok(Some(id))
    }

    /// What a step of scanning came to: once the scan is done, whether the program may have what its module needs.
    fn end_scan_step(
        &mut self,
        stepped: Result<Option<ModuleInfo>, ScanError>,
        limits: Limits,
        granted: Capabilities,
    ) -> Result<(), LoadError> {
        let scanned = match stepped {
            Ok(None) => return Ok(()),
            Ok(Some(info)) => self.allow(info, limits, granted),
            Err(error) => Err(LoadError::Scan(error)),
        };
        // Given up, unless it is put back.
        let loading = self.loading.take();
        let scanned = scanned?;
        self.loading = loading.map(|loading| Loading { stage: Stage::Load(scanned), ..loading });
        Ok(())
    }

    fn allow(
        &self,
        info: ModuleInfo,
        limits: Limits,
        granted: Capabilities,
    ) -> Result<Scanned<E>, LoadError> {
        check_capabilities(&info, granted)?;
        let quota = self.quota(&info, limits)?;
        let entry = info.entry.ok_or(LoadError::Scan(ScanError::NoEntry))?.kind;
        Ok(Scanned { info, entry, quota, loader: None, compacted: false })
    }

    /// Whether something is being loaded.
    pub fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Gives up what is being loaded.
    pub fn cancel_load(&mut self) {
        self.loading = None;
    }

    /// Unloads an application; false when there is none with this id. What it had not yet logged is gone.
    pub fn stop(&mut self, id: AppId) -> bool {
        match self.position(id) {
            Some(position) => {
                self.remove(position);
                true
            }
            None => false,
        }
    }

    /// The loaded applications.
    pub fn applications(&self) -> impl Iterator<Item = AppId> {
        self.applications.iter().map(|application| application.id)
    }

    /// What an application holds and has used, while it is loaded.
    pub fn usage(&self, id: AppId) -> Option<Usage> {
        self.position(id).and_then(|position| self.applications.get(position)).map(Application::usage)
    }

    /// Arena bytes in use, of all applications.
    pub fn memory_used_bytes(&self) -> usize {
        E::arena_used_bytes(&self.arena)
    }

    /// When [`run_slice`](Self::run_slice) has something to do next: now, at a later time, or never without a call of
    /// [`load`](Self::load) or [`complete`](Self::complete). Milliseconds of the same clock as [`Host::now_us`].
    pub fn next_wake(&self, now_ms: u64) -> Option<u64> {
        self.applications
            .iter()
            .filter_map(Application::due_us)
            .map(|us| us.div_ceil(1_000).max(now_ms))
            .min()
    }

    /// Whether [`run_slice`](Self::run_slice) would run something now.
    pub fn runnable(&self, now_ms: u64) -> bool {
        self.next_wake(now_ms).is_some_and(|wake| wake <= now_ms)
    }

    /// Runs one slice, at most `slice_ms` long, of the application whose turn it is. Answers how its run ended if it
    /// did. Returns at once when nothing is runnable.
    pub fn run_slice<H: Host + ?Sized>(&mut self, host: &mut H) -> Option<Event> {
        let now_us = host.now_us();
        let count = self.applications.len();
        let position = (0..count).map(|step| (self.turn + step) % count).find(|position| {
            self.applications.get(*position).and_then(Application::due_us).is_some_and(|due| due <= now_us)
        })?;
        self.turn = position + 1;
        let application = self.applications.get_mut(position)?;
        let ending = application.run(host, now_us, &self.config)?;
        let trace = if ending.is_trap() { application.trace() } else { Trace::default() };
        let event = Event { id: application.id, ending, usage: application.usage(), trace };
        application.flush_log(host);
        self.remove(position);
        Some(event)
    }

    /// Finds the places of a trace in the module of the application that trapped, at once. An error leaves it without.
    pub fn locate(&mut self, module: &[u8], trace: &mut Trace) -> Result<(), EngineError> {
        self.begin_locate(*trace);
        loop {
            if let Some(located) = self.locate_on(module, u32::MAX)? {
                *trace = located;
                return Ok(());
            }
        }
    }

    /// Begins to find the places of a trace in the module of the application that trapped, which has been removed: in memory
    /// that it gave back. Where something is loaded in the meantime, there may be too little.
    pub fn begin_locate(&mut self, trace: Trace) {
        self.locating = Some(Locating { trace, loader: None, compacted: false });
    }

    /// Goes on with what [`begin_locate`](Self::begin_locate) began, by about this much work, as of
    /// [`load_on`](Self::load_on). Answers the trace once its places are known; after an error there is nothing to go on with.
    pub fn locate_on(&mut self, module: &[u8], work: u32) -> Result<Option<Trace>, EngineError> {
        let Some(locating) = &mut self.locating else { return Ok(None) };
        let stepped = locating.step(&self.arena, module, self.config.heap_bytes_max, work);
        match stepped {
            Ok(None) => return Ok(None),
            Err(EngineError::OutOfMemory { .. }) if !locating.compacted => {
                locating.compacted = true;
                if self.compact() {
                    return Ok(None);
                }
            }
            Ok(Some(_)) | Err(_) => {}
        }
        self.locating = None;
        stepped
    }

    /// Gives up what is being located.
    pub fn cancel_locate(&mut self) {
        self.locating = None;
    }

    /// Hands an application the answer it sleeps for. False when it isn't waiting for an answer of this kind.
    pub fn complete(&mut self, id: AppId, completion: Completion<'_>) -> bool {
        let position = self.position(id);
        position
            .and_then(|position| self.applications.get_mut(position))
            .is_some_and(|app| app.complete(completion))
    }

    /// Something came for an application: its wait ends, if it has asked for such things in this run. Whether it was in one.
    pub fn wake(&mut self, id: AppId, news: News) -> bool {
        let position = self.position(id);
        position.and_then(|position| self.applications.get_mut(position)).is_some_and(|app| app.wake(news))
    }

    /// Where the module of an application says which settings it has: the content of that section.
    pub fn settings_section(&self, id: AppId) -> Option<Range<usize>> {
        let application = self.position(id).and_then(|position| self.applications.get(position));
        application.and_then(Application::settings_section)
    }

    /// All places at once, when the first is needed: a table that grew would need room for the old and the new one, at the
    /// very moment when the device is busy.
    fn make_room(&mut self) -> Result<(), LoadError> {
        let places = self.config.applications_max - self.applications.len();
        self.applications.try_reserve_exact(places).map_err(|_| {
            let needed_bytes = places * size_of::<Application<E>>();
            LoadError::Engine(EngineError::OutOfMemory { needed_bytes, free_bytes: 0 })
        })
    }

    /// Brings what the arena has left into one piece; false where it was.
    fn compact(&mut self) -> bool {
        let mut engines: Vec<&mut E> = self.applications.iter_mut().map(Application::engine_mut).collect();
        E::compact(&self.arena, &mut engines)
    }

    fn position(&self, id: AppId) -> Option<usize> {
        self.applications.iter().position(|application| application.id == id)
    }

    fn remove(&mut self, position: usize) {
        self.applications.remove(position);
        if self.turn > position {
            self.turn -= 1;
        }
    }

    /// Sets aside what the program may ever ask for, but beyond what it starts with never more than half of what the
    /// arena has left: one greedy application must not keep nine others from being loaded.
    fn quota(&self, info: &ModuleInfo, limits: Limits) -> Result<Quota, LoadError> {
        let limit_bytes = u64::from(limits.memory_bytes);
        let needed_bytes = info.memory_min_bytes;
        if needed_bytes > limit_bytes {
            return Err(LoadError::MemoryLimit { needed_bytes, limit_bytes });
        }
        let free_bytes = self.config.arena_bytes.saturating_sub(self.memory_used_bytes()) as u64;
        let linear = info.memory_wanted_bytes(limit_bytes).min(needed_bytes.max(free_bytes / 2));
        let pages = linear / u64::from(info.page_bytes.max(1));
        let linear_bytes = usize::try_from(pages * u64::from(info.page_bytes)).unwrap_or(usize::MAX);
        Ok(Quota {
            heap_bytes: self.config.heap_bytes_max,
            linear_bytes,
            stack_words: self.config.stack_words,
        })
    }
}

fn check_capabilities(info: &ModuleInfo, granted: Capabilities) -> Result<(), LoadError> {
    for import in &info.imports {
        if let Some(capability) = import.function.capability()
            && !granted.contains(capability)
        {
            return Err(LoadError::CapabilityDenied { import: import.function.name(), capability });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::interpreter::Interpreter;

    #[test]
    fn all_places_are_taken_with_the_first() {
        let module = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
        let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::default());
        let limits = Limits { memory_bytes: 0, cpu_ms: 1 };
        let capabilities = Capabilities::default();
        let program = Program { name: "nothing", module: &module, limits, args: &[], env: &[], capabilities };
        for number in 0..10 {
            runtime.load(AppId([number; 16]), &program).unwrap();
            assert_eq!(runtime.applications.capacity(), 10, "application {number}");
        }
    }
}
