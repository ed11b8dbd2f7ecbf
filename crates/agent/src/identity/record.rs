//! The identity record: the key that the device made, and the chains that it was given for it, as one CBOR array that is
//! replaced as a whole.
//!
//! ```text
//! identity = [version: 1, origin, key / null, current / null, next / null, joined: bool, ? retired, * later]
//! origin   = [0 operational / 1 factory, SHA-256 of the provisioned key] / [2 pairing, id of the token]
//! current, next = [not_before, not_after, bytes]
//! retired  = [Device UID, nonce, proof] / 1 acknowledged, to be erased / 2 erased
//! ```
//! `origin` says what the device was provisioned with when the record was begun: with anything else it begins anew. A chain
//! is `next` from when it was received until a session was established with it. `joined` says that there was such a session:
//! a pairing token is used up then. `retired` is there once the device was decommissioned. What later firmware appends is skipped, and lost with the next write.

use alloc::{string::String, vec::Vec};
use core::fmt;

use minicbor::{Decoder, Encoder, data::Type, decode, encode::Write};
use wasmbed_protocol::{
    DeviceUid, KeyHash, Nonce,
    limits::{CHAIN_BYTES_MAX, DECOMMISSION_PROOF_BYTES_MAX, PAIRING_ID_BYTES_MAX},
};

use super::{ChainFacts, IDENTITY_BYTES_MAX, KEY_BYTES_MAX, Provisioned};
use crate::decommission::{KeptProof, Ordered};

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IdentityRecord {
    pub origin: Origin,
    pub key: Option<Vec<u8>>,
    pub current: Option<Chain>,
    pub next: Option<Chain>,
    pub joined: bool,
    pub retired: Option<Retired>,
}

/// A device that was decommissioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It has its proof, and the key that it signed it with.
    Proven(KeptProof),
    /// The proof was acknowledged: key and chains are gone from the record, and their bytes are to be erased.
    Acknowledged,
    /// Nothing is left to be done.
    Erased,
}

const ACKNOWLEDGED: u8 = 1;
const ERASED: u8 = 2;

impl fmt::Debug for IdentityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityRecord")
            .field("origin", &self.origin)
            .field("key", &self.key.as_ref().map(|_| "secret"))
            .field("current", &self.current)
            .field("next", &self.next)
            .field("joined", &self.joined)
            .field("retired", &self.retired)
            .finish()
    }
}

/// What a record was begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Operational(KeyHash),
    Factory(KeyHash),
    Pairing(String),
}

impl Origin {
    /// None for an identity that has no record.
    pub(crate) fn of(provisioned: &Provisioned) -> Option<Self> {
        match provisioned {
            Provisioned::Fixed => None,
            Provisioned::Operational { key, .. } => Some(Self::Operational(*key)),
            Provisioned::Factory { key } => Some(Self::Factory(*key)),
            Provisioned::Pairing { id } => Some(Self::Pairing(id.clone())),
        }
    }

    /// Whether the device makes its operational key itself.
    pub(crate) fn makes_key(&self) -> bool {
        match self {
            Self::Operational(_) => false,
            Self::Factory(_) | Self::Pairing(_) => true,
        }
    }

    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Operational(key) => (0, &key.0),
            Self::Factory(key) => (1, &key.0),
            Self::Pairing(id) => (2, id.as_bytes()),
        }
    }

    /// Bytes that no other device has, for spreading what all of them do.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.parts().1
    }
}

/// A chain with the facts of its leaf.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub facts: ChainFacts,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.facts).field(&self.bytes.len()).finish()
    }
}

/// There is no memory to write a record down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

type Encoded<W> = Result<(), minicbor::encode::Error<<W as Write>::Error>>;

