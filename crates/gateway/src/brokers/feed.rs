//! Where a task of a broker has its messages from.

use std::sync::Arc;

use wasmbed_api::ReasonCode;
use wasmbed_control::{
    Now,
    gateway::{BrokerCursor, BrokerFailure, BrokerPage, BrokerStep, ConnectionId},
};

use crate::{core::Core, outbox::Outbox};

/// The decisions and the disk; cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    pub(super) core: Arc<Core>,
    pub(super) outbox: Outbox,
}

impl Feed {
    /// What is to be done next.
    pub(super) fn step(&self, connection: ConnectionId) -> BrokerStep {
        self.core.with(|gateway, now| gateway.broker_step(now, connection))
    }

    pub(super) fn now(&self) -> Now {
        self.core.read(|_, now| now)
    }

    pub(super) async fn read(&self, cursor: BrokerCursor) -> Result<BrokerPage, BrokerFailure> {
        self.outbox.broker_page(cursor).await.map_err(|error| {
            let message = format!("messages can't be read from the gateway's disk: {error}");
            BrokerFailure::new(ReasonCode::StoreFailed, &message)
        })
    }
}
