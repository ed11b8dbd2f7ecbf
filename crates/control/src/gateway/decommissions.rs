//! Orders to take devices out of service: from the controller to the disk and to devices, and their answers back.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::limits::{DECOMMISSION_ORDER_BYTES_MAX, DETAIL_BYTES_MAX};

use super::{
    Gateway,
    config::UNSEEN_DEVICES_MAX,
    input::{Notice, OrdersAnswer, Refused, RequestId, SessionId, StoreFailure},
    storage::Storing,
};
use crate::{
    Now, ObjectKey,
    gateway_api::{
        DECOMMISSIONS_PER_PUT_MAX, DecommissionOrder, DecommissionRefusal, PutDecommissions,
        PutDecommissionsAnswer, Refusal,
    },
    harmless,
};

/// Orders of a controller, read as far as that takes nothing of a gateway.
#[derive(Debug)]
pub struct PreparedOrders {
    leader_term: u64,
    /// As many as were sent.
    count: usize,
    orders: Vec<PreparedOrder>,
}

/// One of them.
#[derive(Debug)]
struct PreparedOrder {
    device: ObjectKey,
    read: Result<Arc<[u8]>, OrderError>,
}

impl PreparedOrder {
    fn new(order: &DecommissionOrder) -> Self {
        Self { device: order.device.clone(), read: read_order(&order.order) }
    }
}

/// Why an order can't be passed on: the fault of the controller that sent it.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("order is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("order has {0} bytes, 1 to {DECOMMISSION_ORDER_BYTES_MAX} are allowed")]
    Length(usize),
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

impl Gateway {
    /// A controller sends the orders that are open for devices of this gateway: all of them, so that others are dropped.
    /// [`Gateway::poll_orders_answer`] answers, once they are on the disk.
    pub fn handle_put_orders(&mut self, now: Now, request: RequestId, put: PreparedOrders) {
        if let Err(refused) = self.check_orders(&put) {
            self.orders_answers.push_back(OrdersAnswer { request, result: Err(refused) });
            return;
        }
        let leader_term = put.leader_term;
        let mut named = BTreeSet::new();
        let mut changed: BTreeSet<Arc<ObjectKey>> = BTreeSet::new();
        let mut refused = Vec::new();
        let mut unseen = self.devices.values().filter(|record| record.object().is_none()).count();
        for PreparedOrder { device, read } in put.orders {
            match self.take_order(now, &device, read, &mut named, &mut unseen) {
                Ok(taken) => changed.extend(taken),
                Err(message) => refused.push(DecommissionRefusal { device, message }),
            }
        }
        let dropped = self.devices.values_mut().filter(|record| !named.contains(&**record.key()));
        for record in dropped.filter(|record| record.decommission().is_some_and(|it| it.order().is_some())) {
            record.take_order(None);
            changed.insert(Arc::clone(record.key()));
        }
        // An answer says that all of it is on the disk.
        for key in self.storage.take_failed() {
            if self.devices.contains_key(&key) {
                changed.insert(key);
            } else {
                self.storage.forget(&key);
            }
        }
        for key in &changed {
            self.offer_order(key);
            self.stream.changed(key);
        }
        if changed.is_empty() && self.fence.is_stored(leader_term) {
            let result = Ok(PutDecommissionsAnswer { refused });
            self.orders_answers.push_back(OrdersAnswer { request, result });
            return;
        }
        self.fence.accept(leader_term);
        let devices = changed.iter().filter_map(|key| Some(self.devices.get_mut(key)?.store())).collect();
        let changed = changed.into_iter().collect();
        let then = Storing::Orders { request, leader_term, devices: changed, refused };
        self.storage.put_sets(leader_term, devices, then);
    }

    fn check_orders(&self, put: &PreparedOrders) -> Result<(), Refused> {
        self.check_call(put.leader_term)?;
        if put.count > DECOMMISSIONS_PER_PUT_MAX {
            let message =
                format!("{} orders in one call, at most {DECOMMISSIONS_PER_PUT_MAX} are allowed", put.count);
            let reason = "TooManyOrders".to_owned();
            return Err(Refused::Invalid(Refusal { reason, message, leader_term: None }));
        }
        Ok(())
    }

    /// Takes an order; gives the device if it is another one than before.
    fn take_order(
        &mut self,
        now: Now,
        device: &ObjectKey,
        order: Result<Arc<[u8]>, OrderError>,
        named: &mut BTreeSet<ObjectKey>,
        unseen: &mut usize,
    ) -> Result<Option<Arc<ObjectKey>>, String> {
        let order = order.map_err(|error| error.to_string());
        if !named.insert(device.clone()) {
            return Err("the device appears twice in this call".to_owned());
        }
        let order = order?;
        if !self.devices.contains_key(device) {
            if *unseen >= UNSEEN_DEVICES_MAX {
                return Err("no such Device has been seen here".to_owned());
            }
            *unseen += 1;
        }
        let record = self.record(now, device);
        // The Device says already that it was carried out.
        if record.object().is_some_and(|object| object.is_decommissioned()) {
            return Ok(None);
        }
        Ok(record.take_order(Some(order)).then(|| Arc::clone(record.key())))
    }

    /// Orders are on the disk, or could not be written.
    pub(super) fn orders_stored(
        &mut self,
        request: RequestId,
        leader_term: u64,
        devices: Vec<Arc<ObjectKey>>,
        refused: Vec<DecommissionRefusal>,
        result: Result<(), StoreFailure>,
    ) {
        let result = match result {
            Ok(()) => {
                self.fence.handle_stored(leader_term);
                self.store_what_failed();
                Ok(PutDecommissionsAnswer { refused })
            }
            Err(error) => {
                devices.into_iter().for_each(|key| self.storage.note_failed(key));
                Err(Refused::Unavailable(Refusal {
                    reason: "StoreFailed".to_owned(),
                    message: format!("the gateway's disk failed: {error}"),
                    leader_term: None,
                }))
            }
        };
        self.orders_answers.push_back(OrdersAnswer { request, result });
    }

    /// An answer to a controller that sent orders.
    pub fn poll_orders_answer(&mut self) -> Option<OrdersAnswer> {
        self.orders_answers.pop_front()
    }

    /// Has a device sent its order, if it has a session that takes it.
    pub(super) fn offer_order(&mut self, key: &Arc<ObjectKey>) {
        let Some(record) = self.devices.get(key) else { return };
        let Some(session) = record.session().filter(|_| record.takes_order()) else { return };
        if let Some(session) = self.connections.get_mut(session).filter(|session| session.is_established()) {
            session.pending_mut().offer_order();
        }
        self.connections.wake(session);
    }

    /// A device sent a proof. Who verifies it is the controller.
    pub(super) fn handle_decommissioned(&mut self, now: Now, device: &Arc<ObjectKey>, proof: &[u8]) {
        let record = present!(self.devices.get_mut(device), "an established session has a record");
        if record.decommission_mut().note_proof(proof) {
            self.publish(now, device);
            self.notice(Notice::Decommissioned { device: Arc::clone(device) });
        }
    }

    /// A device refused its order.
    pub(super) fn note_order_refused(&mut self, now: Now, id: SessionId, words: &str) {
        let Some(session) = self.connections.get(id).filter(|session| session.is_established()) else {
            return;
        };
        let device = Arc::clone(session.device());
        let Some(record) = self.devices.get_mut(&device) else { return };
        let words = harmless(words, DETAIL_BYTES_MAX);
        if record.decommission().is_some() && record.decommission_mut().note_refusal(&words) {
            self.publish(now, &device);
        }
    }
}
