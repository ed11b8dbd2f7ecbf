//! One broker: what it was sent, what it acknowledged, and when it is tried.
//!
//! ```text
//! idle ──poll, a pause after failures──> counting ──> connecting ──connected──> sending ──> idle
//!                                             └──────────┴── ended, another definition ──────^
//!
//!          position            read              until
//! ─────────────┼───── window ────┼──── waits ──────┼──> numbers of messages
//!  acknowledged, or not for it       on the disk
//! ```

use std::{collections::VecDeque, sync::Arc};

use wasmbed_api::{BrokerError, BrokerGateway, ReasonCode};
use wasmbed_protocol::ApplicationUid;

use super::{
    definition::{BrokerCursor, BrokerEndpoint, BrokerFailure, BrokerMessage, BrokerPage, Filter},
    receiving::{self, BrokerAddress, BrokerArrival, Received, Receiving},
    step::{BrokerStep, ConnectionId, Verdict},
};
use crate::{
    Now, UnixTime,
    gateway::{
        config::{
            BROKER_BACKOFF, BROKER_GOOD_MS, BROKER_PATIENCE_MS, BROKER_RETRY_AFTER_MS_MAX,
            BROKER_STATUS_EDGE_MS, BROKER_STATUS_MS, BROKER_WINDOW_BYTES, BROKER_WINDOW_MAX,
        },
        messages::record::Stored,
    },
    gateway_api::BrokerEntry,
};

/// Messages and bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    bytes: u64,
    /// The broker has answered.
    done: bool,
    /// It is on the disk no more.
    lost: bool,
}

/// The connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// None before this.
    Idle {
        from_ms: u64,
    },
    Counting(ConnectionId),
    Connecting(ConnectionId),
    Sending {
        connection: ConnectionId,
        since_ms: u64,
    },
}

/// What is waiting is known once what was on the disk before has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Up to `next`; what comes after `end` is counted as it comes.
    Until {
        next: u64,
        end: u64,
    },
    All,
}

#[derive(Debug)]
pub(super) struct Broker {
    entry: BrokerEntry,
    endpoint: Result<BrokerEndpoint, BrokerFailure>,
    filter: Arc<Filter>,
    /// All up to here was acknowledged or is not for it.
    position: u64,
    /// As the disk has it.
    saved: Option<u64>,
    /// Messages up to here were looked at.
    read: u64,
    window: VecDeque<Flight>,
    window_bytes: u64,
    /// When the broker last acknowledged, or was first sent something after that.
    progress_ms: u64,
    phase: Phase,
    /// Its connection is to end: it is of another definition.
    stale: bool,
    failures: u32,
    waiting: Amount,
    /// How often the disk let go of something that had not been acknowledged: what is being read then may be gone.
    let_gos: u64,
    counted: Counted,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) refused: u64,
    error: Option<(BrokerFailure, u64)>,
    pub(super) receiving: Receiving,
    /// What was said of it last, and when.
    said: Option<(BrokerGateway, u64)>,
    /// What is said of it is on its way.
    saying: bool,
}

impl Broker {
    /// One that was not known; what is after `position` is for it. `last` is the last message on the disk.
    pub(super) fn new(now: Now, entry: BrokerEntry, position: u64, saved: Option<u64>, last: u64) -> Self {
        let filter = Arc::new(Filter::new(&entry, None, position, last));
        let mut broker = Self {
            endpoint: super::definition::endpoint(&entry),
            entry,
            filter,
            position,
            saved,
            read: position,
            window: VecDeque::new(),
            window_bytes: 0,
            progress_ms: now.ms,
            phase: Phase::Idle { from_ms: now.ms },
            stale: false,
            failures: 0,
            waiting: Amount::default(),
            let_gos: 0,
            counted: Counted::Until { next: position, end: last },
            sent: 0,
            dropped: 0,
            refused: 0,
            error: None,
            receiving: Receiving::default(),
            said: None,
            saying: false,
        };
        broker.note_unusable(now);
        broker
    }

