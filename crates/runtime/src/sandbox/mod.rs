//! The sandbox: a table of loaded applications, run one slice at a time, in turn.
//!
//! One [`Runtime`] belongs to one thread at a time and may be moved between threads; any number of them may live in one
//! process and run on any number of threads at once, each with an arena of its own. With the feature `std` their loads
//! run side by side; without it (a device has one thread) loads wait for each other.

pub(crate) mod application;
mod event;
mod metering;

use alloc::vec::Vec;

pub use event::{Ending, Event, Exceeded, LoadError, Usage};
pub use metering::Metering;

use crate::capability::Capabilities;
use crate::engine::{Engine, Quota};
use crate::host::{Host, KeyValueError};
use crate::scan::{ModuleInfo, ScanLimits, scan};
use application::{Application, Strings};

/// Bytes of arguments and environment of one application, terminators included.
pub const ARGUMENT_BYTES_MAX: usize = 4_096;

/// Names an application: its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub [u8; 16]);

/// Limits of one application, from its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory at most, bytes.
    pub memory_bytes: u32,
    /// CPU time between two waits at most, milliseconds.
    pub cpu_ms: u32,
}

/// An application to load.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// What `argv[0]` says.
    pub name: &'a str,
    /// The module's bytes; not needed any more once loaded.
    pub module: &'a [u8],
    /// Its limits.
    pub limits: Limits,
    /// Arguments after `argv[0]`.
    pub args: &'a [&'a str],
    /// Environment, names and values.
    pub env: &'a [(&'a str, &'a str)],
    /// What it may do beyond the baseline.
    pub capabilities: Capabilities,
}

/// What the applications of one device share.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Applications loaded at once.
    pub applications_max: usize,
    /// Longest slice, milliseconds.
    pub slice_ms: u32,
    /// Arena bytes that one loaded module may take, linear memory apart.
    pub heap_bytes_max: usize,
    /// 32-bit words of each application's call stack.
    pub stack_words: usize,
    /// Log bytes that one application may write in a second; twice that at once.
    pub log_bytes_per_second: u32,
    /// How CPU time is told.
    pub metering: Metering,
    /// What modules are accepted.
    pub scan: ScanLimits,
}

impl Default for RuntimeConfig {
    /// A board with 512 KiB of RAM. All programs measured load in less than 200 kB and run with 192 words of stack; the
    /// stack here is larger because it is what bounds recursion.
    fn default() -> Self {
        RuntimeConfig {
            arena_bytes: 384 * 1_024,
            applications_max: 10,
            slice_ms: 5,
            heap_bytes_max: 200_000,
            stack_words: 2_048,
            log_bytes_per_second: 4_096,
            metering: Metering::Measured,
            scan: ScanLimits::default(),
        }
    }
}

impl RuntimeConfig {
    /// A device that is a process on a host: ten applications with a MiB of linear memory each. The arena takes real
    /// memory only as applications touch it. The call stack is a board's: what recurses too deep there does so here.
    pub fn hosted() -> Self {
        RuntimeConfig {
            arena_bytes: 32 * 1_024 * 1_024,
            heap_bytes_max: 2 * 1_024 * 1_024,
            ..RuntimeConfig::default()
        }
    }
}

/// The late answer to a host call that [`Host`] left pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion<'a> {
    /// Of `key_value_get`: the value, or that there is none.
    Value(Option<&'a [u8]>),
    /// Of `key_value_put`.
    Stored,
    /// Of `key_value_delete`: whether the key was there.
    Deleted(bool),
    /// Of any of them.
    Failed(KeyValueError),
}

/// All applications of one device.
pub struct Runtime<E: Engine> {
    // Applications stand before the arena: they give their blocks back to it when they are dropped.
    applications: Vec<Application<E>>,
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
    pub fn with_arena(arena: E::Arena, config: RuntimeConfig) -> Runtime<E> {
        Runtime { applications: Vec::new(), arena, config, turn: 0 }
    }

    /// How it was set up.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// Scans and loads a program. It runs when its turn comes.
    pub fn load(&mut self, id: AppId, program: &Program<'_>) -> Result<(), LoadError> {
        if self.position(id).is_some() {
            return Err(LoadError::AlreadyLoaded);
        }
        if self.applications.len() >= self.config.applications_max {
            return Err(LoadError::TooManyApplications { limit: self.config.applications_max });
        }
        let strings = Strings::new(program)?;
        let info = scan(program.module, &self.config.scan)?;
        self.check_capabilities(&info, program.capabilities)?;
        let quota = self.quota(&info, program.limits)?;
        let entry = info.entry.ok_or(LoadError::Scan(crate::scan::ScanError::NoEntry))?;
        let mut engine = E::load(&self.arena, program.module, &info, quota)?;
        if engine.start(entry.kind.name(), &[]).is_err() {
            return Err(LoadError::Engine(crate::engine::EngineError::Invalid(
                "the entry needs more call stack than there is",
            )));
        }
        self.applications.push(Application::new(id, engine, program, strings, quota, &self.config));
        Ok(())
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
        let event = Event { id: application.id, ending, usage: application.usage() };
        application.flush_log(host);
        self.remove(position);
        Some(event)
    }

    /// Hands an application the answer it sleeps for. False when it isn't waiting for an answer of this kind.
    pub fn complete(&mut self, id: AppId, completion: Completion<'_>) -> bool {
        let position = self.position(id);
        position
            .and_then(|position| self.applications.get_mut(position))
            .is_some_and(|app| app.complete(completion))
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

    fn check_capabilities(&self, info: &ModuleInfo, granted: Capabilities) -> Result<(), LoadError> {
        for import in &info.imports {
            if let Some(capability) = import.function.capability()
                && !granted.contains(capability)
            {
                return Err(LoadError::CapabilityDenied { import: import.function.name(), capability });
            }
        }
        Ok(())
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
