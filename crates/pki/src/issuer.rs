//! One certificate authority on disk: `STEM.crt` and `STEM.key`.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use wasmbed_identity::{FactoryId, OperatorId};

use crate::{
    CertificateFacts, Identity, PkiError, Role, SpiffeId, identity::parse_certificates, lifetime,
    tls::provider, write_private,
};

/// Which clock certificates begin by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    System,
    /// Seconds since 1970-01-01T00:00:00Z.
    At(i64),
}

impl Clock {
    fn now(self) -> i64 {
        match self {
            Self::System => unix_now(),
            Self::At(now) => now,
        }
    }
}

/// An authority that can sign, or one of which only the certificate is here.
pub(crate) struct Authority {
    clock: Clock,
    /// Its file, if its certificate had not begun and was made anew.
    begun_anew: Option<PathBuf>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Option<Issuer<'static, KeyPair>>,
    key_file: PathBuf,
}

/// What an authority that does not exist yet is to be.
pub(crate) struct AuthorityPlan<'a> {
    pub(crate) stem: &'static str,
    pub(crate) common_name: String,
    pub(crate) days: u64,
    /// Authorities that may follow below it.
    pub(crate) depth: u8,
    /// Purposes of everything below it; none means any.
    pub(crate) purposes: Vec<ExtendedKeyUsagePurpose>,
    /// Who signs it; itself if none.
    pub(crate) parent: Option<&'a Authority>,
}

