//! The authority of the embedded Kubernetes API: its server certificate and its clients'.

use std::path::Path;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls_pki_types::CertificateDer;

use crate::{
    Identity, PkiError,
    issuer::{Authority, AuthorityPlan, Clock, LeafPlan, host_names},
    lifetime,
};

/// Signs the API server's certificate and its clients', whose common name is the Kubernetes user and whose
/// organization is the user's group. File: `cluster-ca`, `.crt` and `.key`.
pub struct ClusterAuthority {
    authority: Authority,
}

impl ClusterAuthority {
    /// Opens the authority in `folder`, or makes it.
    ///
    /// # Errors
    /// A file can't be read, written or understood, or the key does not belong to the certificate.
    pub fn create_or_open(folder: &Path) -> Result<Self, PkiError> {
        Self::open(folder, Clock::System)
    }

    /// The same for a clock that shows `unix_s` (seconds since 1970-01-01T00:00:00Z): certificates begin there.
    ///
    /// # Errors
    /// As [`ClusterAuthority::create_or_open`].
    pub fn create_or_open_at(folder: &Path, unix_s: i64) -> Result<Self, PkiError> {
        Self::open(folder, Clock::At(unix_s))
    }

    fn open(folder: &Path, clock: Clock) -> Result<Self, PkiError> {
        let plan = AuthorityPlan {
            stem: "cluster-ca",
            common_name: "Wasmbed cluster".to_owned(),
            days: lifetime::ISSUING_DAYS,
            depth: 0,
            purposes: Vec::new(),
            parent: None,
        };
        Ok(Self { authority: Authority::create_or_open(folder, &plan, clock)? })
    }

    /// Its file, if its certificate had not begun and was made anew when it was opened.
    #[must_use]
    pub fn begun_anew(&self) -> Option<&Path> {
        self.authority.begun_anew()
    }

    /// What both sides trust.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.authority.certificate()
    }

    /// [`certificate`](Self::certificate) as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Issues the API server's identity for the DNS names and IP addresses at which it is reached.
    ///
    /// # Errors
    /// A host that a certificate can't name, or a key that is not here.
    pub fn issue_server(&self, hosts: &[String]) -> Result<Identity, PkiError> {
        let leaf = LeafPlan {
            serial: None,
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            names: host_names(hosts)?,
            days: lifetime::SERVICE_DAYS,
            purpose: ServerAuth,
        };
        self.authority.issue(leaf, false)
    }

    /// Issues a client's identity: `user` becomes the common name, `group` the organization.
    ///
    /// # Errors
    /// A user name that is empty or longer than 64 characters, or a key that is not here.
    pub fn issue_client(&self, user: &str, group: &str) -> Result<Identity, PkiError> {
        if user.is_empty() || user.chars().count() > 64 {
            return Err(PkiError::Name {
                what: "user",
                value: user.to_owned(),
                expected: "1 to 64 characters",
            });
        }
        let leaf = LeafPlan {
            serial: None,
            common_name: user.to_owned(),
            organization: Some(group.to_owned()),
            names: Vec::new(),
            days: lifetime::SERVICE_DAYS,
            purpose: ClientAuth,
        };
        self.authority.issue(leaf, false)
    }
}
