//! Who a Linux device is: certificates and keys with the host's cryptography, and the TLS configuration that follows from them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::UnixTime;
use wasmbed_pki::{
    Addressee, DeviceKey, FactoryId, Identity, OrderRefusal, PairingToken, PkiError, Role, SpiffeId,
    check_order, split_chain,
    statement::{Proof, SignError, SignedOrder},
    tls::{ClientParams, Profile, client_config},
};
use wasmbed_protocol::{
    DeviceUid, JoinStatement, KeyHash, encode_join_statement, limits::JOIN_STATEMENT_BYTES_MAX,
};
use wasmbed_supervisor::platform::{ChainFacts, IdentityError, Ordered, Presented, Provisioned};

use crate::config::{DeviceError, DeviceIdentity};

/// What the link presents now, and what the log calls the device.
#[derive(Clone, Debug)]
pub(crate) struct Presence(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    /// None before there is anything to present.
    tls: Option<Arc<ClientConfig>>,
    name: Arc<str>,
}

impl Presence {
    fn with<R>(&self, act: impl FnOnce(&mut Shown) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.with(|shown| shown.tls.clone())
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.with(|shown| Arc::clone(&shown.name))
    }
}

/// The identity of a device on this host.
pub(crate) struct HostIdentity {
    given: Given,
    roots: Arc<RootCertStore>,
    trust_domain: Arc<str>,
    /// The key that the device made.
    key: Option<DeviceKey>,
    /// Who the presented certificate says that this is; none while it is no device's.
    presented: Option<OwnId>,
    presence: Presence,
}

/// A device's certificate, as far as orders go.
#[derive(Clone)]
struct OwnId {
    id: SpiffeId,
    device_uid: Option<DeviceUid>,
}

impl OwnId {
    fn of(identity: &Identity, id: SpiffeId) -> Self {
        let device_uid = identity.facts().subject_serial.as_ref().and_then(|serial| serial.parse().ok());
        Self { id, device_uid }
    }
}

enum Given {
    /// Without a key that requests can be signed with it is never renewed.
    Operational {
        key: Option<DeviceKey>,
        facts: ChainFacts,
        tls: Arc<ClientConfig>,
        name: Arc<str>,
        own: OwnId,
    },
    Factory {
        key: DeviceKey,
        tls: Arc<ClientConfig>,
        name: Arc<str>,
    },
    Pairing {
        token: PairingToken,
        name: Arc<str>,
    },
    /// Its key was erased.
    Erased {
        name: Arc<str>,
    },
}

impl Given {
    /// What the log calls the device while it has nothing else: `namespace/name`, `factory/SERIAL` or `pairing/ID`.
    fn name(&self) -> &Arc<str> {
        match self {
            Self::Operational { name, .. }
            | Self::Factory { name, .. }
            | Self::Pairing { name, .. }
            | Self::Erased { name } => name,
        }
    }
}

impl HostIdentity {
    pub(crate) fn new(identity: DeviceIdentity, roots: Arc<RootCertStore>) -> Result<Self, DeviceError> {
        let (given, trust_domain): (Given, Arc<str>) = match identity {
            DeviceIdentity::Operational(identity) => {
                let id = identity.spiffe_id()?;
                if id.role() != Role::Device {
                    return Err(DeviceError::NotADevice(id));
                }
                let tls = tls_config(&identity, &roots, id.trust_domain())?;
                let (key, facts) = (DeviceKey::of(&identity), chain_facts(&identity));
                if let Err(error) = &key {
                    tracing::warn!(%error, "the certificate is never renewed: its key is not ECDSA P-256 in PKCS #8");
                }
                let (key, trust_domain) = (key.ok(), id.trust_domain().into());
                let (name, own) = (name_of(&id), OwnId::of(&identity, id));
                (Given::Operational { key, facts, tls, name, own }, trust_domain)
            }
            DeviceIdentity::Factory(identity) => {
                let id = factory_id(&identity)?;
                let tls = tls_config(&identity, &roots, id.trust_domain())?;
                let name = format!("factory/{}", id.serial()).into();
                (Given::Factory { key: DeviceKey::of(&identity)?, tls, name }, id.trust_domain().into())
            }
            DeviceIdentity::Pairing { token, trust_domain } => {
                // Any id will do: it is the trust domain that is checked.
                if SpiffeId::new(&trust_domain, "default", Role::Device, "any").is_err() {
                    return Err(DeviceError::TrustDomain(trust_domain));
                }
                let name = format!("pairing/{}", token.id()).into();
                (Given::Pairing { token, name }, trust_domain.into())
            }
        };
        let shown = Shown { tls: None, name: Arc::clone(given.name()) };
        let presence = Presence(Arc::new(Mutex::new(shown)));
        Ok(Self { given, roots, trust_domain, key: None, presented: None, presence })
    }

