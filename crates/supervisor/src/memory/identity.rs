//! Keys and certificates without cryptography: everything follows from a seed, and a gateway in the same process can check it.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use wasmbed_protocol::{DeviceUid, JoinStatement, KeyHash, encode_join_statement, limits};
use wasmbed_statement::{Order, Proof, SignedOrder, SignedProof};

use super::{MemoryLink, SeededEntropy};
use crate::platform::{ChainFacts, Entropy as _, Identity, IdentityError, Ordered, Presented, Provisioned};

/// The trust domain of every identity in memory.
pub const TRUST_DOMAIN: &str = "memory";

const REQUEST: &[u8] = b"request:";
const CHAIN: &[u8] = b"chain:";
const PUBLIC_KEY: &[u8] = b"public key ";

/// The key in a request.
#[must_use]
pub fn requested_key(request: &[u8]) -> Option<KeyHash> {
    read_request(request).map(|(key, _)| key)
}

/// What stands for the `SubjectPublicKeyInfo` in the request of a device that joined; [`requested_key`] is of it.
#[must_use]
pub fn requested_public_key(request: &[u8]) -> Option<&[u8]> {
    read_request(request).map(|(_, info)| info).filter(|info| !info.is_empty())
}

fn read_request(request: &[u8]) -> Option<(KeyHash, &[u8])> {
    let (key, info) = request.strip_prefix(REQUEST)?.split_first_chunk()?;
    let key = KeyHash(*key);
    (info.is_empty() || KeyHash::of(info) == key).then_some((key, info))
}

/// A chain for a key; `length` is what it is padded to.
#[must_use]
pub fn chain(key: KeyHash, facts: ChainFacts, length: usize) -> Vec<u8> {
    let (begin, end) = (facts.not_before_s.to_le_bytes(), facts.not_after_s.to_le_bytes());
    let mut chain = [CHAIN, &key.0, &begin, &end].concat();
    chain.resize(length.max(chain.len()), 0);
    chain
}

/// What such a chain says.
#[must_use]
pub fn read_chain(chain: &[u8]) -> Option<(KeyHash, ChainFacts)> {
    let (key, rest) = chain.strip_prefix(CHAIN)?.split_first_chunk()?;
    let (begin, rest) = rest.split_first_chunk()?;
    let (end, _) = rest.split_first_chunk()?;
    let (not_before_s, not_after_s) = (u64::from_le_bytes(*begin), u64::from_le_bytes(*end));
    Some((KeyHash(*key), ChainFacts { not_before_s, not_after_s }))
}

/// The proof of whoever was provisioned so, that a key is to be this Device's.
#[must_use]
pub fn proof(
    provisioned: &Provisioned,
    key: KeyHash,
    namespace: &str,
    name: &str,
    device_uid: DeviceUid,
) -> Option<Vec<u8>> {
    let secret = match provisioned {
        Provisioned::Fixed | Provisioned::Operational { .. } => return None,
        Provisioned::Factory { key } => key.0.to_vec(),
        Provisioned::Pairing { id } => id.as_bytes().to_vec(),
    };
    let statement = JoinStatement { key, trust_domain: TRUST_DOMAIN, namespace, name, device_uid };
    let mut bytes = vec![0; limits::JOIN_STATEMENT_BYTES_MAX];
    let length = encode_join_statement(&statement, &mut bytes).ok()?;
    Some(KeyHash::of(&[&secret, bytes.get(..length)?].concat()).0.to_vec())
}

/// What stands for a controller's certificate.
pub const CONTROLLER: &[u8] = b"controller";
/// The id that orders name for a device, unless it has another.
pub const DEVICE: &str = "spiffe://memory/ns/default/device/joined";

/// What passes for an ECDSA signature: whoever knows the key's name can make it.
fn signature(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut half = KeyHash::of(&[key, message].concat()).0;
    // A positive integer in its shortest form.
    half[0] = 1;
    let integer = [&[0x02, 32][..], &half].concat();
    [&[0x30, 68][..], &integer, &integer].concat()
}

fn verify(key: &[u8], message: &[u8], given: &[u8]) -> Result<(), IdentityError> {
    let expected = signature(key, message);
    if expected == given { Ok(()) } else { Err(IdentityError::Order("another signature".to_string())) }
}

/// A controller's order; [`CONTROLLER`] is whose it has to be.
#[must_use]
pub fn order(controller: &[u8], device: &str, ordered: Ordered) -> Vec<u8> {
    let Ordered { device_uid, nonce } = ordered;
    let order = Order { device, device_uid, nonce };
    let sign = |message: &[u8]| Ok::<_, core::convert::Infallible>(signature(controller, message));
    order.sign(&[controller], sign).unwrap_or_default()
}

/// What a proof by this key says, if it is one.
#[must_use]
pub fn read_proof(proof: &[u8], key: KeyHash) -> Option<Proof> {
    let signed = SignedProof::decode(proof).ok()?;
    signed.verify(|message, given| verify(&key.0, message, given)).ok()?;
    Some(*signed.proof())
}