    /// The definition as it is now; whether it is another one.
    pub(super) fn define(&mut self, now: Now, entry: &BrokerEntry, last: u64) -> bool {
        if self.entry == *entry {
            return false;
        }
        let filter = Filter::new(entry, Some(&self.filter), self.position, last);
        self.entry = entry.clone();
        self.filter = Arc::new(filter);
        self.endpoint = super::definition::endpoint(entry);
        self.forget_window();
        self.waiting = Amount::default();
        self.counted = Counted::Until { next: self.position, end: last.max(self.position) };
        self.failures = 0;
        self.error = None;
        self.receiving.redefine();
        match &mut self.phase {
            Phase::Idle { from_ms } => *from_ms = now.ms,
            Phase::Counting(_) | Phase::Connecting(_) | Phase::Sending { .. } => self.stale = true,
        }
        self.note_unusable(now);
        true
    }

    fn note_unusable(&mut self, now: Now) {
        if let Err(failure) = &self.endpoint {
            self.error = Some((failure.clone(), now.unix_ms));
        }
    }

    pub(super) fn entry(&self) -> &BrokerEntry {
        &self.entry
    }

    pub(super) fn endpoint(&self) -> Option<&BrokerEndpoint> {
        self.endpoint.as_ref().ok()
    }

    /// Where it goes on, if the disk says something else.
    pub(super) fn unsaved(&self) -> Option<u64> {
        (self.saved != Some(self.position)).then_some(self.position)
    }

    pub(super) fn saved(&mut self, position: u64) {
        self.saved = Some(position);
    }

