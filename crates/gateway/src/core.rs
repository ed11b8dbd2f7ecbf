//! The shared `Gateway` state machine of the process, and the driver that carries out what it asks for.
//!
//! It sits behind a mutex, not in a task with channels: an input is some microseconds of work, no output is held as bytes,
//! and so a heartbeat costs one lock instead of two hops and no session needs a queue. The lock is never held across an
//! await, and nothing is logged under it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use wasmbed_control::{
    Now,
    gateway::{
        Answer, BrokerStart, CertificateCall, DeliveryId, DeliveryRequest, Gateway, Identity, JoiningClient,
        OrdersAnswer, OutboxWrite, PreparedOrders, PreparedSets, PreparedSettings, Reportable, RequestId,
        SessionId, SettingsPutAnswer, StoreOperation, Versions, Write,
    },
    gateway_api::Delivered,
};

use crate::{journal, metrics::Metrics};

/// The decisions, shared by all tasks.
pub(crate) struct Core {
    inner: Mutex<Inner>,
    started: Instant,
    driver: Notify,
    /// Until when the driver sleeps, milliseconds since `started`.
    armed_ms: AtomicU64,
    versions: watch::Sender<Versions>,
    metrics: Metrics,
}

struct Inner {
    gateway: Gateway,
    wakers: HashMap<SessionId, Arc<Notify>>,
    answers: HashMap<RequestId, oneshot::Sender<Answer>>,
    orders_answers: HashMap<RequestId, oneshot::Sender<OrdersAnswer>>,
    settings_answers: HashMap<RequestId, oneshot::Sender<SettingsPutAnswer>>,
    deliveries: HashMap<DeliveryId, oneshot::Sender<Delivered>>,
    next_session: u64,
    next_request: u64,
}

/// What the driver is to carry out.
pub(crate) struct Work {
    pub(crate) writes: Vec<Write>,
    pub(crate) certificates: Vec<CertificateCall>,
    pub(crate) store: Vec<StoreOperation>,
    pub(crate) outbox: Option<OutboxWrite>,
    pub(crate) brokers: Vec<BrokerStart>,
    sleep: Duration,
}

impl Core {
    pub(crate) fn new(metrics: Metrics, build: impl FnOnce(Now) -> Gateway) -> Self {
        let started = Instant::now();
        let gateway = build(now_since(started));
        Self {
            inner: Mutex::new(Inner {
                gateway,
                wakers: HashMap::new(),
                answers: HashMap::new(),
                orders_answers: HashMap::new(),
                settings_answers: HashMap::new(),
                deliveries: HashMap::new(),
                next_session: 0,
                next_request: 0,
            }),
            started,
            driver: Notify::new(),
            armed_ms: AtomicU64::new(0),
            versions: watch::Sender::new(Versions::default()),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a bug that ends the task it happened in; the others go on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the decisions an input and passes on what follows from it.
    pub(crate) fn with<R>(&self, input: impl FnOnce(&mut Gateway, Now) -> R) -> R {
        let mut inner = self.lock();
        let result = input(&mut inner.gateway, now_since(self.started));
        let notices = self.settle(&mut inner);
        let due = inner.gateway.poll_timeout() < self.armed_ms.load(Ordering::Relaxed);
        let wake_driver = due || inner.gateway.has_store_work();
        drop(inner);
        if wake_driver {
            self.driver.notify_one();
        }
        self.report(notices);
        result
    }

    /// Reads the decisions.
    pub(crate) fn read<R>(&self, reader: impl FnOnce(&Gateway, Now) -> R) -> R {
        reader(&self.lock().gateway, now_since(self.started))
    }

    fn settle(&self, inner: &mut Inner) -> Vec<Reportable> {
        while let Some(id) = inner.gateway.poll_wake() {
            if let Some(waker) = inner.wakers.get(&id) {
                waker.notify_one();
            }
        }
        while let Some(answer) = inner.gateway.poll_answer() {
            if let Some(waiting) = inner.answers.remove(&answer.request) {
                // The controller may have gone away; the sets stay.
                let _ = waiting.send(answer);
            }
        }
        while let Some(answer) = inner.gateway.poll_orders_answer() {
            if let Some(waiting) = inner.orders_answers.remove(&answer.request) {
                let _ = waiting.send(answer);
            }
        }
        while let Some(answer) = inner.gateway.poll_settings_answer() {
            if let Some(waiting) = inner.settings_answers.remove(&answer.request) {
                let _ = waiting.send(answer);
            }
        }
        while let Some((id, delivered)) = inner.gateway.poll_delivered() {
            if let Some(waiting) = inner.deliveries.remove(&id) {
                let _ = waiting.send(delivered);
            }
        }
        let versions = inner.gateway.versions();
        self.versions.send_if_modified(|held| std::mem::replace(held, versions) != versions);
        std::iter::from_fn(|| inner.gateway.poll_notice()).collect()
    }

    fn report(&self, notices: Vec<Reportable>) {
        for Reportable { notice, logged } in notices {
            self.metrics.count(&notice);
            if logged {
                journal::log(&notice);
            }
        }
    }

    /// A device whose handshake is done; none if there is no room, or if there are `connections_max` already.
    pub(crate) fn accept(
        &self,
        identity: &Identity,
        connections_max: usize,
    ) -> Option<(SessionId, Arc<Notify>)> {
        self.enter(connections_max, |gateway, now, id| gateway.handle_accepted(now, id, identity))
    }

    /// The same for a device that joins.
    pub(crate) fn accept_joining(
        &self,
        client: JoiningClient,
        connections_max: usize,
    ) -> Option<(SessionId, Arc<Notify>)> {
        self.enter(connections_max, |gateway, now, id| gateway.handle_joining(now, id, client))
    }

    fn enter(
        &self,
        connections_max: usize,
        takes: impl FnOnce(&mut Gateway, Now, SessionId) -> bool,
    ) -> Option<(SessionId, Arc<Notify>)> {
        let waker = Arc::new(Notify::new());
        let mut inner = self.lock();
        if inner.wakers.len() >= connections_max {
            return None;
        }
        let id = SessionId(inner.next_session);
        inner.next_session += 1;
        inner.wakers.insert(id, Arc::clone(&waker));
        drop(inner);
        if self.with(|gateway, now| takes(gateway, now, id)) {
            return Some((id, waker));
        }
        self.lock().wakers.remove(&id);
        None
    }

    /// A connection is gone.
    pub(crate) fn close(&self, id: SessionId, detail: &str) {
        self.with(|gateway, now| gateway.handle_closed(now, id, detail));
        self.lock().wakers.remove(&id);
    }

    /// Sets of a controller; answered once they are on the disk. None if the process ends before that.
    pub(crate) async fn put_sets(&self, put: PreparedSets) -> Option<Answer> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut inner = self.lock();
            let request = RequestId(inner.next_request);
            inner.next_request += 1;
            inner.answers.insert(request, sender);
            request
        };
        self.with(|gateway, now| gateway.handle_put_sets(now, request, put));
        receiver.await.ok()
    }

