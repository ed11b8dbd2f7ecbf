//! When a call to the Kubernetes API is made: order, rate, back-off.
//!
//! The queue holds devices, not values: what is written is worked out when its turn comes, so a device waits at most
//! once and only its newest truth is written.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_api::DeviceSpec;
use wasmbed_protocol::rate::{Rate, TokenBucket};

use super::{
    config::{
        Config, DEVICE_BACKOFF_MS, EVENTS_MAX, HEARTBEAT_RATE_DIVISOR, STATUS_WRITES, WRITE_SPACING_MIN_MS,
        WRITES_FREE, WRITES_IN_FLIGHT_MAX, WRITES_PER_STEP,
    },
    events::QueuedEvent,
    input::WriteId,
};
use crate::{ObjectKey, backoff::ApiPause, intern::hash_of, kubernetes::Event};

/// Conflicts in a row after which a device waits: another writer is at it.
const CONFLICTS_MAX: u32 = 5;

/// What a write is about, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Revocation, enrollment, rejection.
    Enrollment,
    /// An application failed.
    Failure,
    /// A session began or ended.
    Edge,
    /// Another result.
    Result,
    /// Facts and conditions.
    Facts,
    /// An Event.
    Event,
    /// A sign of life, memory in use.
    Heartbeat,
}

impl Priority {
    /// Whether what a device does decides how often such a write is needed; signs of life have a rhythm of their own.
    pub(super) fn is_caused_by_device(self) -> bool {
        match self {
            Self::Failure | Self::Edge | Self::Result | Self::Facts => true,
            Self::Enrollment | Self::Event | Self::Heartbeat => false,
        }
    }
}

/// State of the writes of one device: one of them waits or is under way at a time.
///
/// ```text
/// Writer::schedule ── queued ── Writer::next_ready ─> take_turn, then begin ── under way ── handle_answer, then one of
///                                                                             succeeded, conflicted, pause, schedule again
/// ```
#[derive(Debug, Default)]
pub(super) struct WriteState {
    queued: Option<Queued>,
    in_flight: Option<WriteId>,
    /// The object is to be read before the next write.
    refetch: bool,
    /// The Device is to be created; changed by [`Writer`], which counts these.
    create: Option<Box<DeviceSpec>>,
    /// Conflicts since the last success.
    conflicts: u32,
    /// No write before this: its last one was refused.
    paused_until_ms: u64,
    /// Writes of its status.
    written: TokenBucket,
    written_at_ms: u64,
}

/// What a device's turn is for.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// The object is read.
    Read,
    /// The Device is created.
    Create(Box<DeviceSpec>),
    /// The status is written, if it still is not what it should be.
    Status,
}

impl WriteState {
    /// Whether a call is under way.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether the Device is to be created.
    pub(super) fn is_creating(&self) -> bool {
        self.create.is_some()
    }

