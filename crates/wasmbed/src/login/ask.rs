//! A request for a person's certificate: made as the person, and waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        certificates::v1::{
            CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use sha2::{Digest as _, Sha256};
use wasmbed_api::{GROUP, OPERATOR_SIGNER};
use wasmbed_control::access::Action;
use wasmbed_pki::{DeviceKey, pem_of};

use super::{Operator, Store};
use crate::{cluster::Cluster, output::harmless};

/// Told what is waited for, each thing once.
pub(crate) type Say<'a> = dyn Fn(&str) + Sync + 'a;

/// Between two looks at a request.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A controller and a signer take less than this: after it, it is said what is waited for.
const USUAL: Duration = Duration::from_secs(3);
/// PEM of a chain and roots.
const ISSUED_PEM_BYTES_MAX: usize = 64 * 1024;

/// Makes a request, or takes up the one that was waited for before, and waits for its end.
pub(super) async fn obtain(
    cluster: &Cluster,
    store: &Store,
    patience: Duration,
    say: &Say<'_>,
) -> Result<Operator> {
    let ask = Ask {
        cluster,
        store,
        requests: Api::all(cluster.client.clone()),
        until: Instant::now() + patience,
        say,
    };
    if let Some(key) = store.pending() {
        // Whatever became of it, there may be another one.
        if let Some(object) = ask.get(&name_of(&key)).await?.filter(|object| !is_refused(object)) {
            return ask.wait(&key, object).await;
        }
    }
    let key = store.begin()?;
    let object = ask.create(&key).await?;
    ask.wait(&key, object).await
}

struct Ask<'a> {
    cluster: &'a Cluster,
    store: &'a Store,
    requests: Api<CertificateSigningRequest>,
    until: Instant,
    say: &'a Say<'a>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Approval,
    Certificate,
}

impl Ask<'_> {
    async fn get(&self, name: &str) -> Result<Option<CertificateSigningRequest>> {
        self.requests.get_opt(name).await.map_err(|error| self.cluster.explain(error))
    }

    async fn create(&self, key: &DeviceKey) -> Result<CertificateSigningRequest> {
        let request = pem_of("CERTIFICATE REQUEST", [&*key.request()?]);
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(name_of(key)), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: OPERATOR_SIGNER.to_owned(),
                usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let params = PostParams { field_manager: Some("wasmbed-login".to_owned()), ..PostParams::default() };
        self.requests.create(&params, &object).await.map_err(|error| {
            let forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
            let error = self.cluster.explain(error);
            match forbidden {
                true => error.context("to log in a user needs what the ClusterRole wasmbed-login allows"),
                false => error,
            }
        })
    }

    async fn wait(&self, key: &DeviceKey, mut object: CertificateSigningRequest) -> Result<Operator> {
        let name = name_of(key);
        let user = harmless(object.spec.username.as_deref().unwrap_or_default()).into_owned();
        let (mut since, mut said, mut waits) = (Instant::now(), None, Waits::Approval);
        loop {
            if let Some(operator) = self.end(key, &object)? {
                return Ok(operator);
            }
            let now = if has(&object, "Approved").is_some() { Waits::Certificate } else { Waits::Approval };
            if now != waits {
                (waits, since) = (now, Instant::now());
            }
            if said != Some(waits) && since.elapsed() >= USUAL {
                said = Some(waits);
                (self.say)(&self.explain(waits, &name, &user).await);
            }
            ensure!(
                Instant::now() < self.until,
                "nobody has decided about the request {name} of user {user:?} yet; it stays, and wasmbed login goes on waiting for it"
            );
            tokio::time::sleep(LOOK_EVERY).await;
            object = match self.get(&name).await? {
                Some(object) => object,
                None => {
                    self.store.forget_pending()?;
                    bail!("the request {name} was deleted; log in again");
                }
            };
        }
    }

    /// The certificate, if the request has come to its end.
    fn end(&self, key: &DeviceKey, object: &CertificateSigningRequest) -> Result<Option<Operator>> {
        if let Some(pem) = object.status.as_ref().and_then(|status| status.certificate.as_ref()) {
            // Another one may have made a request of this name.
            let issued = issued(key, &pem.0);
            let issued = issued.inspect_err(|_| drop(self.store.forget_pending()));
            let operator = issued.context("what was issued can't be used")?;
            self.store.write(&operator)?;
            return Ok(Some(operator));
        }
        if let Some(refusal) = refusal(object) {
            self.store.forget_pending()?;
            return Err(refusal);
        }
        Ok(None)
    }

    async fn explain(&self, waits: Waits, name: &str, user: &str) -> String {
        let by_hand = format!("kubectl certificate approve {name}");
        match (waits, self.may_log_in().await) {
            (Waits::Certificate, _) => format!(
                "the request {name} is approved and waits for a signer that issues for operators (signer.operators in its configuration)"
            ),
            (Waits::Approval, Some(true)) => {
                format!(
                    "the request {name} waits for a controller that approves it; somebody can do it: {by_hand}"
                )
            }
            (Waits::Approval, _) => format!(
                "user {user:?} may not log in by itself (the ClusterRole wasmbed-login allows it); somebody can approve the request: {by_hand}"
            ),
        }
    }

    async fn may_log_in(&self) -> Option<bool> {
        let Action { verb, resource, subresource, .. } = Action::login();
        let review = SelfSubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    verb: Some(verb.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: Some(subresource.to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            status: None,
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.cluster.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
        Some(answer.status?.allowed)
    }
}

/// By its key: a command that ended while it waited finds its request again.
fn name_of(key: &DeviceKey) -> String {
    format!("wasmbed-operator-{}", hex::encode(&Sha256::digest(key.public_key_info())[..10]))
}

fn has<'a>(
    object: &'a CertificateSigningRequest,
    name: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = object.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == name)
}

fn is_refused(object: &CertificateSigningRequest) -> bool {
    refusal(object).is_some()
}

fn refusal(object: &CertificateSigningRequest) -> Option<anyhow::Error> {
    let (verb, condition) = match (has(object, "Denied"), has(object, "Failed")) {
        (Some(denied), _) => ("denied", denied),
        (None, Some(failed)) => ("refused by the signer", failed),
        (None, None) => return None,
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let text = |text: &Option<String>| harmless(text.as_deref().unwrap_or_default()).into_owned();
    let (reason, message) = (text(&condition.reason), text(&condition.message));
    Some(anyhow!("the request {name} was {verb}: {reason}: {message}"))
}

fn issued(key: &DeviceKey, pem: &[u8]) -> Result<Operator> {
    ensure!(pem.len() <= ISSUED_PEM_BYTES_MAX, "it has more than {ISSUED_PEM_BYTES_MAX} bytes");
    let pem = std::str::from_utf8(pem).context("it is no PEM")?;
    Operator::from_pem(pem, &pem_of("PRIVATE KEY", [key.pkcs8()]))
}
