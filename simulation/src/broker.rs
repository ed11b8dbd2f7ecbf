//! A broker, and a gateway's connections to it.

use std::collections::VecDeque;

use serde_json::{Value, json};
use wasmbed_api::ReasonCode;
use wasmbed_control::{
    Now,
    gateway::{BrokerFailure, BrokerStep, ConnectionId, Gateway, Verdict},
};

use crate::{
    gateway_disk::GatewayDisk,
    messages::{Keeper, Messages},
    random::Random,
    weather::Weather,
};

/// Its MessageBroker, which takes all messages of all applications.
pub(crate) const NAME: &str = "broker";
/// An acknowledgement comes this late at most.
const ANSWERS_MS: u64 = 60;

/// What its MessageBroker says.
pub(crate) fn spec() -> Value {
    json!({ "type": "Mqtt", "url": "mqtts://broker" })
}

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    away_until_ms: u64,
}

impl Broker {
    pub(crate) fn stop(&mut self, until_ms: u64) {
        self.away_until_ms = until_ms;
    }

    pub(crate) fn mend(&mut self, now_ms: u64) {
        self.away_until_ms = now_ms;
    }

    pub(crate) fn is_there(&self, now_ms: u64) -> bool {
        now_ms >= self.away_until_ms
    }
}

/// A gateway's connections, and attempts at some.
#[derive(Default)]
pub(crate) struct Deliveries(Vec<Delivery>);

struct Delivery {
    connection: ConnectionId,
    connected: bool,
    /// What the broker has taken and did not acknowledge yet, and when it does.
    unanswered: VecDeque<(u64, u64)>,
}

/// How a connection goes on.
enum Then {
    Wait(u64),
    End(Option<BrokerFailure>),
}

/// What is around a connection.
pub(crate) struct Around<'a> {
    pub(crate) core: &'a mut Gateway,
    pub(crate) disk: &'a GatewayDisk,
    pub(crate) keeper: &'a Keeper,
    pub(crate) weather: Weather,
    pub(crate) random: &'a mut Random,
    pub(crate) messages: &'a mut Messages,
}

impl Deliveries {
    /// The process is gone, and its connections with it.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// One round; answers when the next is wanted.
    pub(crate) fn poll(&mut self, now: Now, is_there: bool, around: &mut Around<'_>) -> u64 {
        while let Some(start) = around.core.poll_broker(now) {
            let connection = start.connection;
            self.0.push(Delivery { connection, connected: false, unanswered: VecDeque::new() });
        }
        let mut due_ms = u64::MAX;
        self.0.retain_mut(|delivery| match delivery.go_on(now, is_there, around) {
            Then::Wait(until_ms) => {
                due_ms = due_ms.min(until_ms);
                true
            }
            Then::End(failure) => {
                around.core.handle_broker_ended(now, delivery.connection, failure);
                false
            }
        });
        due_ms
    }
}

impl Delivery {
    fn go_on(&mut self, now: Now, is_there: bool, around: &mut Around<'_>) -> Then {
        if self.connected && !is_there {
            return Then::End(Some(unreachable()));
        }
        while let Some((_, number)) = self.unanswered.pop_front_if(|(at_ms, _)| *at_ms <= now.ms) {
            around.core.handle_broker_answer(now, self.connection, number, Verdict::Taken);
        }
        loop {
            match around.core.broker_step(now, self.connection) {
                BrokerStep::Read(cursor) => {
                    let page = around.disk.broker_page(&cursor);
                    let sent = around.core.handle_broker_page(now, self.connection, page);
                    debug_assert!(sent.is_empty() || self.connected, "what is not connected counts alone");
                    for message in sent {
                        if around.random.strikes(around.weather.request_lost) {
                            return Then::End(Some(unreachable()));
                        }
                        around.messages.arrived(around.keeper, &message);
                        if around.random.strikes(around.weather.outcome_lost) {
                            return Then::End(Some(unreachable()));
                        }
                        let at_ms = now.ms + around.random.below(ANSWERS_MS);
                        self.unanswered.push_back((at_ms, message.number));
                    }
                }
                BrokerStep::Connect if is_there => {
                    around.core.handle_broker_connected(now, self.connection);
                    self.connected = true;
                }
                BrokerStep::Connect => return Then::End(Some(unreachable())),
                BrokerStep::Subscribe(_) => {
                    around.core.handle_broker_subscribed(now, self.connection, Ok(()));
                }
                BrokerStep::Wait { until_ms } => {
                    let answered = self.unanswered.iter().map(|(at_ms, _)| *at_ms).min();
                    return Then::Wait(until_ms.min(answered.unwrap_or(u64::MAX)));
                }
                BrokerStep::End(failure) => return Then::End(failure),
            }
        }
    }
}

fn unreachable() -> BrokerFailure {
    BrokerFailure::new(ReasonCode::BrokerUnreachable, "no answer")
}
