//! One loaded application: its state, its slices, its meter.
//!
//! ```text
//!              fuel used up, host call answered
//!                 +-------+
//!                 v       |
//!   load ---> Runnable ---+---> wait --------> Sleeping --- due ---------> Runnable
//!                         +---> Pending -----> Blocked ---- complete() --> Runnable
//!                         +---> Ending (removed by the runtime)
//! ```

use core::ops::Range;

use super::event::{Ending, Exceeded, Usage};
use super::metering::{Calibration, Metering};
use super::program::{Limits, RuntimeConfig};
use crate::engine::{Engine, HostCall, ProgramTrap, Quota, Step, Trace, Trap};
use crate::functions::{Asked, Context, LogLines, Outcome, PendingCall, Strings, dispatch};
use crate::host::{AppId, Completion, Host};
use crate::scan::Value;

enum State {
    Runnable,
    Sleeping { until_us: u64, answer: Option<Value> },
    Blocked(PendingCall),
}

/// Bytes that cost a program one microsecond of its CPU limit, whatever the clock says: a host call costs an engine
/// almost no fuel, and a host with a fast log must not make a flood free.
const BYTES_PER_US: u64 = 16;
/// The least that a host call costs, microseconds.
const HOST_CALL_US: u64 = 2;

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A message came in.
    Message,
    /// A setting changed.
    Setting,
    /// A pin changed its level.
    Edge,
}

pub(crate) struct Application<E: Engine> {
    pub(crate) id: AppId,
    engine: E,
    state: State,
    strings: Strings,
    log: LogLines,
    asked: Asked,
    /// Where its module says which settings it has.
    settings: Option<Range<usize>>,
    limits: Limits,
    linear_bytes: u64,
    calibration: Calibration,
    cpu_since_wait_us: u64,
    cpu_us: u64,
    /// Since when it has been in a call that is a wait.
    waits_since_us: Option<u64>,
}

impl<E: Engine> Application<E> {
    pub(crate) fn new(
        id: AppId,
        engine: E,
        limits: Limits,
        strings: Strings,
        quota: Quota,
        config: &RuntimeConfig,
    ) -> Application<E> {
        Application {
            id,
            engine,
            state: State::Runnable,
            strings,
            log: LogLines::new(config.log_bytes_per_second),
            asked: Asked::default(),
            settings: None,
            limits,
            linear_bytes: quota.linear_bytes as u64,
            calibration: Calibration::new(),
            cpu_since_wait_us: 0,
            cpu_us: 0,
            waits_since_us: None,
        }
    }

    pub(crate) fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// When it can run: 0 for at once, `None` while it waits for an answer.
    pub(crate) fn due_us(&self) -> Option<u64> {
        match self.state {
            State::Runnable => Some(0),
            State::Sleeping { until_us, .. } => Some(until_us),
            State::Blocked(_) => None,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { memory_bytes: self.engine.memory_used_bytes() as u64, cpu_ms: self.cpu_us / 1_000 }
    }

    /// What was under way when it trapped.
    pub(crate) fn trace(&self) -> Trace {
        self.engine.trace()
    }

    pub(crate) fn flush_log<H: Host + ?Sized>(&mut self, host: &mut H) {
        self.log.flush(self.id, host);
    }

    /// Runs one slice. `Some` is the end of the run.
    pub(crate) fn run<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        now_us: u64,
        config: &RuntimeConfig,
    ) -> Option<Ending> {
        if let Some(since_us) = self.waits_since_us.take()
            && now_us.saturating_sub(since_us) >= WAIT_US_MIN
        {
            self.cpu_since_wait_us = 0;
        }
        if let State::Sleeping { answer, .. } = self.state {
            self.state = State::Runnable;
            if let Err(trap) = self.engine.resume(answer) {
                return Some(Ending::Trapped(trap));
            }
        }
        let (step, spent_us) = self.compute(host, now_us, config);
        self.charge(spent_us);
        let ending = match step {
            Step::OutOfFuel => None,
            Step::Done(_) => Some(Ending::Exited { code: 0 }),
            Step::Trap(trap) => Some(self.ending_of(trap)),
            Step::HostCall(call) => self.answer(host, call, config),
        };
        ending.or_else(|| {
            let over = self.cpu_since_wait_us > u64::from(self.limits.cpu_ms) * 1_000;
            over.then_some(Ending::Exceeded(Exceeded::Cpu { limit_ms: self.limits.cpu_ms }))
        })
    }

