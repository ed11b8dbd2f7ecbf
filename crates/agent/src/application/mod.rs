//! One member of the desired set on this device.
//!
//! An application has a `current` assignment, which runs, and a `next` one while a new one is being fetched: the old one
//! goes on until everything for the new one is on storage.
//!
//! ```text
//! next: spec missing -> module missing -> both held and durable ----> current: loaded, restarted as its policy says
//! ```

mod current;
mod next;

use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, CorrelationId, Deliver, Delivery, Log, ModuleDigest,
    ReportReason, Sequence, SpecHash,
};

use crate::{
    assignment::Held,
    effect::RunId,
    log::LogQueue,
    mailbox::Mailbox,
    messages::{self, Message, MessageRing, PublishError},
    record::StoredApplication,
    settings::{Settings, StoredSettings},
    why::Why,
};
use current::Current;
use next::Next;

/// Contract: at any time it has a current assignment, a next one, or both, and then with different specs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Application {
    uid: ApplicationUid,
    /// Whether it is among those that the device runs, or beyond their number.
    accepted: bool,
    current: Option<Current>,
    next: Option<Next>,
    log: LogQueue,
    messages: MessageRing,
    settings: Settings,
    /// Loaded now or last.
    digest: Option<ModuleDigest>,
    memory_bytes: u64,
    /// Of the runs before this one.
    cpu_ms_before: u64,
    cpu_ms_run: u64,
}

impl Application {
    pub(crate) fn new(uid: ApplicationUid, spec_hash: SpecHash, accepted: bool) -> Self {
        Self {
            uid,
            accepted,
            current: None,
            next: Some(Next::new(spec_hash)),
            log: LogQueue::default(),
            messages: MessageRing::default(),
            settings: Settings::default(),
            digest: None,
            memory_bytes: 0,
            cpu_ms_before: 0,
            cpu_ms_run: 0,
        }
    }

    /// The assignment that it is to run.
    pub(crate) fn spec_hash(&self) -> SpecHash {
        match (&self.next, &self.current) {
            (Some(next), _) => next.spec_hash(),
            (None, Some(current)) => current.held().spec_hash(),
            (None, None) => SpecHash::default(),
        }
    }

    /// From the state record.
    pub(crate) fn restore(stored: StoredApplication, settings: StoredSettings, accepted: bool) -> Self {
        let mut application = Self::new(stored.uid, SpecHash::default(), accepted);
        application.settings = Settings::restore(settings);
        application.next = stored.next.map(|next| Next::restore(stored.uid, next));
        if let Some(current) = stored.current {
            match Current::restore(stored.uid, &current) {
                Some(restored) => {
                    application.digest = current.ended.is_some().then_some(restored.held().digest());
                    application.current = Some(restored);
                }
                None => {
                    application.next.get_or_insert(Next::new(current.spec_hash));
                }
            }
        }
        if application.current.is_none() && application.next.is_none() {
            application.next = Some(Next::new(SpecHash::default()));
        }
        application
    }

    pub(crate) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// It is among those that the device runs.
    pub(crate) fn accept(&mut self) {
        self.accepted = true;
    }

    /// Points it at an assignment, which may be the one that it has.
    pub(crate) fn retarget(&mut self, spec_hash: SpecHash) {
        let runs_it = self.current.as_ref().is_some_and(|current| current.held().spec_hash() == spec_hash);
        let fetches_it = self.next.as_ref().is_some_and(|next| next.spec_hash() == spec_hash);
        if runs_it {
            self.next = None;
        } else if !fetches_it {
            self.next = Some(Next::new(spec_hash));
        }
    }

    /// The assignment that is being fetched, if it waits for this spec.
    pub(crate) fn awaits(&self, spec_hash: SpecHash) -> bool {
        self.next.as_ref().is_some_and(|next| next.spec_hash() == spec_hash && next.awaits_spec())
    }

    /// Whether a spec is still to come for an application that the device runs.
    pub(crate) fn awaits_any_spec(&self) -> bool {
        self.accepted && self.next.as_ref().is_some_and(Next::awaits_spec)
    }

    /// The spec that it [`awaits`](Self::awaits) came: the assignment, or why this device can't run it.
    pub(crate) fn take_spec(&mut self, checked: Result<Held, Why>) {
        debug_assert!(self.next.is_some(), "only an assignment that is being fetched waits for a spec");
        if let Some(next) = &mut self.next {
            match checked {
                Ok(held) => next.take_spec(held),
                Err(why) => next.refuse(why),
            }
        }
    }

    /// The spec with this hash is not to be had now.
    pub(crate) fn put_off_spec(&mut self, spec_hash: SpecHash, now_ms: u64) {
        let waits = |next: &&mut Next| next.spec_hash() == spec_hash && next.held().is_none();
        if let Some(next) = self.next.as_mut().filter(waits) {
            next.put_off_spec(now_ms);
        }
    }

