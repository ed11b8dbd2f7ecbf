//! The one loop: inputs into the fleet's decisions, and what they ask for out to tasks.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{Application, Device, DeviceGateway, ReasonCode, kind};
use wasmbed_control::{
    ObjectKey,
    fleet::{
        ApprovalWrite, BrokersOutcome, BrokersPut, CallId, Fleet, Kind, Order, OrdersOutcome, OrdersPut,
        ProofEvidence, Put, PutOutcome, SecretOutcome, SecretRead, SettingsOutcome, SettingsPut, Upload,
        UploadOutcome,
    },
    gateway_api::{DecommissionOrder, PutDecommissions, Refusal},
    kubernetes::{Event, WriteOutcome},
};
use wasmbed_kubernetes::{Caller, Object, outcome};
use wasmbed_telemetry::{Health, Readiness};

use crate::{
    certificates::Certificates,
    client::GatewayClient,
    clock::Clock,
    decommission::{self, OrderError},
    election::Lead,
    input::Input,
    kubernetes::{module_bytes, secret_values},
    metrics::{Metrics, Operation},
    stream,
};

/// Inputs taken before decisions are carried out: a snapshot of 10,000 devices is planned in few steps.
const INPUTS_PER_STEP_MAX: usize = 512;
/// Between two steps that nothing but time asked for.
const STEP_MIN: Duration = Duration::from_millis(20);
/// Between two looks at what depends on time alone.
const TIMEOUT_STEP_MS: u64 = 100;

pub(crate) struct Driver {
    pub(crate) fleet: Fleet,
    pub(crate) clock: Clock,
    pub(crate) client: GatewayClient,
    /// For the key that signs orders.
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) signed: Arc<decommission::Signed>,
    pub(crate) caller: Caller,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) inputs: mpsc::Receiver<Input>,
    /// For the streams that this loop starts.
    pub(crate) sender: mpsc::Sender<Input>,
    pub(crate) term_wanted: watch::Sender<Option<u64>>,
    /// Leadership, which ends by itself unless it is renewed.
    pub(crate) lead: watch::Receiver<Option<Lead>>,
    pub(crate) streams: BTreeMap<String, Stream>,
    pub(crate) reachable: Reachable,
    pub(crate) timeout_ms: u64,
    /// Of devices' SPIFFE ids.
    pub(crate) trust_domain: String,
}

/// Whether what is seen of the Kubernetes API is up to date: calls are answered, and the watch of Leases works. A watch can
/// come back a good while after the API has, and what it did not show in between says nothing of gateways.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reachable {
    answers: bool,
    watched: bool,
}

pub(crate) struct Stream {
    address: String,
    stop: CancellationToken,
}

enum Outcome {
    Put { gateway: String, id: CallId, outcome: PutOutcome },
    Upload { gateway: String, id: CallId, outcome: UploadOutcome },
    Orders { gateway: String, id: CallId, outcome: OrdersOutcome },
    Brokers { gateway: String, id: CallId, outcome: BrokersOutcome },
    Settings { gateway: String, id: CallId, outcome: SettingsOutcome },
    Write { id: CallId, outcome: WriteOutcome<String> },
    Secret { id: CallId, outcome: SecretOutcome },
    Event,
}

