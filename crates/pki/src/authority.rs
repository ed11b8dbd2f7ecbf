//! The two roots of a trust domain and what is issued below them.

use std::path::Path;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls_pki_types::CertificateDer;

use crate::{
    Identity, PkiError, Role, SpiffeError, SpiffeId,
    issuer::{Authority, AuthorityPlan, Clock, LeafPlan},
    lifetime,
};

/// Services root and devices root with their issuing authorities.
///
/// Files: `services-root`, `services-issuing`, `devices-root`, `devices-issuing`, each `.crt` and `.key`. The roots'
/// keys may be moved off the machine once the issuing authorities exist.
pub struct Authorities {
    trust_domain: String,
    services_root: Authority,
    services: Authority,
    devices_root: Authority,
    devices: Authority,
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
        // Any id will do: it is the trust domain that is checked.
        SpiffeId::new(trust_domain, "default", Role::Gateway, "any").map_err(|_| PkiError::Name {
            what: "trust domain",
            value: trust_domain.to_owned(),
            expected: "1 to 255 of a-z, 0-9, '.', '-', '_'",
        })?;
        let root = |stem, kind: &str| {
            let plan = AuthorityPlan {
                stem,
                common_name: common_name(&format!("Wasmbed {kind} root"), trust_domain),
                days: lifetime::ROOT_DAYS,
                depth: 1,
                purposes: Vec::new(),
                parent: None,
            };
            Authority::create_or_open(folder, &plan, clock)
        };
        let issuing = |stem, kind: &str, purposes, parent| {
            let plan = AuthorityPlan {
                stem,
                common_name: common_name(&format!("Wasmbed {kind} issuing"), trust_domain),
                days: lifetime::ISSUING_DAYS,
                depth: 0,
                purposes,
                parent: Some(parent),
            };
            Authority::create_or_open(folder, &plan, clock)
        };
        let services_root = root("services-root", "services")?;
        let services = issuing("services-issuing", "services", vec![ServerAuth, ClientAuth], &services_root)?;
        let devices_root = root("devices-root", "devices")?;
        // Nothing below the devices root can act as a server, whatever a leaf says.
        let devices = issuing("devices-issuing", "devices", vec![ClientAuth], &devices_root)?;
        Ok(Self { trust_domain: trust_domain.to_owned(), services_root, services, devices_root, devices })
    }

    /// Files of authorities whose certificates had not begun and were made anew when they were opened: the clock was ahead when
    /// they were made, or is behind now. Their keys are the same, so everything below them and everyone who trusts the former
    /// certificate goes on.
    pub fn begun_anew(&self) -> impl Iterator<Item = &Path> {
        [&self.services_root, &self.services, &self.devices_root, &self.devices]
            .into_iter()
            .filter_map(|authority| authority.begun_anew())
    }

    /// The trust domain of all ids.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What devices and controllers trust in gateways, and gateways in controllers and operators.
    #[must_use]
    pub fn services_root(&self) -> &CertificateDer<'static> {
        self.services_root.certificate()
    }

    /// [`services_root`](Self::services_root) as PEM.
    #[must_use]
    pub fn services_root_pem(&self) -> &str {
        self.services_root.certificate_pem()
    }

    /// What gateways trust in devices.
    #[must_use]
    pub fn devices_root(&self) -> &CertificateDer<'static> {
        self.devices_root.certificate()
    }

    /// [`devices_root`](Self::devices_root) as PEM.
    #[must_use]
    pub fn devices_root_pem(&self) -> &str {
        self.devices_root.certificate_pem()
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

    /// Issues the identity of a person or tool that reads logs from gateways.
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
        self.devices.issue_again(held, LeafPlan::spiffe(&id, &[], lifetime::DEVICE_DAYS)?, true)
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
        let (authority, days) = match role {
            Role::Gateway | Role::Controller | Role::Operator => (&self.services, lifetime::SERVICE_DAYS),
            Role::Device => (&self.devices, lifetime::DEVICE_DAYS),
        };
        authority.issue(LeafPlan::spiffe(&id, hosts, days)?, true)
    }
}

/// RFC 5280 allows 64 characters.
fn common_name(title: &str, trust_domain: &str) -> String {
    format!("{title} {trust_domain}").chars().take(64).collect()
}
