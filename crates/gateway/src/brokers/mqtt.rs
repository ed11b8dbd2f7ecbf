//! MQTT 5 (OASIS, 2019), QoS 1: a message is done with once its PUBACK is there.
//!
//! What is to be sent again is the decisions' to say, and nothing of it is kept between two connections but the position on the disk: a
//! connection is a clean start with a session that ends with it. Where messages come in, the broker keeps those that were not
//! acknowledged for [`BROKER_SESSION_S`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, TlsError, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, StateError,
        mqttbytes::{
            QoS,
            v5::{
                ConnectReturnCode, DisconnectReasonCode, Filter, PubAckReason, Publish, PublishProperties,
                RetainForwardRule,
            },
        },
    },
};
use wasmbed_api::ReasonCode;
use wasmbed_control::gateway::{
    BrokerFailure, BrokerLink, BrokerMessage, BrokerStep, ConnectionId, Verdict,
    config::{BROKER_RECEIVE_MAX, BROKER_SESSION_S, BROKER_WINDOW_MAX},
};

use super::{
    failure::{CONNECT_TIMEOUT, of_io, unanswered},
    feed::Feed,
    inbound::Inbound,
    trust,
};

/// Between two signs of life: a broker that is silent for longer is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Between two looks at what is to be done, if nothing comes.
const LOOK_EVERY_MS: u64 = 60_000;
/// A packet of a broker: a message with properties, or acknowledgements.
const PACKET_BYTES_MAX: u32 = 16 * 1024;
/// What the client is asked for and has not done: messages, acknowledgements and a subscription.
const REQUESTS_MAX: usize = BROKER_WINDOW_MAX + BROKER_RECEIVE_MAX + 1;

/// A connection that the broker has accepted.
pub(super) struct Session {
    client: AsyncClient,
    events: EventLoop,
    flights: Flights,
}

