//! What a gateway says: sessions that begin and end, desired sets, assignments, modules that it does not have.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{
    ApplicationUid, Assignment, CloseReason, Closing, CorrelationId, Desired, DesiredApplication, ErrorCode,
    ModuleDigest, ReportReason, RestartPolicy, Revision, SpecHash, Welcome, decode_spec,
};

use super::Agent;
use crate::{
    application::{Application, Held, Next, Wait, Why},
    backoff::{PULL, ROOM},
    event::Event,
    session::{Session, Standing},
};

impl Agent {
    pub(super) fn handle_welcome(&mut self, welcome: &Welcome) {
        if welcome.epoch < self.last_epoch {
            self.events
                .push(Event::BadFrame { detail: "a Welcome with an epoch lower than the last".into() });
            self.close();
            return;
        }
        self.session = Session::Standing(Standing::new(welcome, self.now_ms));
        self.had_session = true;
        if welcome.epoch != self.last_epoch {
            self.last_epoch = welcome.epoch;
            self.durability.change();
        }
        self.set_unix_ms(welcome.unix_ms);
        self.events.push(Event::Welcomed { epoch: welcome.epoch, desired_known: welcome.desired_known });
    }

    pub(super) fn handle_closing(&mut self, closing: &Closing<'_>) {
        self.reconnect.handle_closing(closing);
        self.events.push(Event::Closed {
            reason: closing.reason,
            detail: closing.detail.into(),
            retry_after_ms: closing.retry_after_ms,
        });
        if matches!(closing.reason, CloseReason::Deleted | CloseReason::Revoked) {
            self.forget_set();
        }
        self.close();
    }

    /// Stops every application and forgets the set and its revision: there is no Device any more that says what is to run
    /// here, or one that keeps this device out. Modules and data stay until the next set says which of them are needed.
    fn forget_set(&mut self) {
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
        if desired.revision < self.revision {
            self.events.push(Event::StaleDesired { revision: desired.revision });
            self.complain(ErrorCode::Stale, None, "a revision lower than the one held");
            return;
        }
        let members: Vec<DesiredApplication> = desired.applications.iter().collect();
        let same = self.set_known
            && self.revision == desired.revision
            && members
                .iter()
                .map(|m| (m.uid, m.spec_hash))
                .eq(self.applications.iter().map(|a| (a.uid, a.spec_hash())));
        if same {
            return;
        }
        self.revision = desired.revision;
        self.set_known = true;
        self.adopt(&members);
        self.durability.change();
        self.report_due = true;
        self.events.push(Event::Desired { revision: desired.revision, applications: members.len() });
    }

    /// Makes the set the one to work to. Applications that the device already runs keep their places; the others take
    /// what is left in the set's order.
    fn adopt(&mut self, members: &[DesiredApplication]) {
        let mut before = core::mem::take(&mut self.applications);
        for member in members {
            if self.applications.iter().any(|application| application.uid == member.uid) {
                continue;
            }
            let known = before.iter().position(|application| application.uid == member.uid);
            let application = match known {
                None => Application::new(member.uid, member.spec_hash, false),
                Some(position) => {
                    let mut application = before.swap_remove(position);
                    retarget(&mut application, member.spec_hash);
                    application
                }
            };
            self.applications.push(application);
        }
        for gone in &before {
            self.stop(gone);
        }
        if !before.is_empty() {
            self.room_was_made();
        }
        let limit = usize::from(self.config.facts.applications_max);
        let mut accepted = self.applications.iter().filter(|application| application.accepted).count();
        for application in &mut self.applications {
            if !application.accepted && accepted < limit {
                application.accepted = true;
                accepted += 1;
            }
        }
    }

    pub(super) fn handle_assignment(&mut self, assignment: &Assignment<'_>) {
        if SpecHash(Sha256::digest(assignment.spec).into()) != assignment.spec_hash {
            // It is asked for again when its time is over: sooner, the same gateway would hardly say anything better.
            self.complain(ErrorCode::Malformed, None, "the spec does not have the hash asked for");
            return;
        }
        self.assignment_answered(assignment.spec_hash);
        let largest = self.config.facts.module_bytes_max;
        for application in &mut self.applications {
            let uid = application.uid;
            let Some(next) = application.next.as_mut().filter(|next| {
                next.spec_hash == assignment.spec_hash && next.held.is_none() && next.wait != Wait::ForGood
            }) else {
                continue;
            };
            let correlation_id = assignment.correlation_id;
            let checked = check_spec(uid, assignment.spec_hash, assignment.spec, correlation_id);
            match checked.and_then(|held| check_size(held, largest)) {
                Ok(held) => {
                    self.events.push(Event::Assigned { uid, correlation_id, digest: held.digest });
                    *next = Next { held: Some(held), ..Next::new(next.spec_hash) };
                }
                Err(why) => {
                    self.events.push(Event::trouble(uid, correlation_id, &why));
                    next.why = why;
                    next.wait = Wait::ForGood;
                }
            }
            self.durability.change();
            self.report_due = true;
        }
    }

