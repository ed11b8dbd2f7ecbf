//! Who the board is: what it was provisioned with, the key that it made itself, and the time at which gateways' certificates are
//! checked.

use alloc::{string::ToString as _, vec, vec::Vec};
use core::fmt;

use rustls_pki_types::CertificateDer;
use wasmbed_flash::provision::{self, Issued, ProvisionError};
use wasmbed_protocol::{
    DeviceUid, JoinStatement, KeyHash, encode_join_statement, limits::JOIN_STATEMENT_BYTES_MAX,
};
use wasmbed_supervisor::platform::{ChainFacts, Identity, IdentityError, Presented, Provisioned};
use wasmbed_tls::{
    Client, Credentials, CredentialsError, OwnId, P256Key, RandomSource, Session, Time, TlsError,
    certification_request, identity::PairingToken,
};
use zeroize::Zeroizing;

/// The board's clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// See [`Hardware::now_us`](crate::Hardware::now_us).
    pub(crate) now_us: fn() -> u64,
    /// See [`Hardware::unix_s`](crate::Hardware::unix_s).
    pub(crate) unix_s: fn() -> Option<u64>,
}

/// Keys, certificates and time.
pub(crate) struct BoardIdentity {
    provisioned: Own,
    /// The key that the board made; none with a provisioned operational one.
    made: Option<P256Key>,
    client: Client,
    random: &'static dyn RandomSource,
    clock: Clock,
    /// What time it is for certificates.
    pub(crate) time: Time,
}

/// What the board was provisioned with, read.
enum Own {
    Operational(P256Key, Credentials),
    Factory(P256Key, Credentials),
    Pairing(PairingToken),
}

impl BoardIdentity {
    /// Reads what was provisioned, and presents it if it is a chain.
    ///
    /// # Errors
    /// It can't be used: the board has to be provisioned again.
    pub(crate) fn open(
        identity: provision::Identity,
        services_roots: &[CertificateDer<'_>],
        time: Time,
        random: &'static dyn RandomSource,
        clock: Clock,
    ) -> Result<Self, Unusable> {
        let (provisioned, trust_domain) = match identity {
            provision::Identity::Operational(issued) => {
                let (key, chain) = open(issued)?;
                let credentials = Credentials::device(chain, &key)?;
                let trust_domain = credentials.id().trust_domain().to_string();
                (Own::Operational(key, credentials), trust_domain)
            }
            provision::Identity::Factory(issued) => {
                let (key, chain) = open(issued)?;
                let credentials = Credentials::factory(chain, &key)?;
                let trust_domain = credentials.id().trust_domain().to_string();
                (Own::Factory(key, credentials), trust_domain)
            }
            provision::Identity::Pairing { token, trust_domain } => {
                let token = Zeroizing::new(token);
                let token = token.parse().map_err(|_| ProvisionError::Part("pairing token"))?;
                (Own::Pairing(token), trust_domain)
            }
        };
        let mut client = Client::new(&trust_domain, services_roots, random)?;
        match &provisioned {
            Own::Operational(_, credentials) | Own::Factory(_, credentials) => {
                client.present(credentials.clone())?;
            }
            Own::Pairing(_) => {}
        }
        Ok(Self { provisioned, made: None, client, random, clock, time })
    }

    /// The trust domain of the board and of its gateways.
    pub(crate) fn trust_domain(&self) -> &str {
        self.client.trust_domain()
    }

    /// Begins a session with what is presented now.
    ///
    /// # Errors
    /// There is nothing to present, or a bug.
    pub(crate) fn connect(&mut self) -> Result<Session, TlsError> {
        let now_ms = self.now_ms();
        self.time.set_rtc((self.clock.unix_s)(), now_ms);
        self.client.connect(&self.time, now_ms)
    }

    fn now_ms(&self) -> u64 {
        (self.clock.now_us)() / 1_000
    }

    fn operational(&self) -> Result<&P256Key, IdentityError> {
        match &self.provisioned {
            Own::Operational(key, _) => Ok(key),
            Own::Factory(..) | Own::Pairing(_) => self.made.as_ref().ok_or(IdentityError::Unavailable),
        }
    }

    /// Credentials of a chain for the operational key.
    fn credentials(&self, chain: &[u8]) -> Result<Credentials, IdentityError> {
        let problem = |error: CredentialsError| IdentityError::Chain(error.to_string());
        let credentials = Credentials::device_of_bytes(chain, self.operational()?).map_err(problem)?;
        if credentials.id().trust_domain() != self.trust_domain() {
            return Err(problem(CredentialsError::TrustDomain));
        }
        Ok(credentials)
    }
}

/// For the console: what the board was provisioned with.
impl fmt::Display for BoardIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provisioned {
            Own::Operational(_, credentials) | Own::Factory(_, credentials) => match credentials.id() {
                OwnId::Device(id) => write!(f, "device={}/{}", id.namespace(), id.name()),
                OwnId::Factory(id) => write!(f, "factory={}", id.serial()),
                OwnId::Pairing(_) => f.write_str("pairing"),
            },
            Own::Pairing(token) => write!(f, "pairing={}", token.id()),
        }
    }
}