    /// Orders of a controller; answered as sets are.
    pub(crate) async fn put_orders(&self, put: PreparedOrders) -> Option<OrdersAnswer> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut inner = self.lock();
            let request = RequestId(inner.next_request);
            inner.next_request += 1;
            inner.orders_answers.insert(request, sender);
            request
        };
        self.with(|gateway, now| gateway.handle_put_orders(now, request, put));
        receiver.await.ok()
    }

    /// Settings of a controller; answered as sets are.
    pub(crate) async fn put_settings(&self, put: PreparedSettings) -> Option<SettingsPutAnswer> {
        let (sender, receiver) = oneshot::channel();
        let request = {
            let mut inner = self.lock();
            let request = RequestId(inner.next_request);
            inner.next_request += 1;
            inner.settings_answers.insert(request, sender);
            request
        };
        self.with(|gateway, now| gateway.handle_put_settings(now, request, put));
        receiver.await.ok()
    }

    /// A message for an application on a device: what became of it. None if the process ends before that is known.
    pub(crate) async fn deliver(
        &self,
        request: impl FnOnce(DeliveryId) -> DeliveryRequest,
    ) -> Option<Delivered> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut inner = self.lock();
            let id = DeliveryId(inner.next_request);
            inner.next_request += 1;
            inner.deliveries.insert(id, sender);
            id
        };
        self.with(|gateway, now| gateway.handle_delivery(now, request(id)));
        receiver.await.ok()
    }

    /// Tells when there is something new in the stream, in the logs or among messages.
    pub(crate) fn versions(&self) -> watch::Receiver<Versions> {
        self.versions.subscribe()
    }

    /// What is to be done now, and until when to sleep after it.
    fn work(&self) -> Work {
        let mut inner = self.lock();
        let now = now_since(self.started);
        let gateway = &mut inner.gateway;
        gateway.handle_timeout(now);
        let writes = std::iter::from_fn(|| gateway.poll_write(now)).collect();
        let certificates = std::iter::from_fn(|| gateway.poll_certificate_call(now)).collect();
        let store = std::iter::from_fn(|| gateway.poll_store()).collect();
        let outbox = gateway.poll_outbox(now);
        let brokers = std::iter::from_fn(|| gateway.poll_broker(now)).collect();
        let due = gateway.poll_timeout();
        self.armed_ms.store(due, Ordering::Relaxed);
        let notices = self.settle(&mut inner);
        drop(inner);
        self.report(notices);
        // A millisecond at least, so that a time that has come already is no busy loop.
        let sleep = Duration::from_millis(due.saturating_sub(now.ms).max(1));
        Work { writes, certificates, store, outbox, brokers, sleep }
    }

    /// Carries out what the decisions ask for, until the process ends.
    pub(crate) async fn drive(&self, stop: CancellationToken, mut carry_out: impl FnMut(Work)) {
        loop {
            let mut work = self.work();
            let sleep = work.sleep;
            work.sleep = Duration::ZERO;
            carry_out(work);
            tokio::select! {
                () = self.driver.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn now_since(started: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { ms: millis(started.elapsed()), unix_ms: millis(unix) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