    /// A new Desired is on its way, or the gateway lost the spec: either way asking again at once is no use.
    pub(super) fn handle_assignment_gone(&mut self, spec_hash: SpecHash) {
        self.assignment_answered(spec_hash);
        let now_ms = self.now_ms;
        for next in self.applications.iter_mut().filter_map(|application| application.next.as_mut()) {
            if next.spec_hash == spec_hash && next.held.is_none() {
                next.attempts = next.attempts.saturating_add(1);
                next.wait =
                    Wait::Until { at_ms: now_ms.saturating_add(PULL.delay_ms(next.attempts)), failed: false };
            }
        }
    }

    fn assignment_answered(&mut self, spec_hash: SpecHash) {
        if self.ask.outstanding.is_some_and(|(hash, _)| hash == spec_hash) {
            self.ask.outstanding = None;
        }
    }

    pub(super) fn handle_module_gone(&mut self, digest: ModuleDigest) {
        if self.pull.as_ref().is_some_and(|pull| pull.digest == digest) {
            let why = Why::new(ReportReason::ModuleGone, "the gateway does not have the module yet");
            self.fail_pull(digest, &why, false);
        }
    }

    /// Puts off every application that waits for this module. What is staged stays, so that the next attempt goes on there.
    pub(super) fn fail_pull(&mut self, digest: ModuleDigest, why: &Why, failed: bool) {
        let now_ms = self.now_ms;
        self.pull = None;
        for application in &mut self.applications {
            let Some(next) = application.next.as_mut() else { continue };
            let Some(held) = next.wants_module().filter(|held| held.digest == digest) else { continue };
            let correlation_id = held.correlation_id;
            next.attempts = next.attempts.saturating_add(1);
            let pause = if why.reason == ReportReason::OutOfFlash { ROOM } else { PULL };
            next.wait = Wait::Until { at_ms: now_ms.saturating_add(pause.delay_ms(next.attempts)), failed };
            if next.why != *why {
                self.events.push(Event::trouble(application.uid, correlation_id, why));
            }
            next.why = why.clone();
            self.report_due = true;
        }
    }
}

/// Points an application at an assignment, which may be the one that it has.
fn retarget(application: &mut Application, spec_hash: SpecHash) {
    let runs_it = application.current.as_ref().is_some_and(|current| current.held.spec_hash == spec_hash);
    let fetches_it = application.next.as_ref().is_some_and(|next| next.spec_hash == spec_hash);
    if runs_it {
        application.next = None;
    } else if !fetches_it {
        application.next = Some(Next::new(spec_hash));
    }
}

/// Reads a spec whose hash is right. A spec that this firmware can't act on refuses its assignment and nothing else.
pub(super) fn check_spec(
    uid: ApplicationUid,
    spec_hash: SpecHash,
    bytes: &[u8],
    correlation_id: CorrelationId,
) -> Result<Held, Why> {
    let refuse = |message: &str| Why::new(ReportReason::Unsupported, message);
    let spec =
        decode_spec(bytes).map_err(|error| refuse(&alloc::format!("assignment not usable: {error}")))?;
    if spec.uid != uid {
        return Err(refuse("the assignment is another application's"));
    }
    if let RestartPolicy::Unknown(policy) = spec.restart_policy {
        return Err(refuse(&alloc::format!("restart policy {policy} is newer than this firmware")));
    }
    if spec.module_bytes == 0 {
        return Err(Why::new(ReportReason::InvalidModule, "the module is empty"));
    }
    Ok(Held {
        spec_hash,
        spec: Vec::from(bytes),
        correlation_id,
        digest: spec.digest,
        module_bytes: spec.module_bytes,
        policy: spec.restart_policy,
    })
}

fn check_size(held: Held, largest: u32) -> Result<Held, Why> {
    if held.module_bytes <= largest {
        return Ok(held);
    }
    let message =
        alloc::format!("module has {} bytes, this device takes at most {largest}", held.module_bytes);
    Err(Why::new(ReportReason::OutOfFlash, &message))
}