impl Driver {
    /// Runs until `shutdown`, then lets calls that are under way end.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            self.check_lead();
            self.start_tasks(&mut tasks);
            self.report();
            let now = self.clock.now();
            let wake_ms = self.fleet.poll_timeout(now);
            let wake = self.clock.instant(wake_ms).max(tokio::time::Instant::now() + STEP_MIN);
            tokio::select! {
                () = shutdown.cancelled() => break,
                input = self.inputs.recv() => match input {
                    Some(input) => self.take_inputs(input),
                    None => break,
                },
                Some(joined) = tasks.join_next() => match joined {
                    Ok(outcome) => self.take_outcome(outcome),
                    Err(error) => tracing::error!(reason = "TaskPanicked", %error, "API call task panicked"),
                },
                // An election that ended sends nothing more; the shutdown is near.
                Ok(()) = self.lead.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = self.clock.now();
            if now.ms >= self.timeout_ms {
                self.timeout_ms = now.ms + TIMEOUT_STEP_MS;
                self.fleet.handle_timeout(now);
            }
        }
        for stream in self.streams.values() {
            stream.stop.cancel();
        }
        // What is under way ends by its own timeout; what it would say no longer matters.
        tasks.shutdown().await;
    }

    fn take_inputs(&mut self, first: Input) {
        self.take_input(first);
        for _ in 1..INPUTS_PER_STEP_MAX {
            match self.inputs.try_recv() {
                Ok(input) => self.take_input(input),
                Err(_) => break,
            }
        }
    }

    fn take_input(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::ListBegin(kind) => self.fleet.handle_list_begin(kind),
            Input::ListEnd(kind) => {
                self.fleet.handle_list_end(now, kind);
                if kind == Kind::Gateway {
                    tracing::debug!("gateways are listed");
                }
            }
            Input::Application(object, source) => self.fleet.handle_application(now, &object, source),
            Input::ApplicationDeleted(key) => self.fleet.handle_application_deleted(&key),
            Input::Module(key, facts) => self.fleet.handle_module(now, &key, facts),
            Input::ModuleDeleted(key) => self.fleet.handle_module_deleted(now, &key),
            Input::Device(object) => self.fleet.handle_device(now, &object),
            Input::DeviceDeleted(key) => self.fleet.handle_device_deleted(now, &key),
            Input::Gateway(object) => {
                self.fleet.handle_gateway(now, &object);
                self.follow(object.name_any(), object.spec.address);
            }
            Input::Quota(key, seen) => self.fleet.handle_quota(&key, seen),
            Input::QuotaDeleted(key) => self.fleet.handle_quota_deleted(&key),
            Input::Unreadable(kind, key, uid) => {
                self.fleet.handle_unreadable(now, kind, &key, uid.as_deref());
            }
            Input::GatewayDeleted(name) => {
                if let Some(stream) = self.streams.remove(&name) {
                    stream.stop.cancel();
                }
                self.fleet.handle_gateway_deleted(now, &name);
            }
            Input::Broker(object) => self.fleet.handle_broker(now, &object),
            Input::BrokerDeleted(key) => self.fleet.handle_broker_deleted(&key),
            Input::RequestsBegin => self.fleet.handle_requests_begin(),
            Input::RequestsEnd => self.fleet.handle_requests_end(),
            Input::Request(request) => self.fleet.handle_request(*request),
            Input::RequestClosed(name) => self.fleet.handle_request_closed(&name),
            Input::Lease(gateway, lease) => self.fleet.handle_lease(now, &gateway, lease),
            Input::Stream(gateway, event) => self.fleet.handle_stream(now, &gateway, *event),
            Input::StreamDown(gateway, error) => {
                self.metrics.count_error(Operation::Stream);
                self.fleet.handle_stream_down(now, &gateway, &error);
            }
            Input::Api(answers) => {
                self.reachable.answers = answers;
                self.check_reachable();
                let silent = (!answers).then(|| "the Kubernetes API does not answer".to_owned());
                self.health.set("kubernetes", Readiness::unless(silent));
            }
            Input::Renewing(renewal, at) => self.fleet.handle_renewing(self.clock.at(at), renewal),
            Input::LeaderLease(renewal) => self.fleet.handle_leader_lease(now, &renewal),
            Input::LeaseWatch(stands) => {
                self.reachable.watched = stands;
                self.check_reachable();
            }
        }
    }

    fn check_reachable(&mut self) {
        let Reachable { answers, watched } = self.reachable;
        self.fleet.handle_api(self.clock.now(), answers && watched);
    }

    /// Right before anything is sent: this process may have stood still since it last looked.
    fn check_lead(&mut self) {
        let term = self.term();
        self.fleet.handle_leadership(self.clock.now(), term);
    }

    fn term(&self) -> Option<u64> {
        Lead::term_at(*self.lead.borrow(), Instant::now())
    }

    /// Every gateway's stream is read, also by a controller that does not lead: it takes over from what it knows.
    fn follow(&mut self, name: String, address: String) {
        if self.streams.get(&name).is_some_and(|stream| stream.address == address) {
            return;
        }
        let stop = CancellationToken::new();
        let work = stream::follow(
            self.client.clone(),
            name.clone(),
            address.clone(),
            self.sender.clone(),
            stop.clone(),
        );
        tokio::spawn(work);
        if let Some(old) = self.streams.insert(name, Stream { address, stop }) {
            old.stop.cancel();
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        let now = self.clock.now();
        match outcome {
            Outcome::Put { gateway, id, outcome } => {
                self.fleet.handle_put_outcome(now, &gateway, id, outcome)
            }
            Outcome::Upload { gateway, id, outcome } => {
                self.fleet.handle_upload_outcome(now, &gateway, id, outcome);
            }
            Outcome::Orders { gateway, id, outcome } => {
                self.fleet.handle_orders_outcome(now, &gateway, id, outcome);
            }
            Outcome::Brokers { gateway, id, outcome } => {
                self.fleet.handle_brokers_outcome(now, &gateway, id, outcome);
            }
            Outcome::Settings { gateway, id, outcome } => {
                self.fleet.handle_settings_outcome(now, &gateway, id, outcome);
            }
            Outcome::Write { id, outcome } => self.fleet.handle_write_outcome(now, id, outcome),
            Outcome::Secret { id, outcome } => self.fleet.handle_secret(now, id, outcome),
            Outcome::Event => {}
        }
    }

    fn start_tasks(&mut self, tasks: &mut JoinSet<Outcome>) {
        let _span = tracing::debug_span!("reconcile").entered();
        let now = self.clock.now();
        while let Some(put) = self.fleet.poll_put(now) {
            tasks.spawn(put_sets(self.client.clone(), self.metrics.clone(), put));
        }
        while let Some(upload) = self.fleet.poll_upload(now) {
            tasks.spawn(upload_module(
                self.client.clone(),
                self.caller.clone(),
                self.metrics.clone(),
                upload,
            ));
        }
        while let Some(check) = self.fleet.poll_proof(now) {
            let evidence = decommission::verify(&check);
            if let ProofEvidence::Refuted(error) = &evidence {
                let (device, gateway) = (&check.device, &check.gateway);
                tracing::warn!(%device, gateway, reason = "ProofRefused", error, "a proof of decommission does not count");
            }
            self.fleet.handle_proof(now, &check, evidence);
        }
        while let Some(put) = self.fleet.poll_orders(now) {
            let credentials = self.certificates.current();
            let (trust_domain, before) = (self.trust_domain.clone(), Arc::clone(&self.signed));
            let sign = move |orders: &[Order]| {
                decommission::sign(&before, &credentials.identity, &trust_domain, orders)
            };
            tasks.spawn(put_orders(self.client.clone(), self.metrics.clone(), sign, put));
        }
        while let Some(put) = self.fleet.poll_brokers(now) {
            tasks.spawn(put_brokers(self.client.clone(), self.metrics.clone(), put));
        }
        while let Some(put) = self.fleet.poll_settings(now) {
            tasks.spawn(put_settings(self.client.clone(), self.metrics.clone(), put));
        }
        while let Some(read) = self.fleet.poll_secret(now) {
            tasks.spawn(read_secret(self.caller.clone(), self.metrics.clone(), read));
        }
        self.start_writes(tasks);
        while let Some(event) = self.fleet.poll_event() {
            if event.regarding.kind == kind::DEVICE {
                let device = &event.regarding.key;
                let reason = event.reason.as_str();
                if event.warning {
                    tracing::warn!(%device, reason, "{}", event.message);
                } else {
                    tracing::info!(%device, reason, "{}", event.message);
                }
            }
            self.metrics.count_event(&event);
            let (caller, metrics) = (self.caller.clone(), self.metrics.clone());
            tasks.spawn(async move {
                let started = Instant::now();
                let written = write_event(&caller, &event).await;
                metrics.observe(Operation::WriteEvent, started.elapsed().as_secs_f64(), !written);
                Outcome::Event
            });
        }
    }

    fn start_writes(&mut self, tasks: &mut JoinSet<Outcome>) {
        let now = self.clock.now();
        while let Some(write) = self.fleet.poll_finalizer(now) {
            let target = Target::<Application>::metadata(write.application, "finalizers");
            self.start_write(tasks, Operation::WriteFinalizer, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_finished(now) {
            let target = Target::<Device>::status(write.device, "Device status");
            self.start_write(tasks, Operation::WriteFinished, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_decommission(now, decommission::draw) {
            let target = Target::<Device>::status(write.device, "Device status");
            self.start_write(tasks, Operation::WriteDecommission, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_device_unreachable(now) {
            tracing::warn!(
                device = %write.device,
                gateway = write.gateway,
                epoch = write.epoch,
                reason = ReasonCode::GatewayLost.as_str(),
                "device unreachable: its gateway is gone"
            );
            let target = Target::<Device>::status(write.device, "Device status");
            self.start_write(tasks, Operation::WriteUnreachable, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_gateway_unknown(now) {
            tracing::warn!(
                gateway = write.gateway.name,
                reason = ReasonCode::LeaseExpired.as_str(),
                "the gateway does not renew its Lease"
            );
            let target = Target::<DeviceGateway>::status(write.gateway, "DeviceGateway status");
            self.start_write(tasks, Operation::WriteGateway, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_status(now) {
            let phase = write.patch["status"]["phase"].as_str().unwrap_or_default();
            let ready = write.patch["status"]["ready"].as_str().unwrap_or_default();
            let (application, correlation_id) = (&write.application, write.correlation_id);
            tracing::info!(%correlation_id, %application, phase, ready, "status changes");
            let target = Target::<Application>::status(write.application, "status");
            self.start_write(tasks, Operation::WriteStatus, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_approval(now) {
            tasks.spawn(approve(self.caller.clone(), self.metrics.clone(), write));
        }
        // After the statuses, which people wait for.
        while let Some(write) = self.fleet.poll_quota(now) {
            let target = Target::<ResourceQuota>::status(write.quota, "ResourceQuota status");
            self.start_write(tasks, Operation::WriteQuota, write.id, target, write.patch);
        }
        while let Some(write) = self.fleet.poll_device_finalizer(now) {
            let target = Target::<Device>::metadata(write.device, "finalizers");
            self.start_write(tasks, Operation::WriteFinalizer, write.id, target, write.patch);
        }
    }

    fn start_write<K: Object + Send + 'static>(
        &self,
        tasks: &mut JoinSet<Outcome>,
        operation: Operation,
        id: CallId,
        target: Target<K>,
        patch: serde_json::Value,
    ) {
        let (caller, metrics) = (self.caller.clone(), self.metrics.clone());
        tasks.spawn(async move {
            let started = Instant::now();
            let written = if target.status {
                caller.merge_status::<K>(&target.key, &patch).await
            } else {
                caller.merge::<K>(&target.key, &patch).await
            };
            let outcome = outcome(written.map(|object| object.resource_version().unwrap_or_default()));
            log_write(&outcome, &target.key, target.what);
            finish_write(&metrics, operation, started, id, outcome)
        });
    }

    fn report(&self) {
        self.metrics.set_gauges(&self.fleet.gauges(), self.term().is_some());
        let waits = (!self.fleet.is_complete()).then(|| "lists are not complete yet".to_owned());
        self.health.set("watches", Readiness::unless(waits));
        let wanted = self.fleet.term_wanted();
        self.term_wanted.send_if_modified(|current| std::mem::replace(current, wanted) != wanted);
    }
}

/// What a write changes.
struct Target<K> {
    key: ObjectKey,
    /// Whether it is the status.
    status: bool,
    /// For the log.
    what: &'static str,
    kind: PhantomData<fn() -> K>,
}

impl<K> Target<K> {
    fn status(key: ObjectKey, what: &'static str) -> Self {
        Self { key, status: true, what, kind: PhantomData }
    }

    fn metadata(key: ObjectKey, what: &'static str) -> Self {
        Self { key, status: false, what, kind: PhantomData }
    }
}

async fn read_secret(caller: Caller, metrics: Metrics, read: SecretRead) -> Outcome {
    let started = Instant::now();
    let outcome = secret_values(&caller, &read.secret).await;
    let failed = match &outcome {
        SecretOutcome::Found(_) | SecretOutcome::NotFound => false,
        SecretOutcome::Forbidden(error) | SecretOutcome::Unavailable(error) => {
            // Read again before long, and the Application's status says so.
            tracing::debug!(secret = %read.secret, reason = "SecretUnread", error, "a Secret could not be read");
            true
        }
    };
    metrics.observe(Operation::ReadSecret, started.elapsed().as_secs_f64(), failed);
    Outcome::Secret { id: read.id, outcome }
}

async fn approve(caller: Caller, metrics: Metrics, write: ApprovalWrite) -> Outcome {
    let started = Instant::now();
    let written = caller.approve(&write.request, &write.patch).await;
    let outcome = outcome(written.map(|object| object.resource_version().unwrap_or_default()));
    log_write(&outcome, &write.device, "approval of a request for a certificate");
    if let WriteOutcome::Done(_) = &outcome {
        tracing::info!(device = %write.device, request = write.request, "a request for a certificate was approved");
    }
    finish_write(&metrics, Operation::WriteApproval, started, write.id, outcome)
}

/// Events are for people: one that can't be written is logged and dropped. Whether it is there.
async fn write_event(caller: &Caller, event: &Event) -> bool {
    let written = caller.write_event(event).await;
    if let Err(error) = &written {
        let (kind, object) = (event.regarding.kind, &event.regarding.key);
        tracing::warn!(kind, %object, reason = "WriteFailed", %error, "an Event could not be written");
    }
    written.is_ok()
}

async fn put_sets(client: GatewayClient, metrics: Metrics, put: Put) -> Outcome {
    let started = Instant::now();
    let mut told = std::collections::BTreeSet::new();
    for set in &put.body.sets {
        let device = &set.device;
        tracing::debug!(
            %device,
            gateway = put.gateway,
            revision = set.revision,
            members = set.assignments.len(),
            "sending desired set"
        );
        for entry in &set.assignments {
            if told.insert(&entry.correlation_id) {
                let (correlation_id, application) = (&entry.correlation_id, &entry.application);
                tracing::info!(correlation_id, application, gateway = put.gateway, "sent to the gateway");
            }
        }
    }
    let outcome = client.put_sets(&put.gateway, &put.address, &put.body).await;
    let failed = match &outcome {
        PutOutcome::Answered(answer) => {
            for refusal in &answer.refused {
                let device = &refusal.device;
                tracing::warn!(
                    %device,
                    gateway = put.gateway,
                    reason = "SetRefused",
                    error = refusal.message,
                    "the gateway refused a set"
                );
            }
            false
        }
        PutOutcome::Fenced(refusal) => {
            tracing::warn!(
                gateway = put.gateway,
                reason = refusal.reason,
                error = refusal.message,
                "the gateway has seen a later leader"
            );
            true
        }
        PutOutcome::Failed(error) => {
            tracing::warn!(gateway = put.gateway, reason = "PutFailed", error, "sets could not be sent");
            true
        }
    };
    metrics.observe(Operation::PutSets, started.elapsed().as_secs_f64(), failed);
    Outcome::Put { gateway: put.gateway, id: put.id, outcome }
}

async fn put_orders(
    client: GatewayClient,
    metrics: Metrics,
    sign: impl FnOnce(&[Order]) -> Result<Vec<DecommissionOrder>, OrderError> + Send + 'static,
    put: OrdersPut,
) -> Outcome {
    let started = Instant::now();
    let OrdersPut { id, gateway, address, leader_term, orders } = put;
    for order in &orders {
        let device = &order.device;
        tracing::info!(%device, gateway, nonce = %order.nonce, "sending the order to decommission");
    }
    // Some hundred signatures take a while.
    let signed = tokio::task::spawn_blocking(move || sign(&orders));
    let outcome = match signed.await {
        Ok(Ok(orders)) => {
            let body = PutDecommissions { leader_term, orders };
            client.put_decommissions(&gateway, &address, &body).await
        }
        Ok(Err(error)) => OrdersOutcome::Failed(format!("the order could not be signed: {error}")),
        Err(error) => OrdersOutcome::Failed(error.to_string()),
    };
    let failed = match &outcome {
        OrdersOutcome::Answered(_) => false,
        OrdersOutcome::Fenced(Refusal { message: error, .. }) | OrdersOutcome::Failed(error) => {
            tracing::warn!(gateway, reason = "PutFailed", error, "orders to decommission could not be sent");
            true
        }
        OrdersOutcome::TooOld => {
            tracing::warn!(
                gateway,
                reason = "GatewayTooOld",
                "the gateway passes no orders to decommission on"
            );
            true
        }
    };
    metrics.observe(Operation::PutDecommissions, started.elapsed().as_secs_f64(), failed);
    Outcome::Orders { gateway, id, outcome }
}

async fn put_brokers(client: GatewayClient, metrics: Metrics, put: BrokersPut) -> Outcome {
    let started = Instant::now();
    let BrokersPut { id, gateway, address, body } = put;
    tracing::debug!(gateway, brokers = body.brokers.len(), "sending brokers");
    let outcome = client.put_brokers(&gateway, &address, &body).await;
    let failed = match &outcome {
        BrokersOutcome::Taken => false,
        BrokersOutcome::Fenced(Refusal { message: error, .. }) | BrokersOutcome::Failed(error) => {
            tracing::warn!(gateway, reason = "PutFailed", error, "brokers could not be sent");
            true
        }
        BrokersOutcome::TooOld => {
            if !body.brokers.is_empty() {
                tracing::warn!(gateway, reason = "GatewayTooOld", "the gateway sends no messages to brokers");
            }
            false
        }
    };
    metrics.observe(Operation::PutBrokers, started.elapsed().as_secs_f64(), failed);
    Outcome::Brokers { gateway, id, outcome }
}

async fn put_settings(client: GatewayClient, metrics: Metrics, put: SettingsPut) -> Outcome {
    let started = Instant::now();
    let SettingsPut { id, gateway, address, body } = put;
    tracing::debug!(gateway, devices = body.devices.len(), "sending settings");
    let outcome = client.put_settings(&gateway, &address, &body).await;
    let failed = match &outcome {
        SettingsOutcome::Answered(answer) => {
            if let Some(first) = answer.refused.first() {
                let (device, error) = (&first.device, &first.message);
                tracing::warn!(gateway, reason = "PutFailed", %device, error, "settings were not taken");
            }
            !answer.refused.is_empty()
        }
        SettingsOutcome::Fenced(Refusal { message: error, .. }) | SettingsOutcome::Failed(error) => {
            tracing::warn!(gateway, reason = "PutFailed", error, "settings could not be sent");
            true
        }
        SettingsOutcome::TooOld => {
            tracing::warn!(gateway, reason = "GatewayTooOld", "the gateway passes no settings on");
            true
        }
    };
    metrics.observe(Operation::PutSettings, started.elapsed().as_secs_f64(), failed);
    Outcome::Settings { gateway, id, outcome }
}

async fn upload_module(client: GatewayClient, caller: Caller, metrics: Metrics, upload: Upload) -> Outcome {
    let started = Instant::now();
    let outcome = upload_once(&client, &caller, &upload).await;
    let correlation_id = upload.correlation_id;
    let failed = match &outcome {
        UploadOutcome::Held => {
            tracing::info!(%correlation_id, gateway = upload.gateway, digest = %upload.digest, "the gateway has the module");
            false
        }
        UploadOutcome::SourceGone => {
            tracing::warn!(%correlation_id, reason = "SourceGone", digest = %upload.digest, "the module's bytes are gone from the Kubernetes API");
            true
        }
        UploadOutcome::Failed(error) => {
            tracing::warn!(
                %correlation_id,
                gateway = upload.gateway,
                reason = "UploadFailed",
                error,
                "a module could not be uploaded"
            );
            true
        }
    };
    metrics.observe(Operation::UploadModule, started.elapsed().as_secs_f64(), failed);
    Outcome::Upload { gateway: upload.gateway, id: upload.id, outcome }
}

async fn upload_once(client: &GatewayClient, caller: &Caller, upload: &Upload) -> UploadOutcome {
    match client.has_module(&upload.gateway, &upload.address, upload.digest).await {
        Ok(true) => return UploadOutcome::Held,
        Ok(false) => {}
        Err(error) => return UploadOutcome::Failed(error.to_string()),
    }
    match module_bytes(caller, &upload.source, upload.digest).await {
        Ok(Some(bytes)) => client.put_module(&upload.gateway, &upload.address, upload.digest, bytes).await,
        Ok(None) => UploadOutcome::SourceGone,
        Err(error) => UploadOutcome::Failed(format!("the Kubernetes API did not give the module: {error}")),
    }
}

fn log_write(outcome: &WriteOutcome<String>, object: &ObjectKey, what: &str) {
    match outcome {
        WriteOutcome::Done(_) | WriteOutcome::NotFound => {}
        WriteOutcome::Conflict => tracing::debug!(%object, what, "write conflict"),
        WriteOutcome::Throttled { retry_after_ms } => {
            tracing::warn!(
                %object,
                what,
                reason = "Throttled",
                retry_after_ms,
                "the Kubernetes API asks to slow down"
            );
        }
        WriteOutcome::Unavailable(error) => {
            tracing::warn!(
                %object,
                what,
                reason = "WriteFailed",
                error,
                "the Kubernetes API did not take a write"
            )
        }
        WriteOutcome::Rejected(error) => {
            tracing::error!(
                %object,
                what,
                reason = "WriteRefused",
                error,
                "the Kubernetes API refused a write"
            )
        }
    }
}

fn finish_write(
    metrics: &Metrics,
    operation: Operation,
    started: Instant,
    id: CallId,
    outcome: WriteOutcome<String>,
) -> Outcome {
    let failed = match &outcome {
        WriteOutcome::Done(_) | WriteOutcome::Conflict | WriteOutcome::NotFound => false,
        WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) | WriteOutcome::Rejected(_) => true,
    };
    metrics.observe(operation, started.elapsed().as_secs_f64(), failed);
    Outcome::Write { id, outcome }
}
