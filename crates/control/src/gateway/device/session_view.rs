//! What a session in this process showed of its device.
//!
//! ```text
//! new ── Claiming ── establish ── Established ── handle_report, take_log any number of times
//!            └──────── end ───────────┴── Ended, for good: the next session has a view of its own
//! ```
//!
//! What was reported stays after the end: it is what is known of the device until it comes back.

use std::{collections::VecDeque, sync::Arc};

use wasmbed_api::{DeviceFacts, ReasonCode};
use wasmbed_protocol::{ApplicationUid, Epoch, Log, Reported, SpecHash, Trap, limits::DESIRED_MAX};

use super::application::{Application, applications_hash};
use crate::{
    Now, ObjectKey,
    gateway::{
        connections::{Boot, Greeting},
        counters::Counted,
        events::About,
        input::Notice,
        logs::{Line, Places},
    },
    gateway_api::DeviceView,
    intern::hash_of,
    kubernetes::Event,
};

/// One session's view of its device.
#[derive(Debug)]
pub(in crate::gateway) struct SessionView {
    epoch: Epoch,
    /// Which start of the device speaks.
    boot: Boot,
    /// Whether the device knows orders to be taken out of service.
    takes_orders: bool,
    /// Whether it takes messages for its applications.
    takes_deliveries: bool,
    /// Whether it takes settings of its applications.
    takes_settings: bool,
    /// Orders the device's starts, once it has reported a number.
    start: Option<u64>,
    /// Lines of its applications.
    logs: Places,
    /// The epoch that is acknowledged to the device.
    acknowledged_epoch: Epoch,
    /// A report counts up to this revision, or one that was set here; reports do not move it.
    revision_limit: u64,
    /// Numbers of the device that were not believed, for people.
    complaint: Option<Box<str>>,
    stage: Stage,
    since: Now,
    last_heard: Now,
    facts: Arc<DeviceFacts>,
    facts_hash: u64,
    /// `None` until the device reported in it.
    report: Option<Report>,
    /// Assignments whose traps were told, the last of each application, at most [`DESIRED_MAX`].
    traps: VecDeque<(ApplicationUid, SpecHash)>,
}

/// Where the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Welcome was not given yet.
    Claiming,
    Established,
    Ended(ReasonCode),
}

#[derive(Debug)]
struct Report {
    revision: u64,
    applications: Vec<Application>,
    /// Of the applications, memory in use aside.
    hash: u64,
}

/// What follows from a report.
#[derive(Debug, Default)]
pub(in crate::gateway) struct ReportEffects {
    /// Whether it says something that controllers do not know.
    pub changed: bool,
    pub notices: Vec<Notice>,
    pub events: Vec<(About, Event)>,
}

impl SessionView {
    /// A session that begins, whose numbers count as `counted`. `earlier_start` is that of the session before.
    pub(super) fn new(
        now: Now,
        greeting: &Greeting,
        counted: &Counted,
        earlier_start: Option<u64>,
        revision_limit: u64,
    ) -> Self {
        Self {
            epoch: counted.epoch(),
            boot: greeting.boot(),
            takes_orders: greeting.takes_orders(),
            takes_deliveries: greeting.takes_deliveries(),
            takes_settings: greeting.takes_settings(),
            // A start without a number, or with one that begins anew, belongs behind the starts before it: epochs order those.
            start: earlier_start.max(greeting.boot().start()),
            logs: Places::default(),
            acknowledged_epoch: counted.acknowledged_epoch(),
            revision_limit,
            complaint: counted.complaint().map(Box::from),
            stage: Stage::Claiming,
            since: now,
            last_heard: now,
            facts_hash: hash_of(&**greeting.facts()),
            facts: Arc::clone(greeting.facts()),
            report: None,
            traps: VecDeque::new(),
        }
    }

    /// Welcome is given.
    pub(super) fn establish(&mut self) -> Epoch {
        debug_assert_eq!(self.stage, Stage::Claiming, "a session is established once");
        self.stage = Stage::Established;
        self.epoch
    }

    pub(super) fn end(&mut self, reason: ReasonCode) -> Epoch {
        debug_assert!(self.is_connected(), "a session ends once");
        self.stage = Stage::Ended(reason);
        self.epoch
    }

    pub(super) fn heard(&mut self, now: Now) {
        debug_assert!(self.is_connected(), "who is heard is connected");
        self.last_heard = now;
    }