    /// The module with this digest is not to be had now. None if it does not wait for that one; otherwise whether the reason
    /// is news, and the change that asked for the module.
    pub(crate) fn put_off_module(
        &mut self,
        digest: ModuleDigest,
        why: &Why,
        failed: bool,
        now_ms: u64,
    ) -> Option<(bool, CorrelationId)> {
        let next = self.next.as_mut()?;
        let correlation_id = next.wants_module().filter(|held| held.digest() == digest)?.correlation_id();
        Some((next.put_off_module(why, failed, now_ms), correlation_id))
    }

    /// The spec to ask for.
    pub(crate) fn wanted_spec(&self) -> Option<SpecHash> {
        let next = self.next.as_ref().filter(|next| self.accepted && next.wants_assignment());
        next.map(Next::spec_hash)
    }

    /// The assignment whose spec is here and whose module is needed next.
    pub(crate) fn wanted_module(&self) -> Option<&Held> {
        self.next.as_ref().filter(|_| self.accepted).and_then(Next::wants_module)
    }

    /// The assignment that was fetched takes the place of the one before it; a run of that one was stopped.
    pub(crate) fn replace(&mut self) {
        debug_assert!(self.wanted_module().is_some(), "spec and module are here");
        if let Some(held) = self.wanted_module().cloned() {
            self.let_go();
            self.current = Some(Current::new(held));
            self.settings.forget_schema();
            self.next = None;
        }
    }

    /// The assignment to be loaded.
    pub(crate) fn ready(&self) -> Option<&Held> {
        self.current.as_ref().filter(|current| self.accepted && current.is_ready()).map(Current::held)
    }

    /// The assignment that is [`ready`](Self::ready) is being loaded.
    pub(crate) fn begin(&mut self, run: RunId) {
        debug_assert!(self.ready().is_some(), "only what is ready is loaded");
        if let Some(current) = &mut self.current {
            current.begin(run);
        }
    }

    /// The current assignment's module is not on storage any more: it is fetched again, unless another is.
    pub(crate) fn fetch_again(&mut self) {
        debug_assert!(self.current.is_some(), "only a current assignment loses its module");
        self.let_go();
        if let Some(current) = self.current.take() {
            self.next.get_or_insert_with(|| Next::with(current.into_held()));
        }
    }

    /// Others let go of memory and storage.
    pub(crate) fn handle_room(&mut self, now_ms: u64) {
        if let Some(current) = &mut self.current {
            current.handle_room(now_ms);
        }
        if let Some(next) = &mut self.next {
            next.handle_room();
        }
    }

