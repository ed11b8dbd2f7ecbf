//! The loop itself.
//!
//! ```text
//!   start: read state record -> read inventory -> agent
//!
//!   round: storage answers -> link in -> timers -> effects -> loading, places of traps -> link out -> slices -> buses -> storage begins -> watchdog
//! ```
//! Each step is bounded, so that none starves another: so many bytes in, so many frames out, so many
//! milliseconds of what takes long and of slices.

use alloc::{format, string::String, vec::Vec};

use wasmbed_agent::{
    Agent, ApplicationEvent, DeviceUsage, Effect, Restored, RunId, SessionState,
    storage::{Done, Inventory, Operation, Outcome, StorageError},
};
use wasmbed_protocol::{ApplicationState, ApplicationUid, BootId, Epoch};
use wasmbed_runtime::{Ending, News, Runtime, RuntimeConfig, engine::Engine};

use crate::{
    arbiter::{Owner, StorageArbiter},
    background::{Background, Finished},
    buses::{Buses, Moved},
    clock::Clock,
    facts::device_facts,
    host::{DeviceHost, Slot},
    journal,
    key_value::KeyValue,
    loading::Loaded,
    platform::{
        Board, Entropy as _, Identity as _, Level, Link as _, LinkState, LogSink as _, Platform,
        Storage as _, Timer as _, Watchdog as _,
    },
    reason,
    trace::Located,
    wire::{Sent, Wire},
};

/// Reads from the link in one round, a frame's worth each.
const READS_PER_ROUND: usize = 8;
/// Frames begun in one round.
const FRAMES_PER_ROUND: usize = 8;
/// Slices of one round together, milliseconds: two full ones, so that a frame waits hardly longer than a slice.
const SLICES_PER_ROUND_MS: u64 = 10;
/// What takes long, in one round, milliseconds: as long as a slice.
const BACKGROUND_PER_ROUND_MS: u64 = 5;
/// Its steps in one round at most, for a clock that does not move while code runs.
const STEPS_PER_ROUND: usize = 1_024;
/// Transfers over buses, in one round, milliseconds: some twenty bytes at 100 kHz.
const BUSES_PER_ROUND_MS: u64 = 2;
/// Their steps in one round at most, for a clock that does not move while code runs.
const BUS_STEPS_PER_ROUND: usize = 32;
/// Storage operations answered at once in one round, for storage that answers at once.
const STORAGE_PER_ROUND: usize = 16;
/// Attempts to read the state record after a start, a second apart. After them the device goes on without: it can be
/// reached at least, and knows no set.
const RESTORE_ATTEMPTS: u32 = 5;
/// Between two such attempts.
const RESTORE_PAUSE_MS: u64 = 1_000;
/// While the link takes no more, its owner wakes the loop; this is for links that can't.
const LINK_FULL_PAUSE_MS: u64 = 20;
/// How often what applications use is read.
const USAGE_INTERVAL_MS: u64 = 1_000;

/// What a supervisor is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the board is.
    pub board: Board,
    /// The sandbox: its arena and its bounds.
    pub runtime: RuntimeConfig,
}

/// One device: agent, runtime and board in one loop.
pub struct Supervisor<E: Engine, P: Platform> {
    platform: P,
    config: Config,
    runtime: Runtime<E>,
    start: Restoring,
    agent: Option<Agent>,
    /// What is on its way there, and what trapped.
    background: Background,
    /// What is loaded.
    slots: Vec<Slot>,
    wire: Wire,
    /// What the agent knows of the link.
    linked: Linked,
    key_value: KeyValue,
    buses: Buses,
    clock: Clock,
    storage: StorageArbiter,
    /// CPU time of runs that are over, milliseconds.
    cpu_ms_before: u64,
    usage_at_ms: u64,
}

/// Where the start is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Restoring {
    attempts: u32,
    retry_at_ms: u64,
    /// The state record, once it was read.
    state: Option<Option<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linked {
    No,
    Connecting,
    Yes,
    /// Closed from this side; its end is still to show.
    Ending,
}

impl<E: Engine, P: Platform> Supervisor<E, P> {
    /// A device that has just started. Nothing happens before the first [`Supervisor::poll`].
    pub fn new(config: Config, platform: P, now_ms: u64) -> Self {
        let runtime = Runtime::new(config.runtime.clone());
        Self::with_runtime(runtime, config, platform, now_ms)
    }

