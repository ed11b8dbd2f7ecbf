//! Who the board is: what it was provisioned with, the key that it made itself, and the time at which gateways' certificates are
//! checked.

use alloc::{string::ToString as _, vec, vec::Vec};
use core::fmt;

use rustls_pki_types::CertificateDer;
use wasmbed_flash::provision::{self, Issued, ProvisionError};
use wasmbed_protocol::{
    DeviceUid, JoinStatement, KeyHash, encode_join_statement, limits::JOIN_STATEMENT_BYTES_MAX,
};
use wasmbed_supervisor::platform::{ChainFacts, Identity, IdentityError, Ordered, Presented, Provisioned};
use wasmbed_tls::{
    Client, Credentials, CredentialsError, OwnId, P256Key, RandomSource, Session, Time, TlsError,
    certification_request,
    identity::{
        OrderRefusal, PairingToken,
        statement::{Proof, SignError, SignedOrder},
    },
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
    /// Its key was erased.
    Erased,
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
            Own::Pairing(_) | Own::Erased => {}
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
            Own::Factory(..) | Own::Pairing(_) | Own::Erased => {
                self.made.as_ref().ok_or(IdentityError::Unavailable)
            }
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
            Own::Erased => f.write_str("erased"),
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
            Own::Erased => Provisioned::Fixed,
        }
    }

    fn unix_s(&self) -> Option<u64> {
        self.time.at_least(self.now_ms())
    }

    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        Ok(P256Key::generate(self.random).to_pkcs8().to_vec())
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
            Own::Operational(..) | Own::Erased => Err(IdentityError::Unavailable),
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
            (Presented::Provisioned, Own::Erased) => return Err(IdentityError::Unavailable),
        };
        self.client.present(credentials).map_err(|error| IdentityError::Chain(error.to_string()))
    }

    fn check_order(&mut self, order: &[u8]) -> Result<Ordered, IdentityError> {
        let now_ms = self.now_ms();
        self.time.set_rtc((self.clock.unix_s)(), now_ms);
        let refused = |refusal: &dyn fmt::Display| IdentityError::Order(refusal.to_string());
        let signed = SignedOrder::decode(order).map_err(|error| refused(&OrderRefusal::from(error)))?;
        self.client.check_order(&signed, &self.time, now_ms).map_err(|refusal| refused(&refusal))?;
        let order = signed.order();
        Ok(Ordered { device_uid: order.device_uid, nonce: order.nonce })
    }

    fn sign_proof(&mut self, proof: &Proof) -> Result<Vec<u8>, IdentityError> {
        let key = self.operational()?;
        proof
            .sign(|message| key.sign_der(message))
            .map_err(|error: SignError<TlsError>| IdentityError::Failed(error.to_string()))
    }

    fn forget_keys(&mut self) {
        self.client.withdraw();
        (self.made, self.provisioned) = (None, Own::Erased);
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

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use std::path::Path;

    use wasmbed_pki::{
        Authorities, CertificationRequest, DeviceIssuer, DeviceKey, FactoryAuthority, is_signed_by,
    };
    use wasmbed_tls::{
        identity::{
            Leaf,
            statement::{Erased, Nonce, Order, SignedProof},
        },
        provider::ALGORITHMS,
    };

    use super::*;
    use crate::random::Random;

    const TOKEN: &str = "0a1b2c3d.000102030405060708090a0b0c0d0e0f";
    const UID: DeviceUid = DeviceUid([7; 16]);
    const YEAR_S: u64 = 31_536_000;

    fn issued(identity: &wasmbed_pki::Identity) -> Issued {
        Issued {
            chain: identity.chain().iter().map(|der| der.to_vec().into()).collect(),
            key: identity.key().secret_der().to_vec().into(),
        }
    }

    struct Fleet {
        folder: tempfile::TempDir,
        authorities: Authorities,
    }

    impl Fleet {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let authorities = Authorities::create_or_open(folder.path(), "example.org").unwrap();
            Self { folder, authorities }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn factory(&self) -> provision::Identity {
            let factory = FactoryAuthority::create_or_open(self.path(), "example.org").unwrap();
            provision::Identity::Factory(issued(&factory.issue("SN_42").unwrap()))
        }

        /// The chain that the signer gives for a request, DER one after the other.
        fn sign(&self, request: &[u8], seconds: u64) -> Vec<u8> {
            let file = |extension| self.path().join(["devices-issuing", extension].join("."));
            let issuer = DeviceIssuer::open(&file("crt"), &file("key"), "example.org").unwrap();
            let request = CertificationRequest::parse(request).unwrap();
            let pem = issuer.issue(&request, "lab", "sn-42", &UID.to_string(), seconds).unwrap();
            let file = self.path().join("issued.crt");
            std::fs::write(&file, pem).unwrap();
            let chain = wasmbed_pki::read_certificates(&file).unwrap();
            chain.iter().flat_map(|der| der.to_vec()).collect()
        }

        fn board(&self, identity: provision::Identity) -> Result<BoardIdentity, String> {
            let roots = [self.authorities.services_root().clone()];
            let clock = Clock { now_us: || 5_000_000, unix_s: || None };
            let random = Random::start([3; 32]);
            BoardIdentity::open(identity, &roots, Time::new(0), random, clock)
                .map_err(|problem| problem.to_string())
        }
    }

    const NONCE: Nonce = Nonce([9; 16]);

    /// An order by whoever holds this identity.
    fn order(signer: &wasmbed_pki::Identity, device: &str, device_uid: DeviceUid) -> Vec<u8> {
        let certificates = signer.chain();
        let chain: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
        let key = DeviceKey::of(signer).unwrap();
        Order { device, device_uid, nonce: NONCE }.sign(&chain, |message| key.sign(message)).unwrap()
    }

    fn refusal(board: &mut BoardIdentity, order: &[u8]) -> String {
        match board.check_order(order) {
            Err(IdentityError::Order(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn statement(key: KeyHash) -> Vec<u8> {
        let statement = JoinStatement {
            key,
            trust_domain: "example.org",
            namespace: "lab",
            name: "sn-42",
            device_uid: UID,
        };
        let mut bytes = vec![0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// Makes a key, as a board does that joins; the hash of it, and the request.
    fn with_key(board: &mut BoardIdentity) -> (KeyHash, Vec<u8>) {
        let key = board.make_key().unwrap();
        let hash = board.use_key(&key).unwrap();
        let request = board.request().unwrap();
        let parsed = CertificationRequest::parse(&request).unwrap();
        assert_eq!(KeyHash::of(parsed.public_key_info()), hash);
        (hash, request)
    }

    #[test]
    fn a_board_from_a_factory_joins_with_its_factory_key() {
        let fleet = Fleet::new();
        let identity = fleet.factory();
        let provision::Identity::Factory(given) = identity.clone() else { panic!() };
        let mut board = fleet.board(identity).unwrap();
        assert_eq!(board.to_string(), "factory=SN_42");
        assert_eq!(board.trust_domain(), "example.org");
        let leaf = CertificateDer::from(given.chain[0].to_vec());
        let leaf = Leaf::parse(&leaf).unwrap();
        assert_eq!(board.provisioned(), Provisioned::Factory { key: KeyHash::of(&leaf.public_key_info()) });
        board.connect().unwrap();
        board.make_key().unwrap();
        assert_eq!(board.request(), Err(IdentityError::Unavailable), "not used before it is kept");
        assert_eq!(board.prove("lab", "sn-42", UID), Err(IdentityError::Unavailable));
        let (hash, request) = with_key(&mut board);
        let proof = board.prove("lab", "sn-42", UID).unwrap();
        let verified = |message: &[u8]| leaf.verify_signature(ALGORITHMS.all[0], message, &proof);
        verified(&statement(hash)).unwrap();
        assert!(verified(&statement(KeyHash([0; 32]))).is_err());

        let chain = fleet.sign(&request, YEAR_S / 2);
        let facts = board.check(&chain).unwrap();
        // The authority's clock may be ahead of the board's by an hour.
        assert_eq!(facts.not_after_s - facts.not_before_s, YEAR_S / 2 + 3_600);
        board.present(Presented::Chain(&chain)).unwrap();
        assert!(matches!(board.client.id(), Some(OwnId::Device(id)) if id.name() == "sn-42"));
        board.connect().unwrap();
        board.present(Presented::Provisioned).unwrap();
        assert!(matches!(board.client.id(), Some(OwnId::Factory(_))));
    }

    #[test]
    fn a_board_with_a_token_joins_with_it() {
        let fleet = Fleet::new();
        let trust_domain = String::from("example.org");
        let mut board =
            fleet.board(provision::Identity::Pairing { token: TOKEN.into(), trust_domain }).unwrap();
        assert_eq!(board.to_string(), "pairing=0a1b2c3d");
        assert_eq!(board.provisioned(), Provisioned::Pairing { id: "0a1b2c3d".into() });
        assert!(board.connect().is_err(), "it has nothing to present before it has made a key");
        assert_eq!(board.present(Presented::Provisioned), Err(IdentityError::Unavailable));
        let (hash, _) = with_key(&mut board);
        board.present(Presented::Provisioned).unwrap();
        board.connect().unwrap();
        let proof = board.prove("lab", "sn-42", UID).unwrap();
        let key = TOKEN.parse::<PairingToken>().unwrap().key();
        assert!(key.proves(&statement(hash), &proof));
        assert!(!key.proves(&statement(KeyHash([0; 32])), &proof));
    }

    #[test]
    fn a_board_of_a_fleet_asks_for_its_key_again() {
        let fleet = Fleet::new();
        let device = fleet.authorities.issue_device("lab", "board-1").unwrap();
        let mut board = fleet.board(provision::Identity::Operational(issued(&device))).unwrap();
        assert_eq!(board.to_string(), "device=lab/board-1");
        let Provisioned::Operational { key, facts } = board.provisioned() else { panic!() };
        assert_eq!(i64::try_from(facts.not_after_s).unwrap(), device.facts().not_after);
        let request = board.request().unwrap();
        assert_eq!(KeyHash::of(CertificationRequest::parse(&request).unwrap().public_key_info()), key);
        let chain = fleet.sign(&request, YEAR_S);
        board.check(&chain).unwrap();
        board.present(Presented::Chain(&chain)).unwrap();
        assert_eq!(board.prove("lab", "board-1", UID), Err(IdentityError::Unavailable), "it has joined");
    }

    #[test]
    fn chains_that_are_not_the_boards_are_refused() {
        let fleet = Fleet::new();
        let mut board = fleet.board(fleet.factory()).unwrap();
        let (_, request) = with_key(&mut board);
        let chain = fleet.sign(&request, YEAR_S);
        let refused = |board: &BoardIdentity, chain: &[u8]| match board.check(chain) {
            Err(IdentityError::Chain(problem)) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&board, &[]), "no certificate");
        assert_eq!(refused(&board, &chain[1..]), "the certificate is malformed");
        let elsewhere = Fleet::new();
        let strange = elsewhere.authorities.issue_device("lab", "sn-42").unwrap();
        let strange: Vec<u8> = strange.chain().iter().flat_map(|der| der.to_vec()).collect();
        assert_eq!(refused(&board, &strange), "the private key does not belong to the certificate");
        assert!(board.present(Presented::Chain(&strange)).is_err());
        assert!(matches!(board.client.id(), Some(OwnId::Factory(_))), "it presents what it presented");
        // The board made another key meanwhile: the chain is not for that one.
        with_key(&mut board);
        assert_eq!(refused(&board, &chain), "the private key does not belong to the certificate");
        assert!(matches!(board.use_key(b"no key"), Err(IdentityError::Key(_))));
    }

    #[test]
    fn a_controllers_order_is_followed_and_nobody_elses() {
        let fleet = Fleet::new();
        let mut board = fleet.board(fleet.factory()).unwrap();
        let (_, request) = with_key(&mut board);
        board.present(Presented::Chain(&fleet.sign(&request, YEAR_S))).unwrap();
        let own = "spiffe://example.org/ns/lab/device/sn-42";
        let controller = fleet.authorities.issue_controller("wasmbed-system", "one").unwrap();
        let good = order(&controller, own, UID);
        assert_eq!(board.check_order(&good), Ok(Ordered { device_uid: UID, nonce: NONCE }));
        // What a hostile gateway could try: its own key, another's order, an order that was changed, an operator's, or one of
        // another fleet with the same names.
        let gateway = fleet.authorities.issue_gateway("wasmbed-system", "one", &[]).unwrap();
        let operator = fleet.authorities.issue_operator("wasmbed-system", "one").unwrap();
        let device = fleet.authorities.issue_device("lab", "sn-42").unwrap();
        let elsewhere = Fleet::new();
        let strange = elsewhere.authorities.issue_controller("wasmbed-system", "one").unwrap();
        let mut spoilt = good.clone();
        let nonce_at = good.windows(16).position(|part| part == NONCE.0).unwrap();
        spoilt[nonce_at] ^= 1;
        for (bad, why) in [
            (order(&gateway, own, UID), "signer's certificate"),
            (order(&operator, own, UID), "operator"),
            (order(&device, own, UID), "signer's certificate"),
            (order(&strange, own, UID), "signer's certificate"),
            (order(&controller, "spiffe://example.org/ns/lab/device/sn-43", UID), "another device"),
            (order(&controller, own, DeviceUid([8; 16])), "the order is for the Device 0808"),
            (spoilt, "not signed by its signer's key"),
            (good[..good.len() - 1].to_vec(), "not an order"),
            (Vec::new(), "not an order"),
        ] {
            let words = refusal(&mut board, &bad);
            assert!(words.contains(why), "{why}: {words}");
        }
        // A certificate that was made by hand names no UID: the order's is taken as it is.
        let mut board = fleet.board(provision::Identity::Operational(issued(&device))).unwrap();
        let later = order(&controller, own, DeviceUid([8; 16]));
        assert_eq!(board.check_order(&later).map(|ordered| ordered.device_uid), Ok(DeviceUid([8; 16])));
        // A board that joins is nobody that an order could name.
        let mut board = fleet.board(fleet.factory()).unwrap();
        assert!(board.check_order(&good).is_err());
    }

    #[test]
    fn an_order_is_held_to_the_time_that_gateways_are_held_to() {
        let fleet = Fleet::new();
        let device = fleet.authorities.issue_device("lab", "sn-42").unwrap();
        let controller = fleet.authorities.issue_controller("wasmbed-system", "one").unwrap();
        let order = order(&controller, "spiffe://example.org/ns/lab/device/sn-42", UID);
        let mut board = fleet.board(provision::Identity::Operational(issued(&device))).unwrap();
        assert!(board.check_order(&order).is_ok(), "a board without a clock, years in a drawer");
        let end = u64::try_from(controller.facts().not_after).unwrap();
        board.time = Time::new(end);
        assert!(board.check_order(&order).is_ok(), "it may still be that late");
        board.time = Time::new(end + 1);
        let words = refusal(&mut board, &order);
        assert!(words.contains("expired"), "{words}");
    }

    #[test]
    fn a_proof_is_by_the_operational_key_and_afterwards_there_is_none() {
        let fleet = Fleet::new();
        let mut board = fleet.board(fleet.factory()).unwrap();
        let proof = Proof { device_uid: UID, nonce: NONCE, erased: Erased::ALL };
        assert_eq!(board.sign_proof(&proof), Err(IdentityError::Unavailable), "it has no key yet");
        let (_, request) = with_key(&mut board);
        let key = CertificationRequest::parse(&request).unwrap().public_key_info().to_vec();
        let bytes = board.sign_proof(&proof).unwrap();
        let signed = SignedProof::decode(&bytes).unwrap();
        assert_eq!(*signed.proof(), proof);
        signed.verify(|message, given| is_signed_by(&key, message, given).then_some(()).ok_or(())).unwrap();
        board.present(Presented::Chain(&fleet.sign(&request, YEAR_S))).unwrap();

        board.forget_keys();
        assert_eq!(board.sign_proof(&proof), Err(IdentityError::Unavailable));
        assert_eq!(board.request(), Err(IdentityError::Unavailable));
        assert_eq!(board.present(Presented::Provisioned), Err(IdentityError::Unavailable));
        assert!(board.connect().is_err());
        assert_eq!(board.to_string(), "erased");
    }

    #[test]
    fn what_was_provisioned_wrongly_says_what_to_do() {
        let fleet = Fleet::new();
        let refused = |identity| fleet.board(identity).err().unwrap();
        let trust_domain = String::from("example.org");
        let pairing = provision::Identity::Pairing { token: "nonsense".into(), trust_domain };
        assert_eq!(refused(pairing), "the identity's pairing token is missing, too large or not usable");
        let device = issued(&fleet.authorities.issue_device("lab", "board-1").unwrap());
        let words = refused(provision::Identity::Factory(device));
        assert!(words.contains("is not spiffe://TRUST/factory/SERIAL"), "{words}");
    }
}
