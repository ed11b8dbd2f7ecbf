//! What a board is provisioned with before it first starts: its identity, the roots that it trusts, its gateways.
//!
//! ```text
//! "WBIDENT2" | length of the body, u32 little endian | SHA-256 of the body | body: CBOR map | ones to the end
//! ```
//! Version 1, `WBIDENT1`, had an operational identity alone, as two entries of the map; it is read, and no longer written.
//!
//! The private key or the pairing token lies in flash as it is: whoever can read the flash has it. A board with protected keys or
//! encrypted flash does that below its `Medium`.

use alloc::{string::String, vec::Vec};
use core::fmt;

use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use sha2::{Digest as _, Sha256};

use crate::Geometry;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"WBIDENT2";
const VERSION_1: u8 = b'1';
const HEAD_BYTES: usize = 8 + 4 + 32;
/// The body: a chain, two roots and sixteen gateways need a third of it; fits a region of 32 KiB.
pub const BODY_BYTES_MAX: usize = 16_384;
/// Certificates from the device's own up to its issuing authority.
pub const CHAIN_MAX: usize = 4;
/// Roots of the services: the present one and the next.
pub const ROOTS_MAX: usize = 2;
/// Gateways, tried in turn.
pub const GATEWAYS_MAX: usize = 16;
/// One certificate or key.
pub const DER_BYTES_MAX: usize = 4_096;
/// `host:port`: the longest name, a colon, a port.
pub const GATEWAY_BYTES_MAX: usize = 253 + 1 + 5;
/// Name servers.
pub const DNS_MAX: usize = 3;

/// A pairing token, `ID.SECRET`.
pub const TOKEN_BYTES_MAX: usize = 64;
/// A trust domain, as SPIFFE bounds it.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// An identity with what belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Provision {
    /// Who the board is, before it has made a key of its own.
    pub identity: Identity,
    /// Roots of the services in DER, one or two.
    pub services_roots: Vec<ByteVec>,
    /// Gateways as `host:port`.
    pub gateways: Vec<String>,
    /// Where a board without a random source begins.
    pub seed: ByteArray<32>,
    /// The board that it is for.
    pub board: String,
    /// How it comes to an address.
    pub network: Network,
}

impl fmt::Debug for Provision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provision")
            .field("identity", &self.identity)
            .field("board", &self.board)
            .field("gateways", &self.gateways)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Who a board is.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Identity {
    /// A device of a fleet.
    #[n(0)]
    Operational(#[n(0)] Issued),
    /// What its maker calls it: it joins with that.
    #[n(1)]
    Factory(#[n(0)] Issued),
    /// Nobody yet: it joins as the Device that a token was made for.
    #[n(2)]
    Pairing {
        /// `ID.SECRET`.
        #[n(0)]
        token: String,
        /// The fleet's trust domain.
        #[n(1)]
        trust_domain: String,
    },
}

/// Certificates that were issued, and the key that they are for.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    /// In DER, the device's own first.
    #[n(0)]
    pub chain: Vec<ByteVec>,
    /// Its key: PKCS#8 in DER.
    #[n(1)]
    pub key: ByteVec,
}

impl Identity {
    /// Says which identity this is: what a board makes of one identity counts for that one alone. Another chain for the same
    /// factory key is the same identity, since the board presents it anew each time that it joins; another operational chain is
    /// another one, since the board was given it to use.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u32).to_le_bytes());
            hash.update(bytes);
        };
        match self {
            Self::Operational(Issued { chain, key }) => {
                part(b"operational");
                part(key);
                chain.iter().for_each(|certificate| part(certificate));
            }
            Self::Factory(Issued { key, .. }) => {
                part(b"factory");
                part(key);
            }
            Self::Pairing { token, trust_domain } => {
                part(b"pairing");
                part(token.as_bytes());
                part(trust_domain.as_bytes());
            }
        }
        hash.finalize().into()
    }

    /// The first part that breaks a bound.
    fn flaw(&self) -> Option<&'static str> {
        match self {
            Self::Operational(issued) | Self::Factory(issued) => {
                let chain = (1..=CHAIN_MAX).contains(&issued.chain.len()) && issued.chain.iter().all(is_der);
                match (chain, is_der(&issued.key)) {
                    (false, _) => Some("certificate chain"),
                    (true, false) => Some("key"),
                    (true, true) => None,
                }
            }
            Self::Pairing { token, trust_domain } => {
                let trust_domain = (1..=TRUST_DOMAIN_BYTES_MAX).contains(&trust_domain.len());
                match ((1..=TOKEN_BYTES_MAX).contains(&token.len()), trust_domain) {
                    (false, _) => Some("pairing token"),
                    (true, false) => Some("trust domain"),
                    (true, true) => None,
                }
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operational(_) => "Operational(..)",
            Self::Factory(_) => "Factory(..)",
            Self::Pairing { .. } => "Pairing(..)",
        })
    }
}