    /// The same with applications' memory of the board's own: [`RuntimeConfig::arena_bytes`] is to say its size.
    pub fn with_arena(arena: E::Arena, config: Config, platform: P, now_ms: u64) -> Self {
        let runtime = Runtime::with_arena(arena, config.runtime.clone());
        Self::with_runtime(runtime, config, platform, now_ms)
    }

    #[inline(never)]
    fn with_runtime(runtime: Runtime<E>, config: Config, platform: P, now_ms: u64) -> Self {
        Self {
            platform,
            runtime,
            config,
            start: Restoring { attempts: 0, retry_at_ms: now_ms, state: None },
            agent: None,
            background: Background::default(),
            slots: Vec::new(),
            wire: Wire::new(),
            linked: Linked::No,
            key_value: KeyValue::default(),
            buses: Buses::default(),
            clock: Clock::default(),
            storage: StorageArbiter::default(),
            cpu_ms_before: 0,
            usage_at_ms: now_ms,
        }
    }

    /// Moves everything on by one round and answers the time, on the same clock, at which to call again if nothing happens
    /// before: a link that can be read or written, or a storage operation that is done, is a reason to call at once. The
    /// answer is `now_ms` when there is more to do right away.
    // Not a part of a board's loop: see `work`.
    #[inline(never)]
    pub fn poll(&mut self, now_ms: u64) -> u64 {
        self.poll_storage(now_ms);
        let mut again = false;
        let mut sent = Sent::All;
        if self.agent.is_some() {
            again |= self.receive(now_ms);
            self.with_agent(|agent| agent.handle_timeout(now_ms));
            again |= self.perform_effects(now_ms);
            self.work(now_ms);
            self.read_usage(now_ms);
            sent = self.transmit();
            self.run_slices(now_ms);
            again |= self.move_buses(now_ms);
            // What slices and sending led to, so that nothing waits for the next round without need.
            again |= self.perform_effects(now_ms) || sent == Sent::More;
        }
        // What storage answered now may be worth a frame: another range to ask for, or a report that waited for it.
        again |= self.poll_storage(now_ms) || self.background.is_busy();
        let deadline_ms = match self.agent {
            None => self.start.retry_at_ms,
            Some(_) => self.deadline(now_ms, sent),
        };
        if let Some(agent) = &mut self.agent {
            journal::write_events(self.platform.log(), agent);
        }
        if !self.storage.is_stuck(now_ms) {
            self.platform.watchdog().feed();
        }
        if again { now_ms } else { deadline_ms.max(now_ms) }
    }

    /// The board.
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Takes the board back, as a loss of power does.
    pub fn into_platform(self) -> P {
        self.platform
    }

    /// The agent, once what storage held was read.
    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Epoch of the established session.
    pub fn session(&self) -> Option<Epoch> {
        match self.agent.as_ref()?.session() {
            SessionState::Established(epoch) => Some(epoch),
            SessionState::Down | SessionState::Connecting | SessionState::Joining | SessionState::Closing => {
                None
            }
        }
    }

    /// Whether the device was decommissioned and has nothing left to do before its next start.
    pub fn is_at_rest(&self) -> bool {
        self.agent.as_ref().is_some_and(Agent::is_at_rest)
    }

    /// The applications of the desired set and the states that are reported of them.
    pub fn applications(&self) -> impl Iterator<Item = (ApplicationUid, ApplicationState)> {
        self.agent.iter().flat_map(Agent::applications)
    }