impl Session {
    /// Connects.
    pub(super) async fn open(link: &BrokerLink, gateway: &str) -> Result<Self, BrokerFailure> {
        let endpoint = &link.endpoint;
        // One that another connection has would end that one.
        let id = format!("wasmbed/{gateway}/{}", link.uid);
        let mut options = MqttOptions::new(id, endpoint.host.as_str(), endpoint.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_start(!endpoint.receives);
        options.set_session_expiry_interval(Some(if endpoint.receives { BROKER_SESSION_S } else { 0 }));
        options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        options.set_receive_maximum(Some(if endpoint.receives { BROKER_RECEIVE_MAX as u16 } else { 1 }));
        options.set_manual_acks(true);
        options.set_outgoing_inflight_upper_limit(BROKER_WINDOW_MAX as u16);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        if endpoint.tls {
            let config = trust::client_config(endpoint)?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        if endpoint.username.is_some() || endpoint.password.is_some() {
            let text = |value: &Option<wasmbed_control::Hidden<String>>| {
                value.as_deref().map(ToOwned::to_owned).unwrap_or_default()
            };
            options.set_credentials(text(&endpoint.username), text(&endpoint.password));
        }
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        loop {
            match tokio::time::timeout(CONNECT_TIMEOUT, events.poll()).await {
                Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => {
                    return Ok(Self { client, events, flights: Flights::default() });
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(failure(&error)),
                Err(_) => return Err(unanswered()),
            }
        }
    }

    /// Sends what is to be sent until the connection ends; says why it did.
    pub(super) async fn serve(self, feed: &Feed, connection: ConnectionId) -> Option<BrokerFailure> {
        let Self { client, mut events, mut flights } = self;
        let mut versions = feed.core.versions();
        let (mut inbound, mut filter) = (Inbound::new(connection), String::new());
        feed.core.with(|gateway, now| gateway.handle_broker_connected(now, connection));
        loop {
            // What the client does is never given up half-way: packets would be lost.
            let mut polled = std::pin::pin!(events.poll());
            let event = loop {
                versions.mark_unchanged();
                let until_ms = match feed.step(connection) {
                    BrokerStep::Read(cursor) => {
                        let page = match feed.read(cursor).await {
                            Ok(page) => page,
                            Err(failure) => return Some(failure),
                        };
                        let messages =
                            feed.core.with(|gateway, now| gateway.handle_broker_page(now, connection, page));
                        for message in messages {
                            flights.sending.push_back(message.number);
                            // The window of the decisions is as large as the queue of the client.
                            send(&client, message)?;
                        }
                        // At once again, after a look at what has come.
                        0
                    }
                    BrokerStep::Subscribe(topics) => {
                        client.try_subscribe_many([inward(&topics)]).ok()?;
                        filter = topics;
                        0
                    }
                    BrokerStep::Wait { until_ms } => until_ms,
                    BrokerStep::Connect => return None,
                    BrokerStep::End(failure) => return failure,
                };
                for packet in inbound.go_on(feed) {
                    acknowledge(&client, packet)?;
                }
                let until_ms = until_ms.min(inbound.due_ms());
                let pause_ms = until_ms.saturating_sub(feed.now().ms).min(LOOK_EVERY_MS);
                tokio::select! {
                    biased;
                    answered = inbound.answered() => inbound.note(feed, &answered),
                    event = &mut polled => break event,
                    _ = versions.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                }
            };
            let event = match event {
                Ok(Event::Incoming(Incoming::Publish(publish))) => match inbound.take(feed, &publish) {
                    Ok(read_in_ms) => {
                        // What is not read stays with the broker, by the flow control of TCP.
                        tokio::time::sleep(Duration::from_millis(read_in_ms)).await;
                        continue;
                    }
                    Err(failure) => return Some(failure),
                },
                Ok(Event::Incoming(Incoming::SubAck(answer))) => {
                    inbound.subscribed(feed, &filter, &answer);
                    continue;
                }
                event => event,
            };
            match event.map_err(|error| failure(&error)).and_then(|event| flights.take(event)) {
                Ok(Some((number, verdict))) => {
                    feed.core.with(|gateway, now| {
                        gateway.handle_broker_answer(now, connection, number, verdict);
                    });
                }
                Ok(None) => {}
                Err(failure) => return Some(failure),
            }
        }
    }
}

/// What was published with `retain` before is left out: it would come at each connection anew.
fn inward(topics: &str) -> Filter {
    let mut filter = Filter::new(topics, QoS::AtLeastOnce);
    filter.retain_forward_rule = RetainForwardRule::Never;
    filter
}

fn acknowledge(client: &AsyncClient, packet: u16) -> Option<()> {
    let publish = Publish { pkid: packet, qos: QoS::AtLeastOnce, ..Publish::default() };
    client.try_ack(&publish).ok()
}

fn send(client: &AsyncClient, message: BrokerMessage) -> Option<()> {
    let named = message.properties.into_iter().map(|(name, value)| (name.to_owned(), value));
    let properties = PublishProperties { user_properties: named.collect(), ..PublishProperties::default() };
    let at_least_once = QoS::AtLeastOnce;
    let sent =
        client.try_publish_with_properties(message.topic, at_least_once, false, message.payload, properties);
    sent.ok()
}

/// Messages that were given to the client.
#[derive(Debug, Default)]
struct Flights {
    /// In the order in which they are sent, until they have a packet identifier.
    sending: VecDeque<u64>,
    /// By packet identifier.
    sent: BTreeMap<u16, u64>,
}

impl Flights {
    /// What an event says of a message.
    fn take(&mut self, event: Event) -> Result<Option<(u64, Verdict)>, BrokerFailure> {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                if let Some(number) = self.sending.pop_front() {
                    self.sent.insert(packet, number);
                }
                Ok(None)
            }
            Event::Incoming(Incoming::PubAck(answer)) => {
                let Some(number) = self.sent.remove(&answer.pkid) else { return Ok(None) };
                Ok(Some((number, verdict(answer.reason)?)))
            }
            Event::Incoming(Incoming::Disconnect(packet)) => Err(left(packet.reason_code)),
            Event::Incoming(_) | Event::Outgoing(_) => Ok(None),
        }
    }
}

fn verdict(reason: PubAckReason) -> Result<Verdict, BrokerFailure> {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(Verdict::Taken),
        // These say something of the message: it would be refused again.
        PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => Ok(Verdict::Refused),
        PubAckReason::NotAuthorized => {
            let message = "the broker does not let this client publish to a topic below wasmbed/";
            Err(BrokerFailure::new(ReasonCode::NotAuthorised, message))
        }
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::PacketIdentifierInUse
        | PubAckReason::QuotaExceeded => {
            let message = format!("the broker refused a message: {reason:?}");
            Err(BrokerFailure::new(ReasonCode::BrokerRefused, &message))
        }
    }
}

fn left(code: DisconnectReasonCode) -> BrokerFailure {
    let reason = match code {
        DisconnectReasonCode::NotAuthorized => ReasonCode::NotAuthorised,
        _ => ReasonCode::BrokerRefused,
    };
    BrokerFailure::new(reason, &format!("the broker closed the connection: {code:?}"))
}

/// Why a connection ended, for people.
fn failure(error: &ConnectionError) -> BrokerFailure {
    let (reason, message) = match error {
        ConnectionError::Timeout(_) => return unanswered(),
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::BadAuthenticationMethod
            | ConnectReturnCode::Banned,
        ) => (ReasonCode::NotAuthorised, "the broker does not take the credentials".to_owned()),
        ConnectionError::ConnectionRefused(code) => {
            (ReasonCode::BrokerRefused, format!("the broker refused the connection: {code:?}"))
        }
        ConnectionError::Tls(TlsError::TLS(error)) => (ReasonCode::BrokerUntrusted, format!("TLS: {error}")),
        ConnectionError::Tls(TlsError::Io(error)) => return of_io(error),
        ConnectionError::Tls(error) => (ReasonCode::BrokerUntrusted, format!("TLS: {error}")),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            return of_io(error);
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            (ReasonCode::BrokerUnreachable, "the broker went silent".to_owned())
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            (ReasonCode::BrokerUnreachable, "the broker closed the connection".to_owned())
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            return left(*reason_code);
        }
        other => (ReasonCode::BrokerRefused, format!("the broker does not keep to MQTT 5: {other}")),
    };
    BrokerFailure::new(reason, &message)
}
