//! The roots of a trust domain and what is issued below them.

use std::path::Path;

use rcgen::ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth};
use rustls_pki_types::CertificateDer;
use wasmbed_identity::FactoryId;

use crate::{
    Identity, PkiError, Role, SpiffeError, SpiffeId,
    issuer::{Authority, AuthorityPlan, Clock, LeafPlan},
    lifetime,
};

/// Services root and devices root with their issuing authorities.
///
/// Files: `services-root`, `services-issuing`, `devices-root`, `devices-issuing`, each `.crt` and `.key`. The roots'
/// keys may be moved off the machine once the issuing authorities exist, and the issuing ones where the roots' stay: there the root
/// signs what is issued.
pub struct Authorities {
    trust_domain: String,
    services: Tier,
    devices: Tier,
}

/// Names the files and the subjects of a root and its issuing authority.
pub(crate) struct TierNames {
    pub(crate) root: &'static str,
    pub(crate) issuing: &'static str,
    pub(crate) kind: &'static str,
    /// Of the issuing authority.
    pub(crate) days: u64,
}

const SERVICES: TierNames = TierNames {
    root: "services-root",
    issuing: "services-issuing",
    kind: "services",
    days: lifetime::ISSUING_DAYS,
};
const DEVICES: TierNames = TierNames {
    root: "devices-root",
    issuing: "devices-issuing",
    kind: "devices",
    days: lifetime::ISSUING_DAYS,
};
/// It lives as long as its root: what it issues is not renewed.
const FACTORY: TierNames = TierNames {
    root: "factory-root",
    issuing: "factory-issuing",
    kind: "factory",
    days: lifetime::ROOT_DAYS,
};

/// A root and the authority below it that issues; none if it is not here and neither is the root's key.
pub(crate) struct Tier {
    pub(crate) root: Authority,
    issuing: Option<Authority>,
}

impl Tier {
    pub(crate) fn create_or_open(
        folder: &Path,
        names: &TierNames,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        trust_domain: &str,
        clock: Clock,
    ) -> Result<Self, PkiError> {
        let TierNames { root, issuing, kind, days } = *names;
        let plan = AuthorityPlan {
            stem: root,
            common_name: common_name(&format!("Wasmbed {kind} root"), trust_domain),
            days: lifetime::ROOT_DAYS,
            depth: 1,
            purposes: Vec::new(),
            parent: None,
        };
        let root = Authority::create_or_open(folder, &plan, clock)?;
        let plan = AuthorityPlan {
            stem: issuing,
            common_name: common_name(&format!("Wasmbed {kind} issuing"), trust_domain),
            days,
            depth: 0,
            purposes,
            parent: Some(&root),
        };
        let is_here = Identity::files(folder, issuing).0.exists();
        let issuing = match is_here || root.can_issue() {
            true => Some(Authority::create_or_open(folder, &plan, clock)?),
            false => None,
        };
        Ok(Self { root, issuing })
    }

    /// Issues a leaf with a fresh key.
    pub(crate) fn issue(&self, leaf: LeafPlan) -> Result<Identity, PkiError> {
        let (issuer, is_below) = self.issuer();
        issuer.issue(leaf, is_below)
    }

    /// The same for a key that its holder has already.
    fn issue_again(&self, held: &Identity, leaf: LeafPlan) -> Result<Identity, PkiError> {
        let (issuer, is_below) = self.issuer();
        issuer.issue_again(held, leaf, is_below)
    }

    /// Who signs, and whether that is an authority below the root: the issuing one, or the root where the key of the issuing one is
    /// elsewhere and the root's is here.
    fn issuer(&self) -> (&Authority, bool) {
        match &self.issuing {
            Some(issuing) if issuing.can_issue() || !self.root.can_issue() => (issuing, true),
            Some(_) | None => (&self.root, false),
        }
    }

    pub(crate) fn begun_anew(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.root), self.issuing.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|authority| authority.begun_anew())
    }
}