    /// How many applications are loaded.
    pub fn loaded(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the applications' memory that are in use.
    pub fn arena_used_bytes(&self) -> usize {
        self.runtime.memory_used_bytes()
    }

    /// Bytes of the applications' memory.
    pub fn arena_bytes(&self) -> usize {
        self.config.runtime.arena_bytes
    }

    fn with_agent(&mut self, act: impl FnOnce(&mut Agent)) {
        if let Some(agent) = &mut self.agent {
            act(agent);
        }
    }

    // Storage.

    /// Takes answers and begins operations. True if there was an answer.
    fn poll_storage(&mut self, now_ms: u64) -> bool {
        let mut answered = false;
        for _ in 0..STORAGE_PER_ROUND {
            if self.storage.is_working() {
                let Some(outcome) = self.platform.storage().poll() else { return answered };
                self.handle_outcome(now_ms, outcome);
                answered = true;
            }
            let Some((owner, operation)) = self.next_operation(now_ms) else { return answered };
            self.storage.begin(owner, now_ms);
            self.platform.storage().start(operation);
        }
        answered
    }

    /// The agent and the applications take turns.
    fn next_operation(&mut self, now_ms: u64) -> Option<(Owner, Operation)> {
        if self.agent.is_none() {
            let operation = match &self.start.state {
                _ if self.start.retry_at_ms > now_ms => return None,
                None => Operation::ReadState,
                Some(_) => Operation::Inventory,
            };
            return Some((Owner::Start, operation));
        }
        // What the agent wants next may have come up since its effects were performed.
        if self.storage.has_room() {
            self.perform_effects(now_ms);
        }
        if let Some(operation) = self.storage.take(self.key_value.is_waiting()) {
            return Some((Owner::Agent, operation));
        }
        let operation = self.key_value.poll_storage()?;
        if let Operation::CommitData { uid, .. } = &operation {
            let uid = *uid;
            self.with_agent(|agent| agent.handle_data_record(uid));
        }
        Some((Owner::Application, operation))
    }

    fn handle_outcome(&mut self, now_ms: u64, outcome: Outcome) {
        match self.storage.finish() {
            None => debug_assert!(false, "storage is polled only while it works"),
            Some(Owner::Start) => self.restore(now_ms, outcome),
            Some(Owner::Agent) => self.with_agent(|agent| agent.handle_storage(now_ms, outcome)),
            Some(Owner::Application) => {
                if let Some((id, answered)) = self.key_value.handle_storage(outcome) {
                    self.runtime.complete(id, answered.completion());
                }
            }
        }
    }

    fn restore(&mut self, now_ms: u64, outcome: Outcome) {
        let problem = match (outcome, self.start.state.take()) {
            (Ok(Done::Record(state)), None) => {
                self.start.state = Some(state);
                return;
            }
            (Ok(Done::Inventory(inventory)), Some(state)) => {
                return self.begin(now_ms, Restored { state, state_unread: false, inventory });
            }
            (Err(StorageError::Failed(message)), state) => {
                self.start.state = state;
                message
            }
            (_, state) => {
                self.start.state = state;
                String::from("storage gave another answer")
            }
        };
        self.start.attempts += 1;
        self.start.retry_at_ms = now_ms.saturating_add(RESTORE_PAUSE_MS);
        let attempt = self.start.attempts;
        let log = self.platform.log();
        journal::plain(
            log,
            Level::Error,
            format_args!("stored state not read, attempt {attempt}: {problem}"),
        );
        if attempt >= RESTORE_ATTEMPTS {
            let read = self.start.state.take();
            let state_unread = read.is_none();
            let restored = Restored { state: read.flatten(), state_unread, inventory: Inventory::default() };
            self.begin(now_ms, restored);
        }
    }

    fn begin(&mut self, now_ms: u64, restored: Restored) {
        let mut boot_id = BootId::default();
        self.platform.entropy().fill(&mut boot_id.0);
        let config = wasmbed_agent::Config {
            boot_id,
            facts: device_facts::<E>(&self.config.board, &self.config.runtime),
            reset_reason: self.config.board.reset_reason,
            reset_detail: self.config.board.reset_detail.clone(),
            provisioned: self.platform.identity().provisioned(),
            unix_s: self.platform.identity().unix_s(),
        };
        self.agent = Some(Agent::new(config, restored, now_ms));
    }

    // Link.

    /// Reads what came and tells the agent how the link is. True if more may be there.
    fn receive(&mut self, now_ms: u64) -> bool {
        let state = self.platform.link().state();
        if state == LinkState::Up && self.linked == Linked::Connecting {
            self.linked = Linked::Yes;
            self.wire.clear();
            self.with_agent(|agent| agent.handle_connected(now_ms));
        }
        let mut more = false;
        if self.linked == Linked::Yes {
            more = self.read_frames(now_ms);
        }
        if state == LinkState::Down && self.linked != Linked::No && !more {
            self.linked = Linked::No;
            self.wire.clear();
            let mut random = [0; 4];
            self.platform.entropy().fill(&mut random);
            self.with_agent(|agent| agent.handle_disconnected(now_ms, u32::from_le_bytes(random)));
        }
        more
    }

    fn read_frames(&mut self, now_ms: u64) -> bool {
        let Some(agent) = &mut self.agent else {
            debug_assert!(false, "frames are read once the agent has begun");
            return false;
        };
        for _ in 0..READS_PER_ROUND {
            let read = self.wire.receive(self.platform.link(), |body| agent.handle_frame(now_ms, body));
            match read {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    // The stream can't be followed any further. The agent hears of the link's end when the link reports it.
                    journal::plain(
                        self.platform.log(),
                        Level::Warn,
                        format_args!("connection given up: {error}"),
                    );
                    self.wire.clear();
                    self.platform.link().close();
                    self.linked = Linked::Ending;
                    return false;
                }
            }
        }
        true
    }