impl IdentityRecord {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, key: None, current: None, next: None, joined: false, retired: None }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, NoMemory> {
        let chains = [&self.current, &self.next].into_iter().flatten();
        let proof = if let Some(Retired::Proven(proof)) = &self.retired { proof.bytes.len() } else { 0 };
        let room = 256 + KEY_BYTES_MAX + proof + chains.map(|chain| chain.bytes.len()).sum::<usize>();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(room.min(IDENTITY_BYTES_MAX)).map_err(|_| NoMemory)?;
        // Writing to a vector can't fail: its error type has no values.
        let _ = self.write(&mut Encoder::new(&mut bytes));
        Ok(bytes)
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Encoded<W> {
        let (kind, bytes) = self.origin.parts();
        let entries = 6 + u64::from(self.retired.is_some());
        e.array(entries)?.u32(VERSION)?.array(2)?.u8(kind)?.bytes(bytes)?;
        match &self.key {
            None => e.null()?,
            Some(key) => e.bytes(key)?,
        };
        for chain in [&self.current, &self.next] {
            match chain {
                None => e.null()?,
                Some(chain) => e
                    .array(3)?
                    .u64(chain.facts.not_before_s)?
                    .u64(chain.facts.not_after_s)?
                    .bytes(&chain.bytes)?,
            };
        }
        e.bool(self.joined)?;
        match &self.retired {
            None => Ok(()),
            Some(Retired::Proven(KeptProof { ordered, bytes })) => {
                e.array(3)?.bytes(&ordered.device_uid.0)?.bytes(&ordered.nonce.0)?.bytes(bytes)?.ok()
            }
            Some(Retired::Acknowledged) => e.u8(ACKNOWLEDGED)?.ok(),
            Some(Retired::Erased) => e.u8(ERASED)?.ok(),
        }
    }

    /// `None` for anything that is not a record of this version that can have been written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > IDENTITY_BYTES_MAX {
            return None;
        }
        let mut d = Decoder::new(bytes);
        let record = Self::read(&mut d).ok()?;
        (d.position() == bytes.len() && record.is_possible()).then_some(record)
    }

    /// A device that makes its key has it before any chain; one that does not never has one. A proof has the key that signed
    /// it, and what was acknowledged has none.
    fn is_possible(&self) -> bool {
        let has_chain = self.current.is_some() || self.next.is_some();
        match &self.retired {
            Some(Retired::Proven(_)) if self.origin.makes_key() && self.key.is_none() => return false,
            Some(Retired::Proven(_)) | None => {}
            Some(Retired::Acknowledged | Retired::Erased) => return self.key.is_none() && !has_chain,
        }
        match (self.origin.makes_key(), &self.key) {
            (true, None) => !has_chain,
            (true, Some(_)) | (false, None) => true,
            (false, Some(_)) => false,
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let length = d.array()?.filter(|length| *length >= 6);
        let length = length.ok_or_else(|| decode::Error::message("another shape"))?;
        if d.u32()? != VERSION {
            return Err(decode::Error::message("another version"));
        }
        let origin = origin(d)?;
        let key = optional(d, |d| bounded(d, KEY_BYTES_MAX))?;
        let (current, next) = (optional(d, chain)?, optional(d, chain)?);
        let joined = d.bool()?;
        let retired = if length > 6 { retired(d)? } else { None };
        for _ in 7..length {
            d.skip()?;
        }
        Ok(Self { origin, key, current, next, joined, retired })
    }
}

/// Whether an identity record is that of a device whose proof was acknowledged: what it was provisioned with is to be erased, if
/// it is an operational key, or was.
#[must_use]
pub fn is_acknowledged(record: &[u8]) -> bool {
    let retired = IdentityRecord::decode(record).and_then(|record| record.retired);
    matches!(retired, Some(Retired::Acknowledged | Retired::Erased))
}

/// None for what later firmware may write in its place.
fn retired(d: &mut Decoder<'_>) -> Result<Option<Retired>, decode::Error> {
    match d.datatype()? {
        Type::U8 => match d.u8()? {
            ACKNOWLEDGED => Ok(Some(Retired::Acknowledged)),
            ERASED => Ok(Some(Retired::Erased)),
            _ => Err(decode::Error::message("another state")),
        },
        Type::Array => {
            if d.array()? != Some(3) {
                return Err(decode::Error::message("another shape"));
            }
            let ordered = Ordered { device_uid: DeviceUid(fixed(d)?), nonce: Nonce(fixed(d)?) };
            let bytes = bounded(d, DECOMMISSION_PROOF_BYTES_MAX)?;
            Ok(Some(Retired::Proven(KeptProof { ordered, bytes })))
        }
        _ => {
            d.skip()?;
            Ok(None)
        }
    }
}

fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    d.bytes()?.try_into().map_err(|_| decode::Error::message("another length"))
}