    /// A name that no other identity of a fleet has: two parts with `/` between them.
    pub(crate) fn name(&self) -> &str {
        self.given.name()
    }

    pub(crate) fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    pub(crate) fn presence(&self) -> Presence {
        self.presence.clone()
    }

    fn operational_key(&self) -> Result<&DeviceKey, IdentityError> {
        match &self.given {
            Given::Operational { key, .. } => key.as_ref().ok_or(IdentityError::Unavailable),
            Given::Factory { .. } | Given::Pairing { .. } | Given::Erased { .. } => {
                self.key.as_ref().ok_or(IdentityError::Unavailable)
            }
        }
    }

    /// An identity with a chain for the operational key.
    fn with_chain(&self, chain: &[u8]) -> Result<(Identity, SpiffeId), IdentityError> {
        let problem = |error: &dyn std::error::Error| IdentityError::Chain(error.to_string());
        let chain = split_chain(chain).map_err(|error| problem(&error))?;
        let identity = self.operational_key()?.with_chain(chain).map_err(|error| problem(&error))?;
        let id = identity.spiffe_id().map_err(|error| problem(&error))?;
        let id = id.require(&self.trust_domain, &[Role::Device]).map_err(|error| problem(&error))?;
        Ok((identity, id))
    }
}

impl wasmbed_supervisor::platform::Identity for HostIdentity {
    fn provisioned(&self) -> Provisioned {
        match &self.given {
            Given::Operational { key: None, .. } | Given::Erased { .. } => Provisioned::Fixed,
            Given::Operational { key: Some(key), facts, .. } => {
                Provisioned::Operational { key: KeyHash::of(&key.public_key_info()), facts: *facts }
            }
            Given::Factory { key, .. } => Provisioned::Factory { key: KeyHash::of(&key.public_key_info()) },
            Given::Pairing { token, .. } => Provisioned::Pairing { id: token.id().to_string() },
        }
    }

