//! The agent itself: inputs in, outputs out. Its submodules decide, on fields that nobody else can reach.
//!
//! Memory of an agent: at most sixteen applications with two specs each ([`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX) in
//! all, a few hundred bytes each in practice), 2 KiB of log lines for each application that is run, one module range of
//! 16 KiB while a module is pulled, and the state record once more while it is written.

mod converge;
mod lifecycle;
mod storage;
mod transmit;

use alloc::{collections::VecDeque, vec::Vec};

use wasmbed_protocol::{
    ApplicationState, ApplicationUid, BootCounter, DecodeError, Epoch, ErrorCode, GatewayMessage, Revision,
    decode_gateway, tag,
};

use crate::{
    application::Application,
    config::{Config, Restored},
    durability::Durability,
    effect::{ApplicationEvent, DeviceUsage, Effect, RunId},
    event::{Event, Events},
    pull::Pull,
    session::{BAD_FRAMES_MAX, CLOSE_TIMEOUT_MS, Expired, Reconnect, Session, WELCOME_TIMEOUT_MS},
    storage::{Inventory, Outcome},
    store::Busy,
};

pub use transmit::{ASSIGNMENT_TIMEOUT_MS, REPORT_INTERVAL_MS};

/// Where the session is, for people and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Waiting for the next attempt.
    Down,
    /// A connection is being made, or Hello is not answered yet.
    Connecting,
    /// Welcomed.
    Standing(Epoch),
    /// Ending.
    Closing,
}

/// One device's brain. See the crate's documentation for the contract of its inputs and outputs.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    now_ms: u64,
    boot_ms: u64,

    session: Session,
    reconnect: Reconnect,
    had_session: bool,
    last_epoch: Epoch,
    /// Number of this start, told once storage has it; none if the record that counts starts could not be read.
    boot_counter: Option<BootCounter>,
    /// Gateway's clock less ours, milliseconds.
    unix_offset_ms: Option<i128>,
    bad_frames: u32,
    notice: Option<Notice>,
    ask: Ask,

    revision: Revision,
    /// Whether the device has ever had a set; without one it keeps everything that it finds.
    set_known: bool,
    applications: Vec<Application>,
    refusal: alloc::string::String,
    next_run: u32,

    inventory: Inventory,
    pull: Option<Pull>,
    durability: Durability,
    busy: Option<Busy>,
    damaged: Vec<wasmbed_protocol::ModuleDigest>,

    report_due: bool,
    report_not_before_ms: u64,
    log_turn: usize,
    usage: DeviceUsage,

    link_effect: Option<LinkEffect>,
    effects: VecDeque<Effect>,
    events: Events,
}

/// An Error to be sent. At most one waits; an Error is never answered, so more would say nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) code: ErrorCode,
    pub(crate) tag: Option<u32>,
    pub(crate) detail: &'static str,
}

/// The AssignmentGet that is outstanding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) outstanding: Option<(wasmbed_protocol::SpecHash, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEffect {
    Connect,
    Close,
}

impl Agent {
    /// The agent of a device that has just started, with what its storage held. Applications whose assignment and module
    /// are on storage start before there is a network.
    #[must_use]
    pub fn new(config: Config, restored: Restored, now_ms: u64) -> Self {
        let refusal =
            alloc::format!("this device runs at most {} applications", config.facts.applications_max);
        let mut agent = Self {
            config,
            now_ms,
            boot_ms: now_ms,
            session: Session::Down { retry_at_ms: now_ms },
            reconnect: Reconnect::default(),
            had_session: false,
            last_epoch: Epoch(0),
            boot_counter: None,
            unix_offset_ms: None,
            bad_frames: 0,
            notice: None,
            ask: Ask::default(),
            revision: Revision(0),
            set_known: false,
            applications: Vec::new(),
            refusal,
            next_run: 0,
            inventory: restored.inventory,
            pull: None,
            durability: Durability::default(),
            busy: None,
            damaged: Vec::new(),
            report_due: true,
            report_not_before_ms: now_ms,
            log_turn: 0,
            usage: DeviceUsage::default(),
            link_effect: None,
            effects: VecDeque::new(),
            events: Events::default(),
        };
        agent.restore(restored.state.as_deref());
        if !restored.state_unread {
            agent.count_start();
        }
        agent.handle_timeout(now_ms);
        agent
    }