/// How it stands in flash.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    /// Version 1 alone.
    #[n(0)]
    chain: Option<Vec<ByteVec>>,
    /// Version 1 alone.
    #[n(1)]
    key: Option<ByteVec>,
    #[n(2)]
    services_roots: Vec<ByteVec>,
    #[n(3)]
    gateways: Vec<String>,
    #[n(4)]
    seed: ByteArray<32>,
    #[n(5)]
    board: String,
    #[n(6)]
    network: Network,
    /// From version 2 on.
    #[n(7)]
    identity: Option<Identity>,
}

impl Body {
    fn of(provision: &Provision) -> Self {
        let Provision { identity, services_roots, gateways, seed, board, network } = provision.clone();
        let (chain, key, identity) = (None, None, Some(identity));
        Self { chain, key, services_roots, gateways, seed, board, network, identity }
    }

    fn open(self, version: u8) -> Result<Provision, ProvisionError> {
        let Self { chain, key, services_roots, gateways, seed, board, network, identity } = self;
        let identity = match (version, identity, chain, key) {
            (VERSION_1, None, Some(chain), Some(key)) => Identity::Operational(Issued { chain, key }),
            (VERSION_1, ..) | (_, None, ..) => return Err(ProvisionError::Damaged),
            (_, Some(identity), ..) => identity,
        };
        Ok(Provision { identity, services_roots, gateways, seed, board, network })
    }
}

/// How a board comes to an address.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Network {
    /// It asks.
    #[n(0)]
    Dhcp,
    /// It is told.
    #[n(1)]
    Static {
        /// IPv4 address.
        #[n(0)]
        address: [u8; 4],
        /// Bits of the network's prefix.
        #[n(1)]
        prefix: u8,
        /// Router, if there is one.
        #[n(2)]
        router: Option<[u8; 4]>,
        /// Name servers.
        #[n(3)]
        dns: Vec<[u8; 4]>,
    },
}

/// Why there is no identity to be had, or none can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionError {
    /// The region holds none: the board was never provisioned.
    Blank,
    /// What is there is not whole.
    Damaged,
    /// It is whole but not of this version.
    Version,
    /// A part is missing or too large; the name of the part.
    Part(&'static str),
    /// All together exceeds [`BODY_BYTES_MAX`] or the region.
    TooLarge,
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("the flash holds no identity: run wasmbed device provision"),
            Self::Damaged => f.write_str("the identity in flash is damaged: provision again"),
            Self::Version => f.write_str("the identity in flash is of another version: provision again"),
            Self::Part(part) => write!(f, "the identity's {part} is missing, too large or not usable"),
            Self::TooLarge => write!(f, "the identity is larger than {BODY_BYTES_MAX} bytes or its region"),
        }
    }
}

impl core::error::Error for ProvisionError {}

impl Provision {
    /// # Errors
    /// The part that breaks a bound.
    pub fn check(&self) -> Result<(), ProvisionError> {
        if let Some(part) = self.identity.flaw() {
            return Err(ProvisionError::Part(part));
        }
        let gateway = |gateway: &String| gateway.len() <= GATEWAY_BYTES_MAX && is_host_and_port(gateway);
        let network = match &self.network {
            Network::Dhcp => true,
            Network::Static { prefix, dns, .. } => *prefix <= 32 && dns.len() <= DNS_MAX,
        };
        let parts = [
            (
                "roots of the services",
                (1..=ROOTS_MAX).contains(&self.services_roots.len())
                    && self.services_roots.iter().all(is_der),
            ),
            (
                "list of gateways",
                (1..=GATEWAYS_MAX).contains(&self.gateways.len()) && self.gateways.iter().all(gateway),
            ),
            ("board", (1..=64).contains(&self.board.len())),
            ("network", network),
        ];
        match parts.iter().find(|(_, usable)| !usable) {
            Some((part, _)) => Err(ProvisionError::Part(part)),
            None => Ok(()),
        }
    }
}