/// The identity of a board in memory.
#[derive(Clone, Debug)]
pub struct MemoryIdentity {
    /// What it was provisioned with; may be changed before the board starts.
    pub provisioned: Provisioned,
    /// The time that the board knows by itself.
    pub unix_s: Option<u64>,
    /// What the next calls answer instead of computing.
    pub failures: VecDeque<IdentityError>,
    /// Keys made since the board started.
    pub keys_made: u32,
    /// The id that the device's certificate names.
    pub device: String,
    /// The UID that it names.
    pub device_uid: Option<DeviceUid>,
    /// Orders judged since the board started.
    pub orders_judged: u32,
    /// Whether the keys were dropped.
    pub has_forgotten: bool,
    key: Option<KeyHash>,
    public_key: Vec<u8>,
    entropy: SeededEntropy,
    link: MemoryLink,
}

impl MemoryIdentity {
    /// Neither joins nor renews.
    pub(super) fn new(link: MemoryLink, seed: u64) -> Self {
        Self {
            provisioned: Provisioned::Fixed,
            unix_s: None,
            failures: VecDeque::new(),
            keys_made: 0,
            device: String::from(DEVICE),
            device_uid: None,
            orders_judged: 0,
            has_forgotten: false,
            key: None,
            public_key: Vec::new(),
            entropy: SeededEntropy(!seed),
            link,
        }
    }

    /// What stands for the `SubjectPublicKeyInfo` of the key that it made, once that is in use.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8]> {
        self.key.is_some().then_some(&self.public_key)
    }

    fn fail(&mut self) -> Result<(), IdentityError> {
        self.failures.pop_front().map_or(Ok(()), Err)
    }

    fn key(&self) -> Result<KeyHash, IdentityError> {
        if self.has_forgotten {
            return Err(IdentityError::Unavailable);
        }
        match &self.provisioned {
            Provisioned::Operational { key, .. } => Ok(*key),
            Provisioned::Fixed | Provisioned::Factory { .. } | Provisioned::Pairing { .. } => {
                self.key.ok_or(IdentityError::Unavailable)
            }
        }
    }
}

impl Identity for MemoryIdentity {
    fn provisioned(&self) -> Provisioned {
        self.provisioned.clone()
    }

    fn unix_s(&self) -> Option<u64> {
        self.unix_s
    }

    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        self.fail()?;
        self.keys_made += 1;
        let mut key = vec![0; 32];
        self.entropy.fill(&mut key);
        Ok(key)
    }

    fn use_key(&mut self, pkcs8: &[u8]) -> Result<KeyHash, IdentityError> {
        self.fail()?;
        if pkcs8.len() != 32 {
            return Err(IdentityError::Key(String::from("it has another length")));
        }
        self.public_key = [PUBLIC_KEY, &KeyHash::of(pkcs8).0].concat();
        let key = KeyHash::of(&self.public_key);
        self.key = Some(key);
        Ok(key)
    }

    fn request(&mut self) -> Result<Vec<u8>, IdentityError> {
        self.fail()?;
        Ok([REQUEST, &self.key()?.0, &self.public_key].concat())
    }

    fn prove(
        &mut self,
        namespace: &str,
        name: &str,
        device_uid: DeviceUid,
    ) -> Result<Vec<u8>, IdentityError> {
        self.fail()?;
        proof(&self.provisioned, self.key()?, namespace, name, device_uid).ok_or(IdentityError::Unavailable)
    }

    fn check(&self, chain: &[u8]) -> Result<ChainFacts, IdentityError> {
        let problem = |problem: &str| IdentityError::Chain(problem.to_string());
        let (key, facts) = read_chain(chain).ok_or_else(|| problem("not a chain"))?;
        if key == self.key()? { Ok(facts) } else { Err(problem("another key's")) }
    }

    fn present(&mut self, what: Presented<'_>) -> Result<(), IdentityError> {
        self.fail()?;
        self.link.with(|channel| {
            channel.presented = match what {
                Presented::Provisioned => None,
                Presented::Chain(chain) => Some(chain.to_vec()),
            };
        });
        Ok(())
    }

    fn check_order(&mut self, order: &[u8]) -> Result<Ordered, IdentityError> {
        self.fail()?;
        self.orders_judged += 1;
        let problem = |problem: &dyn ToString| IdentityError::Order(problem.to_string());
        let signed = SignedOrder::decode(order).map_err(|error| problem(&error))?;
        if signed.chain() != [CONTROLLER] {
            return Err(problem(&"not a controller's"));
        }
        signed.verify(|message, given| verify(CONTROLLER, message, given))?;
        let Order { device, device_uid, nonce } = *signed.order();
        if device != self.device || self.device_uid.is_some_and(|own| own != device_uid) {
            return Err(problem(&"for another device"));
        }
        Ok(Ordered { device_uid, nonce })
    }

    fn sign_proof(&mut self, proof: &Proof) -> Result<Vec<u8>, IdentityError> {
        self.fail()?;
        let key = self.key()?;
        let sign = |message: &[u8]| Ok::<_, IdentityError>(signature(&key.0, message));
        proof.sign(sign).map_err(|error| IdentityError::Failed(error.to_string()))
    }

    fn forget_keys(&mut self) {
        (self.key, self.has_forgotten) = (None, true);
        self.public_key.clear();
    }
}
