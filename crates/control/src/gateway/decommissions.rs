//! Orders to take devices out of service: from the controller to the disk and to devices, and their answers back.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_protocol::limits::DETAIL_BYTES_MAX;

use super::{
    Gateway,
    config::UNSEEN_DEVICES_MAX,
    input::{Notice, OrdersAnswer, Refused, RequestId, SessionId, StoreFailure},
    orders::{OrderError, PreparedOrder, PreparedOrders},
    storage::Storing,
};
use crate::{
    Now, ObjectKey,
    gateway_api::{DECOMMISSIONS_PER_PUT_MAX, DecommissionRefusal, PutDecommissionsAnswer, Refusal},
    harmless,
};

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
                Err(error) => refused.push(DecommissionRefusal { device, message: error.to_string() }),
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
    ) -> Result<Option<Arc<ObjectKey>>, OrderError> {
        if !named.insert(device.clone()) {
            return Err(OrderError::Twice);
        }
        let order = order?;
        if !self.devices.contains_key(device) {
            if *unseen >= UNSEEN_DEVICES_MAX {
                return Err(OrderError::Unseen);
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
