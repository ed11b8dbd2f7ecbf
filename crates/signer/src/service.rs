//! The process: every request is looked at when it changes, when its Device's spec changes, and from time to time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmbed_api::{
    DEVICE_SIGNER, Device, ReasonCode, SIGNER_COMPONENT, pairing_secret, request_annotation as annotation,
};
use wasmbed_control::{
    ObjectKey,
    kubernetes::{Event, Regarding},
    signer::{Candidate, Evidence, Missing, Step, Waiting, Work, has, is_finished, used_token, version},
};
use wasmbed_identity::{PairingKey, PairingToken};
use wasmbed_kubernetes::{CallError, Caller, bounded};
use wasmbed_pki::{DeviceIssuer, PkiError, Renewed, read_certificates};
use wasmbed_telemetry::{Health, ProcessMetrics as _, Readiness, serve_health};

use crate::{
    Asked, Config, Error, PkiFiles, Verifier,
    answer::{Answers, within},
    files::follow_files,
    logins::Logins,
    metrics::Metrics,
    pairing::pairing_key,
};

/// Requests that are worked on at once: each is some calls to the API and less than a millisecond of verification.
const CONCURRENCY: u16 = 8;
/// A request that waits is looked at again after this, should a change be missed.
const WAIT: Duration = Duration::from_secs(60);
/// Before another try of a call that failed.
const RETRY: Duration = Duration::from_secs(5);
/// A controller approves a request with a proof at once: before this, nobody is told that one is not approved.
const APPROVAL_TAKES: Duration = Duration::from_secs(10);

/// A signer that runs.
pub struct Handle {
    /// Where health and metrics are served.
    pub health: SocketAddr,
    join: JoinHandle<Result<(), Error>>,
}

impl Handle {
    /// Waits for the end: after `shutdown` was cancelled, or because a part failed.
    ///
    /// # Errors
    /// A part of it failed.
    pub async fn wait(self) -> Result<(), Error> {
        self.join.await.unwrap_or_else(|error| Err(Error::Task(error.to_string())))
    }
}

/// What it signs with and verifies against.
struct Authority {
    issuer: DeviceIssuer,
    verifier: Verifier,
}

impl Authority {
    fn read(files: &PkiFiles, trust_domain: &str) -> Result<Self, Error> {
        let factory = files.factory_roots.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
        let devices = read_certificates(&files.devices_roots)?;
        Ok(Self {
            issuer: DeviceIssuer::open(&files.certificate, &files.key, trust_domain)?,
            verifier: Verifier::new(trust_domain, &factory, &devices)?,
        })
    }
}

struct Signer {
    caller: Caller,
    answers: Answers,
    secrets: Api<Secret>,
    authority: Arc<Renewed<Authority, Error>>,
    lifetime: Duration,
    metrics: Metrics,
    waiting: Arc<Mutex<Waiting>>,
    started: Instant,
}

/// Starts a signer and returns once its health port is bound. `shutdown` ends it.
///
/// # Errors
/// The configuration can't be used or the health port can't be bound.
pub fn start(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<Handle, Error>> {
    // Boxed, so that all of it is compiled with this crate and not once more with each program that starts it.
    Box::pin(bind_and_start(config, shutdown))
}

async fn bind_and_start(config: Config, shutdown: CancellationToken) -> Result<Handle, Error> {
    let authority = open(&config)?;
    let client = Client::try_from(bounded(config.kube.clone()))?;
    let address = config.health.listen;
    let listen_failed = |source| Error::Listen { address, source };
    let listener = wasmbed_telemetry::listen(address).map_err(listen_failed)?;
    let health_address = listener.local_addr().map_err(listen_failed)?;
    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let answers = Answers::new(client.clone(), metrics.clone());
    let logins = match &config.operators {
        Some(operators) => Some(Logins::open(operators, &config.trust_domain, answers.clone())?),
        None => None,
    };
    let signer = Arc::new(Signer {
        caller: Caller::new(client.clone(), SIGNER_COMPONENT, config.name.as_str()),
        answers: answers.clone(),
        secrets: Api::namespaced(client.clone(), &config.secrets_namespace),
        authority: Arc::clone(&authority),
        lifetime: config.lifetime,
        metrics,
        waiting: Arc::default(),
        started: Instant::now(),
    });
    let health = Health::starting(&["kubernetes"]);
    let path = config.health.path.clone();
    let join = tokio::spawn(async move {
        let renewals = tokio::spawn(follow_files(authority, shutdown.clone()));
        let people = logins.map(|logins| tokio::spawn(logins.follow(client.clone(), shutdown.clone())));
        let requests = tokio::spawn(follow_requests(client, signer, health.clone(), shutdown.clone()));
        let served = serve_health(listener, health, Arc::new(registry), &path, shutdown).await;
        renewals.abort();
        requests.await.map_err(|error| Error::Task(format!("requests: {error}")))?;
        if let Some(people) = people {
            people.await.map_err(|error| Error::Task(format!("people's requests: {error}")))?;
        }
        served.map_err(|source| Error::Listen { address, source })
    });
    Ok(Handle { health: health_address, join })
}

fn open(config: &Config) -> Result<Arc<Renewed<Authority, Error>>, Error> {
    let PkiFiles { certificate, key, devices_roots, factory_roots } = &config.files;
    let names = [certificate, key, devices_roots].into_iter().chain(factory_roots).cloned();
    let (files, trust_domain) = (config.files.clone(), config.trust_domain.clone());
    Renewed::open(names.collect::<Vec<_>>(), move || Authority::read(&files, &trust_domain)).map(Arc::new)
}

async fn follow_requests(client: Client, signer: Arc<Signer>, health: Health, stop: CancellationToken) {
    let selected = watcher::Config::default().fields(&format!("spec.signerName={DEVICE_SIGNER}"));
    let requests = Controller::new(Api::<CertificateSigningRequest>::all(client.clone()), selected)
        .with_config(controller::Config::default().concurrency(CONCURRENCY));
    let store = requests.store();
    let listed = tokio::spawn(ready_once_listed(signer.answers.requests().clone(), health));
    let waiting = Arc::clone(&signer.waiting);
    let context = Arc::new(Context { signer, store });
    let devices = Api::<PartialObjectMeta<Device>>::all(client);
    requests
        .watches(devices, watcher::Config::default(), move |device| concerned(&lock(&waiting), &device))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|result| async {
            match result {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(controller::Error::ReconcilerFailed(error, request)) => tracing::warn!(
                    reason = "CallFailed",
                    request = request.name,
                    %error,
                    "a request could not be worked on; it is tried again"
                ),
                Err(error) => tracing::warn!(
                    reason = "WatchFailed",
                    %error,
                    "a watch of the Kubernetes API failed; it is started again"
                ),
            }
        })
        .await;
    listed.abort();
}