    /// Pauses that are over: true if that changes what is reported.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> bool {
        if !self.accepted {
            return false;
        }
        let again = self.current.as_mut().is_some_and(|current| current.handle_timeout(now_ms));
        let seen = self.next.as_mut().is_some_and(|next| next.handle_timeout(now_ms));
        again || seen
    }

    /// What happened to its run. The change that led to the run, for the log.
    pub(crate) fn correlation_of_run(&self) -> CorrelationId {
        debug_assert!(self.run().is_some(), "asked only while it runs");
        self.current.as_ref().map(|current| current.held().correlation_id()).unwrap_or_default()
    }

    /// The assignment that runs, and how often it was started after the first time.
    pub(crate) fn of_run(&self) -> (SpecHash, u32) {
        debug_assert!(self.run().is_some(), "asked only while it runs");
        let of_run = |current: &Current| (current.held().spec_hash(), current.restarts());
        self.current.as_ref().map(of_run).unwrap_or_default()
    }

    /// The module of its current assignment.
    pub(crate) fn current_digest(&self) -> Option<ModuleDigest> {
        self.current.as_ref().map(|current| current.held().digest())
    }

    pub(crate) fn handle_started(&mut self, run: RunId, now_ms: u64) {
        self.digest = self.current_digest();
        if let Some(current) = &mut self.current {
            current.handle_started(run, now_ms);
        }
    }

    pub(crate) fn handle_refused(&mut self, why: Why, now_ms: u64) {
        if let Some(current) = &mut self.current {
            current.handle_refused(why, now_ms);
        }
    }

    pub(crate) fn handle_ended(&mut self, why: Why, now_ms: u64) {
        if let Some(current) = &mut self.current {
            current.handle_ended(why, now_ms);
        }
        self.let_go();
    }

    pub(crate) fn handle_line(&mut self, text: &str, lines_lost: u32) {
        self.log.push(text, lines_lost);
    }

    pub(crate) fn handle_usage(&mut self, memory_bytes: u64, cpu_ms: u64) {
        self.memory_bytes = memory_bytes;
        self.cpu_ms_run = cpu_ms;
    }

    /// Its next line, as it is sent.
    pub(crate) fn next_log(&self) -> Option<Log<'_>> {
        self.log.front(self.uid)
    }

    pub(crate) fn log_mut(&mut self) -> &mut LogQueue {
        &mut self.log
    }

    /// Its run publishes a message, which gets this sequence if it is taken.
    pub(crate) fn publish(
        &mut self,
        message: Message<'_>,
        sequence: Sequence,
        now_ms: u64,
    ) -> Result<(), PublishError> {
        let current = self.current.as_mut().ok_or(PublishError::UnknownTopic)?;
        messages::publish(current.topics_mut(), &mut self.messages, message, sequence, now_ms)
    }

    /// A message came in for it.
    pub(crate) fn deliver(&mut self, message: &Deliver<'_>, now_ms: u64) -> Delivery {
        self.current.as_mut().map_or(Delivery::NotRunning, |current| current.deliver(message, now_ms))
    }

    /// What came in for it and was not taken yet.
    pub(crate) fn mailbox_mut(&mut self) -> Option<&mut Mailbox> {
        self.current.as_mut().map(Current::mailbox_mut)
    }

    /// Its settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Its settings, as far as they are kept over resets.
    pub(crate) fn store_settings(&self) -> Option<(ApplicationUid, StoredSettings)> {
        Some((self.uid, self.settings.store()?))
    }

    pub(crate) fn messages(&self) -> &MessageRing {
        &self.messages
    }

    pub(crate) fn messages_mut(&mut self) -> &mut MessageRing {
        &mut self.messages
    }

    /// The assignments whose modules must be kept.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Held> {
        let current = self.current.as_ref().map(Current::held);
        current.into_iter().chain(self.next.as_ref().and_then(Next::held))
    }

    /// Whether it ended for good and nothing is to take its place, so that its module is of no use here.
    pub(crate) fn is_over(&self) -> bool {
        self.next.is_none() && self.current.as_ref().is_some_and(|current| current.ended().is_some())
    }

    /// Whether its module found no room on storage.
    pub(crate) fn lacks_flash(&self) -> bool {
        self.accepted && self.next.as_ref().is_some_and(Next::lacks_flash)
    }

    /// Whether the contract holds.
    pub(crate) fn is_consistent(&self) -> bool {
        match (&self.current, &self.next) {
            (None, None) => false,
            (Some(current), Some(next)) => current.held().spec_hash() != next.spec_hash(),
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    pub(crate) fn run(&self) -> Option<RunId> {
        self.current.as_ref().and_then(Current::run)
    }

    /// The run is over and holds nothing.
    fn let_go(&mut self) {
        self.memory_bytes = 0;
        self.cpu_ms_before = self.cpu_ms_before.saturating_add(self.cpu_ms_run);
        self.cpu_ms_run = 0;
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        let next = self.next.as_ref().and_then(Next::timeout);
        let current = self.current.as_ref().and_then(Current::timeout);
        if self.accepted { next.into_iter().chain(current).min() } else { None }
    }

    pub(crate) fn report<'a>(
        &'a self,
        refused: &'a str,
        storage_failing: bool,
        with_message: bool,
    ) -> ApplicationReport<'a> {
        let (state, reason, message) = match (&self.next, &self.current) {
            _ if !self.accepted => (ApplicationState::Failed, ReportReason::TooManyApplications, refused),
            (Some(next), _) if storage_failing && next.is_going_on() => {
                let message = "storage fails, so the assignment would not survive a reset";
                (ApplicationState::Failed, ReportReason::StorageFailed, message)
            }
            (Some(next), _) => (next.state(), next.why().reason(), next.why().message()),
            (None, Some(current)) => (current.state(), current.why().reason(), current.why().message()),
            (None, None) => (ApplicationState::Pulling, ReportReason::None, ""),
        };
        let next_correlation = self.next.as_ref().map(|next| next.held().map(|held| held.correlation_id()));
        let current_correlation = self.current.as_ref().map(|current| current.held().correlation_id());
        ApplicationReport {
            uid: self.uid,
            spec_hash: self.spec_hash(),
            digest: self.digest,
            state,
            reason,
            message: if with_message { message } else { "" },
            restarts: self.current.as_ref().filter(|_| self.next.is_none()).map_or(0, Current::restarts),
            memory_bytes: self.memory_bytes,
            cpu_ms: self.cpu_ms_before.saturating_add(self.cpu_ms_run),
            correlation_id: next_correlation.unwrap_or(current_correlation).unwrap_or_default(),
        }
    }

    pub(crate) fn store(&self) -> StoredApplication {
        StoredApplication {
            uid: self.uid,
            accepted: self.accepted,
            current: self.current.as_ref().map(Current::store),
            next: self.next.as_ref().map(Next::store),
        }
    }
}