impl Identity for BoardIdentity {
    fn provisioned(&self) -> Provisioned {
        match &self.provisioned {
            Own::Operational(key, credentials) => {
                Provisioned::Operational { key: hash(key), facts: facts(credentials) }
            }
            Own::Factory(key, _) => Provisioned::Factory { key: hash(key) },
            Own::Pairing(token) => Provisioned::Pairing { id: token.id().to_string() },
        }
    }

    fn unix_s(&self) -> Option<u64> {
        self.time.at_least(self.now_ms())
    }

    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        let key = P256Key::generate(self.random).to_pkcs8().map_err(failed)?;
        Ok(key.to_vec())
    }

    fn use_key(&mut self, pkcs8: &[u8]) -> Result<KeyHash, IdentityError> {
        let key = P256Key::from_pkcs8(pkcs8)
            .ok_or_else(|| IdentityError::Key(CredentialsError::Key.to_string()))?;
        let hash = hash(&key);
        self.made = Some(key);
        Ok(hash)
    }

    fn request(&mut self) -> Result<Vec<u8>, IdentityError> {
        certification_request(self.operational()?).map_err(failed)
    }

    fn prove(
        &mut self,
        namespace: &str,
        name: &str,
        device_uid: DeviceUid,
    ) -> Result<Vec<u8>, IdentityError> {
        let key = hash(self.operational()?);
        let trust_domain = self.trust_domain();
        let statement = JoinStatement { key, trust_domain, namespace, name, device_uid };
        let mut bytes = vec![0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes)
            .map_err(|error| IdentityError::Failed(error.to_string()))?;
        bytes.truncate(length);
        match &self.provisioned {
            Own::Factory(key, _) => key.sign_der(&bytes).map_err(failed),
            Own::Pairing(token) => Ok(token.key().prove(&bytes).to_vec()),
            Own::Operational(..) => Err(IdentityError::Unavailable),
        }
    }

    fn check(&self, chain: &[u8]) -> Result<ChainFacts, IdentityError> {
        self.credentials(chain).map(|credentials| facts(&credentials))
    }

    fn present(&mut self, what: Presented<'_>) -> Result<(), IdentityError> {
        let credentials = match (what, &self.provisioned) {
            (Presented::Chain(chain), _) => self.credentials(chain)?,
            (Presented::Provisioned, Own::Operational(_, given) | Own::Factory(_, given)) => given.clone(),
            (Presented::Provisioned, Own::Pairing(_)) => {
                Credentials::pairing(self.trust_domain(), self.operational()?).map_err(failed)?
            }
        };
        self.client.present(credentials).map_err(|error| IdentityError::Chain(error.to_string()))
    }
}

/// A key and its chain. The key's bytes are overwritten once they were read.
fn open(issued: Issued) -> Result<(P256Key, Vec<CertificateDer<'static>>), CredentialsError> {
    let key = Zeroizing::new(Vec::from(issued.key));
    let key = P256Key::from_pkcs8(&key).ok_or(CredentialsError::Key)?;
    let chain = issued.chain.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect();
    Ok((key, chain))
}

fn hash(key: &P256Key) -> KeyHash {
    KeyHash::of(&key.public_key_info())
}

fn facts(credentials: &Credentials) -> ChainFacts {
    ChainFacts { not_before_s: credentials.not_before(), not_after_s: credentials.not_after() }
}

fn failed(error: TlsError) -> IdentityError {
    IdentityError::Failed(error.to_string())
}

/// Why what was provisioned can't be used.
pub(crate) enum Unusable {
    Part(ProvisionError),
    Credentials(TlsError),
}

impl From<ProvisionError> for Unusable {
    fn from(error: ProvisionError) -> Self {
        Self::Part(error)
    }
}

impl From<TlsError> for Unusable {
    fn from(error: TlsError) -> Self {
        Self::Credentials(error)
    }
}

impl From<CredentialsError> for Unusable {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(error.into())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(error) => error.fmt(f),
            Self::Credentials(error) => error.fmt(f),
        }
    }
}