/// Asked apart from the controller's store: of two that wait for a store to be filled, one is never woken.
async fn ready_once_listed(requests: Api<CertificateSigningRequest>, health: Health) {
    let one = ListParams::default().fields(&format!("spec.signerName={DEVICE_SIGNER}")).limit(1);
    while let Err(error) = within(requests.list_metadata(&one)).await {
        tracing::warn!(reason = "CallFailed", %error, "requests for certificates can't be listed; it is tried again");
        tokio::time::sleep(RETRY).await;
    }
    health.set("kubernetes", Readiness::Ready);
}

/// What a request is worked on with.
struct Context {
    signer: Arc<Signer>,
    store: Store<CertificateSigningRequest>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The requests to which a version of a Device is news.
fn concerned(
    waiting: &Waiting,
    device: &PartialObjectMeta<Device>,
) -> Vec<ObjectRef<CertificateSigningRequest>> {
    let Some(key) = ObjectKey::of(&device.metadata) else { return Vec::new() };
    let version = version(&device.metadata);
    let requests = waiting.concerned(&key.to_string(), &version);
    requests.iter().map(|request| ObjectRef::new(request)).collect()
}

async fn reconcile(
    object: Arc<CertificateSigningRequest>,
    context: Arc<Context>,
) -> Result<Action, CallError> {
    if object.spec.signer_name != DEVICE_SIGNER {
        return Ok(Action::await_change());
    }
    let Context { signer, store } = &*context;
    let name = object.name_any();
    let device = object.annotations().get(annotation::DEVICE).cloned().unwrap_or_default();
    if is_finished(&object) {
        lock(&signer.waiting).end(&device, &name);
        if let Some(token) = used_token(&object) {
            signer.forget_token(token).await.inspect_err(|_| signer.metrics.count_error())?;
        }
        return Ok(Action::await_change());
    }
    lock(&signer.waiting).begin(&device, &name, |request| {
        store.get(&ObjectRef::new(request)).is_some_and(|request| !is_finished(&request))
    });
    match signer.work_on(&object).await {
        // Someone approved it meanwhile, or another signer was first: the watch brings what it is now.
        Err(error) if error.is_conflict() => Ok(Action::requeue(RETRY)),
        Err(error) => {
            signer.metrics.count_error();
            Err(error)
        }
        Ok(action) => Ok(action),
    }
}

impl Signer {
    async fn work_on(&self, object: &CertificateSigningRequest) -> Result<Action, CallError> {
        let asked = match Asked::read(object) {
            Ok(asked) => asked,
            Err(malformed) => {
                return self.answers.refuse(object, "Malformed", &malformed.to_string()).await;
            }
        };
        let authority = self.authority.current();
        let mut work = Work::new(asked.facts(has(object, "Approved")));
        let (mut pairing, mut chain, mut kind) = (None, String::new(), "nothing");
        loop {
            match work.step().clone() {
                Step::ReadDevice => {
                    let device = self.caller.get::<Device>(&asked.device).await?;
                    let seen = device.as_ref().map(|device| version(&device.metadata));
                    lock(&self.waiting).saw(&asked.device.to_string(), &object.name_any(), seen);
                    work.handle_device(device.as_ref().and_then(Candidate::read));
                }
                Step::ReadToken(id) => {
                    pairing = self.pairing_key(&id).await?;
                    work.handle_token();
                }
                Step::Examine => {
                    let evidence = authority.verifier.examine(&asked, pairing.as_ref(), unix_now());
                    kind = kind_of(&evidence);
                    work.handle_evidence(evidence);
                }
                Step::Wait(missing) => return Ok(self.wait(object, &asked, missing).await),
                Step::Refuse(reason, message) => {
                    return self.answers.refuse(object, reason, &message).await;
                }
                Step::Certify => {
                    let made = self.certify(&asked, &authority.issuer);
                    work.handle_certified(made.map(|made| chain = made));
                }
                Step::Pin(uid) => {
                    let key = STANDARD.encode(asked.request.public_key_info());
                    let pinned =
                        json!({ "metadata": { "uid": uid.to_string() }, "status": { "public_key": key } });
                    self.caller.merge_status::<Device>(&asked.device, &pinned).await?;
                    work.handle_pinned();
                }
                Step::Answer => {
                    self.answers.certificate(object, &chain).await?;
                    work.handle_answered();
                }
                Step::Done => break,
            }
        }
        tracing::info!(
            request = object.name_any(),
            device = %asked.device,
            key = %asked.key,
            evidence = kind,
            requestor = object.spec.username.as_deref().unwrap_or_default(),
            "a certificate was issued"
        );
        Ok(Action::await_change())
    }