fn is_der(bytes: &ByteVec) -> bool {
    (1..=DER_BYTES_MAX).contains(&bytes.len())
}

/// Whether this is how a gateway is named: a host, a colon and a port that is not 0.
#[must_use]
pub fn is_host_and_port(gateway: &str) -> bool {
    gateway
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// The image of the identity region, as long as the region.
///
/// # Errors
/// Something breaks a bound.
pub fn encode(provision: &Provision, geometry: &Geometry) -> Result<Vec<u8>, ProvisionError> {
    provision.check()?;
    let body = minicbor::to_vec(Body::of(provision)).map_err(|_| ProvisionError::TooLarge)?;
    let region = geometry.identity_bytes() as usize;
    if body.len() > BODY_BYTES_MAX || HEAD_BYTES + body.len() > region {
        return Err(ProvisionError::TooLarge);
    }
    let mut image = Vec::with_capacity(region);
    image.extend_from_slice(&MAGIC);
    image.extend_from_slice(&(body.len() as u32).to_le_bytes());
    image.extend_from_slice(&Sha256::digest(&body));
    image.extend_from_slice(&body);
    image.resize(region, 0xFF);
    Ok(image)
}

/// Reads the identity region.
///
/// # Errors
/// See [`ProvisionError`].
pub fn decode(region: &[u8]) -> Result<Provision, ProvisionError> {
    let (head, rest) = region.split_at_checked(HEAD_BYTES).ok_or(ProvisionError::Damaged)?;
    if head.iter().all(|byte| *byte == 0xFF) || head.iter().all(|byte| *byte == 0) {
        return Err(ProvisionError::Blank);
    }
    if head[..7] != MAGIC[..7] {
        return Err(ProvisionError::Damaged);
    }
    if head[7] != MAGIC[7] && head[7] != VERSION_1 {
        return Err(ProvisionError::Version);
    }
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let body = rest.get(..length).filter(|body| body.len() <= BODY_BYTES_MAX);
    let body = body.ok_or(ProvisionError::Damaged)?;
    if *Sha256::digest(body) != head[12..] {
        return Err(ProvisionError::Damaged);
    }
    let body: Body = minicbor::decode(body).map_err(|_| ProvisionError::Damaged)?;
    let provision = body.open(head[7])?;
    provision.check()?;
    Ok(provision)
}

/// Writes the identity region at the beginning of a whole flash's image; the rest stays as it is.
///
/// # Errors
/// Something breaks a bound, or the image is shorter than the region.
pub fn write_image(
    provision: &Provision,
    geometry: &Geometry,
    flash: &mut [u8],
) -> Result<(), ProvisionError> {
    let image = encode(provision, geometry)?;
    flash.get_mut(..image.len()).ok_or(ProvisionError::TooLarge)?.copy_from_slice(&image);
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;
    use wasmbed_board_data as boards;

    fn issued() -> Issued {
        Issued { chain: vec![vec![1; 700].into(), vec![2; 600].into()], key: vec![3; 138].into() }
    }

    fn pairing(token: usize, trust_domain: usize) -> Identity {
        Identity::Pairing { token: "3".repeat(token), trust_domain: "d".repeat(trust_domain) }
    }

    /// One of each kind.
    fn provisions() -> [Provision; 3] {
        [Identity::Operational(issued()), Identity::Factory(issued()), pairing(41, 11)]
            .map(|identity| Provision { identity, ..provision() })
    }

    fn provision() -> Provision {
        Provision {
            identity: Identity::Operational(issued()),
            services_roots: vec![vec![4; 500].into()],
            gateways: vec!["10.0.2.2:7443".into(), "gateway.example:443".into()],
            seed: [7; 32].into(),
            board: "riscv32-virt".into(),
            network: Network::Static {
                address: [10, 0, 2, 15],
                prefix: 24,
                router: Some([10, 0, 2, 2]),
                dns: vec![[10, 0, 2, 3]],
            },
        }
    }

    #[test]
    fn an_identity_comes_back_as_it_was_written_on_every_board() {
        for geometry in boards::ALL.map(|board| board.geometry) {
            assert!(HEAD_BYTES + BODY_BYTES_MAX <= geometry.identity_bytes() as usize);
            let mut flash = vec![0; geometry.flash_bytes as usize];
            for provision in provisions() {
                write_image(&provision, &geometry, &mut flash).unwrap();
                let region = &flash[..geometry.identity_bytes() as usize];
                assert_eq!(decode(region).unwrap(), provision);
            }
        }
    }

    #[test]
    fn an_image_of_version_1_is_read() {
        let image = include_bytes!("../tests/images/identity-1.bin");
        let expected = Provision { board: "mps2-an385".into(), ..provision() };
        assert_eq!(decode(image), Ok(expected.clone()));
        // The two versions differ in more than their names.
        let mut newer = encode(&expected, &boards::MPS2_AN385.geometry).unwrap();
        newer[7] = VERSION_1;
        assert_eq!(decode(&newer), Err(ProvisionError::Damaged));
        let mut older = *image;
        older[7] = MAGIC[7];
        assert_eq!(decode(&older), Err(ProvisionError::Damaged));
        older[7] = b'3';
        assert_eq!(decode(&older), Err(ProvisionError::Version));
    }

    #[test]
    fn identities_are_told_apart() {
        let chain = vec![vec![1; 700].into()];
        let (renewed, key) = (Issued { chain, ..issued() }, vec![4; 138].into());
        let mut identities = provisions().map(|provision| provision.identity).to_vec();
        identities.extend([pairing(41, 12), pairing(40, 12), Identity::Operational(renewed.clone())]);
        identities.push(Identity::Factory(Issued { key, ..issued() }));
        let digests: alloc::collections::BTreeSet<_> = identities.iter().map(Identity::digest).collect();
        assert_eq!(digests.len(), identities.len());
        assert_eq!(Identity::Factory(renewed).digest(), Identity::Factory(issued()).digest());
    }

    /// A board would lose its certificate, and with a token its way back, if an update of the firmware changed this.
    #[test]
    fn digests_stay_what_they_are() {
        let shown = |digest: [u8; 32]| digest.map(|byte| alloc::format!("{byte:02x}")).concat();
        let digests = provisions().map(|provision| shown(provision.identity.digest()));
        assert_eq!(
            digests,
            [
                "ddfe34823bdf0d3587396f8e9b634e401d1864c33c95af9443b63801b43850d1",
                "5c484892d23fa405513c40ae3f8fdb4ff8e0b1a45e91200f0fd159ba4d600b37",
                "7abf37553ad3e9b787948eec93f44bb9d29a2186c18fce5d77e7a65fdd596c65",
            ]
        );
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let image = encode(&provision(), &boards::MPS2_AN385.geometry).unwrap();
        let used = image.iter().rposition(|byte| *byte != 0xFF).unwrap() + 1;
        for index in 0..used {
            let mut damaged = image.clone();
            damaged[index] ^= 1 << (index % 8);
            assert!(decode(&damaged).is_err(), "byte {index}");
        }
        assert_eq!(decode(&[0xFF; 4_096]), Err(ProvisionError::Blank));
        assert_eq!(decode(&[0; 4_096]), Err(ProvisionError::Blank));
        assert_eq!(decode(&[]), Err(ProvisionError::Damaged));
    }

    #[test]
    fn what_breaks_a_bound_is_named() {
        type Breaks = fn(&mut Provision);
        let broken: [(Breaks, &str); 8] = [
            (
                |p| p.identity = Identity::Factory(Issued { chain: Vec::new(), ..issued() }),
                "certificate chain",
            ),
            (
                |p| {
                    let key = vec![0; DER_BYTES_MAX + 1].into();
                    p.identity = Identity::Operational(Issued { key, ..issued() });
                },
                "key",
            ),
            (|p| p.identity = pairing(TOKEN_BYTES_MAX + 1, 1), "pairing token"),
            (|p| p.identity = pairing(1, TRUST_DOMAIN_BYTES_MAX + 1), "trust domain"),
            (|p| p.services_roots = vec![vec![1].into(); 3], "roots of the services"),
            (|p| p.gateways = vec!["host".into()], "list of gateways"),
            (|p| p.board.clear(), "board"),
            (
                |p| p.network = Network::Static { address: [0; 4], prefix: 33, router: None, dns: vec![] },
                "network",
            ),
        ];
        for (breaks, part) in broken {
            let mut provision = provision();
            breaks(&mut provision);
            let error = encode(&provision, &boards::RISCV32_VIRT.geometry).unwrap_err();
            assert_eq!(error, ProvisionError::Part(part));
            assert!(error.to_string().contains(part));
        }
    }

    #[test]
    fn a_printed_identity_shows_no_key() {
        for provision in provisions() {
            let text = alloc::format!("{provision:?}");
            assert!(!text.contains("3, 3, 3") && !text.contains("333"), "{text}");
        }
    }
}
