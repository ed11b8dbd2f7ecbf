//! What a board is provisioned with before it first starts: its identity, the roots that it trusts, its gateways.
//!
//! ```text
//! "WBIDENT1" | length of the body, u32 little endian | SHA-256 of the body | body: CBOR map | ones to the end
//! ```
//! The private key lies in flash as it is: whoever can read the flash has it. A board with protected keys or encrypted
//! flash does that below its `Medium`.

use alloc::{string::String, vec::Vec};
use core::fmt;

use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use sha2::{Digest as _, Sha256};

use crate::Geometry;

const MAGIC: [u8; 8] = *b"WBIDENT1";
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

/// An identity with what belongs to it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Provision {
    /// Certificates in DER, the device's own first.
    #[n(0)]
    pub chain: Vec<ByteVec>,
    /// Its key: PKCS#8 in DER.
    #[n(1)]
    pub key: ByteVec,
    /// Roots of the services in DER, one or two.
    #[n(2)]
    pub services_roots: Vec<ByteVec>,
    /// Gateways as `host:port`.
    #[n(3)]
    pub gateways: Vec<String>,
    /// Where a board without a random source begins.
    #[n(4)]
    pub seed: ByteArray<32>,
    /// The board that it is for.
    #[n(5)]
    pub board: String,
    /// How it comes to an address.
    #[n(6)]
    pub network: Network,
}

impl fmt::Debug for Provision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provision")
            .field("board", &self.board)
            .field("gateways", &self.gateways)
            .field("network", &self.network)
            .finish_non_exhaustive()
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
        let der = |bytes: &ByteVec| (1..=DER_BYTES_MAX).contains(&bytes.len());
        let gateway = |gateway: &String| gateway.len() <= GATEWAY_BYTES_MAX && is_host_and_port(gateway);
        let network = match &self.network {
            Network::Dhcp => true,
            Network::Static { prefix, dns, .. } => *prefix <= 32 && dns.len() <= DNS_MAX,
        };
        let parts = [
            ("certificate chain", (1..=CHAIN_MAX).contains(&self.chain.len()) && self.chain.iter().all(der)),
            ("key", der(&self.key)),
            (
                "roots of the services",
                (1..=ROOTS_MAX).contains(&self.services_roots.len()) && self.services_roots.iter().all(der),
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
    let body = minicbor::to_vec(provision).map_err(|_| ProvisionError::TooLarge)?;
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
    if head[7] != MAGIC[7] {
        return Err(ProvisionError::Version);
    }
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let body = rest.get(..length).filter(|body| body.len() <= BODY_BYTES_MAX);
    let body = body.ok_or(ProvisionError::Damaged)?;
    if *Sha256::digest(body) != head[12..] {
        return Err(ProvisionError::Damaged);
    }
    let provision: Provision = minicbor::decode(body).map_err(|_| ProvisionError::Damaged)?;
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

    fn provision() -> Provision {
        Provision {
            chain: vec![vec![1; 700].into(), vec![2; 600].into()],
            key: vec![3; 138].into(),
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
            let mut flash = vec![0; geometry.flash_bytes as usize];
            write_image(&provision(), &geometry, &mut flash).unwrap();
            let region = &flash[..geometry.identity_bytes() as usize];
            assert_eq!(decode(region).unwrap(), provision());
        }
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
        let broken: [(Breaks, &str); 6] = [
            (|p| p.chain.clear(), "certificate chain"),
            (|p| p.key = vec![0; DER_BYTES_MAX + 1].into(), "key"),
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
        let text = alloc::format!("{:?}", provision());
        assert!(!text.contains("3, 3, 3"), "{text}");
    }
}