    /// Whether a connection is to be made.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms().is_some_and(|from_ms| now_ms >= from_ms)
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        match self.phase {
            // What can't be reached is counted all the same.
            Phase::Idle { from_ms } if self.endpoint.is_ok() || self.counted != Counted::All => Some(from_ms),
            Phase::Idle { .. } | Phase::Counting(_) | Phase::Connecting(_) | Phase::Sending { .. } => None,
        }
    }

    pub(super) fn begin(&mut self, connection: ConnectionId) {
        self.phase = Phase::Counting(connection);
        self.stale = false;
        self.read = self.position;
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.phase {
            Phase::Idle { .. } => None,
            Phase::Counting(id) | Phase::Connecting(id) | Phase::Sending { connection: id, .. } => Some(id),
        }
    }

    /// What its connection does next. `last` is the last message on the disk.
    pub(super) fn step(&self, now: Now, last: u64) -> BrokerStep {
        if self.stale {
            return BrokerStep::End(None);
        }
        match (self.phase, self.counted) {
            (Phase::Counting(_), Counted::Until { next, end }) if next < end => {
                BrokerStep::Read(BrokerCursor {
                    filter: Arc::clone(&self.filter),
                    read: next,
                    until: end,
                    room: usize::MAX,
                    room_bytes: usize::MAX,
                    counts: true,
                    let_gos: self.let_gos,
                })
            }
            (Phase::Counting(_), _) if self.endpoint.is_ok() => BrokerStep::Connect,
            (Phase::Sending { .. }, _) => self.sending(now, last),
            (Phase::Idle { .. } | Phase::Counting(_), _) => BrokerStep::End(None),
            (Phase::Connecting(_), _) => BrokerStep::Wait { until_ms: u64::MAX },
        }
    }

    fn sending(&self, now: Now, last: u64) -> BrokerStep {
        let patience_ms = self.progress_ms.saturating_add(BROKER_PATIENCE_MS);
        if !self.window.is_empty() && now.ms >= patience_ms {
            let message = format!(
                "{} messages were sent and none was acknowledged within {} s",
                self.window.len(),
                BROKER_PATIENCE_MS / 1_000
            );
            return BrokerStep::End(Some(BrokerFailure::new(ReasonCode::BrokerSilent, &message)));
        }
        let mut until_ms = if self.window.is_empty() { u64::MAX } else { patience_ms };
        if self.entry.receive.is_some() {
            if self.receiving.is_due(now) {
                return BrokerStep::Subscribe(receiving::filter(&self.entry.broker.namespace));
            }
            if self.receiving.is_overdue(now) {
                let message =
                    format!("the subscription was not acknowledged within {} s", BROKER_PATIENCE_MS / 1_000);
                return BrokerStep::End(Some(BrokerFailure::new(ReasonCode::BrokerSilent, &message)));
            }
            until_ms = until_ms.min(self.receiving.due_ms());
        }
        let bytes =
            BROKER_WINDOW_BYTES.saturating_sub(usize::try_from(self.window_bytes).unwrap_or(usize::MAX));
        let room = BROKER_WINDOW_MAX.saturating_sub(self.window.len());
        if self.read < last && room > 0 && bytes > 0 {
            return BrokerStep::Read(BrokerCursor {
                filter: Arc::clone(&self.filter),
                read: self.read,
                until: last,
                room,
                room_bytes: bytes,
                counts: false,
                let_gos: self.let_gos,
            });
        }
        BrokerStep::Wait { until_ms }
    }

    /// Its connection is being made: what is on the disk is counted.
    pub(super) fn connecting(&mut self) {
        if let Phase::Counting(connection) = self.phase {
            self.counted = Counted::All;
            self.phase = Phase::Connecting(connection);
        }
    }

    pub(super) fn connected(&mut self, now: Now) {
        if let Phase::Connecting(connection) = self.phase {
            self.phase = Phase::Sending { connection, since_ms: now.ms };
            self.progress_ms = now.ms;
            self.receiving.begin_anew();
            if self.waiting.messages == 0 {
                self.error = None;
            }
        }
    }

    /// What was read for it; gives what is to be sent.
    pub(super) fn take_page(&mut self, now: Now, page: BrokerPage) -> Vec<BrokerMessage> {
        // What was let go of meanwhile is counted already: it is read again.
        if self.stale || page.let_gos != self.let_gos {
            return Vec::new();
        }
        match (self.phase, &mut self.counted) {
            (Phase::Counting(_), Counted::Until { next, .. }) => {
                *next = page.read.max(*next);
                self.waiting.messages += page.counted.0;
                self.waiting.bytes += page.counted.1;
                Vec::new()
            }
            (Phase::Sending { .. }, _) => {
                if self.window.is_empty() {
                    self.progress_ms = now.ms;
                }
                for message in &page.messages {
                    let bytes = message.payload.len() as u64;
                    self.window.push_back(Flight { number: message.number, bytes, done: false, lost: false });
                    self.window_bytes += bytes;
                }
                self.read = page.read.max(self.read);
                self.move_on();
                page.messages
            }
            (Phase::Idle { .. } | Phase::Counting(_) | Phase::Connecting(_), _) => Vec::new(),
        }
    }

    /// The broker answered a message.
    pub(super) fn answered(&mut self, now: Now, number: u64, verdict: Verdict) {
        if self.stale {
            return;
        }
        let Ok(index) = self.window.binary_search_by_key(&number, |flight| flight.number) else { return };
        let flight = &mut self.window[index];
        if std::mem::replace(&mut flight.done, true) {
            return;
        }
        self.waiting.take(flight.bytes);
        match verdict {
            Verdict::Taken => {
                self.sent += 1;
                self.error = None;
                self.failures = 0;
            }
            Verdict::Refused => self.refused += 1,
        }
        self.progress_ms = now.ms;
        self.move_on();
    }

    fn move_on(&mut self) {
        while let Some(first) = self.window.front().copied().filter(|flight| flight.done) {
            self.window.pop_front();
            self.window_bytes -= first.bytes;
        }
        let reached = self.window.front().map_or(self.read, |first| first.number - 1);
        self.position = self.position.max(reached);
    }

    /// What was sent counts as not sent.
    fn forget_window(&mut self) {
        for flight in self.window.drain(..) {
            match (flight.done, flight.lost) {
                (false, true) => {
                    self.dropped += 1;
                    self.waiting.take(flight.bytes);
                }
                // What was answered behind a message that was not is sent once more, and so waits again.
                (true, false) => self.waiting.add(flight.bytes),
                (false, false) | (true, true) => {}
            }
        }
        self.window_bytes = 0;
        self.read = self.position;
    }

    /// Its connection ended.
    pub(super) fn ended(&mut self, now: Now, failure: Option<BrokerFailure>, random: u64) {
        let before = std::mem::replace(&mut self.phase, Phase::Idle { from_ms: now.ms });
        let good = matches!(before, Phase::Sending { since_ms, .. } if now.ms.saturating_sub(since_ms) >= BROKER_GOOD_MS);
        let counting = matches!(before, Phase::Counting(_));
        self.forget_window();
        if let Counted::Until { next, end } = self.counted
            && counting
            && next >= end
        {
            self.counted = Counted::All;
        }
        if std::mem::take(&mut self.stale) || (counting && failure.is_none()) {
            return;
        }
        if good {
            self.failures = 0;
        }
        let pause_ms = BROKER_BACKOFF.pause_ms(self.failures);
        self.failures = self.failures.saturating_add(1);
        let half_ms = pause_ms / 2;
        let pause_ms = half_ms + random % (pause_ms - half_ms + 1);
        let asked_ms = failure.as_ref().map_or(0, |failure| failure.retry_after_ms);
        self.phase = Phase::Idle { from_ms: now.ms + pause_ms.max(asked_ms.min(BROKER_RETRY_AFTER_MS_MAX)) };
        if let Some(failure) = failure {
            self.complained(now, failure);
        }
    }

    /// Something is wrong that a person is to know of.
    pub(super) fn complained(&mut self, now: Now, failure: BrokerFailure) {
        let since = self.error.take().filter(|(before, _)| before.reason == failure.reason);
        self.error = Some((failure, since.map_or(now.unix_ms, |(_, since)| since)));
    }

    /// A message is on the disk.
    pub(super) fn written(&mut self, number: u64, message: &Stored<'_>) {
        if self.filter.takes(number, message) {
            self.waiting.add(message.payload.len() as u64);
        }
    }

    /// The disk let go of a message; whether it was for this broker and did not reach it.
    pub(super) fn let_go(&mut self, number: u64, message: &Stored<'_>) -> bool {
        if number <= self.position || !self.filter.takes(number, message) {
            return false;
        }
        self.let_gos += 1;
        if let Ok(index) = self.window.binary_search_by_key(&number, |flight| flight.number) {
            self.window[index].lost = true;
            return false;
        }
        if number <= self.read {
            return false;
        }
        if self.counts(number) {
            self.waiting.take(message.payload.len() as u64);
        }
        self.dropped += 1;
        true
    }

    /// Whether a message of this number is in what is counted.
    fn counts(&self, number: u64) -> bool {
        match self.counted {
            Counted::All => true,
            Counted::Until { next, end } => number <= next || number > end,
        }
    }

    pub(super) fn waiting(&self) -> Option<Amount> {
        let known = match self.counted {
            Counted::All => true,
            Counted::Until { next, end } => next >= end,
        };
        known.then_some(self.waiting)
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Sending { .. }) && !self.stale
    }

    pub(super) fn failing(&self) -> bool {
        self.failure().is_some()
    }

    fn failure(&self) -> Option<&(BrokerFailure, u64)> {
        self.error.as_ref().or(self.receiving.failure())
    }

    /// Whom a message that it handed over is for, if its definition lets the message in.
    pub(super) fn address(&self, arrival: &BrokerArrival<'_>) -> Result<BrokerAddress, Received> {
        let receive = self.entry.receive.as_ref().filter(|_| !self.stale).ok_or(Received::NotNamed)?;
        receiving::address(&self.entry.broker.namespace, receive, arrival)
    }

    /// Whether its messages may reach an application.
    pub(super) fn selects(&self, application: &ApplicationUid) -> bool {
        self.filter.selects(application)
    }

    /// What is to be said of it, if that is due.
    pub(super) fn status(&self, now: Now, gateway: &str) -> Option<BrokerGateway> {
        let entry = self.shown(gateway);
        let due = match &self.said {
            _ if self.saying => false,
            None => true,
            Some((said, _)) if *said == entry => false,
            Some((said, at_ms)) => {
                let reason = |entry: &BrokerGateway| entry.last_error.as_ref().map(|error| error.reason);
                let subscribed =
                    |entry: &BrokerGateway| entry.receive.as_ref().map(|receive| receive.subscribed);
                let edge = said.connected != entry.connected
                    || reason(said) != reason(&entry)
                    || subscribed(said) != subscribed(&entry);
                let pause_ms = if edge { BROKER_STATUS_EDGE_MS } else { BROKER_STATUS_MS };
                now.ms >= at_ms.saturating_add(pause_ms)
            }
        };
        due.then_some(entry)
    }

    /// What there is to be said of it is not to wait.
    pub(super) fn hasten_status(&mut self) {
        if let Some((_, at_ms)) = &mut self.said {
            *at_ms = 0;
        }
    }

    pub(super) fn begin_status(&mut self) {
        self.saying = true;
    }

    /// What was said of it stands in its status, or could not be written.
    pub(super) fn status_written(&mut self, now: Now, entry: BrokerGateway, written: bool) {
        self.saying = false;
        // What was not written differs from all that there is to say, and is tried again as seldom.
        self.said = Some((if written { entry } else { BrokerGateway::default() }, now.ms));
    }

    fn shown(&self, gateway: &str) -> BrokerGateway {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let waiting = self.waiting();
        BrokerGateway {
            gateway: gateway.to_owned(),
            connected: self.is_connected(),
            waiting_messages: waiting.map(|waiting| number(waiting.messages)),
            waiting_bytes: waiting.map(|waiting| number(waiting.bytes)),
            sent: number(self.sent),
            dropped: number(self.dropped),
            refused: number(self.refused),
            receive: self.entry.receive.as_ref().map(|_| self.receiving.shown(self.is_connected())),
            last_error: self.failure().map(|(failure, since)| BrokerError {
                reason: failure.reason,
                message: failure.message.clone(),
                since: Some(UnixTime::from_ms(*since).to_string()),
            }),
            observed_generation: Some(self.entry.generation),
            observed_at: None,
        }
    }

    /// Whether a message is to be acknowledged still: `taken` says whether the broker has it.
    #[cfg(test)]
    pub(super) fn is_open(&self, number: u64, taken: impl Fn() -> bool) -> bool {
        let flight = self.window.iter().find(|flight| flight.number == number);
        number > self.position && flight.is_none_or(|flight| !(flight.done && taken()))
    }

    /// Messages on their way that the disk let go of.
    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.window.iter().filter(|flight| flight.lost && !flight.done).count() as u64
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let bytes: u64 = self.window.iter().map(|flight| flight.bytes).sum();
        if bytes != self.window_bytes || self.window.len() > BROKER_WINDOW_MAX {
            return Err("the window of a broker is not as it is counted, or too long");
        }
        let ascending = self.window.iter().is_sorted_by(|before, after| before.number < after.number);
        let within =
            self.window.iter().all(|flight| flight.number > self.position && flight.number <= self.read);
        if !ascending || !within || self.position > self.read {
            return Err("the window of a broker is not between its position and what was read");
        }
        Ok(())
    }
}
