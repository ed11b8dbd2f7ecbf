//! The connection to a gateway: the session's state, the attempts before it, and what is sent in answer to a bad message.

use alloc::borrow::Cow;

use wasmbed_protocol::{Closing, Epoch, ErrorCode, ErrorNotice, Welcome};

use crate::{
    effect::Effect,
    identity::JOINING_MS_MAX,
    session::{
        BAD_FRAMES_MAX, CLOSE_TIMEOUT_MS, Established, Expired, Reconnect, Session, WELCOME_TIMEOUT_MS,
    },
};

/// Contract: time never goes back. [`handle_timeout`](Self::handle_timeout) is called before the others' deadlines mean
/// anything; each call that answers `true` has ended a session, and its caller then forgets what was asked in it.
/// [`poll_effect`](Self::poll_effect) gives at most one effect for each change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    session: Session,
    reconnect: Reconnect,
    /// Whether there was a session since the start.
    had_session: bool,
    last_epoch: Epoch,
    /// The gateway said something on this connection.
    heard: bool,
    /// Messages in a row that were not usable.
    bad_frames: u32,
    /// An Error to be sent. At most one waits; an Error is never answered, so more would say nothing new.
    complaint: Option<Complaint>,
    link: Option<LinkEffect>,
}

/// What is wrong with a message of the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    code: ErrorCode,
    tag: Option<u32>,
    detail: Cow<'static, str>,
}

