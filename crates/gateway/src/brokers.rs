//! Connections to brokers: from the outbox on the disk to what a broker acknowledges, and from what it hands over to devices.
//!
//! Each broker has a task of its own, so that none waits for another. It asks the decisions for each step; what it holds in memory is a
//! window of messages. What goes wrong with a broker ends its task and nothing else.

mod failure;
mod feed;
mod handover;
mod inbound;
mod mqtt;
mod trust;
mod webhook;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use wasmbed_api::{BrokerGateway, GATEWAY_COMPONENT, MessageBroker, ReasonCode};
use wasmbed_control::{
    UnixTime,
    gateway::{BrokerFailure, BrokerStart, BrokerStatusWrite, BrokerStep, Speaks},
};
use wasmbed_kubernetes::Caller;

use crate::{core::Core, outbox::Outbox};
use feed::Feed;

/// How often statuses are looked at.
const STATUSES_EVERY: Duration = Duration::from_millis(500);
/// From the end of the process's work until what it says last.
const LAST_WORDS_AFTER: Duration = Duration::from_millis(100);
/// Statuses written one after the other before the next look.
const STATUSES_AT_ONCE: usize = 16;

/// What tasks of brokers share.
#[derive(Clone)]
pub(crate) struct Brokers {
    feed: Feed,
    name: Arc<str>,
    stop: CancellationToken,
}

impl Brokers {
    pub(crate) fn new(core: Arc<Core>, outbox: Outbox, name: &str, stop: CancellationToken) -> Self {
        Self { feed: Feed { core, outbox }, name: name.into(), stop }
    }

    /// Does what is to be done for a broker.
    pub(crate) fn start(&self, start: BrokerStart) {
        let connection = start.connection;
        let (this, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(async move {
            let core = Arc::clone(&this.feed.core);
            let work = tokio::spawn(async move {
                tokio::select! {
                    failure = this.serve(start) => failure,
                    () = stop.cancelled() => None,
                }
            });
            let failure = work.await.unwrap_or_else(|error| {
                tracing::error!(reason = "TaskPanicked", %error, "a task of a broker panicked");
                let message = "the gateway failed at what the broker sent";
                Some(BrokerFailure::new(ReasonCode::BrokerRefused, message))
            });
            core.with(|gateway, now| gateway.handle_broker_ended(now, connection, failure));
        });
    }

    async fn serve(self, start: BrokerStart) -> Option<BrokerFailure> {
        let BrokerStart { connection, link } = start;
        loop {
            match self.feed.step(connection) {
                BrokerStep::Read(cursor) => match self.feed.read(cursor).await {
                    Ok(page) => {
                        self.feed.core.with(|gateway, now| gateway.handle_broker_page(now, connection, page));
                    }
                    Err(failure) => return Some(failure),
                },
                BrokerStep::Connect => {
                    let link = link.as_ref()?;
                    return match link.endpoint.speaks {
                        Speaks::Mqtt => match mqtt::Session::open(link, &self.name).await {
                            Ok(session) => session.serve(&self.feed, connection).await,
                            Err(failure) => Some(failure),
                        },
                        Speaks::Webhook { .. } => match webhook::Session::open(link, &self.name).await {
                            Ok(session) => session.serve(&self.feed, connection).await,
                            Err(failure) => Some(failure),
                        },
                    };
                }
                BrokerStep::Wait { .. } | BrokerStep::Subscribe(_) => return None,
                BrokerStep::End(failure) => return failure,
            }
        }
    }

    /// Writes what there is to be said of brokers until the process stops.
    pub(crate) async fn say(core: Arc<Core>, caller: Caller, stop: CancellationToken) {
        let mut tick = tokio::time::interval(STATUSES_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            let stopped = tokio::select! {
                _ = tick.tick() => false,
                () = stop.cancelled() => true,
            };
            if stopped {
                // The connections end at the same time.
                tokio::time::sleep(LAST_WORDS_AFTER).await;
            }
            for _ in 0..STATUSES_AT_ONCE {
                let Some(write) = core.with(|gateway, now| gateway.poll_broker_status(now)) else { break };
                let written = say_one(&caller, &write).await;
                if let Err(error) = &written
                    && !failing
                {
                    let broker = &write.broker;
                    tracing::warn!(%broker, reason = "WriteFailed", %error, "the status of a MessageBroker could not be written");
                }
                failing = written.is_err();
                core.with(|gateway, now| gateway.handle_broker_status(now, write, written.is_ok()));
            }
            if stopped {
                return;
            }
        }
    }
}

/// Writes this gateway's entry and no other: each gateway applies its own, under a field manager of its own.
async fn say_one(caller: &Caller, write: &BrokerStatusWrite) -> Result<(), wasmbed_kubernetes::CallError> {
    let unix_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    let time = UnixTime::from_ms(u64::try_from(unix_ms).unwrap_or(0));
    let entry = BrokerGateway { observed_at: Some(time.to_string()), ..write.entry.clone() };
    let manager = format!("{GATEWAY_COMPONENT}-{}", entry.gateway);
    let patch = json!({ "metadata": { "uid": write.uid }, "status": { "gateways": [entry] } });
    match caller.apply_status::<MessageBroker>(&write.broker, &manager, patch).await {
        // It was deleted, or made anew: the controller says so.
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
        written => written.map(drop),
    }
}