    fn certify(&self, asked: &Asked, issuer: &DeviceIssuer) -> Result<String, PkiError> {
        let ObjectKey { namespace, name } = &asked.device;
        let uid = asked.device_uid.to_string();
        issuer.issue(&asked.request, namespace, name, &uid, self.lifetime.as_secs())
    }

    /// Says at the Device what a request waits for, where a person looks for it.
    async fn wait(&self, object: &CertificateSigningRequest, asked: &Asked, missing: Missing) -> Action {
        let (name, device) = (object.name_any(), asked.device.to_string());
        tracing::debug!(request = name, device, %missing, "a request waits");
        let since = object.metadata.creation_timestamp.as_ref();
        let since = since.map_or(0, |time| u64::try_from(time.0.as_millisecond()).unwrap_or(0));
        let age = Duration::from_millis(unix_now().saturating_mul(1_000).saturating_sub(since));
        let (reason, what) = match missing {
            Missing::Approval if age < APPROVAL_TAKES => return Action::requeue(APPROVAL_TAKES - age),
            Missing::Approval => {
                (ReasonCode::RequestNotApproved, format!("kubectl certificate approve {name}"))
            }
            Missing::DeviceApproval => (ReasonCode::PendingApproval, format!("request {name}")),
            Missing::KeyConfirmation => {
                (ReasonCode::KeyNotConfirmed, format!("request {name}, fingerprint {}", asked.key))
            }
        };
        // A process runs for less than 500 million years.
        let now_ms = self.started.elapsed().as_millis() as u64;
        if lock(&self.waiting).is_to_be_told(&device, &name, reason, now_ms) {
            // By the time of the request: of several signers, one makes it.
            let event = Event {
                regarding: Regarding::device(asked.device.clone(), asked.device_uid),
                warning: false,
                reason,
                message: format!("{missing} ({what})"),
                unix_ms: since,
            };
            if let Err(error) = self.caller.write_event(&event).await {
                lock(&self.waiting).was_not_told(&device, &name);
                self.metrics.count_error();
                tracing::warn!(reason = "CallFailed", request = name, %error, "an Event was not written; it is tried again");
            }
        }
        Action::requeue(WAIT)
    }

    async fn pairing_key(&self, id: &str) -> Result<Option<PairingKey>, CallError> {
        // The id is a gateway's word: only what can be the name of such a Secret is asked for.
        if !PairingToken::is_id(id) {
            return Ok(None);
        }
        let secret = within(self.secrets.get_opt(&pairing_secret(id))).await?;
        Ok(secret.and_then(|secret| pairing_key(secret, Timestamp::now())))
    }

    /// Deletes the Secret of a token that was used, if it is there still.
    async fn forget_token(&self, id: &str) -> Result<(), CallError> {
        if !PairingToken::is_id(id) {
            return Ok(());
        }
        match within(self.secrets.delete(&pairing_secret(id), &Default::default())).await {
            Err(error) if error.status() != Some(404) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn kind_of(evidence: &Evidence) -> &'static str {
    match evidence {
        Evidence::None => "a person's confirmation",
        Evidence::Factory { .. } => "a factory key",
        Evidence::Pairing { .. } => "a pairing token",
        Evidence::Renewal { .. } => "the certificate before",
        Evidence::Refuted(_) => "nothing",
    }
}

/// Seconds since 1970-01-01T00:00:00Z.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
