//! The agent itself: inputs in, outputs out. Its submodules decide, on fields that nobody else can reach.
//!
//! Memory of an agent: at most sixteen applications with two specs each ([`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX) in
//! all, a few hundred bytes each in practice), 2 KiB of log lines for each application that is run and 2 KiB of messages for
//! each that publishes, 1,152 bytes for each that something waits for, 512 bytes for
//! what the module of each declares about settings and twice 256 for values of them, one module range of 16 KiB while a module is pulled, and the state record once more while it is
//! written.

mod check;
mod converge;
mod decommission;
mod deliveries;
mod joining;
mod lifecycle;
mod messages;
mod settings;
mod storage;
mod transmit;

use alloc::{collections::VecDeque, string::String, vec::Vec};

use wasmbed_protocol::{
    ApplicationState, ApplicationUid, BootCounter, DecodeError, DeliverAck, Epoch, ErrorCode, GatewayMessage,
    Revision, decode_gateway, tag,
};

use crate::{
    application::Application,
    clock::Clock,
    config::{Config, Restored},
    connection::Connection,
    decommission::{Erasing, Orders},
    durability::Durability,
    effect::{ApplicationEvent, DeviceUsage, Effect, RunId},
    event::{Event, Events},
    identity::{
        credentials::Credentials,
        exchange::{Exchange, Purpose},
        pause::RenewalPause,
    },
    messages::Publishing,
    pull::Pull,
    report::Reports,
    request::AssignmentRequest,
    session::{Expired, Session},
    storage::Outcome,
    store::Store,
    trap::TrapQueue,
};

/// Where the session is, for people and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Waiting for the next attempt.
    Down,
    /// A connection is being made, or Hello is not answered yet.
    Connecting,
    /// Connected without a certificate of the fleet, to get one.
    Joining,
    /// Welcomed.
    Established(Epoch),
    /// Ending.
    Closing,
}

/// One device's brain. See the crate's documentation for the contract of its inputs and outputs.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    clock: Clock,
    connection: Connection,
    request: AssignmentRequest,
    /// Number of this start, sent once storage has it; none if the record that counts starts could not be read.
    boot_counter: Option<BootCounter>,

    revision: Revision,
    /// Whether the device has ever had a set; without one it keeps everything that it finds.
    set_known: bool,
    applications: Vec<Application>,
    next_run: u32,

    credentials: Credentials,
    /// With the gateway, for a certificate.
    exchange: Option<Exchange>,
    renewal: RenewalPause,

    orders: Orders,
    /// What an order led to, until the proof is kept.
    erasing: Option<Erasing>,
    /// When the proof is sent next.
    proof_at_ms: u64,

    store: Store,
    pull: Option<Pull>,
    durability: Durability,

    reports: Reports,
    traps: TrapQueue,
    /// What applications beyond the device's number report.
    too_many: String,
    log_turn: usize,
    publishing: Publishing,
    /// To deliveries, still to be sent in this session.
    answers: Vec<DeliverAck>,
    usage: DeviceUsage,

    effects: VecDeque<Effect>,
    events: Events,
}

