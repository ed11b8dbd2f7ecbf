//! Messages of a gateway on their way to brokers: who defines them, what their connections do, what is said of them.

use std::collections::BTreeMap;

use wasmbed_api::ReasonCode;

use super::{
    BrokerFailure, BrokerLevels, BrokerMessage, BrokerPage, BrokerStart, BrokerStatusWrite, BrokerStep,
    ConnectionId, Messages, Verdict, cursor,
};
use crate::{
    Now,
    gateway::{
        Gateway,
        config::{BROKERS_MAX, BROKERS_OF_NAMESPACE_MAX},
        input::Refused,
    },
    gateway_api::{BrokerEntry, BrokerTrouble, PutBrokers, PutBrokersAnswer, Refusal},
};

impl Messages {
    fn define_brokers(&mut self, now: Now, entries: &[BrokerEntry]) {
        let last = self.last_message();
        let kept = &self.kept;
        let start_of = |entry: &BrokerEntry| {
            let created_ms = entry.created_unix_s.saturating_mul(1_000);
            let first = kept.iter().find(|kept| kept.unix_ms >= created_ms);
            first.map_or(last, |kept| cursor::last_of(kept.number.saturating_sub(1)))
        };
        self.brokers.define(now, entries, last, start_of);
    }

    /// Rises when connections to brokers are to look again.
    pub(in crate::gateway) fn brokers_version(&self) -> u64 {
        self.brokers.version()
    }

    /// When a connection to a broker is to be made.
    pub(in crate::gateway) fn brokers_timeout_ms(&self) -> Option<u64> {
        self.brokers.timeout_ms()
    }

    /// How far brokers are is to be on the disk soon.
    pub(in crate::gateway) fn flush_brokers(&mut self) {
        self.brokers.flush();
    }

    /// Number of the last message on the disk.
    pub(super) fn last_message(&self) -> u64 {
        match self.version() {
            0 => 0,
            record => cursor::last_of(record),
        }
    }
}

impl Gateway {
    /// A controller sends the brokers that there are: all of them.
    ///
    /// # Errors
    /// It may not, or there are too many.
    pub fn handle_put_brokers(&mut self, now: Now, put: PutBrokers) -> Result<PutBrokersAnswer, Refused> {
        self.check_call(put.leader_term)?;
        if put.brokers.len() > BROKERS_MAX {
            let message =
                format!("{} brokers in one call, at most {BROKERS_MAX} are allowed", put.brokers.len());
            let reason = "TooManyBrokers".to_owned();
            return Err(Refused::Invalid(Refusal { reason, message, leader_term: None }));
        }
        self.fence.accept(put.leader_term);
        let served = &self.config.namespaces;
        let mut entries = put.brokers;
        entries.retain(|entry| served.is_empty() || served.contains(&entry.broker.namespace));
        let mut usable: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries.iter_mut().filter(|entry| entry.trouble.is_none()) {
            let count = usable.entry(entry.broker.namespace.clone()).or_default();
            *count += 1;
            if *count > BROKERS_OF_NAMESPACE_MAX {
                let message =
                    format!("a gateway serves {BROKERS_OF_NAMESPACE_MAX} MessageBrokers of a namespace");
                entry.trouble = Some(BrokerTrouble { reason: ReasonCode::TooManyBrokers, message });
            }
        }
        if let Some(messages) = &mut self.messages {
            messages.define_brokers(now, &entries);
        }
        Ok(PutBrokersAnswer {})
    }

    /// The next broker for which something is to be begun; call until there is none.
    pub fn poll_broker(&mut self, now: Now) -> Option<BrokerStart> {
        if self.kept_from.is_some() || self.shutting_down {
            return None;
        }
        self.messages.as_mut()?.brokers.poll(now)
    }

    /// What a connection is to do next. To be asked again after what it says was done, when [`Gateway::versions`] rise, and at the
    /// time that it says.
    pub fn broker_step(&mut self, now: Now, connection: ConnectionId) -> BrokerStep {
        if self.kept_from.is_some() || self.shutting_down {
            return BrokerStep::End(None);
        }
        let Some(messages) = &mut self.messages else { return BrokerStep::End(None) };
        let last = messages.last_message();
        messages.brokers.step(now, connection, last)
    }

    /// The broker has accepted a connection.
    pub fn handle_broker_connected(&mut self, now: Now, connection: ConnectionId) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.connected(now, connection);
        }
    }

    /// What was read for a broker; gives what is to be sent to it.
    pub fn handle_broker_page(
        &mut self,
        now: Now,
        connection: ConnectionId,
        page: BrokerPage,
    ) -> Vec<BrokerMessage> {
        let Some(messages) = &mut self.messages else { return Vec::new() };
        messages.brokers.take_page(now, connection, page)
    }

    /// A broker answered a message.
    pub fn handle_broker_answer(
        &mut self,
        now: Now,
        connection: ConnectionId,
        number: u64,
        verdict: Verdict,
    ) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.answered(now, connection, number, verdict);
        }
    }

    /// A broker refuses something, and its connection goes on: its status says so until it takes something.
    pub fn handle_broker_complaint(&mut self, now: Now, connection: ConnectionId, failure: BrokerFailure) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.complained(now, connection, failure);
        }
    }

    /// A connection ended; every one that [`Gateway::poll_broker`] began does once.
    pub fn handle_broker_ended(
        &mut self,
        now: Now,
        connection: ConnectionId,
        failure: Option<BrokerFailure>,
    ) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.ended(now, connection, failure);
        }
    }

    /// The next status of a MessageBroker that is to be written; call until there is none.
    pub fn poll_broker_status(&mut self, now: Now) -> Option<BrokerStatusWrite> {
        if self.kept_from.is_some() {
            return None;
        }
        self.messages.as_mut()?.brokers.poll_status(now, &self.config.name)
    }

    /// A status of a MessageBroker was written, or could not be.
    pub fn handle_broker_status(&mut self, now: Now, write: BrokerStatusWrite, written: bool) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.status_written(now, write, written);
        }
    }

    /// Numbers of all brokers, by type.
    #[must_use]
    pub fn broker_levels(&self) -> BTreeMap<&'static str, BrokerLevels> {
        self.messages.as_ref().map(|messages| messages.brokers.levels()).unwrap_or_default()
    }
}