    /// The link stands: both certificates were checked.
    pub fn handle_connected(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if matches!(self.session, Session::Closing { .. }) {
            return;
        }
        self.link_effect = None;
        self.session =
            Session::Greeting { sent: false, deadline_ms: now_ms.saturating_add(WELCOME_TIMEOUT_MS) };
        self.settle();
    }

    /// The link is down, or an attempt to make it failed. `random` spreads the next attempt: any 32 bits.
    pub fn handle_disconnected(&mut self, now_ms: u64, random: u32) {
        self.advance(now_ms);
        if !matches!(self.session, Session::Down { .. }) {
            self.take_down(random);
        }
        self.settle();
    }

    /// A frame's body arrived.
    pub fn handle_frame(&mut self, now_ms: u64, body: &[u8]) {
        self.advance(now_ms);
        if let Session::Standing(standing) = &mut self.session {
            standing.handle_heard(now_ms);
        }
        match decode_gateway(body) {
            Ok(message) => {
                self.bad_frames = 0;
                self.handle_message(&message);
            }
            Err(error) => {
                self.events.push(Event::BadFrame { detail: alloc::format!("{error}") });
                self.handle_unusable(&error);
            }
        }
        self.settle();
    }

    /// What is newer than this firmware is answered, unless it is an Error itself; what is out of form ends the session.
    fn handle_unusable(&mut self, error: &DecodeError) {
        self.bad_frames = self.bad_frames.saturating_add(1);
        if !error.is_newer_version() || self.bad_frames >= BAD_FRAMES_MAX {
            self.close();
        } else if error.tag != Some(tag::ERROR) {
            self.complain(error.code(), error.tag, "newer than this firmware");
        }
    }