impl Agent {
    /// The agent of a device that has just started, with what its storage held. Applications whose assignment and module
    /// are on storage start before there is a network.
    #[must_use]
    pub fn new(config: Config, restored: Restored, now_ms: u64) -> Self {
        let too_many =
            alloc::format!("this device runs at most {} applications", config.facts.applications_max);
        let credentials = Credentials::new(config.provisioned.clone());
        let clock = Clock::new(now_ms, config.unix_s);
        let mut agent = Self {
            config,
            clock,
            connection: Connection::new(now_ms),
            request: AssignmentRequest::default(),
            boot_counter: None,
            revision: Revision(0),
            set_known: false,
            applications: Vec::new(),
            next_run: 0,
            credentials,
            exchange: None,
            renewal: RenewalPause::default(),
            orders: Orders::default(),
            erasing: None,
            proof_at_ms: 0,
            store: Store::new(restored.inventory),
            pull: None,
            durability: Durability::default(),
            reports: Reports::new(now_ms),
            traps: TrapQueue::default(),
            too_many,
            log_turn: 0,
            publishing: Publishing::default(),
            answers: Vec::new(),
            usage: DeviceUsage::default(),
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

    /// The link is up: both certificates were checked.
    pub fn handle_connected(&mut self, now_ms: u64) {
        self.clock.advance(now_ms);
        let (joins, now_ms) = (self.credentials.joins(), self.clock.now_ms());
        if self.credentials.is_ready() && self.connection.handle_connected(joins, now_ms) {
            self.exchange = joins.then(|| Exchange::new(Purpose::Joining, now_ms));
        }
        self.settle();
    }

    /// The link is down, or an attempt to make it failed. `random` spreads the next attempt: any 32 bits.
    pub fn handle_disconnected(&mut self, now_ms: u64, random: u32) {
        self.clock.advance(now_ms);
        self.take_down(random);
        self.settle();
    }

    /// A frame's body arrived.
    // Not a part of what reads the frame: a board's stack would hold the message during a handshake as well.
    #[inline(never)]
    pub fn handle_frame(&mut self, now_ms: u64, body: &[u8]) {
        self.clock.advance(now_ms);
        self.connection.handle_heard(now_ms);
        match decode_gateway(body) {
            Ok(message) => {
                self.connection.note_usable();
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
        let too_often = self.connection.note_unusable();
        if !error.is_newer_version() || too_often {
            self.close();
        } else if error.tag != Some(tag::ERROR) {
            self.connection.complain(error.code(), error.tag, "newer than this firmware");
        }
    }

    fn handle_message(&mut self, message: &GatewayMessage<'_>) {
        match (self.connection.session(), message) {
            (Session::Greeting { sent: true, .. }, GatewayMessage::Welcome(welcome)) => {
                self.handle_welcome(welcome)
            }
            (
                Session::Greeting { .. } | Session::Joining { .. } | Session::Established(_),
                GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing),
            ) => self.handle_closing(closing),
            (_, GatewayMessage::Error(error)) => {
                self.events.push(Event::Complaint { detail: error.detail.into() });
            }
            (Session::Established(_), GatewayMessage::HeartbeatAck(ack)) => {
                self.clock.set_unix_ms(ack.unix_ms)
            }
            (Session::Established(_), GatewayMessage::Desired(desired)) => self.handle_desired(desired),
            (Session::Established(_), GatewayMessage::Assignment(assignment)) => {
                self.handle_assignment(assignment)
            }
            (Session::Established(_), GatewayMessage::AssignmentGone(gone)) => {
                self.handle_assignment_gone(gone.spec_hash)
            }
            (Session::Established(_), GatewayMessage::ModuleChunk(chunk)) => {
                if let Some(pull) = &mut self.pull {
                    pull.handle_chunk(chunk, self.clock.now_ms());
                }
            }
            (Session::Established(_), GatewayMessage::ModuleGone(gone)) => {
                self.handle_module_gone(gone.digest)
            }
            (Session::Established(_), GatewayMessage::Welcome(_)) => {
                self.connection.complain(ErrorCode::Unexpected, Some(message.tag()), "a second Welcome");
            }
            (Session::Established(_) | Session::Joining { .. }, GatewayMessage::Certificate(piece)) => {
                self.handle_certificate(piece);
            }
            (Session::Established(_) | Session::Joining { .. }, GatewayMessage::JoinAnswer(answer)) => {
                self.handle_join_answer(answer);
            }
            (Session::Established(_), GatewayMessage::Decommission(order)) => self.handle_decommission(order),
            (Session::Established(_), GatewayMessage::PublishAck(ack)) => self.handle_publish_ack(ack),
            (Session::Established(_), GatewayMessage::Deliver(message)) => self.handle_deliver(message),
            (Session::Established(_), GatewayMessage::Settings(settings)) => self.handle_settings(settings),
            (Session::Joining { .. }, _) => {
                let detail = "this device joins, and knows nothing else";
                self.connection.complain(ErrorCode::Unexpected, Some(message.tag()), detail);
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
        self.clock.advance(now_ms);
        self.handle_stored(outcome);
        self.settle();
    }

    /// Something happened to a run. News of a run that is over is ignored.
    pub fn handle_application(&mut self, now_ms: u64, run: RunId, event: ApplicationEvent) {
        self.clock.advance(now_ms);
        self.handle_run(run, event);
        self.settle();
    }

    /// What all applications use together, for the next heartbeat.
    pub fn handle_usage(&mut self, usage: DeviceUsage) {
        self.usage = usage;
    }

    /// An application has a data record now, which is removed with the application.
    pub fn handle_data_record(&mut self, uid: ApplicationUid) {
        self.store.note_data(uid);
    }

    /// Time has passed; may be called at any moment.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.clock.advance(now_ms);
        self.handle_identity_timeout();
        self.handle_decommission_timeout();
        // Nothing is tried before there is something to present.
        let expired = if self.credentials.is_ready() || !self.connection.is_down() {
            self.connection.handle_timeout(self.clock.now_ms())
        } else {
            Expired::Nothing
        };
        match expired {
            Expired::Nothing => {}
            Expired::Connect => self.credentials.choose(self.clock.unix_s(), &mut self.events),
            Expired::Close => {
                self.events.push(Event::Silent);
                self.close();
            }
            // Close timed out. No random value is available here, and none is needed after this delay.
            Expired::Gone => self.take_down(u32::MAX),
        }
        self.handle_pauses();
        self.settle();
    }

    /// Something to do, until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.connection.poll_effect().or_else(|| self.effects.pop_front());
        let effect = effect.or_else(|| self.poll_identity()).or_else(|| self.poll_decommission());
        if effect.is_some() {
            return effect;
        }
        self.plan_storage().map(Effect::Storage)
    }

    /// When [`Agent::handle_timeout`] is wanted at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let applications = self.applications.iter().filter_map(Application::timeout).min();
        let pull = self.pull.as_ref().and_then(Pull::timeout);
        let asked = self.request.timeout();
        let report = self.report_timeout();
        let trap = self.trap_timeout();
        let log = self.log_timeout();
        let message = self.message_timeout();
        let delivery = self.delivery_timeout();
        let settings = self.settings_timeout();
        let state = self.durability.retry_at_ms();
        let connects = self.credentials.is_ready() || !self.connection.is_down();
        let connection = connects.then(|| self.connection.timeout());
        let identity = self.identity_timeout();
        let decommission = self.decommission_timeout();
        let sent = [report, trap, settings, delivery, log, message];
        let others = [connection, identity, decommission, applications, pull, asked, state];
        sent.into_iter().chain(others).flatten().min()
    }

    /// Something to write to the device's log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Where the session is.
    #[must_use]
    pub fn session(&self) -> SessionState {
        match self.connection.session() {
            Session::Down { .. } => SessionState::Down,
            Session::Connecting { .. } | Session::Greeting { .. } => SessionState::Connecting,
            Session::Joining { .. } => SessionState::Joining,
            Session::Established(established) => SessionState::Established(established.epoch()),
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
            let report = application.report(&self.too_many, failing, false);
            (report.uid, report.state)
        })
    }

    /// The gateway's clock now, milliseconds since 1970, once a gateway has told it.
    #[must_use]
    pub fn unix_ms(&self, now_ms: u64) -> Option<u64> {
        self.clock.unix_ms(now_ms)
    }

    /// Gives the connection up; what waits to be sent is not.
    fn close(&mut self) {
        self.note_unwelcomed();
        self.end_connection();
    }

    fn end_connection(&mut self) {
        if self.connection.close(self.clock.now_ms()) {
            self.forget_session();
        }
    }

    fn note_unwelcomed(&mut self) {
        let Some(heard) = self.connection.unwelcomed() else { return };
        if self.credentials.handle_turned_away(heard) {
            self.renewal.handle_turned_away(self.clock.now_ms());
        }
        if self.exchange.as_ref().is_some_and(|exchange| exchange.has_waited(self.clock.now_ms())) {
            self.connection.note_progress();
        }
    }

    fn take_down(&mut self, random: u32) {
        self.note_unwelcomed();
        if let Some(pause_ms) = self.connection.handle_disconnected(self.clock.now_ms(), random) {
            self.events.push(Event::Pause { pause_ms });
            self.forget_session();
        }
    }

    /// What was asked of a gateway is asked again of the next one, which gets a full report.
    fn forget_session(&mut self) {
        self.exchange = None;
        self.answers = Vec::new();
        self.request.handle_disconnected();
        for application in &mut self.applications {
            application.messages_mut().handle_disconnected();
        }
        self.reports.handle_disconnected(self.clock.now_ms());
        if let Some(pull) = &mut self.pull {
            pull.handle_disconnected();
        }
    }
}
