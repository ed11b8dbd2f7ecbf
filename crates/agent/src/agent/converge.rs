//! A gateway's messages: sessions that begin and end, desired sets, assignments, modules that it does not have.

use alloc::vec::Vec;

use wasmbed_protocol::{
    Assignment, CloseReason, Closing, Desired, DesiredApplication, ErrorCode, ModuleDigest, ReportReason,
    Revision, SpecHash, Welcome,
};

use super::Agent;
use crate::{
    application::Application,
    assignment::{Held, has_hash},
    connection::StaleEpoch,
    event::Event,
    why::Why,
};

impl Agent {
    pub(super) fn handle_welcome(&mut self, welcome: &Welcome) {
        match self.connection.handle_welcome(welcome, self.clock.now_ms()) {
            Ok(true) => self.durability.change(),
            Ok(false) => {}
            Err(StaleEpoch) => {
                let detail = "a Welcome with an epoch lower than the last".into();
                self.events.push(Event::BadFrame { detail });
                self.close();
                return;
            }
        }
        self.clock.set_unix_ms(welcome.unix_ms);
        self.proof_at_ms = self.clock.now_ms();
        for application in &mut self.applications {
            application.settings_mut().handle_session();
        }
        self.orders.forget();
        if self.credentials.handle_welcomed() {
            self.events.push(Event::Proven);
        }
        self.events.push(Event::Welcomed { epoch: welcome.epoch, desired_known: welcome.desired_known });
    }

    pub(super) fn handle_closing(&mut self, closing: &Closing<'_>) {
        self.connection.handle_closing(closing);
        self.events.push(Event::Closed {
            reason: closing.reason,
            detail: closing.detail.into(),
            retry_after_ms: closing.retry_after_ms,
        });
        match closing.reason {
            CloseReason::Deleted | CloseReason::Revoked => self.forget_set(),
            CloseReason::Decommissioned => self.handle_decommissioned(),
            _ => {}
        }
        self.close();
    }

    /// Stops every application and forgets the set and its revision: there is no Device any more that says what is to run
    /// here, or one that keeps this device out. Modules and data stay until the next set says which of them are needed.
    pub(super) fn forget_set(&mut self) {
        let gone = core::mem::take(&mut self.applications);
        for application in &gone {
            self.stop(application);
        }
        if gone.is_empty() && self.revision == Revision(0) && !self.set_known {
            return;
        }
        self.revision = Revision(0);
        self.set_known = false;
        self.durability.change();
        self.events.push(Event::Forgotten { applications: gone.len() });
    }

    pub(super) fn handle_desired(&mut self, desired: &Desired<'_>) {
        if self.is_decommissioned() {
            return;
        }
        if desired.revision < self.revision {
            self.events.push(Event::StaleDesired { revision: desired.revision });
            self.connection.complain(ErrorCode::Stale, None, "a revision lower than the one held");
            return;
        }
        let members: Vec<DesiredApplication> = desired.applications.iter().collect();
        let same = self.set_known
            && self.revision == desired.revision
            && members
                .iter()
                .map(|m| (m.uid, m.spec_hash))
                .eq(self.applications.iter().map(|a| (a.uid(), a.spec_hash())));
        if same {
            return;
        }
        self.revision = desired.revision;
        self.set_known = true;
        self.adopt(&members);
        self.durability.change();
        self.reports.mark();
        self.events.push(Event::Desired { revision: desired.revision, applications: members.len() });
    }

    /// Makes the set the one to work to. Applications that the device already runs keep their places; the others take
    /// what is left in the set's order.
    fn adopt(&mut self, members: &[DesiredApplication]) {
        let mut before = core::mem::take(&mut self.applications);
        for member in members {
            if self.applications.iter().any(|application| application.uid() == member.uid) {
                continue;
            }
            let known = before.iter().position(|application| application.uid() == member.uid);
            let application = match known {
                None => Application::new(member.uid, member.spec_hash, false),
                Some(position) => {
                    let mut application = before.swap_remove(position);
                    application.retarget(member.spec_hash);
                    application
                }
            };
            self.applications.push(application);
        }
        for gone in &before {
            self.stop(gone);
            self.traps.forget(gone.uid());
        }
        if !before.is_empty() {
            self.room_was_made();
        }
        let limit = usize::from(self.config.facts.applications_max);
        let mut accepted = self.applications.iter().filter(|application| application.is_accepted()).count();
        for application in &mut self.applications {
            if !application.is_accepted() && accepted < limit {
                application.accept();
                accepted += 1;
            }
        }
    }

    pub(super) fn handle_assignment(&mut self, assignment: &Assignment<'_>) {
        if !has_hash(assignment.spec, assignment.spec_hash) {
            // It is asked for again when its time is over: sooner, the same gateway would hardly say anything better.
            self.connection.complain(ErrorCode::Malformed, None, "the spec does not have the hash asked for");
            return;
        }
        self.request.handle_answer(assignment.spec_hash);
        let largest = self.config.facts.module_bytes_max;
        let correlation_id = assignment.correlation_id;
        for application in &mut self.applications {
            if !application.awaits(assignment.spec_hash) {
                continue;
            }
            let uid = application.uid();
            let checked = Held::check(uid, assignment.spec_hash, assignment.spec, correlation_id)
                .and_then(|held| held.within(largest));
            self.events.push(match &checked {
                Ok(held) => Event::Assigned { uid, correlation_id, digest: held.digest() },
                Err(why) => Event::trouble(uid, correlation_id, why),
            });
            application.take_spec(checked);
            self.durability.change();
            self.reports.mark();
        }
    }

    /// A new Desired is on its way, or the gateway lost the spec: either way asking again at once is no use.
    pub(super) fn handle_assignment_gone(&mut self, spec_hash: SpecHash) {
        self.request.handle_answer(spec_hash);
        for application in &mut self.applications {
            application.put_off_spec(spec_hash, self.clock.now_ms());
        }
    }

    pub(super) fn handle_module_gone(&mut self, digest: ModuleDigest) {
        if self.pull.as_ref().is_some_and(|pull| pull.digest() == digest) {
            let why = Why::new(ReportReason::ModuleGone, "the gateway does not have the module yet");
            self.fail_pull(digest, &why, false);
        }
    }

    /// Puts off every application that waits for this module. What is staged stays, so that the next attempt goes on there.
    pub(super) fn fail_pull(&mut self, digest: ModuleDigest, why: &Why, failed: bool) {
        self.pull = None;
        for application in &mut self.applications {
            let put_off = application.put_off_module(digest, why, failed, self.clock.now_ms());
            let Some((news, correlation_id)) = put_off else { continue };
            if news {
                self.events.push(Event::trouble(application.uid(), correlation_id, why));
            }
            self.reports.mark();
        }
    }
}