fn origin(d: &mut Decoder<'_>) -> Result<Origin, decode::Error> {
    if d.array()? != Some(2) {
        return Err(decode::Error::message("another shape"));
    }
    let (kind, bytes) = (d.u8()?, d.bytes()?);
    let hash = || bytes.try_into().map(KeyHash).map_err(|_| decode::Error::message("another length"));
    match kind {
        0 => Ok(Origin::Operational(hash()?)),
        1 => Ok(Origin::Factory(hash()?)),
        2 if bytes.len() <= PAIRING_ID_BYTES_MAX => {
            let id = core::str::from_utf8(bytes).map_err(|_| decode::Error::message("another id"))?;
            Ok(Origin::Pairing(String::from(id)))
        }
        _ => Err(decode::Error::message("another origin")),
    }
}

fn chain(d: &mut Decoder<'_>) -> Result<Chain, decode::Error> {
    if d.array()? != Some(3) {
        return Err(decode::Error::message("another shape"));
    }
    let facts = ChainFacts { not_before_s: d.u64()?, not_after_s: d.u64()? };
    Ok(Chain { facts, bytes: bounded(d, CHAIN_BYTES_MAX as usize)? })
}

fn bounded(d: &mut Decoder<'_>, bytes_max: usize) -> Result<Vec<u8>, decode::Error> {
    let bytes = d.bytes()?;
    if bytes.is_empty() || bytes.len() > bytes_max {
        return Err(decode::Error::message("another length"));
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| decode::Error::message("no memory"))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Option<T>, decode::Error> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::{collection, option, prelude::*};

    fn origins() -> impl Strategy<Value = Origin> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(|hash| Origin::Operational(KeyHash(hash))),
            any::<[u8; 32]>().prop_map(|hash| Origin::Factory(KeyHash(hash))),
            "[0-9a-f]{8}".prop_map(Origin::Pairing),
        ]
    }

    fn chains() -> impl Strategy<Value = Chain> {
        (any::<u64>(), any::<u64>(), collection::vec(any::<u8>(), 1..100)).prop_map(
            |(not_before_s, not_after_s, bytes)| Chain {
                facts: ChainFacts { not_before_s, not_after_s },
                bytes,
            },
        )
    }

    fn records() -> impl Strategy<Value = IdentityRecord> {
        let key = collection::vec(any::<u8>(), 1..KEY_BYTES_MAX);
        let retired = option::of(retirements());
        (origins(), option::of(key), option::of(chains()), option::of(chains()), any::<bool>(), retired)
            .prop_map(|(origin, key, current, next, joined, retired)| {
                let has_key = !matches!(retired, Some(Retired::Acknowledged | Retired::Erased));
                let key = key.filter(|_| has_key && origin.makes_key());
                let may_have_chain = has_key && (key.is_some() || !origin.makes_key());
                let (current, next) = (current.filter(|_| may_have_chain), next.filter(|_| may_have_chain));
                let retired = retired.filter(|_| !has_key || may_have_chain);
                IdentityRecord { origin, key, current, next, joined, retired }
            })
    }

    fn retirements() -> impl Strategy<Value = Retired> {
        let bytes = collection::vec(any::<u8>(), 1..=DECOMMISSION_PROOF_BYTES_MAX);
        let proof = (any::<[u8; 16]>(), any::<[u8; 16]>(), bytes).prop_map(|(uid, nonce, bytes)| {
            let ordered = Ordered { device_uid: DeviceUid(uid), nonce: Nonce(nonce) };
            Retired::Proven(KeptProof { ordered, bytes })
        });
        prop_oneof![proof, Just(Retired::Acknowledged), Just(Retired::Erased)]
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_and_no_part_of_it_is_one(record in records()) {
            let bytes = record.encode().unwrap();
            prop_assert!(bytes.len() <= IDENTITY_BYTES_MAX);
            for cut in 0..bytes.len() {
                prop_assert_eq!(IdentityRecord::decode(bytes.get(..cut).unwrap()), None);
            }
            prop_assert_eq!(IdentityRecord::decode(&bytes), Some(record));
        }

        #[test]
        fn other_bytes_are_no_record_and_no_panic(bytes in collection::vec(any::<u8>(), 0..512)) {
            let _ = IdentityRecord::decode(&bytes);
        }

        #[test]
        fn a_changed_byte_is_no_panic(record in records(), at: usize, to: u8) {
            let mut bytes = record.encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = IdentityRecord::decode(&bytes);
        }
    }

    #[test]
    fn the_largest_record_keeps_its_bound_and_a_larger_one_is_none() {
        let largest = Chain {
            facts: ChainFacts { not_before_s: u64::MAX, not_after_s: u64::MAX },
            bytes: vec![7; CHAIN_BYTES_MAX as usize],
        };
        let record = IdentityRecord {
            origin: Origin::Factory(KeyHash([255; 32])),
            key: Some(vec![7; KEY_BYTES_MAX]),
            current: Some(largest.clone()),
            next: Some(largest.clone()),
            joined: true,
            retired: None,
        };
        let bytes = record.encode().unwrap();
        assert!(bytes.len() <= IDENTITY_BYTES_MAX, "{}", bytes.len());
        assert_eq!(IdentityRecord::decode(&bytes), Some(record.clone()));
        let ordered = Ordered { device_uid: DeviceUid([255; 16]), nonce: Nonce([255; 16]) };
        let proof = KeptProof { ordered, bytes: vec![7; DECOMMISSION_PROOF_BYTES_MAX] };
        let proven = IdentityRecord { retired: Some(Retired::Proven(proof)), ..record.clone() };
        let bytes = proven.encode().unwrap();
        assert!(bytes.len() <= IDENTITY_BYTES_MAX, "{}", bytes.len());
        assert_eq!(IdentityRecord::decode(&bytes), Some(proven));
        let longer = Chain { bytes: vec![7; CHAIN_BYTES_MAX as usize + 1], ..largest };
        let record = IdentityRecord { current: Some(longer), next: None, ..record };
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), None);
    }

    #[test]
    fn the_bytes_of_a_record_never_change_and_later_ones_open() {
        let facts = ChainFacts { not_before_s: 1, not_after_s: 2 };
        let record = IdentityRecord {
            origin: Origin::Pairing("ab".into()),
            key: Some(vec![9]),
            current: Some(Chain { facts, bytes: vec![8] }),
            next: None,
            joined: true,
            retired: None,
        };
        let bytes = [0x86, 0x01, 0x82, 0x02, 0x42, b'a', b'b', 0x41, 9, 0x83, 1, 2, 0x41, 8, 0xf6, 0xf5];
        assert_eq!(record.encode().unwrap(), bytes);
        let mut later = [&bytes[..], &[0x61, b'x']].concat();
        later[0] = 0x87;
        assert_eq!(IdentityRecord::decode(&later), Some(record));
        later[1] = 0x02;
        assert_eq!(IdentityRecord::decode(&later), None, "another version");
    }

    #[test]
    fn the_bytes_of_a_retired_record_never_change() {
        let origin = [0x01, 0x82, 0x02, 0x42, b'a', b'b'];
        let mut record = IdentityRecord::new(Origin::Pairing("ab".into()));
        for (retired, state) in [(Retired::Acknowledged, 1), (Retired::Erased, 2)] {
            record.retired = Some(retired);
            let bytes = [&[0x87][..], &origin, &[0xf6, 0xf6, 0xf6, 0xf4, state]].concat();
            assert_eq!(record.encode().unwrap(), bytes);
            assert!(crate::is_acknowledged(&bytes));
        }
        let ordered = Ordered { device_uid: DeviceUid([1; 16]), nonce: Nonce([2; 16]) };
        record.retired = Some(Retired::Proven(KeptProof { ordered, bytes: vec![8] }));
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), None, "a proof without its key");
        record.key = Some(vec![9]);
        let head = [&[0x87][..], &origin, &[0x41, 9, 0xf6, 0xf6, 0xf4, 0x83, 0x50]].concat();
        let bytes = [&head[..], &[1; 16], &[0x50], &[2; 16], &[0x41, 8]].concat();
        assert_eq!(record.encode().unwrap(), bytes);
        assert_eq!(IdentityRecord::decode(&bytes), Some(record.clone()));
        assert!(!crate::is_acknowledged(&bytes) && !crate::is_acknowledged(&[]));
        record.retired = Some(Retired::Acknowledged);
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), None, "a key after its end");
    }

    #[test]
    fn no_record_has_a_chain_without_its_key_and_none_shows_a_key() {
        let facts = ChainFacts { not_before_s: 1, not_after_s: 2 };
        let mut record = IdentityRecord::new(Origin::Factory(KeyHash([1; 32])));
        record.next = Some(Chain { facts, bytes: vec![8] });
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), None);
        record.key = Some(vec![251, 252]);
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), Some(record.clone()));
        assert!(!alloc::format!("{record:?}").contains("251"));
        record.origin = Origin::Operational(KeyHash([1; 32]));
        assert_eq!(IdentityRecord::decode(&record.encode().unwrap()), None, "its key was provisioned");
    }
}