impl Complaint {
    pub(crate) fn notice(&self) -> ErrorNotice<'_> {
        ErrorNotice { code: self.code, tag: self.tag, detail: &self.detail }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkEffect {
    Connect,
    Close,
}

impl Connection {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            session: Session::Down { retry_at_ms: now_ms },
            reconnect: Reconnect::default(),
            had_session: false,
            last_epoch: Epoch(0),
            heard: false,
            bad_frames: 0,
            complaint: None,
            link: None,
        }
    }

    /// The epoch of the last session, from the state record.
    pub(crate) fn restore(&mut self, last_epoch: Epoch) {
        self.last_epoch = last_epoch;
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        self.session.established()
    }

    pub(crate) fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.session {
            Session::Established(established) => Some(established),
            Session::Down { .. }
            | Session::Connecting { .. }
            | Session::Greeting { .. }
            | Session::Joining { .. }
            | Session::Closing { .. } => None,
        }
    }

    pub(crate) fn had_session(&self) -> bool {
        self.had_session
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// The link is up, to join or to greet. False, and ignored, while it is being closed: the link has not heard of that yet.
    pub(crate) fn handle_connected(&mut self, joins: bool, now_ms: u64) -> bool {
        if matches!(self.session, Session::Closing { .. }) {
            return false;
        }
        self.link = None;
        self.heard = false;
        self.session = if joins {
            Session::Joining { deadline_ms: now_ms.saturating_add(JOINING_MS_MAX) }
        } else {
            Session::Greeting { sent: false, deadline_ms: now_ms.saturating_add(WELCOME_TIMEOUT_MS) }
        };
        true
    }

    /// Whether a connection was made that has come to no session yet, and whether the gateway said anything on it.
    pub(crate) fn unwelcomed(&self) -> Option<bool> {
        match self.session {
            Session::Greeting { .. } | Session::Joining { .. } => Some(self.heard),
            Session::Down { .. }
            | Session::Connecting { .. }
            | Session::Established(_)
            | Session::Closing { .. } => None,
        }
    }

    pub(crate) fn is_joining(&self) -> bool {
        matches!(self.session, Session::Joining { .. })
    }

    pub(crate) fn is_down(&self) -> bool {
        matches!(self.session, Session::Down { .. })
    }

    /// A Join was refused, to be tried again after so many milliseconds.
    pub(crate) fn handle_refused(&mut self, retry_after_ms: u32) {
        self.reconnect.handle_refused(retry_after_ms);
    }

    /// The connection came to what it was made for.
    pub(crate) fn note_progress(&mut self) {
        self.reconnect.note_progress();
    }

    /// The link is down: the pause before the next attempt in milliseconds, none if it was known to be down.
    pub(crate) fn handle_disconnected(&mut self, now_ms: u64, random: u32) -> Option<u64> {
        if matches!(self.session, Session::Down { .. }) {
            return None;
        }
        self.reconnect.note_end(&self.session, now_ms);
        let pause_ms = self.reconnect.plan_pause(random);
        self.session = Session::Down { retry_at_ms: now_ms.saturating_add(pause_ms) };
        self.link = None;
        self.forget_session();
        Some(pause_ms)
    }

    /// Gives the connection up; what waits to be sent is not. False if there is none.
    pub(crate) fn close(&mut self, now_ms: u64) -> bool {
        if matches!(self.session, Session::Down { .. } | Session::Closing { .. }) {
            return false;
        }
        self.reconnect.note_end(&self.session, now_ms);
        self.session = Session::Closing { deadline_ms: now_ms.saturating_add(CLOSE_TIMEOUT_MS) };
        self.link = Some(LinkEffect::Close);
        self.forget_session();
        true
    }

    fn forget_session(&mut self) {
        self.bad_frames = 0;
        self.complaint = None;
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> Expired {
        let expired = self.session.handle_timeout(now_ms);
        if expired == Expired::Connect {
            self.link = Some(LinkEffect::Connect);
        }
        if let Some(established) = self.established_mut() {
            established.refill_log(now_ms);
        }
        expired
    }

    /// Any frame proves that the gateway is there.
    pub(crate) fn handle_heard(&mut self, now_ms: u64) {
        self.heard = true;
        if let Some(established) = self.established_mut() {
            established.handle_heard(now_ms);
        }
    }

    /// The gateway's answer to Hello: whether its epoch is a new one.
    ///
    /// # Errors
    /// The epoch is lower than the last: another session has begun since.
    pub(crate) fn handle_welcome(&mut self, welcome: &Welcome, now_ms: u64) -> Result<bool, StaleEpoch> {
        if welcome.epoch < self.last_epoch {
            return Err(StaleEpoch);
        }
        self.session = Session::Established(Established::new(welcome, now_ms));
        self.had_session = true;
        let new = welcome.epoch != self.last_epoch;
        self.last_epoch = welcome.epoch;
        Ok(new)
    }

    /// The gateway ends the session and says when it may be tried again.
    pub(crate) fn handle_closing(&mut self, closing: &Closing<'_>) {
        self.reconnect.handle_closing(closing);
    }

    pub(crate) fn note_usable(&mut self) {
        self.bad_frames = 0;
    }

    /// A message was not usable: true if that happened too often in a row.
    pub(crate) fn note_unusable(&mut self) -> bool {
        self.bad_frames = self.bad_frames.saturating_add(1);
        self.bad_frames >= BAD_FRAMES_MAX
    }

    pub(crate) fn complain(
        &mut self,
        code: ErrorCode,
        tag: Option<u32>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.complaint.get_or_insert(Complaint { code, tag, detail: detail.into() });
    }

    pub(crate) fn take_complaint(&mut self) -> Option<Complaint> {
        self.complaint.take()
    }

    /// Whether Hello is the next message.
    pub(crate) fn wants_hello(&self) -> bool {
        matches!(self.session, Session::Greeting { sent: false, .. })
    }

    pub(crate) fn note_hello(&mut self) {
        debug_assert!(self.wants_hello(), "Hello is sent once, after the link came up");
        if let Session::Greeting { sent, .. } = &mut self.session {
            *sent = true;
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.link.take().map(|effect| match effect {
            LinkEffect::Connect => Effect::Connect,
            LinkEffect::Close => Effect::Close,
        })
    }

    pub(crate) fn timeout(&self) -> u64 {
        self.session.timeout()
    }

    /// Whether what the link is asked for follows from the session's state.
    pub(crate) fn is_consistent(&self) -> bool {
        match self.link {
            None => true,
            Some(LinkEffect::Connect) => matches!(self.session, Session::Connecting { .. }),
            Some(LinkEffect::Close) => matches!(self.session, Session::Closing { .. }),
        }
    }
}

/// A Welcome with an epoch lower than the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaleEpoch;