    /// Lets the engine run until the slice is over or it has something to say; answers the CPU time that took.
    fn compute<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        start_us: u64,
        config: &RuntimeConfig,
    ) -> (Step, u64) {
        let slice_us = u64::from(config.slice_ms) * 1_000;
        match config.metering {
            Metering::Fixed { fuel_per_ms } => {
                let stepped = self.engine.step(fuel_per_ms.saturating_mul(config.slice_ms));
                let spent_us = u64::from(stepped.fuel_used) * 1_000 / u64::from(fuel_per_ms.max(1));
                (stepped.step, spent_us)
            }
            Metering::Measured => {
                let mut last_us = start_us;
                // Bounds the slice where a clock does not move; elsewhere time ends it long before.
                for _ in 0..SLICE_QUANTA_MAX {
                    let stepped = self.engine.step(self.calibration.quantum());
                    let now_us = host.now_us().max(last_us);
                    let quantum_us = now_us - last_us;
                    self.calibration.learn(stepped.fuel_used, quantum_us);
                    last_us = now_us;
                    let spent_us = now_us - start_us;
                    let fits_another = spent_us + quantum_us.max(1) * 2 <= slice_us;
                    if !matches!(stepped.step, Step::OutOfFuel) || !fits_another {
                        return (stepped.step, spent_us);
                    }
                }
                (Step::OutOfFuel, last_us - start_us)
            }
        }
    }

    /// Answers a host call; it is the end of the slice.
    fn answer<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        call: HostCall,
        config: &RuntimeConfig,
    ) -> Option<Ending> {
        let before_us = host.now_us();
        let mut context = Context {
            id: self.id,
            now_us: before_us,
            engine: &mut self.engine,
            host: &mut *host,
            strings: &self.strings,
            log: &mut self.log,
            asked: &mut self.asked,
            bytes_moved: 0,
        };
        let outcome = dispatch(&mut context, &call);
        let bytes_us = HOST_CALL_US + context.bytes_moved / BYTES_PER_US;
        let spent_us = match config.metering {
            Metering::Measured => host.now_us().saturating_sub(before_us).max(bytes_us),
            Metering::Fixed { .. } => bytes_us,
        };
        self.charge(spent_us);
        match outcome {
            Outcome::Answer(value) => self.engine.resume(value).err().map(Ending::Trapped),
            Outcome::Sleep { until_us, answer } => {
                self.cpu_since_wait_us = 0;
                self.state = State::Sleeping { until_us, answer };
                None
            }
            Outcome::Blocked(pending) => {
                self.waits_since_us = pending.is_wait().then_some(before_us);
                self.state = State::Blocked(pending);
                None
            }
            Outcome::Exit(code) => Some(Ending::Exited { code }),
            Outcome::Trap(trap) => Some(Ending::Trapped(trap)),
        }
    }

    /// Takes a late answer; false when it is not the one waited for.
    pub(crate) fn complete(&mut self, completion: Completion<'_>) -> bool {
        let State::Blocked(pending) = &self.state else { return false };
        let Some(value) = pending.finish(completion, &mut self.engine) else { return false };
        // Woken through the queue of sleepers, due at once: the answer is handed over when the next slice begins.
        self.state = State::Sleeping { until_us: 0, answer: Some(value) };
        true
    }

    /// Something came: a wait is over, if it has asked for such things. Whether there was one.
    pub(crate) fn wake(&mut self, news: News) -> bool {
        let has_asked = match news {
            News::Message => self.asked.messages,
            News::Setting => self.asked.settings,
            News::Edge => self.asked.edges,
        };
        // A sleep with an answer is no wait, or over already.
        match &mut self.state {
            State::Sleeping { until_us, answer: None } if has_asked && *until_us > 0 => {
                *until_us = 0;
                true
            }
            _ => false,
        }
    }

    /// Where its module says which settings it has.
    pub(crate) fn settings_section(&self) -> Option<Range<usize>> {
        self.settings.clone()
    }

    pub(crate) fn with_settings(self, section: Option<Range<usize>>) -> Application<E> {
        Application { settings: section, ..self }
    }

    fn charge(&mut self, spent_us: u64) {
        self.cpu_since_wait_us += spent_us;
        self.cpu_us += spent_us;
    }

    fn ending_of(&self, trap: Trap) -> Ending {
        match trap {
            Trap::Program(ProgramTrap::StackOverflow) => Ending::Exceeded(Exceeded::Stack),
            // How a program gives up on memory that it can't have.
            Trap::Program(ProgramTrap::Unreachable) if self.engine.grows_refused() > 0 => {
                Ending::Exceeded(Exceeded::Memory { available_bytes: self.linear_bytes })
            }
            other => Ending::Trapped(other),
        }
    }
}

/// What is answered sooner was no wait: a program that never lacks bytes is a busy one.
const WAIT_US_MIN: u64 = 1_000;
/// Quanta of one slice at most.
const SLICE_QUANTA_MAX: u32 = 64;
