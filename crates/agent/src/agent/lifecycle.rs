//! From what is desired to what runs: choosing what to pull, replacing, starting and stopping applications.
//!
//! Everything here is level-triggered: [`Agent::settle`] compares what is with what should be after every input, so a lost
//! message or a reset costs time and nothing else.

use alloc::collections::VecDeque;

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

use super::Agent;
use crate::{
    application::Application,
    effect::{ApplicationEvent, Effect, RunId, Start},
    event::Event,
    pull::Pull,
    record::Record,
    why::Why,
};

impl Agent {
    /// Takes over the state record. Without a usable record the device knows no set, and keeps every module
    /// until a gateway says what is wanted.
    pub(super) fn restore(&mut self, state: Option<&[u8]>) {
        let Some(state) = state else { return };
        let Some(record) = Record::decode(state) else {
            self.events.push(Event::StateLost);
            return;
        };
        self.boot_counter = Some(record.boot_counter);
        self.connection.restore(record.last_epoch);
        self.revision = record.revision;
        self.set_known = record.set_known;
        let mut room = usize::from(self.config.facts.applications_max);
        for stored in record.applications {
            if self.applications.iter().any(|application| application.uid() == stored.uid) {
                continue;
            }
            let accepted = stored.accepted && room > 0;
            room -= usize::from(accepted);
            let settings = record.settings.iter().find(|(uid, _)| *uid == stored.uid);
            let settings = settings.map(|(_, settings)| settings.clone()).unwrap_or_default();
            self.applications.push(Application::restore(stored, settings, accepted));
        }
        // Reports are in this order; a record that was written in it can't be in another, but reading it is cheap to be sure.
        self.applications.sort_unstable_by_key(Application::uid);
        self.durability.handle_committed(0, self.revision);
    }

    /// Takes the next number for this start. It is sent only once storage has it, so that no later start takes it again.
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
            last_epoch: self.connection.last_epoch(),
            revision: self.revision,
            set_known: self.set_known,
            applications: self.applications.iter().map(Application::store).collect(),
            boot_counter: self.boot_counter.unwrap_or_default(),
            settings: self.applications.iter().filter_map(Application::store_settings).collect(),
        }
    }

    /// Pauses that are over.
    pub(super) fn handle_pauses(&mut self) {
        let now_ms = self.clock.now_ms();
        self.durability.handle_timeout(now_ms);
        if let Some(pull) = &mut self.pull {
            pull.handle_timeout(now_ms);
        }
        self.request.handle_timeout(now_ms);
        for application in &mut self.applications {
            if application.handle_timeout(now_ms) {
                self.reports.mark();
            }
        }
    }

    /// Brings everything as near to the desired set as it can be now.
    pub(super) fn settle(&mut self) {
        self.choose_pull();
        self.replace_ready();
        self.start_ready();
        self.settle_identity();
        self.settle_decommission();
    }

    /// One module at a time; the one under way stays while anyone needs it.
    fn choose_pull(&mut self) {
        let needed = |digest: &ModuleDigest, applications: &[Application]| {
            wanted(applications).any(|(wanted, _)| wanted == *digest)
        };
        if self.pull.as_ref().is_some_and(|pull| !needed(&pull.digest(), &self.applications)) {
            self.pull = None;
        }
        if self.pull.is_none() && !self.store.is_pulling() {
            let missing = wanted(&self.applications).find(|(digest, _)| !self.store.has_module(digest));
            self.pull =
                missing.map(|(digest, length)| Pull::new(digest, length, self.store.staged_bytes(&digest)));
        }
    }

    /// An assignment whose spec and module are on storage takes the place of the one before it.
    fn replace_ready(&mut self) {
        if !self.durability.is_durable() {
            return;
        }
        for application in &mut self.applications {
            let wanted = application.wanted_module();
            if !wanted.is_some_and(|held| self.store.has_module(&held.digest())) {
                continue;
            }
            if let Some(run) = application.run() {
                push_stop(&mut self.effects, run, application.uid());
            }
            application.replace();
            self.durability.change();
            self.reports.mark();
        }
    }

    fn start_ready(&mut self) {
        for application in &mut self.applications {
            let Some(held) = application.ready().cloned() else { continue };
            if !self.store.has_module(&held.digest()) {
                application.fetch_again();
                self.durability.change();
                self.reports.mark();
                continue;
            }
            self.next_run = self.next_run.wrapping_add(1);
            let run = RunId(self.next_run);
            application.begin(run);
            self.effects.push_back(Effect::Start(Start {
                run,
                uid: application.uid(),
                digest: held.digest(),
                correlation_id: held.correlation_id(),
                spec: held.into_spec(),
            }));
        }
    }

    pub(super) fn stop(&mut self, application: &Application) {
        if let Some(run) = application.run() {
            push_stop(&mut self.effects, run, application.uid());
        }
    }

    /// Memory or storage became free: applications that found none try again.
    pub(super) fn room_was_made(&mut self) {
        for application in &mut self.applications {
            application.handle_room(self.clock.now_ms());
        }
    }

    pub(super) fn handle_run(&mut self, run: RunId, event: ApplicationEvent) {
        let now_ms = self.clock.now_ms();
        let found = self.applications.iter_mut().find(|application| application.run() == Some(run));
        // News of a run that was stopped meanwhile.
        let Some(application) = found else { return };
        let (uid, correlation_id) = (application.uid(), application.correlation_of_run());
        match event {
            ApplicationEvent::Started => application.handle_started(run, now_ms),
            ApplicationEvent::Refused { reason, message } => {
                let why = Why::new(reason, &message);
                self.events.push(Event::trouble(uid, correlation_id, &why));
                application.handle_refused(why, now_ms);
            }
            ApplicationEvent::Damaged => {
                if let Some(digest) = application.current_digest() {
                    self.store.note_damage(digest);
                }
                application.fetch_again();
                self.durability.change();
            }
            ApplicationEvent::Schema(section) => {
                if application.settings_mut().handle_schema(section) {
                    self.durability.change();
                }
                return;
            }
            ApplicationEvent::Trapped(trapped) => {
                let (spec_hash, restarts) = application.of_run();
                self.traps.push(uid, spec_hash, restarts, trapped);
                return;
            }
            ApplicationEvent::Ended { reason, message } => {
                let why = Why::new(reason, &message);
                self.events.push(Event::trouble(uid, correlation_id, &why));
                application.handle_ended(why, now_ms);
                self.durability.change();
                self.room_was_made();
            }
            ApplicationEvent::Line { text, lines_lost } => {
                application.handle_line(&text, lines_lost);
                return;
            }
            ApplicationEvent::Usage { memory_bytes, cpu_ms } => {
                application.handle_usage(memory_bytes, cpu_ms);
                return;
            }
        }
        self.reports.mark();
    }
}

/// A start that the loop has not taken yet is taken back instead of being followed by a stop.
fn push_stop(effects: &mut VecDeque<Effect>, run: RunId, uid: ApplicationUid) {
    let queued = |effect: &Effect| matches!(effect, Effect::Start(start) if start.run == run);
    match effects.iter().position(queued) {
        Some(position) => drop(effects.remove(position)),
        None => effects.push_back(Effect::Stop { run, uid }),
    }
}

/// The modules that accepted applications wait for, with their lengths.
pub(super) fn wanted(applications: &[Application]) -> impl Iterator<Item = (ModuleDigest, u32)> {
    applications
        .iter()
        .filter_map(Application::wanted_module)
        .map(|held| (held.digest(), held.module_bytes()))
}
