//! From what is desired to what runs: choosing what to pull, replacing, starting and stopping applications.
//!
//! Everything here is level-triggered: [`Agent::settle`] compares what is with what should be after every input, so a lost
//! message or a reset costs time and nothing else.

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{ApplicationUid, ModuleDigest, ReportReason, SpecHash};

use super::{Agent, converge::check_spec};
use crate::{
    application::{Application, Current, Next, Phase, Wait, Why},
    effect::{ApplicationEvent, Effect, RunId, Start},
    event::Event,
    pull::Pull,
    record::{Record, StoredApplication, StoredCurrent},
};

impl Agent {
    /// Takes over what the state record says. Without a usable record the device knows no set, and keeps every module
    /// until a gateway says what is wanted.
    pub(super) fn restore(&mut self, state: Option<&[u8]>) {
        let Some(state) = state else { return };
        let Some(record) = Record::decode(state) else {
            self.events.push(Event::StateLost);
            return;
        };
        self.boot_counter = Some(record.boot_counter);
        self.last_epoch = record.last_epoch;
        self.revision = record.revision;
        self.set_known = record.set_known;
        let mut room = usize::from(self.config.facts.applications_max);
        for stored in record.applications {
            if self.applications.iter().any(|application| application.uid == stored.uid) {
                continue;
            }
            let mut application = restore_application(stored);
            application.accepted &= room > 0;
            room -= usize::from(application.accepted);
            self.applications.push(application);
        }
        // Reports are in this order; a record that was written in it can't be in another, but reading it is cheap to be sure.
        self.applications.sort_by_key(|application| application.uid);
        self.durability.handle_committed(0, self.revision);
    }

    /// Takes the next number for this start. It is told only once storage has it, so that no later start takes it again.
    pub(super) fn count_start(&mut self) {
        self.boot_counter = Some(self.boot_counter.unwrap_or_default().next());
        self.durability.change();
    }

    /// Hello waits for the number of this start, unless there won't be one soon.
    pub(super) fn may_greet(&self) -> bool {
        self.boot_counter.is_none() || self.durability.has_written() || self.durability.is_failing()
    }

    pub(super) fn record(&self) -> Record {
        Record {
            last_epoch: self.last_epoch,
            revision: self.revision,
            set_known: self.set_known,
            applications: self.applications.iter().map(Application::store).collect(),
            boot_counter: self.boot_counter.unwrap_or_default(),
        }
    }

    /// Pauses that are over.
    pub(super) fn handle_pauses(&mut self) {
        let now_ms = self.now_ms;
        self.durability.handle_timeout(now_ms);
        if let Some(pull) = &mut self.pull {
            pull.handle_timeout(now_ms);
        }
        if self.ask.outstanding.is_some_and(|(_, deadline_ms)| deadline_ms <= now_ms) {
            self.ask.outstanding = None;
        }
        for application in self.applications.iter_mut().filter(|application| application.accepted) {
            let again = application.current.as_mut().is_some_and(|current| current.handle_timeout(now_ms));
            let seen = application.next.as_mut().is_some_and(|next| next.handle_timeout(now_ms));
            self.report_due |= again || seen;
        }
    }

    /// Brings everything as near to the desired set as it can be now.
    pub(super) fn settle(&mut self) {
        self.choose_pull();
        self.replace_ready();
        self.start_ready();
    }

    /// One module at a time; the one under way stays while anyone needs it.
    fn choose_pull(&mut self) {
        let needed = |digest: &ModuleDigest, applications: &[Application]| {
            wanted(applications).any(|(wanted, _)| wanted == *digest)
        };
        if self.pull.as_ref().is_some_and(|pull| !needed(&pull.digest, &self.applications)) {
            self.pull = None;
        }
        let storage_has_no_part_of_one = !self.busy.as_ref().is_some_and(|busy| busy.is_pull());
        if self.pull.is_none() && storage_has_no_part_of_one {
            let missing = wanted(&self.applications).find(|(digest, _)| !self.has_module(digest));
            self.pull = missing.map(|(digest, length)| Pull::new(digest, length, self.staged_bytes(&digest)));
        }
    }

    /// An assignment whose spec and module are on storage takes the place of the one before it.
    fn replace_ready(&mut self) {
        if !self.durability.is_durable() {
            return;
        }
        for index in 0..self.applications.len() {
            let Some(application) = self.applications.get(index) else { continue };
            let held =
                application.next.as_ref().and_then(Next::wants_module).filter(|_| application.accepted);
            let Some(held) = held.filter(|held| self.has_module(&held.digest)).cloned() else { continue };
            let (uid, run) = (application.uid, application.run());
            if let Some(run) = run {
                self.push_stop(run, uid);
            }
            if let Some(application) = self.applications.get_mut(index) {
                application.let_go();
                application.current = Some(Current::new(held));
                application.next = None;
            }
            self.durability.change();
            self.report_due = true;
        }
    }

    fn start_ready(&mut self) {
        for index in 0..self.applications.len() {
            let Some(application) = self.applications.get(index).filter(|application| application.accepted)
            else {
                continue;
            };
            let Some(current) = application.current.as_ref().filter(|current| current.phase == Phase::Ready)
            else {
                continue;
            };
            let (uid, held) = (application.uid, current.held.clone());
            if !self.has_module(&held.digest) {
                self.fetch_again(index);
                continue;
            }
            self.next_run = self.next_run.wrapping_add(1);
            let run = RunId(self.next_run);
            self.effects.push_back(Effect::Start(Start {
                run,
                uid,
                digest: held.digest,
                spec: held.spec,
                correlation_id: held.correlation_id,
            }));
            if let Some(current) =
                self.applications.get_mut(index).and_then(|application| application.current.as_mut())
            {
                current.phase = Phase::Starting(run);
            }
        }
    }

