//! What takes long: one at a time, and some of it in each round, so that neighbours keep their slices and the link its turns
//! while a large module is loaded, or gone through once more for the places of a trap. Each has the arena's free memory to
//! itself.

use alloc::{boxed::Box, collections::VecDeque};

use wasmbed_agent::{ApplicationEvent, RunId, Start};
use wasmbed_runtime::{Event, Runtime, engine::Engine};

use crate::{
    host::Slot,
    loading::{Loaded, Loading},
    platform::{Board, Storage},
    trace::{Located, Locating},
};

/// What came of one.
pub(crate) enum Finished {
    /// Of a start: the application is loaded, or why not.
    Start(RunId, Result<Loaded, ApplicationEvent>),
    /// Where a run trapped.
    Trap(Box<Located>),
}

/// What is to be done, in the order in which it came up.
#[derive(Default)]
pub(crate) struct Background {
    current: Option<Job>,
    queue: VecDeque<Job>,
}

enum Job {
    Load(Box<Loading>),
    Locate(Box<Locating>),
}

impl Job {
    fn run(&self) -> RunId {
        match self {
            Self::Load(loading) => loading.run(),
            Self::Locate(locating) => locating.run(),
        }
    }
}

impl Background {
    /// Takes a start.
    pub(crate) fn start(&mut self, start: Start) {
        self.queue.push_back(Job::Load(Box::new(Loading::new(start))));
    }

    /// Takes a run that trapped.
    pub(crate) fn locate(&mut self, slot: Slot, event: Event) {
        self.queue.push_back(Job::Locate(Box::new(Locating::new(slot, event))));
    }

    /// Whether there is something to do.
    pub(crate) fn is_busy(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// Gives up what is to be done for a run; false if that is nothing.
    pub(crate) fn cancel<E: Engine>(&mut self, run: RunId, runtime: &mut Runtime<E>) -> bool {
        if self.current.take_if(|job| job.run() == run).is_some() {
            runtime.cancel_load();
            runtime.cancel_locate();
            return true;
        }
        let before = self.queue.len();
        self.queue.retain(|job| job.run() != run);
        self.queue.len() < before
    }

    /// One step; what came of something if that was its last.
    pub(crate) fn step<E: Engine>(
        &mut self,
        runtime: &mut Runtime<E>,
        storage: &mut impl Storage,
        board: &Board,
    ) -> Option<Finished> {
        match self.current.take().or_else(|| self.queue.pop_front())? {
            Job::Load(mut loading) => match loading.step(runtime, storage, board).transpose() {
                None => self.current = Some(Job::Load(loading)),
                Some(loaded) => return Some(Finished::Start(loading.run(), loaded)),
            },
            Job::Locate(mut locating) => match locating.step(runtime, storage) {
                false => self.current = Some(Job::Locate(locating)),
                true => return Some(Finished::Trap(Box::new(locating.into_located()))),
            },
        }
        None
    }
}