impl Authorities {
    /// Opens the authorities in `folder`, and makes those that do not exist.
    ///
    /// # Errors
    /// `trust_domain` is not 1 to 255 of `a-z`, `0-9`, `.`, `-`, `_`; a file can't be read, written or understood; a key
    /// does not belong to its certificate.
    pub fn create_or_open(folder: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::System)
    }

    /// The same for a clock that shows `unix_s` (seconds since 1970-01-01T00:00:00Z): certificates begin there.
    ///
    /// # Errors
    /// As [`Authorities::create_or_open`].
    pub fn create_or_open_at(folder: &Path, trust_domain: &str, unix_s: i64) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::At(unix_s))
    }

    fn open(folder: &Path, trust_domain: &str, clock: Clock) -> Result<Self, PkiError> {
        check_trust_domain(trust_domain)?;
        let open = |names, purposes| Tier::create_or_open(folder, names, purposes, trust_domain, clock);
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            services: open(&SERVICES, vec![ServerAuth, ClientAuth])?,
            // Nothing below the devices root can act as a server, whatever a leaf says.
            devices: open(&DEVICES, vec![ClientAuth])?,
        })
    }

    /// Files of authorities whose certificates had not begun and were made anew when they were opened: the clock was ahead when
    /// they were made, or is behind now. Their keys are the same, so everything below them and everyone who trusts the former
    /// certificate goes on.
    pub fn begun_anew(&self) -> impl Iterator<Item = &Path> {
        self.services.begun_anew().chain(self.devices.begun_anew())
    }

    /// The trust domain of all ids.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What devices, controllers and operators trust in gateways, and gateways in controllers.
    #[must_use]
    pub fn services_root(&self) -> &CertificateDer<'static> {
        self.services.root.certificate()
    }

    /// [`services_root`](Self::services_root) as PEM.
    #[must_use]
    pub fn services_root_pem(&self) -> &str {
        self.services.root.certificate_pem()
    }

    /// What gateways trust in devices.
    #[must_use]
    pub fn devices_root(&self) -> &CertificateDer<'static> {
        self.devices.root.certificate()
    }

    /// [`devices_root`](Self::devices_root) as PEM.
    #[must_use]
    pub fn devices_root_pem(&self) -> &str {
        self.devices.root.certificate_pem()
    }

    /// Issues a gateway's identity; `hosts` are the DNS names and IP addresses at which it is reached.
    ///
    /// # Errors
    /// A name or host that a certificate can't carry, or an issuing key that is not here.
    pub fn issue_gateway(&self, namespace: &str, name: &str, hosts: &[String]) -> Result<Identity, PkiError> {
        self.issue(Role::Gateway, namespace, name, hosts)
    }

    /// Issues a controller's identity.
    ///
    /// # Errors
    /// A name that a certificate can't carry, or an issuing key that is not here.
    pub fn issue_controller(&self, namespace: &str, name: &str) -> Result<Identity, PkiError> {
        self.issue(Role::Controller, namespace, name, &[])
    }

    /// Issues the identity of an operator as versions did before operators had a root of their own. Gateways refuse whatever it asks
    /// for, and say what to do instead.
    ///
    /// # Errors
    /// A name that a certificate can't carry, or an issuing key that is not here.
    pub fn issue_operator(&self, namespace: &str, name: &str) -> Result<Identity, PkiError> {
        self.issue(Role::Operator, namespace, name, &[])
    }

    /// Issues a device's identity.
    ///
    /// # Errors
    /// A name that a certificate can't carry, or an issuing key that is not here.
    pub fn issue_device(&self, namespace: &str, name: &str) -> Result<Identity, PkiError> {
        self.issue(Role::Device, namespace, name, &[])
    }

    /// Issues a device's certificate again, for the key that it has, which may be pinned somewhere.
    ///
    /// # Errors
    /// A name that a certificate can't carry, or an issuing key that is not here.
    pub fn issue_device_again(
        &self,
        namespace: &str,
        name: &str,
        held: &Identity,
    ) -> Result<Identity, PkiError> {
        let id = self.id(Role::Device, namespace, name)?;
        self.devices.issue_again(held, LeafPlan::spiffe(&id, &[], lifetime::DEVICE_DAYS)?)
    }

    fn id(&self, role: Role, namespace: &str, name: &str) -> Result<SpiffeId, PkiError> {
        SpiffeId::new(&self.trust_domain, namespace, role, name).map_err(|error: SpiffeError| {
            PkiError::Name {
                what: "identity",
                value: error.id,
                expected: "a Kubernetes namespace and a Kubernetes name: a-z, 0-9, '-', and '.' in the name",
            }
        })
    }

    fn issue(&self, role: Role, namespace: &str, name: &str, hosts: &[String]) -> Result<Identity, PkiError> {
        let id = self.id(role, namespace, name)?;
        let (tier, days) = match role {
            Role::Gateway | Role::Controller | Role::Operator => (&self.services, lifetime::SERVICE_DAYS),
            Role::Device => (&self.devices, lifetime::DEVICE_DAYS),
        };
        tier.issue(LeafPlan::spiffe(&id, hosts, days)?)
    }
}