    fn transmit(&mut self) -> Sent {
        match &mut self.agent {
            Some(agent) if self.linked == Linked::Yes => {
                self.wire.send(self.platform.link(), FRAMES_PER_ROUND, |buffer| agent.poll_transmit(buffer))
            }
            Some(_) | None => Sent::All,
        }
    }

    // Effects.

    /// Does what the agent asks for. True if the link may have changed at once.
    fn perform_effects(&mut self, now_ms: u64) -> bool {
        let mut link_touched = false;
        while self.storage.has_room() {
            let Some(effect) = self.agent.as_mut().and_then(Agent::poll_effect) else { break };
            match effect {
                Effect::Connect => {
                    self.connect(now_ms);
                    link_touched = true;
                }
                Effect::MakeKey
                | Effect::UseKey
                | Effect::Request
                | Effect::Prove(_)
                | Effect::CheckChain
                | Effect::CheckOrder
                | Effect::SignProof(_)
                | Effect::ForgetKeys => self.compute(now_ms, &effect),
                Effect::Close => {
                    self.platform.link().close();
                    self.linked = Linked::Ending;
                    link_touched = true;
                }
                Effect::Storage(operation) => self.storage.put(operation),
                Effect::Start(start) => self.background.start(start),
                Effect::Wake { uid } => {
                    self.runtime.wake(Slot::id_of(uid), News::Message);
                }
                Effect::SettingsChanged { uid } => {
                    self.runtime.wake(Slot::id_of(uid), News::Setting);
                }
                Effect::Stop { run, uid } => {
                    if self.background.cancel(run, &mut self.runtime) {
                        continue;
                    }
                    if let Some(index) = self.slots.iter().position(|slot| slot.run == run) {
                        let slot = self.slots.swap_remove(index);
                        let used = self.runtime.usage(slot.id()).unwrap_or_default();
                        self.cpu_ms_before = self.cpu_ms_before.saturating_add(used.cpu_ms);
                        self.runtime.stop(slot.id());
                        self.key_value.forget(uid);
                        self.buses.forget(uid);
                        journal::about(
                            self.platform.log(),
                            Level::Info,
                            &slot,
                            format_args!("application stopped"),
                        );
                    }
                }
            }
        }
        link_touched
    }

    fn connect(&mut self, now_ms: u64) {
        let Some(agent) = &mut self.agent else {
            debug_assert!(false, "only an agent connects");
            return;
        };
        self.wire.clear();
        match self.platform.identity().present(agent.presented()) {
            Ok(()) => {
                self.linked = Linked::Connecting;
                self.platform.link().connect();
            }
            Err(error) => {
                let mut random = [0; 4];
                self.platform.entropy().fill(&mut random);
                agent.handle_unpresented(now_ms, u32::from_le_bytes(random), error);
            }
        }
    }

    /// What the board computes for the agent, which may take some hundred milliseconds.
    // As `work`: its stack lies below no handshake.
    #[inline(never)]
    fn compute(&mut self, now_ms: u64, effect: &Effect) {
        let Some(agent) = &mut self.agent else {
            debug_assert!(false, "only an agent asks for keys");
            return;
        };
        let identity = self.platform.identity();
        match effect {
            Effect::MakeKey => agent.handle_key(now_ms, identity.make_key()),
            Effect::UseKey => {
                let used = identity.use_key(agent.operational_key());
                agent.handle_key_used(now_ms, used);
            }
            Effect::Request => agent.handle_request(now_ms, identity.request()),
            Effect::Prove(device) => {
                let made = identity.prove(&device.namespace, &device.name, device.device_uid);
                agent.handle_proof(now_ms, made);
            }
            Effect::CheckChain => {
                let judged = identity.check(agent.received_chain());
                agent.handle_chain(now_ms, judged);
            }
            Effect::CheckOrder => {
                let judged = identity.check_order(agent.order());
                agent.handle_order(now_ms, judged);
            }
            Effect::SignProof(proof) => {
                let signed = identity.sign_proof(proof);
                agent.handle_proof_signed(now_ms, signed);
            }
            Effect::ForgetKeys => identity.forget_keys(),
            Effect::Connect
            | Effect::Close
            | Effect::Storage(_)
            | Effect::Start(_)
            | Effect::Stop { .. }
            | Effect::SettingsChanged { .. }
            | Effect::Wake { .. } => debug_assert!(false, "nothing to compute"),
        }
    }

