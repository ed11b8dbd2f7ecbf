//! Orders to take devices out of service, as a controller sends them.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::limits::DECOMMISSION_ORDER_BYTES_MAX;

use crate::{
    ObjectKey,
    gateway_api::{DECOMMISSIONS_PER_PUT_MAX, DecommissionOrder, PutDecommissions},
};

/// Orders of a controller, read as far as that takes nothing of a gateway.
#[derive(Debug)]
pub struct PreparedOrders {
    pub(super) leader_term: u64,
    /// As many as were sent.
    pub(super) count: usize,
    pub(super) orders: Vec<PreparedOrder>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct PreparedOrder {
    pub(super) device: ObjectKey,
    pub(super) read: Result<Arc<[u8]>, OrderError>,
}

impl PreparedOrder {
    fn new(order: &DecommissionOrder) -> Self {
        Self { device: order.device.clone(), read: read_order(&order.order) }
    }
}

/// Why an order is not taken: the fault of the controller that sent it.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("order is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("order has {0} bytes, 1 to {DECOMMISSION_ORDER_BYTES_MAX} are allowed")]
    Length(usize),
    #[error("the device appears twice in this call")]
    Twice,
    #[error("no such Device has been seen here")]
    Unseen,
}

/// An order from its base64.
pub(super) fn read_order(order: &str) -> Result<Arc<[u8]>, OrderError> {
    let bytes = STANDARD.decode(order)?;
    if bytes.is_empty() || bytes.len() > DECOMMISSION_ORDER_BYTES_MAX {
        return Err(OrderError::Length(bytes.len()));
    }
    Ok(bytes.into())
}

impl PreparedOrders {
    /// Reads orders; none of more than one call may bring.
    #[must_use]
    pub fn new(put: &PutDecommissions) -> Self {
        let orders = put.orders.iter().take(DECOMMISSIONS_PER_PUT_MAX);
        Self {
            leader_term: put.leader_term,
            count: put.orders.len(),
            orders: orders.map(PreparedOrder::new).collect(),
        }
    }

    /// Of the controller that leads.
    #[must_use]
    pub fn leader_term(&self) -> u64 {
        self.leader_term
    }
}