impl Authority {
    /// Opens the authority or, if its certificate does not exist, makes it. A key without a certificate, which a
    /// crash in between leaves, is used. A certificate that has not begun, because the clock was ahead when it was made, is
    /// made anew to begin now and end when it would have, provided that the keys are here: it signs nothing but what it signed
    /// before, and what it signed stays valid.
    pub(crate) fn create_or_open(
        folder: &Path,
        plan: &AuthorityPlan<'_>,
        clock: Clock,
    ) -> Result<Self, PkiError> {
        let (certificate_file, key_file) = Identity::files(folder, plan.stem);
        let key = match read(&key_file)? {
            Some(pem) => Some(parse_key(&key_file, &pem)?),
            None => None,
        };
        if let Some(certificate_pem) = read(&certificate_file)? {
            let opened = Self::open(&certificate_file, certificate_pem, key_file.clone(), key, clock)?;
            return match opened.not_after_if_not_begun()? {
                Some(not_after) if plan.can_sign(&opened) => {
                    opened.begin_now(&certificate_file, plan, not_after)
                }
                Some(_) | None => Ok(opened),
            };
        }
        let key = match key {
            Some(key) => key,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                store(&key_file, &key.serialize_pem())?;
                key
            }
        };
        let pem = plan.certificate(&key, plan.params(clock.now())?)?;
        store(&certificate_file, &pem)?;
        Self::open(&certificate_file, pem, key_file, Some(key), clock)
    }

    /// Opens an authority whose certificate and key are both here, wherever they lie.
    pub(crate) fn open_existing(certificate: &Path, key: &Path, clock: Clock) -> Result<Self, PkiError> {
        let text = |path: &Path| {
            read(path)?
                .ok_or_else(|| PkiError::Io { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
        };
        let pair = parse_key(key, &text(key)?)?;
        Self::open(certificate, text(certificate)?, key.to_owned(), Some(pair), clock)
    }

    /// The end of a certificate that has not begun.
    fn not_after_if_not_begun(&self) -> Result<Option<i64>, PkiError> {
        let problem = |error: crate::CertificateError| PkiError::File {
            path: self.key_file.with_extension("crt"),
            problem: error.to_string(),
        };
        let facts = CertificateFacts::parse(&self.certificate).map_err(problem)?;
        Ok((facts.not_before > self.clock.now()).then_some(facts.not_after))
    }

    fn begin_now(
        self,
        certificate_file: &Path,
        plan: &AuthorityPlan<'_>,
        not_after: i64,
    ) -> Result<Self, PkiError> {
        let pem = read(&self.key_file)?.unwrap_or_default();
        let key = parse_key(&self.key_file, &pem)?;
        let now = self.clock.now();
        let mut params = plan.params(now)?;
        set_validity(&mut params, now.saturating_sub_unsigned(lifetime::BACKDATE_SECONDS), not_after);
        let pem = plan.certificate(&key, params)?;
        store(certificate_file, &pem)?;
        let opened = Self::open(certificate_file, pem, self.key_file, Some(key), self.clock)?;
        Ok(Self { begun_anew: Some(certificate_file.to_owned()), ..opened })
    }

    /// The file of a certificate that had not begun and was made anew.
    pub(crate) fn begun_anew(&self) -> Option<&Path> {
        self.begun_anew.as_deref()
    }

    fn open(
        certificate_file: &Path,
        certificate_pem: String,
        key_file: PathBuf,
        key: Option<KeyPair>,
        clock: Clock,
    ) -> Result<Self, PkiError> {
        let problem = |problem: String| PkiError::File { path: certificate_file.to_owned(), problem };
        let certificate = parse_certificates(certificate_pem.as_bytes())
            .map_err(|error| problem(error.to_string()))?
            .swap_remove(0);
        let facts = CertificateFacts::parse(&certificate).map_err(|error| problem(error.to_string()))?;
        if facts.not_after <= clock.now() {
            return Err(problem("this authority has expired".to_owned()));
        }
        let issuer = match key {
            Some(key) if key.subject_public_key_info() != facts.public_key => {
                return Err(problem(format!(
                    "does not belong to the private key in {}; restore the pair that belongs together",
                    key_file.display()
                )));
            }
            Some(key) => Some(Issuer::from_ca_cert_der(&certificate, key)?),
            None => None,
        };
        Ok(Self { clock, begun_anew: None, certificate, certificate_pem, issuer, key_file })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a leaf with a fresh key. The chain holds this authority unless it is a root.
    pub(crate) fn issue(&self, leaf: LeafPlan, include_self: bool) -> Result<Identity, PkiError> {
        self.issue_for(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, leaf, include_self)
    }

    /// Issues a leaf for a key that its holder has already.
    pub(crate) fn issue_again(
        &self,
        held: &Identity,
        leaf: LeafPlan,
        include_self: bool,
    ) -> Result<Identity, PkiError> {
        let key = KeyPair::from_pem(&held.key_pem)?;
        self.issue_for(&key, leaf, include_self)
    }

    fn issue_for(&self, key: &KeyPair, leaf: LeafPlan, include_self: bool) -> Result<Identity, PkiError> {
        let certificate = leaf.params(self.clock.now())?.signed_by(key, self.issuer()?)?;
        let mut chain_pem = certificate.pem();
        if include_self {
            chain_pem.push_str(&self.certificate_pem);
        }
        Identity::from_pem(&chain_pem, &key.serialize_pem())
            .map_err(|error| PkiError::File { path: self.key_file.clone(), problem: error.to_string() })
    }

    /// Issues a leaf for a key of which only the public half is here (DER `SubjectPublicKeyInfo`), for so many seconds and not
    /// beyond a time (seconds since 1970-01-01T00:00:00Z): PEM, this authority behind it.
    pub(crate) fn certify(
        &self,
        public_key_info: &[u8],
        leaf: LeafPlan,
        seconds: u64,
        not_after_max: i64,
    ) -> Result<String, PkiError> {
        let now = self.clock.now();
        let mut params = leaf.params(now)?;
        let begin = now.saturating_sub_unsigned(lifetime::BACKDATE_SECONDS);
        set_validity(&mut params, begin, now.saturating_add_unsigned(seconds).min(not_after_max));
        let key = SubjectPublicKeyInfo::from_der(public_key_info)?;
        let certificate = params.signed_by(&key, self.issuer()?)?;
        Ok(certificate.pem() + &self.certificate_pem)
    }

    /// Whether its key is here.
    pub(crate) fn can_issue(&self) -> bool {
        self.issuer.is_some()
    }

    fn issuer(&self) -> Result<&Issuer<'static, KeyPair>, PkiError> {
        self.issuer.as_ref().ok_or_else(|| PkiError::File {
            path: self.key_file.clone(),
            problem: "this private key is needed to sign and is not here".to_owned(),
        })
    }
}

impl AuthorityPlan<'_> {
    /// Whether both keys that its certificate needs are here.
    fn can_sign(&self, opened: &Authority) -> bool {
        opened.issuer.is_some() && self.parent.is_none_or(|parent| parent.issuer.is_some())
    }

    fn certificate(&self, key: &KeyPair, params: CertificateParams) -> Result<String, PkiError> {
        let certificate = match self.parent {
            Some(parent) => params.signed_by(key, parent.issuer()?)?,
            None => params.self_signed(key)?,
        };
        Ok(certificate.pem())
    }

    fn params(&self, now: i64) -> Result<CertificateParams, PkiError> {
        let mut params = base_params(&self.common_name, None, self.days, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(self.depth));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages.clone_from(&self.purposes);
        params.use_authority_key_identifier_extension = self.parent.is_some();
        Ok(params)
    }
}