    /// Goes on with what takes long, until the round's time for it is used up.
    // Not a part of its caller: what it has on the stack would lie below a handshake as well.
    #[inline(never)]
    fn work(&mut self, now_ms: u64) {
        let begun_us = self.platform.timer().now_us();
        for _ in 0..STEPS_PER_ROUND {
            if !self.background.is_busy() {
                return;
            }
            let storage = self.platform.storage();
            match self.background.step(&mut self.runtime, storage, &self.config.board) {
                None => {}
                Some(Finished::Start(run, loaded)) => {
                    let event = match loaded {
                        Ok(loaded) => self.keep(now_ms, loaded),
                        Err(event) => event,
                    };
                    self.with_agent(|agent| agent.handle_application(now_ms, run, event));
                }
                Some(Finished::Trap(located)) => self.tell_trap(now_ms, *located),
            }
            if self.platform.timer().now_us().saturating_sub(begun_us) >= BACKGROUND_PER_ROUND_MS * 1_000 {
                return;
            }
        }
    }

    fn tell_trap(&mut self, now_ms: u64, located: Located) {
        let Located { slot, event, trapped, problem } = located;
        let log = self.platform.log();
        if let Some(problem) = problem {
            let message = format_args!("not all of the trap's places were found in the module: {problem}");
            journal::about(log, Level::Warn, &slot, message);
        }
        let (reason, message) = reason::ended(&event.ending);
        let (text, message) = trapped.with_frames(|frames| {
            let text = reason::with_frames(&message, frames, trapped.frames_left_out);
            (text, reason::with_place(message, frames.iter().next()))
        });
        log.application_line(&slot.uid, &slot.name, &text);
        self.with_agent(|agent| {
            agent.handle_application(now_ms, slot.run, ApplicationEvent::Line { text, lines_lost: 0 });
            agent.handle_application(now_ms, slot.run, ApplicationEvent::Trapped(trapped));
            agent.handle_application(now_ms, slot.run, ApplicationEvent::Ended { reason, message });
        });
    }

    fn keep(&mut self, now_ms: u64, Loaded { slot, grants, schema }: Loaded) -> ApplicationEvent {
        self.buses.grant(slot.uid, grants);
        journal::about(self.platform.log(), Level::Info, &slot, format_args!("application running"));
        let used = self.runtime.usage(slot.id()).unwrap_or_default();
        let run = slot.run;
        self.slots.push(slot);
        // First, so that the report that it runs has its usage.
        let usage = ApplicationEvent::Usage { memory_bytes: used.memory_bytes, cpu_ms: used.cpu_ms };
        self.with_agent(|agent| {
            agent.handle_application(now_ms, run, usage);
            agent.handle_application(now_ms, run, ApplicationEvent::Schema(schema));
        });
        ApplicationEvent::Started
    }

    // Applications.

    /// Gives applications their turns, each a slice at most, until the round's time is used up or nobody can run.
    #[inline(never)]
    fn run_slices(&mut self, now_ms: u64) {
        let Some(agent) = &mut self.agent else {
            debug_assert!(false, "applications run once the agent has begun");
            return;
        };
        let begun_us = self.platform.timer().now_us();
        self.clock.begin(now_ms, begun_us);
        for _ in 0..self.slots.len() {
            if !self.runtime.runnable(now_ms) {
                return;
            }
            let mut host = DeviceHost {
                platform: &mut self.platform,
                agent,
                key_value: &mut self.key_value,
                buses: &mut self.buses,
                slots: &self.slots,
                now_ms,
                clock: &mut self.clock,
            };
            if let Some(event) = self.runtime.run_slice(&mut host)
                && let Some(index) = self.slots.iter().position(|slot| slot.id() == event.id)
            {
                let slot = self.slots.swap_remove(index);
                self.key_value.forget(slot.uid);
                self.buses.forget(slot.uid);
                self.cpu_ms_before = self.cpu_ms_before.saturating_add(event.usage.cpu_ms);
                let usage = ApplicationEvent::Usage { memory_bytes: 0, cpu_ms: event.usage.cpu_ms };
                agent.handle_application(now_ms, slot.run, usage);
                if event.ending.is_trap() {
                    // That it ended is told with the functions.
                    self.background.locate(slot, event);
                } else {
                    tell_end(agent, now_ms, slot.run, &event.ending);
                }
            }
            let spent_us = self.platform.timer().now_us().saturating_sub(begun_us);
            if spent_us >= SLICES_PER_ROUND_MS * 1_000 {
                return;
            }
        }
    }