    /// The module of an assignment that was current is not on storage any more.
    fn fetch_again(&mut self, index: usize) {
        let Some(application) = self.applications.get_mut(index) else { return };
        let Some(current) = application.current.take() else { return };
        application.let_go();
        let next = Next { held: Some(current.held.clone()), ..Next::new(current.held.spec_hash) };
        application.next.get_or_insert(next);
        self.durability.change();
        self.report_due = true;
    }

    pub(super) fn stop(&mut self, application: &Application) {
        if let Some(run) = application.run() {
            self.push_stop(run, application.uid);
        }
    }

    /// A start that the loop has not taken yet is taken back instead of being followed by a stop.
    fn push_stop(&mut self, run: RunId, uid: ApplicationUid) {
        let queued = |effect: &Effect| matches!(effect, Effect::Start(start) if start.run == run);
        match self.effects.iter().position(queued) {
            Some(position) => drop(self.effects.remove(position)),
            None => self.effects.push_back(Effect::Stop { run, uid }),
        }
    }

    /// Something was let go of: whoever found no room tries again.
    pub(super) fn room_was_made(&mut self) {
        for application in &mut self.applications {
            if let Some(current) = application.current.as_mut()
                && current.why.reason == ReportReason::OutOfMemory
                && let Phase::Failed { retry_at_ms } = &mut current.phase
            {
                *retry_at_ms = Some(self.now_ms);
            }
            if let Some(next) = application.next.as_mut()
                && next.why.reason == ReportReason::OutOfFlash
                && matches!(next.wait, Wait::Until { .. })
            {
                next.wait = Wait::No;
            }
        }
    }

    pub(super) fn handle_run(&mut self, run: RunId, event: ApplicationEvent) {
        let now_ms = self.now_ms;
        let Some(index) = self.applications.iter().position(|application| application.run() == Some(run))
        else {
            return;
        };
        let Some(application) = self.applications.get_mut(index) else { return };
        let Some(current) = application.current.as_mut() else { return };
        let (uid, correlation_id) = (application.uid, current.held.correlation_id);
        match event {
            ApplicationEvent::Started => {
                application.digest = Some(current.held.digest);
                current.handle_started(run, now_ms);
            }
            ApplicationEvent::Refused { reason, message } => {
                let why = Why::new(reason, &message);
                self.events.push(Event::trouble(uid, correlation_id, &why));
                current.handle_refused(why, now_ms);
            }
            ApplicationEvent::Damaged => {
                let digest = current.held.digest;
                self.forget_module(digest);
                self.fetch_again(index);
            }
            ApplicationEvent::Ended { reason, message } => {
                let why = Why::new(reason, &message);
                self.events.push(Event::trouble(uid, correlation_id, &why));
                current.handle_ended(why, now_ms);
                application.let_go();
                self.durability.change();
                self.room_was_made();
            }
            ApplicationEvent::Line { text, lines_lost } => {
                application.log.push(&text, lines_lost);
                return;
            }
            ApplicationEvent::Usage { memory_bytes, cpu_ms } => {
                application.memory_bytes = memory_bytes;
                application.cpu_ms_run = cpu_ms;
                return;
            }
        }
        self.report_due = true;
    }
}

/// The modules that accepted applications wait for, with their lengths.
fn wanted(applications: &[Application]) -> impl Iterator<Item = (ModuleDigest, u32)> {
    applications
        .iter()
        .filter(|application| application.accepted)
        .filter_map(|application| application.next.as_ref().and_then(Next::wants_module))
        .map(|held| (held.digest, held.module_bytes))
}

fn restore_application(stored: StoredApplication) -> Application {
    let mut application = Application::new(stored.uid, SpecHash::default(), stored.accepted);
    application.next = stored.next.map(|next| {
        let held = next.spec.and_then(|(spec, correlation_id)| {
            has_hash(&spec, next.spec_hash)
                .then(|| check_spec(stored.uid, next.spec_hash, &spec, correlation_id).ok())
                .flatten()
        });
        Next { held, ..Next::new(next.spec_hash) }
    });
    if let Some(current) = stored.current {
        match restore_current(stored.uid, &current) {
            Some(restored) => {
                application.digest = current.ended.is_some().then_some(restored.held.digest);
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

fn restore_current(uid: ApplicationUid, stored: &StoredCurrent) -> Option<Current> {
    if !has_hash(&stored.spec, stored.spec_hash) {
        return None;
    }
    let held = check_spec(uid, stored.spec_hash, &stored.spec, stored.correlation_id).ok()?;
    let mut current = Current { restarts: stored.restarts, failures: stored.failures, ..Current::new(held) };
    if let Some((reason, message)) = &stored.ended {
        current.why = Why::new(*reason, message);
        current.phase = match reason {
            ReportReason::Exited => Phase::Completed,
            _ => Phase::Failed { retry_at_ms: None },
        };
    }
    Some(current)
}

fn has_hash(spec: &[u8], hash: SpecHash) -> bool {
    SpecHash(Sha256::digest(spec).into()) == hash
}