/// The attribute type `serialNumber` (X.520, section 6.2.9).
const SUBJECT_SERIAL: [u64; 4] = [2, 5, 4, 5];

/// What a leaf is to be.
pub(crate) struct LeafPlan {
    pub(crate) common_name: String,
    pub(crate) organization: Option<String>,
    /// Subject serial number (X.520): the UID of the object that the id names, so that one of the same name is told apart.
    pub(crate) serial: Option<String>,
    pub(crate) names: Vec<SanType>,
    pub(crate) days: u64,
    pub(crate) purpose: ExtendedKeyUsagePurpose,
}

impl LeafPlan {
    /// A client of a factory id.
    pub(crate) fn factory(id: &FactoryId) -> Result<Self, PkiError> {
        let uri = id.as_str().try_into().map_err(PkiError::Generate)?;
        Ok(Self {
            common_name: format!("factory {}", id.serial()).chars().take(64).collect(),
            organization: None,
            serial: None,
            names: vec![SanType::URI(uri)],
            days: lifetime::FACTORY_DAYS,
            purpose: ExtendedKeyUsagePurpose::ClientAuth,
        })
    }

    /// A client of a person's id.
    pub(crate) fn operator(id: &OperatorId) -> Result<Self, PkiError> {
        let uri = id.as_str().try_into().map_err(PkiError::Generate)?;
        Ok(Self {
            common_name: format!("operator {}", id.user()).chars().take(64).collect(),
            organization: None,
            serial: None,
            names: vec![SanType::URI(uri)],
            days: lifetime::SERVICE_DAYS,
            purpose: ExtendedKeyUsagePurpose::ClientAuth,
        })
    }

    /// A leaf with a SPIFFE id; gateways are servers, all others clients.
    pub(crate) fn spiffe(id: &SpiffeId, hosts: &[String], days: u64) -> Result<Self, PkiError> {
        let uri = id.to_string().try_into().map_err(PkiError::Generate)?;
        let mut names = vec![SanType::URI(uri)];
        names.extend(host_names(hosts)?);
        Ok(Self {
            // RFC 5280 allows 64 characters; the id in the alternative name is what counts.
            common_name: format!("{} {}", id.role(), id.name()).chars().take(64).collect(),
            organization: None,
            serial: None,
            names,
            days,
            purpose: match id.role() {
                Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
                Role::Controller | Role::Operator | Role::Device => ExtendedKeyUsagePurpose::ClientAuth,
            },
        })
    }

    fn params(self, now: i64) -> Result<CertificateParams, PkiError> {
        let mut params = base_params(&self.common_name, self.organization.as_deref(), self.days, now)?;
        if let Some(serial) = self.serial {
            params.distinguished_name.push(DnType::CustomDnType(SUBJECT_SERIAL.to_vec()), serial);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = self.names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.purpose];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// DNS names and IP addresses of a server.
pub(crate) fn host_names(hosts: &[String]) -> Result<Vec<SanType>, PkiError> {
    let parse = |host: &String| match host.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => rustls_pki_types::DnsName::try_from(host.as_str())
            .ok()
            .and_then(|name| name.as_ref().try_into().ok())
            .map(SanType::DnsName)
            .ok_or_else(|| PkiError::Name {
                what: "host",
                value: host.clone(),
                expected: "a DNS name or an IP address without a port",
            }),
    };
    hosts.iter().map(parse).collect()
}

fn base_params(
    common_name: &str,
    organization: Option<&str>,
    days: u64,
    now: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.serial_number = Some(random_serial()?);
    let begin = now.saturating_sub_unsigned(lifetime::BACKDATE_SECONDS);
    set_validity(&mut params, begin, now.saturating_add_unsigned(days * 24 * 3_600));
    Ok(params)
}

/// A serial number that no other certificate has, also not another one of the same key (RFC 5280, section 4.1.2.2): positive, of
/// 20 bytes.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 20];
    let filled = provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// In seconds since 1970-01-01T00:00:00Z; before that there are no certificates.
fn set_validity(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |unix_s: i64| Duration::from_secs(u64::try_from(unix_s).unwrap_or(0));
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

/// Seconds since 1970-01-01T00:00:00Z.
pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Io { path: path.to_owned(), source }),
    }
}

fn store(path: &Path, text: &str) -> Result<(), PkiError> {
    write_private(path, text.as_bytes()).map_err(|source| PkiError::Io { path: path.to_owned(), source })
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|error| PkiError::File {
        path: path.to_owned(),
        problem: format!("is not a PEM private key in PKCS#8: {error}"),
    })
}