    /// Moves transfers on until the round's time for them is used up. True if there is more to do at once.
    #[inline(never)]
    fn move_buses(&mut self, now_ms: u64) -> bool {
        if self.buses.due_us().is_none() {
            return false;
        }
        self.tell_lost(now_ms);
        self.look_at_pins();
        let begun_us = self.platform.timer().now_us();
        for _ in 0..BUS_STEPS_PER_ROUND {
            let timer_us = self.platform.timer().now_us();
            if timer_us.saturating_sub(begun_us) >= BUSES_PER_ROUND_MS * 1_000 {
                return true;
            }
            match self.buses.step(self.platform.peripherals(), self.clock.read(timer_us)) {
                Moved::Idle => return false,
                Moved::Waiting => return true,
                Moved::Working => {}
                Moved::Done(id, finished) => {
                    self.runtime.complete(id, finished.completion());
                }
            }
        }
        true
    }

    /// Ends waits for edges of pins.
    fn look_at_pins(&mut self) {
        let now_us = self.clock.read(self.platform.timer().now_us());
        let runtime = &mut self.runtime;
        self.buses.pins.look(self.platform.peripherals(), now_us, |id| runtime.wake(id, News::Edge));
    }

    /// Tells people of bytes that applications lost.
    fn tell_lost(&mut self, now_ms: u64) {
        let timer_us = self.platform.timer().now_us();
        while let Some(lost) = self.buses.uart.poll_lost(self.clock.read(timer_us)) {
            let Some(slot) = self.slots.iter().find(|slot| slot.uid == lost.uid) else { continue };
            let text = format!(
                "uart{}: bytes lost {} times since they were not read in time",
                lost.port, lost.times
            );
            let log = self.platform.log();
            journal::about(log, Level::Warn, slot, format_args!("{text}"));
            if let Some(agent) = &mut self.agent {
                let line = ApplicationEvent::Line { text, lines_lost: 0 };
                agent.handle_application(now_ms, slot.run, line);
            }
        }
    }

    fn read_usage(&mut self, now_ms: u64) {
        if now_ms < self.usage_at_ms {
            return;
        }
        self.usage_at_ms = now_ms.saturating_add(USAGE_INTERVAL_MS);
        let Some(agent) = &mut self.agent else {
            debug_assert!(false, "usage is read once the agent has begun");
            return;
        };
        let mut cpu_ms = self.cpu_ms_before;
        for slot in &self.slots {
            let used = self.runtime.usage(slot.id()).unwrap_or_default();
            cpu_ms = cpu_ms.saturating_add(used.cpu_ms);
            let usage = ApplicationEvent::Usage { memory_bytes: used.memory_bytes, cpu_ms: used.cpu_ms };
            agent.handle_application(now_ms, slot.run, usage);
        }
        agent
            .handle_usage(DeviceUsage { memory_used_bytes: self.runtime.memory_used_bytes() as u64, cpu_ms });
    }

    fn deadline(&self, now_ms: u64, sent: Sent) -> u64 {
        let agent = self.agent.as_ref().and_then(Agent::poll_timeout).unwrap_or(u64::MAX);
        // What is due but can't be sent waits for the link.
        let agent =
            if sent == Sent::Blocked { agent.max(now_ms.saturating_add(LINK_FULL_PAUSE_MS)) } else { agent };
        let runtime = self.runtime.next_wake(now_ms).unwrap_or(u64::MAX);
        let buses = self.buses.due_us().map_or(u64::MAX, |us| us.div_ceil(1_000));
        agent.min(runtime).min(buses)
    }
}

fn tell_end(agent: &mut Agent, now_ms: u64, run: RunId, ending: &Ending) {
    let (reason, message) = reason::ended(ending);
    agent.handle_application(now_ms, run, ApplicationEvent::Ended { reason, message });
}