    fn unix_s(&self) -> Option<u64> {
        SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|elapsed| elapsed.as_secs())
    }

    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        DeviceKey::generate().map(|key| key.pkcs8().to_vec()).map_err(|error| failed(&error))
    }

    fn use_key(&mut self, pkcs8: &[u8]) -> Result<KeyHash, IdentityError> {
        let key = DeviceKey::from_pkcs8(pkcs8).map_err(|error| IdentityError::Key(error.to_string()))?;
        let hash = KeyHash::of(&key.public_key_info());
        self.key = Some(key);
        Ok(hash)
    }

    fn request(&mut self) -> Result<Vec<u8>, IdentityError> {
        self.operational_key()?.request().map_err(|error| failed(&error))
    }

    fn prove(
        &mut self,
        namespace: &str,
        name: &str,
        device_uid: DeviceUid,
    ) -> Result<Vec<u8>, IdentityError> {
        let key = KeyHash::of(&self.operational_key()?.public_key_info());
        let statement = JoinStatement { key, trust_domain: &self.trust_domain, namespace, name, device_uid };
        let mut bytes = [0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes).map_err(|error| failed(&error))?;
        let statement = &bytes[..length];
        match &self.given {
            Given::Operational { .. } | Given::Erased { .. } => Err(IdentityError::Unavailable),
            Given::Factory { key, .. } => key.sign(statement).map_err(|error| failed(&error)),
            Given::Pairing { token, .. } => Ok(token.key().prove(statement).to_vec()),
        }
    }

    fn check(&self, chain: &[u8]) -> Result<ChainFacts, IdentityError> {
        let (identity, id) = self.with_chain(chain)?;
        if let Given::Operational { name, .. } = &self.given
            && *name != name_of(&id)
        {
            return Err(IdentityError::Chain(format!("it is for {id}, and this device is {name}")));
        }
        Ok(chain_facts(&identity))
    }

    fn present(&mut self, what: Presented<'_>) -> Result<(), IdentityError> {
        let config = |identity: &Identity| {
            tls_config(identity, &self.roots, &self.trust_domain).map_err(|error| failed(&error))
        };
        let (tls, name, own) = match (what, &self.given) {
            (Presented::Chain(chain), _) => {
                let (identity, id) = self.with_chain(chain)?;
                (config(&identity)?, name_of(&id), Some(OwnId::of(&identity, id)))
            }
            (Presented::Provisioned, Given::Operational { tls, name, own, .. }) => {
                (Arc::clone(tls), Arc::clone(name), Some(own.clone()))
            }
            (Presented::Provisioned, Given::Factory { tls, name, .. }) => {
                (Arc::clone(tls), Arc::clone(name), None)
            }
            (Presented::Provisioned, Given::Pairing { name, .. }) => {
                let identity = self.operational_key()?.self_signed().map_err(|error| failed(&error))?;
                (config(&identity)?, Arc::clone(name), None)
            }
            (Presented::Provisioned, Given::Erased { .. }) => return Err(IdentityError::Unavailable),
        };
        self.presented = own;
        self.presence.with(|shown| *shown = Shown { tls: Some(tls), name });
        Ok(())
    }

    fn check_order(&mut self, order: &[u8]) -> Result<Ordered, IdentityError> {
        let refused = |refusal: &dyn std::error::Error| IdentityError::Order(refusal.to_string());
        let signed = SignedOrder::decode(order).map_err(|error| refused(&OrderRefusal::from(error)))?;
        let OwnId { id, device_uid } = self.presented.as_ref().ok_or(IdentityError::Unavailable)?;
        let to = Addressee { id, device_uid: *device_uid };
        let now = self.unix_s().ok_or(IdentityError::Unavailable)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        check_order(&signed, &to, &self.roots, now).map_err(|refusal| refused(&refusal))?;
        let order = signed.order();
        Ok(Ordered { device_uid: order.device_uid, nonce: order.nonce })
    }

    fn sign_proof(&mut self, proof: &Proof) -> Result<Vec<u8>, IdentityError> {
        let key = self.operational_key()?;
        proof.sign(|message| key.sign(message)).map_err(|error: SignError<PkiError>| failed(&error))
    }

    fn forget_keys(&mut self) {
        let name = Arc::clone(self.given.name());
        (self.given, self.key, self.presented) = (Given::Erased { name }, None, None);
        self.presence.with(|shown| shown.tls = None);
    }
}

fn failed(error: &dyn std::error::Error) -> IdentityError {
    IdentityError::Failed(error.to_string())
}

fn name_of(id: &SpiffeId) -> Arc<str> {
    format!("{}/{}", id.namespace(), id.name()).into()
}

/// The one id of a factory.
fn factory_id(identity: &Identity) -> Result<FactoryId, DeviceError> {
    match identity.facts().uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        uris => Err(wasmbed_pki::CertificateError::UriCount(uris.len()).into()),
    }
}

fn chain_facts(identity: &Identity) -> ChainFacts {
    let facts = identity.facts();
    // Nothing of ours was valid before 1970.
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    ChainFacts { not_before_s: seconds(facts.not_before), not_after_s: seconds(facts.not_after) }
}

fn tls_config(
    identity: &Identity,
    roots: &Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<Arc<ClientConfig>, DeviceError> {
    Ok(client_config(ClientParams {
        profile: Profile::Device,
        identity,
        roots: Arc::clone(roots),
        trust_domain,
        gateway: None,
        time: None,
    })?)
}