/// A factory root with its issuing authority: what a production line gives devices before they belong to a fleet.
///
/// Files: `factory-root` and `factory-issuing`, each `.crt` and `.key`. Nothing else is below that root, and what is below it is no
/// device of a fleet: it may ask to become one.
pub struct FactoryAuthority {
    trust_domain: String,
    tier: Tier,
}

impl FactoryAuthority {
    /// Opens the authority in `folder`, or makes it.
    ///
    /// # Errors
    /// As [`Authorities::create_or_open`].
    pub fn create_or_open(folder: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::System)
    }

    /// The same for a clock that shows `unix_s` (seconds since 1970-01-01T00:00:00Z): certificates begin there.
    ///
    /// # Errors
    /// As [`Authorities::create_or_open`].
    pub fn create_or_open_at(folder: &Path, trust_domain: &str, unix_s: i64) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::At(unix_s))
    }

    fn open(folder: &Path, trust_domain: &str, clock: Clock) -> Result<Self, PkiError> {
        check_trust_domain(trust_domain)?;
        let tier = Tier::create_or_open(folder, &FACTORY, vec![ClientAuth], trust_domain, clock)?;
        Ok(Self { trust_domain: trust_domain.to_owned(), tier })
    }

    /// Files whose certificates had not begun and were made anew, as [`Authorities::begun_anew`].
    pub fn begun_anew(&self) -> impl Iterator<Item = &Path> {
        self.tier.begun_anew()
    }

    /// What gateways and signers trust in devices that join.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.tier.root.certificate()
    }

    /// [`root`](Self::root) as PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.tier.root.certificate_pem()
    }

    /// Issues the factory identity of a serial.
    ///
    /// # Errors
    /// A serial that an id can't carry, or a key that is not here.
    pub fn issue(&self, serial: &str) -> Result<Identity, PkiError> {
        let id = FactoryId::new(&self.trust_domain, serial).map_err(|_| PkiError::Name {
            what: "serial",
            value: serial.to_owned(),
            expected: "1 to 63 letters, digits, '-', '.', '_', a letter or digit at both ends",
        })?;
        self.tier.issue(LeafPlan::factory(&id)?)
    }
}

pub(crate) fn check_trust_domain(trust_domain: &str) -> Result<(), PkiError> {
    // Any id will do: it is the trust domain that is checked.
    SpiffeId::new(trust_domain, "default", Role::Gateway, "any").map(drop).map_err(|_| PkiError::Name {
        what: "trust domain",
        value: trust_domain.to_owned(),
        expected: "1 to 255 of a-z, 0-9, '.', '-', '_'",
    })
}

/// RFC 5280 allows 64 characters.
fn common_name(title: &str, trust_domain: &str) -> String {
    format!("{title} {trust_domain}").chars().take(64).collect()
}