    /// The device reported. `revision` is the one that it holds, in the gateway's count, or `None` if it can't be believed;
    /// `highest` is the highest that is, for people. `uid` is the Device's, `name` what its set calls an application.
    pub(super) fn handle_report(
        &mut self,
        now: Now,
        device: &Arc<ObjectKey>,
        uid: Option<&str>,
        reported: &Reported<'_>,
        (revision, highest): (Option<u64>, u64),
        name: impl Fn(&ApplicationUid) -> Option<Arc<str>>,
    ) -> ReportEffects {
        debug_assert_eq!(self.stage, Stage::Established, "only an established session reports");
        let mut effects = ReportEffects::default();
        let mut applications: Vec<Application> = Vec::with_capacity(reported.applications.len());
        for report in reported.applications.iter() {
            let earlier = self.application(report.uid);
            let mut application = Application::new(&report, earlier, name(&report.uid));
            if earlier.is_none_or(|earlier| !application.is_as(earlier)) {
                effects.notices.push(application.notice(device));
            }
            let told = self.traps.contains(&(report.uid, report.spec_hash)) && application.trapped();
            // Where it trapped says more than that it did.
            if application.begin_failure() && !told {
                let about = About::Application(application.name().map(|_| report.uid));
                effects.events.extend(uid.map(|uid| (about, application.failure(now, device, uid))));
            }
            applications.push(application);
        }
        let hash = applications_hash(applications.iter().map(Application::to_resource));
        let counted = revision.unwrap_or(0);
        let before = self.report.replace(Report { revision: counted, applications, hash });
        effects.changed = before.is_none_or(|before| (before.hash, before.revision) != (hash, counted));
        if revision.is_none() && self.complaint.is_none() {
            let detail = format!(
                "the device reports revision {}, the last one here is {highest}",
                reported.revision.0
            );
            self.complaint = Some(detail.as_str().into());
            effects.notices.push(Notice::NotBelieved { device: Arc::clone(device), detail });
        }
        effects
    }

    /// An Event says where an application trapped.
    pub(super) fn note_trap(&mut self, trap: &Trap<'_>) {
        self.traps.retain(|(uid, _)| *uid != trap.uid);
        if self.traps.len() >= DESIRED_MAX {
            self.traps.pop_front();
        }
        self.traps.push_back((trap.uid, trap.spec_hash));
    }

    /// A line of an application is taken, with its text as it is kept.
    pub(super) fn take_log<'a>(&mut self, log: &Log<'_>, text: &'a str) -> Line<'a> {
        let lines_lost = self.logs.take(log.uid, log.sequence.0, log.lines_lost);
        Line::new(self.start, self.epoch, log, lines_lost, text)
    }

    /// A line is over the device's share.
    pub(super) fn skip_log(&mut self, log: &Log<'_>) {
        self.logs.skip(log.uid, log.sequence.0, log.lines_lost);
    }

    pub(super) fn application(&self, uid: ApplicationUid) -> Option<&Application> {
        self.applications()?.iter().find(|application| application.uid() == uid)
    }

    /// What the device runs; `None` until it reported in this session.
    pub(in crate::gateway) fn applications(&self) -> Option<&[Application]> {
        self.report.as_ref().map(|report| report.applications.as_slice())
    }

    /// Whether the device reported something else than what hashes to `shown`.
    pub(in crate::gateway) fn runs_other_than(&self, shown: u64) -> bool {
        self.report.as_ref().is_some_and(|report| report.hash != shown)
    }

    /// The revision that the device works to, in the gateway's count; `None` until it reported in this session.
    pub(in crate::gateway) fn revision(&self) -> Option<u64> {
        self.report.as_ref().map(|report| report.revision)
    }

    /// What the device is, if that hashes to something else than `shown`.
    pub(in crate::gateway) fn facts_other_than(&self, shown: u64) -> Option<&DeviceFacts> {
        (self.facts_hash != shown).then_some(&*self.facts)
    }

    pub(in crate::gateway) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch that Welcome says.
    pub(in crate::gateway) fn acknowledged_epoch(&self) -> Epoch {
        self.acknowledged_epoch
    }

    pub(in crate::gateway) fn boot(&self) -> Boot {
        self.boot
    }

    /// Whether the device knows orders to be taken out of service.
    pub(super) fn takes_orders(&self) -> bool {
        self.takes_orders
    }

    /// Whether the device takes messages for its applications.
    pub(in crate::gateway) fn takes_deliveries(&self) -> bool {
        self.takes_deliveries
    }

    /// Whether the device takes settings of its applications.
    pub(in crate::gateway) fn takes_settings(&self) -> bool {
        self.takes_settings
    }

    pub(super) fn start(&self) -> Option<u64> {
        self.start
    }

    pub(super) fn revision_limit(&self) -> u64 {
        self.revision_limit
    }

    /// Why numbers of the device are not believed, for people.
    pub(in crate::gateway) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Whether the connection is there.
    pub(in crate::gateway) fn is_connected(&self) -> bool {
        self.ended().is_none()
    }

    /// Whether the connection is there and Welcome was given.
    pub(in crate::gateway) fn is_established(&self) -> bool {
        self.stage == Stage::Established
    }

    /// Why the session ended, if it did.
    pub(in crate::gateway) fn ended(&self) -> Option<ReasonCode> {
        match self.stage {
            Stage::Claiming | Stage::Established => None,
            Stage::Ended(reason) => Some(reason),
        }
    }

    /// When the session began.
    pub(in crate::gateway) fn since(&self) -> Now {
        self.since
    }

    pub(in crate::gateway) fn last_heard(&self) -> Now {
        self.last_heard
    }

    /// Adds what controllers read of the session.
    pub(super) fn show(&self, view: &mut DeviceView) {
        view.connected = self.is_established();
        view.epoch = self.epoch.0;
        view.revision_reported = self.revision();
        view.facts = Some(DeviceFacts::clone(&self.facts));
        let to_resources =
            |applications: &[Application]| applications.iter().map(Application::to_resource).collect();
        view.applications = self.applications().map(to_resources);
    }
}