    fn handle_message(&mut self, message: &GatewayMessage<'_>) {
        match (&self.session, message) {
            (Session::Greeting { sent: true, .. }, GatewayMessage::Welcome(welcome)) => {
                self.handle_welcome(welcome)
            }
            (
                Session::Greeting { .. } | Session::Standing(_),
                GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing),
            ) => self.handle_closing(closing),
            (_, GatewayMessage::Error(error)) => {
                self.events.push(Event::Complaint { detail: error.detail.into() });
            }
            (Session::Standing(_), GatewayMessage::HeartbeatAck(ack)) => self.set_unix_ms(ack.unix_ms),
            (Session::Standing(_), GatewayMessage::Desired(desired)) => self.handle_desired(desired),
            (Session::Standing(_), GatewayMessage::Assignment(assignment)) => {
                self.handle_assignment(assignment)
            }
            (Session::Standing(_), GatewayMessage::AssignmentGone(gone)) => {
                self.handle_assignment_gone(gone.spec_hash)
            }
            (Session::Standing(_), GatewayMessage::ModuleChunk(chunk)) => {
                if let Some(pull) = &mut self.pull {
                    pull.handle_chunk(chunk, self.now_ms);
                }
            }
            (Session::Standing(_), GatewayMessage::ModuleGone(gone)) => self.handle_module_gone(gone.digest),
            (Session::Standing(_), GatewayMessage::Welcome(_)) => {
                self.complain(ErrorCode::Unexpected, Some(message.tag()), "a second Welcome");
            }
            // Nothing else is understood before Welcome, and nothing at all while the session ends.
            (
                Session::Down { .. }
                | Session::Connecting { .. }
                | Session::Greeting { .. }
                | Session::Closing { .. },
                _,
            ) => {}
        }
    }

    /// Storage answered the operation that was outstanding.
    pub fn handle_storage(&mut self, now_ms: u64, outcome: Outcome) {
        self.advance(now_ms);
        self.handle_stored(outcome);
        self.settle();
    }

    /// Something happened to a run. News of a run that is over is ignored.
    pub fn handle_application(&mut self, now_ms: u64, run: RunId, event: ApplicationEvent) {
        self.advance(now_ms);
        self.handle_run(run, event);
        self.settle();
    }

    /// What all applications use together, for the next heartbeat.
    pub fn handle_usage(&mut self, usage: DeviceUsage) {
        self.usage = usage;
    }

    /// Time has passed; may be called at any moment.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.advance(now_ms);
        match self.session.handle_timeout(self.now_ms) {
            Expired::Nothing => {}
            Expired::Connect => self.link_effect = Some(LinkEffect::Connect),
            Expired::Close => {
                self.events.push(Event::Silent);
                self.close();
            }
            // The end of the link was awaited for long enough; no jitter is at hand, and none is needed after that wait.
            Expired::Gone => self.take_down(u32::MAX),
        }
        if let Session::Standing(standing) = &mut self.session {
            standing.log.refill(self.now_ms);
        }
        self.handle_pauses();
        self.settle();
    }

    /// Something to do, until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        match self.link_effect.take() {
            Some(LinkEffect::Connect) => return Some(Effect::Connect),
            Some(LinkEffect::Close) => return Some(Effect::Close),
            None => {}
        }
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        self.plan_storage().map(Effect::Storage)
    }

    /// When [`Agent::handle_timeout`] is wanted at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let applications = self.applications.iter().filter_map(Application::timeout).min();
        let pull = self.pull.as_ref().and_then(Pull::timeout);
        let asked = self.ask.outstanding.map(|(_, deadline_ms)| deadline_ms);
        let report = self.report_timeout();
        let log = self.log_timeout();
        let state = self.durability.retry_at_ms();
        [Some(self.session.timeout()), applications, pull, asked, report, log, state]
            .into_iter()
            .flatten()
            .min()
    }

    /// Something to write to the device's log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Where the session is.
    #[must_use]
    pub fn session(&self) -> SessionState {
        match &self.session {
            Session::Down { .. } => SessionState::Down,
            Session::Connecting { .. } | Session::Greeting { .. } => SessionState::Connecting,
            Session::Standing(standing) => SessionState::Standing(standing.epoch),
            Session::Closing { .. } => SessionState::Closing,
        }
    }

    /// The revision that the device works to.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The applications of the desired set, in its order, with the states that are reported of them.
    pub fn applications(&self) -> impl Iterator<Item = (ApplicationUid, ApplicationState)> {
        let failing = self.durability.is_failing();
        self.applications.iter().map(move |application| {
            let report = application.report(&self.refusal, failing, false);
            (report.uid, report.state)
        })
    }

    /// The gateway's clock now, milliseconds since 1970, once a gateway has told it.
    #[must_use]
    pub fn unix_ms(&self, now_ms: u64) -> Option<u64> {
        self.unix_offset_ms.and_then(|offset| u64::try_from(i128::from(now_ms) + offset).ok())
    }

    fn set_unix_ms(&mut self, unix_ms: u64) {
        self.unix_offset_ms = Some(i128::from(unix_ms) - i128::from(self.now_ms));
    }

    /// A clock that goes back is a caller's fault that must not confuse deadlines.
    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    fn complain(&mut self, code: ErrorCode, tag: Option<u32>, detail: &'static str) {
        self.notice.get_or_insert(Notice { code, tag, detail });
    }

    /// Gives the connection up; what waits to be sent is not.
    fn close(&mut self) {
        if matches!(self.session, Session::Down { .. } | Session::Closing { .. }) {
            return;
        }
        self.reconnect.note_end(&self.session, self.now_ms);
        self.session = Session::Closing { deadline_ms: self.now_ms.saturating_add(CLOSE_TIMEOUT_MS) };
        self.link_effect = Some(LinkEffect::Close);
        self.forget_session();
    }

    fn take_down(&mut self, random: u32) {
        self.reconnect.note_end(&self.session, self.now_ms);
        let pause_ms = self.reconnect.plan_pause(random);
        self.events.push(Event::Pause { pause_ms });
        self.session = Session::Down { retry_at_ms: self.now_ms.saturating_add(pause_ms) };
        self.link_effect = None;
        self.forget_session();
    }

    /// What was asked of a gateway is asked again of the next one, and it is told the whole truth.
    fn forget_session(&mut self) {
        self.bad_frames = 0;
        self.notice = None;
        self.ask.outstanding = None;
        self.report_due = true;
        self.report_not_before_ms = self.now_ms;
        if let Some(pull) = &mut self.pull {
            pull.handle_disconnected();
        }
    }
}
