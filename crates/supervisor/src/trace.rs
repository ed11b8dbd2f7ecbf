//! Where an application trapped: its places are found in the module that storage has.

use alloc::{format, string::String, vec::Vec};

use wasmbed_agent::{RunId, Trapped, TrappedFrame};
use wasmbed_protocol::TrapKind;
use wasmbed_runtime::{Event, Runtime, engine::Engine};

use crate::{
    host::Slot,
    module_bytes::{ModuleBytes, WORK},
    platform::Storage,
    reason,
};

/// A run that trapped, whose places are sought.
pub(crate) struct Locating {
    slot: Slot,
    event: Event,
    module: ModuleBytes,
    has_begun: bool,
    names: Vec<String>,
    problem: Option<String>,
}

/// A run that trapped, with the functions that were under way and their places and names as far as they could be found: a
/// device that has not the memory for it, or whose storage fails, says which functions they were.
pub(crate) struct Located {
    pub(crate) slot: Slot,
    pub(crate) event: Event,
    pub(crate) trapped: Trapped,
    /// Why not all of it was found.
    pub(crate) problem: Option<String>,
}

impl Locating {
    pub(crate) fn new(slot: Slot, event: Event) -> Self {
        let names = event.trace.frames().iter().map(|_| String::new()).collect();
        Self { slot, event, module: ModuleBytes::default(), has_begun: false, names, problem: None }
    }

    pub(crate) fn run(&self) -> RunId {
        self.slot.run
    }

    /// One step; whether it was the last.
    pub(crate) fn step<E: Engine>(&mut self, runtime: &mut Runtime<E>, storage: &mut impl Storage) -> bool {
        let module = match self.module.get(storage, &self.slot.digest) {
            Ok(module) => module,
            Err(error) => {
                self.problem = Some(format!("{error:?}"));
                runtime.cancel_locate();
                return true;
            }
        };
        if !self.has_begun {
            self.has_begun = true;
            runtime.begin_locate(self.event.trace);
            return false;
        }
        match runtime.locate_on(module, WORK) {
            Ok(None) => return false,
            Ok(Some(trace)) => self.event.trace = trace,
            Err(error) => self.problem = Some(format!("{error}")),
        }
        let names = &mut self.names;
        let named = self.event.trace.names(&mut &*module, &mut |at, name| {
            if let Some(kept) = names.get_mut(at) {
                *kept = String::from(name);
            }
        });
        if let Err(error) = named {
            self.problem.get_or_insert_with(|| format!("{error}"));
        }
        true
    }

    pub(crate) fn into_located(self) -> Located {
        let Self { slot, event, names, problem, .. } = self;
        let frames = event.trace.frames().iter().zip(names).map(|(frame, name)| TrappedFrame {
            function: frame.function,
            offset: frame.offset,
            name,
        });
        let kind = reason::trapped(&event.ending).unwrap_or(TrapKind::Sandbox);
        let trapped = Trapped { kind, frames: frames.collect(), frames_left_out: event.trace.left_out() };
        Located { slot, event, trapped, problem }
    }
}
