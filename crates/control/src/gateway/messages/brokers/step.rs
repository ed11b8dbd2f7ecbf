//! What connections to brokers do, and what they say.

use super::definition::{BrokerCursor, BrokerFailure};

/// A connection to a broker, or an attempt; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What a connection does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerStep {
    /// Reads the outbox.
    Read(BrokerCursor),
    /// Connects.
    Connect,
    /// Asks for the messages of these topics; the answer is for [`Gateway::handle_broker_subscribed`](crate::gateway::Gateway).
    Subscribe(String),
    /// Nothing, until something changes or this time comes.
    Wait {
        /// Monotonic milliseconds.
        until_ms: u64,
    },
    /// Ends.
    End(Option<BrokerFailure>),
}

/// What a broker said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Taken,
    /// It will never take it.
    Refused,
}