    /// Whether no call is under way and none is needed before the object is seen.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_in_flight() && !self.is_creating()
    }

    /// Whether a call is needed before the status can be written.
    pub(super) fn lacks_object(&self) -> bool {
        self.is_creating() || self.refetch
    }

    /// The device's turn came; `known` if there is an object.
    pub(super) fn take_turn(&mut self, known: bool) -> Turn {
        debug_assert!(self.in_flight.is_none(), "a device has one call under way at a time");
        self.queued = None;
        match &self.create {
            _ if self.refetch => Turn::Read,
            Some(spec) if !known => Turn::Create(spec.clone()),
            Some(_) | None => Turn::Status,
        }
    }

    /// The call of the turn is made.
    pub(super) fn begin(&mut self, id: WriteId) {
        self.in_flight = Some(id);
    }

    /// A call ended; false if it is not the device's: its Device was deleted since.
    pub(super) fn handle_answer(&mut self, id: WriteId) -> bool {
        self.in_flight.take_if(|awaited| *awaited == id).is_some()
    }

    /// A call succeeded.
    pub(super) fn succeeded(&mut self) {
        self.conflicts = 0;
        self.paused_until_ms = 0;
        self.refetch = false;
    }

    /// Another writer was quicker: the object is read, and after many conflicts in a row the device waits.
    pub(super) fn conflicted(&mut self, now_ms: u64) {
        self.refetch = true;
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            self.conflicts = 0;
            self.paused_until_ms = now_ms + DEVICE_BACKOFF_MS;
        }
    }

    /// The write was refused: the device is left alone for some time.
    pub(super) fn pause(&mut self, now_ms: u64) {
        self.refetch = false;
        self.paused_until_ms = now_ms + DEVICE_BACKOFF_MS;
    }

    /// The object is known as it is now.
    pub(super) fn object_known(&mut self) {
        self.refetch = false;
    }

    /// When the status may be written again: the more often it was of late, the later.
    pub(super) fn not_before(&mut self, now_ms: u64) -> u64 {
        self.written.refill(now_ms, STATUS_WRITES);
        match self.written.spent().checked_sub(WRITES_FREE) {
            None | Some(0) => 0,
            Some(further) => {
                let step = (further / WRITES_PER_STEP).min(STATUS_WRITES.burst() / WRITES_PER_STEP);
                self.written_at_ms.saturating_add(WRITE_SPACING_MIN_MS << step)
            }
        }
    }

    /// Notes that the status is being written.
    pub(super) fn wrote(&mut self, now_ms: u64) {
        self.written.refill(now_ms, STATUS_WRITES);
        // Never more than the burst, so that a device that is pressed by others' edits recovers as soon.
        if self.written.has(STATUS_WRITES, 1) {
            self.written.spend(1);
        }
        self.written_at_ms = now_ms;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queued {
    priority: Priority,
    due_ms: u64,
    ready: bool,
}

/// A call under way; a value that is kept until its answer comes.
#[derive(Debug)]
pub(super) struct InFlight {
    device: Arc<ObjectKey>,
    priority: Priority,
    /// When it first waited.
    since_ms: u64,
    /// The Event itself, to be tried again.
    event: Option<Box<QueuedEvent>>,
    /// Told as an Event once the write is done.
    then: Option<Box<Event>>,
}

impl InFlight {
    /// A call about a device that waited since then. `then` is told as an Event once it is done.
    pub(super) fn about_device(
        device: Arc<ObjectKey>,
        priority: Priority,
        since_ms: u64,
        then: Option<Box<Event>>,
    ) -> Self {
        Self { device, priority, since_ms, event: None, then }
    }

    /// The write of an Event about a device.
    pub(super) fn of_event(now_ms: u64, device: Arc<ObjectKey>, event: QueuedEvent) -> Self {
        let event = Some(Box::new(event));
        Self { device, priority: Priority::Event, since_ms: now_ms, event, then: None }
    }

    pub(super) fn device(&self) -> &Arc<ObjectKey> {
        &self.device
    }

    /// Whether it writes an Event, and nothing of the device itself.
    pub(super) fn is_event(&self) -> bool {
        self.priority == Priority::Event
    }

    /// The call succeeded; what is to be told as an Event.
    pub(super) fn into_done(self) -> Option<Box<Event>> {
        self.then
    }

    /// The call is to be made again, as it was.
    pub(super) fn into_retry(self) -> Ready {
        let Self { device, priority, since_ms, event, then: _ } = self;
        event.map_or(Ready::Device { device, priority, since_ms }, |event| Ready::Event(*event))
    }
}

/// What may be written now.
#[derive(Debug, PartialEq)]
pub(super) enum Ready {
    Device { device: Arc<ObjectKey>, priority: Priority, since_ms: u64 },
    Event(QueuedEvent),
}

/// The queue of all devices.
#[derive(Debug)]
pub(super) struct Writer {
    /// By the time at which they become ready.
    waiting: BTreeSet<(u64, Arc<ObjectKey>)>,
    ready: BTreeSet<(Priority, u64, Arc<ObjectKey>)>,
    events: VecDeque<QueuedEvent>,
    in_flight: BTreeMap<WriteId, InFlight>,
    /// Devices that are to be created.
    creating: usize,
    next_id: u64,
    rate: Rate,
    tokens: TokenBucket,
    heartbeat_rate: Rate,
    heartbeat_tokens: TokenBucket,
    event_reserve: u64,
    heartbeat_reserve: u64,
    pause: ApiPause,
}

impl Writer {
    pub(super) fn new(config: &Config) -> Self {
        let burst = u64::from(config.writes_burst.max(1));
        let rate = u64::from(config.writes_per_second.max(1));
        Self {
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            events: VecDeque::new(),
            in_flight: BTreeMap::new(),
            creating: 0,
            next_id: 0,
            rate: Rate::per_second(rate, burst),
            tokens: TokenBucket::default(),
            heartbeat_rate: Rate::per_second((rate / u64::from(HEARTBEAT_RATE_DIVISOR)).max(1), 1),
            heartbeat_tokens: TokenBucket::default(),
            // What people wait for has the burst; Events and signs of life leave most of it alone.
            event_reserve: burst / 8,
            heartbeat_reserve: burst / 4,
            pause: ApiPause::new(hash_of(&config.boot_id)),
        }
    }

    /// Asks for a write of a device at `due`. A more urgent priority or an earlier time wins over what is asked already.
    pub(super) fn schedule(
        &mut self,
        now_ms: u64,
        device: &Arc<ObjectKey>,
        state: &mut WriteState,
        priority: Priority,
        due_ms: u64,
    ) {
        let due_ms = due_ms.max(state.paused_until_ms);
        let wanted = match state.queued {
            Some(queued) if queued.priority <= priority && queued.due_ms <= due_ms => return,
            Some(queued) => Queued {
                priority: queued.priority.min(priority),
                due_ms: queued.due_ms.min(due_ms),
                ready: false,
            },
            None => Queued { priority, due_ms, ready: false },
        };
        self.remove(device, state);
        state.queued = Some(wanted);
        if wanted.due_ms <= now_ms {
            self.make_ready(device, state);
        } else {
            self.waiting.insert((wanted.due_ms, Arc::clone(device)));
        }
    }

    /// Forgets a device.
    pub(super) fn forget(&mut self, device: &Arc<ObjectKey>, state: &mut WriteState) {
        self.remove(device, state);
        self.end_creation(state);
    }

    /// Takes a device out of the queue.
    fn remove(&mut self, device: &Arc<ObjectKey>, state: &mut WriteState) {
        if let Some(Queued { priority, due_ms, ready }) = state.queued.take() {
            if ready {
                self.ready.remove(&(priority, due_ms, Arc::clone(device)));
            } else {
                self.waiting.remove(&(due_ms, Arc::clone(device)));
            }
        }
    }

    fn make_ready(&mut self, device: &Arc<ObjectKey>, state: &mut WriteState) {
        if let Some(queued) = &mut state.queued {
            queued.ready = true;
            self.ready.insert((queued.priority, queued.due_ms, Arc::clone(device)));
        }
    }

    /// The next device whose time has come; the caller answers with [`Writer::promote`].
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<Arc<ObjectKey>> {
        let (due_ms, _) = self.waiting.first()?;
        if *due_ms > now_ms {
            return None;
        }
        self.waiting.pop_first().map(|(_, device)| device)
    }

    /// Makes a device that [`Writer::pop_due`] gave ready.
    pub(super) fn promote(&mut self, device: &Arc<ObjectKey>, state: &mut WriteState) {
        self.make_ready(device, state);
    }

    /// Adds an Event; false if the oldest gave way.
    pub(super) fn push_event(&mut self, event: QueuedEvent) -> bool {
        self.events.push_back(event);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            return false;
        }
        true
    }

    /// What may be written now. It costs no token until [`Writer::begin`].
    /// For a device, the caller answers with [`WriteState::take_turn`].
    pub(super) fn next_ready(&mut self, now_ms: u64) -> Option<Ready> {
        self.tokens.refill(now_ms, self.rate);
        self.heartbeat_tokens.refill(now_ms, self.heartbeat_rate);
        if now_ms < self.pause.until_ms()
            || self.in_flight.len() >= self.in_flight_max()
            || !self.tokens.has(self.rate, 1)
        {
            return None;
        }
        let first = self.ready.first();
        let event_first = first.is_none_or(|(priority, ..)| *priority > Priority::Event);
        if event_first && !self.events.is_empty() && self.tokens.has(self.rate, self.event_reserve.max(1)) {
            return self.events.pop_front().map(Ready::Event);
        }
        let (priority, ..) = first?;
        let may = *priority != Priority::Heartbeat
            || (self.tokens.has(self.rate, self.heartbeat_reserve.max(1))
                && self.heartbeat_tokens.has(self.heartbeat_rate, 1));
        if !may {
            return None;
        }
        let (priority, since_ms, device) = self.ready.pop_first()?;
        Some(Ready::Device { device, priority, since_ms })
    }

    /// One call at a time while the API fails, so that it is probed and not flooded.
    fn in_flight_max(&self) -> usize {
        if self.pause.is_failing() { 1 } else { WRITES_IN_FLIGHT_MAX }
    }

    /// Takes a token and a number for a call.
    pub(super) fn begin(&mut self, call: InFlight) -> WriteId {
        self.tokens.spend(1);
        if call.priority == Priority::Heartbeat {
            self.heartbeat_tokens.spend(1);
        }
        let id = WriteId(self.next_id);
        self.next_id += 1;
        self.in_flight.insert(id, call);
        id
    }

    /// The call of this number ended; what it was about.
    pub(super) fn end(&mut self, id: WriteId) -> Option<InFlight> {
        self.in_flight.remove(&id)
    }

    /// Devices that are to be created.
    pub(super) fn creating(&self) -> usize {
        self.creating
    }

    /// A Device is to be created.
    pub(super) fn create(&mut self, state: &mut WriteState, spec: DeviceSpec) {
        self.creating += usize::from(!state.is_creating());
        state.create = Some(Box::new(spec));
    }

    /// A Device was created, or is not to be created any more; whether it was to be.
    pub(super) fn end_creation(&mut self, state: &mut WriteState) -> bool {
        let creating = state.create.take().is_some();
        self.creating -= usize::from(creating);
        creating
    }

    /// The API answered.
    pub(super) fn succeeded(&mut self) {
        self.pause.succeed();
    }

    /// A write that is not of this queue succeeded. It counts where no write is ready or under way that would show the same.
    pub(super) fn handle_other_write(&mut self, asked_ms: u64) {
        let tries_itself = !self.ready.is_empty() || !self.events.is_empty() || !self.in_flight.is_empty();
        if !tries_itself && asked_ms >= self.pause.until_ms() {
            self.pause.succeed();
        }
    }

    /// The API failed or asked for patience.
    pub(super) fn failed(&mut self, now_ms: u64, retry_after_ms: u64) {
        self.pause.fail(now_ms, retry_after_ms);
    }

    /// No call is made before this, milliseconds of the monotonic clock.
    pub(super) fn paused_until_ms(&self) -> u64 {
        self.pause.until_ms()
    }

    /// Whether the last answers were failures.
    pub(super) fn failing(&self) -> bool {
        self.pause.is_failing()
    }

    /// When [`Writer::next_ready`] or [`Writer::pop_due`] may give something that it does not give now.
    pub(super) fn timeout(&self) -> Option<u64> {
        let waiting = self.waiting.first().map(|(due_ms, _)| *due_ms);
        if self.in_flight.len() >= self.in_flight_max() {
            return waiting;
        }
        let first = self.ready.first();
        let mut open = None;
        if let Some((priority, ..)) = first {
            open = Some(if *priority == Priority::Heartbeat {
                self.tokens
                    .available_at_ms(self.rate, self.heartbeat_reserve.max(1))
                    .max(self.heartbeat_tokens.available_at_ms(self.heartbeat_rate, 1))
            } else {
                self.tokens.available_at_ms(self.rate, 1)
            });
        }
        if !self.events.is_empty() && first.is_none_or(|(priority, ..)| *priority > Priority::Event) {
            let event = self.tokens.available_at_ms(self.rate, self.event_reserve.max(1));
            open = Some(open.map_or(event, |open: u64| open.min(event)));
        }
        let open = open.map(|open| open.max(self.pause.until_ms()));
        [waiting, open].into_iter().flatten().min()
    }

    /// The first broken invariant, if any, among this queue and the states of all devices.
    pub(super) fn check<'a>(
        &self,
        states: impl Iterator<Item = (&'a Arc<ObjectKey>, &'a WriteState)>,
    ) -> Result<(), &'static str> {
        let (mut creating, mut waiting, mut ready) = (0, 0, 0);
        for (device, state) in states {
            creating += usize::from(state.is_creating());
            if let Some(Queued { priority, due_ms, ready: is_ready }) = state.queued {
                let device = Arc::clone(device);
                if is_ready {
                    ready += usize::from(self.ready.contains(&(priority, due_ms, device)));
                } else {
                    waiting += usize::from(self.waiting.contains(&(due_ms, device)));
                }
            }
            let own = |id: &WriteId| self.in_flight.get(id).is_some_and(|call| call.device == *device);
            if !state.in_flight.iter().all(own) {
                return Err("a device waits for a call that is not under way");
            }
        }
        if creating != self.creating {
            return Err("the count of Devices to be created is not their number");
        }
        if (waiting, ready) != (self.waiting.len(), self.ready.len()) {
            return Err("a device is in the queue of writes without knowing it");
        }
        if self.in_flight.len() > WRITES_IN_FLIGHT_MAX {
            return Err("more calls are under way than are allowed");
        }
        if self.events.len() > EVENTS_MAX {
            return Err("more Events wait than are allowed");
        }
        Ok(())
    }

    /// Devices and Events that wait or are under way.
    pub(super) fn depth(&self) -> usize {
        self.waiting.len() + self.ready.len() + self.events.len() + self.in_flight.len()
    }

    /// Devices whose write is ready or under way, signs of life aside.
    pub(super) fn pressing(&self) -> usize {
        let ready = self.ready.iter().take_while(|(priority, ..)| *priority < Priority::Event).count();
        ready + self.in_flight.values().filter(|call| call.priority < Priority::Event).count()
    }

    /// Age of the oldest write that waits although it is due, signs of life and Events aside.
    pub(super) fn lag_ms(&self, now_ms: u64) -> u64 {
        let priorities =
            [Priority::Enrollment, Priority::Failure, Priority::Edge, Priority::Result, Priority::Facts];
        let ready = priorities.into_iter().filter_map(|priority| {
            let key = (priority, 0, Arc::new(ObjectKey { namespace: String::new(), name: String::new() }));
            self.ready
                .range(key..)
                .next()
                .filter(|(found, ..)| *found == priority)
                .map(|(_, since_ms, _)| *since_ms)
        });
        let in_flight =
            self.in_flight.values().filter(|call| call.priority < Priority::Event).map(|call| call.since_ms);
        ready.chain(in_flight).min().map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{Occurrence, Regarding};

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey { namespace: "n".into(), name: name.into() })
    }

    fn writer(rate: u32, burst: u32) -> Writer {
        Writer::new(&Config { writes_per_second: rate, writes_burst: burst, ..Config::new("g", "b") })
    }

    fn next(now_ms: u64, writer: &mut Writer) -> Option<(String, Priority)> {
        match writer.next_ready(now_ms)? {
            Ready::Device { device, priority, since_ms } => {
                let name = device.name.clone();
                writer.begin(InFlight::about_device(device, priority, since_ms, None));
                writer.in_flight.clear();
                Some((name, priority))
            }
            Ready::Event(event) => {
                let device = Arc::new(event.event.regarding.key.clone());
                writer.begin(InFlight::of_event(now_ms, device, event));
                writer.in_flight.clear();
                Some(("event".into(), Priority::Event))
            }
        }
    }

    fn event() -> QueuedEvent {
        let occurrence = Occurrence { number: 0, count: 1, first_unix_ms: 0 };
        let event = Box::new(Event {
            regarding: Regarding::device((*key("a")).clone(), "u"),
            warning: false,
            reason: wasmbed_api::ReasonCode::SessionEstablished,
            message: String::new(),
            unix_ms: 0,
        });
        QueuedEvent { event, occurrence }
    }

    #[test]
    fn a_status_that_never_rests_is_written_at_growing_distances() {
        let mut state = WriteState::default();
        let (mut now, mut times) = (0, Vec::new());
        while now < 600_000 {
            now = now.max(state.not_before(now));
            state.wrote(now);
            times.push(now);
        }
        let within = |ms| times.iter().filter(|time| **time < ms).count();
        assert!(within(5_000) <= 24, "{}", within(5_000));
        assert!((100..=160).contains(&within(600_000)), "{}", within(600_000));
        now += 160_000;
        assert_eq!(state.not_before(now), 0, "what rests is written at once again");
    }

    #[test]
    fn the_order_is_by_class_and_then_by_age() {
        let mut writer = writer(50, 100);
        let order = [
            ("h", Priority::Heartbeat, 1),
            ("r2", Priority::Result, 5),
            ("r1", Priority::Result, 4),
            ("e", Priority::Edge, 9),
            ("f", Priority::Failure, 9),
            ("x", Priority::Enrollment, 10),
        ];
        for (name, priority, due_ms) in order {
            writer.schedule(10, &key(name), &mut WriteState::default(), priority, due_ms);
        }
        assert!(writer.push_event(event()));
        let names: Vec<_> = std::iter::from_fn(|| next(10, &mut writer)).map(|(name, _)| name).collect();
        assert_eq!(names, ["x", "f", "e", "r1", "r2", "event", "h"]);
    }

    #[test]
    fn asking_again_moves_forward_and_never_back() {
        let mut writer = writer(50, 100);
        let (device, mut state) = (key("a"), WriteState::default());
        writer.schedule(0, &device, &mut state, Priority::Heartbeat, 1_000);
        writer.schedule(0, &device, &mut state, Priority::Edge, 500);
        writer.schedule(0, &device, &mut state, Priority::Heartbeat, 2_000);
        assert_eq!(writer.depth(), 1);
        assert_eq!(writer.timeout(), Some(500));
        assert_eq!(writer.pop_due(499), None);
        let due_ms = writer.pop_due(500).unwrap();
        writer.promote(&due_ms, &mut state);
        assert_eq!(next(500, &mut writer), Some(("a".into(), Priority::Edge)));
    }

    #[test]
    fn the_sustained_rate_follows_the_burst() {
        let mut writer = writer(50, 3);
        for index in 0..10 {
            writer.schedule(0, &key(&index.to_string()), &mut WriteState::default(), Priority::Edge, 0);
        }
        assert_eq!(std::iter::from_fn(|| next(0, &mut writer)).count(), 3);
        assert_eq!(writer.timeout(), Some(20));
        assert_eq!(std::iter::from_fn(|| next(40, &mut writer)).count(), 2);
    }

    #[test]
    fn signs_of_life_take_what_is_left() {
        let mut writer = writer(50, 10);
        for index in 0..20 {
            writer.schedule(
                100,
                &key(&format!("h{index}")),
                &mut WriteState::default(),
                Priority::Heartbeat,
                index,
            );
        }
        let mut written = 0;
        for now in 100..1_100 {
            written += std::iter::from_fn(|| next(now, &mut writer)).count();
        }
        assert!((9..=11).contains(&written), "{written} of 50 per second / {HEARTBEAT_RATE_DIVISOR}");
        // A result still finds tokens at once.
        writer.schedule(1_100, &key("r"), &mut WriteState::default(), Priority::Result, 0);
        assert_eq!(next(1_100, &mut writer), Some(("r".into(), Priority::Result)));
    }

    #[test]
    fn failures_pause_all_and_retry_after_is_kept() {
        let mut writer = writer(50, 10);
        writer.schedule(0, &key("a"), &mut WriteState::default(), Priority::Edge, 0);
        writer.failed(0, 0);
        let ready_ms = writer.timeout().unwrap();
        assert!(ready_ms > 0 && ready_ms == writer.pause.until_ms());
        assert_eq!(writer.next_ready(ready_ms - 1), None);
        writer.failed(ready_ms, 5_000);
        assert_eq!(writer.timeout(), Some(ready_ms + 5_000));
        writer.succeeded();
        assert!(next(0, &mut writer).is_some());
    }

    #[test]
    fn events_are_bounded() {
        let mut writer = writer(1, 1);
        assert_eq!((0..EVENTS_MAX + 5).filter(|_| !writer.push_event(event())).count(), 5);
        assert_eq!(writer.depth(), EVENTS_MAX);
    }
}
