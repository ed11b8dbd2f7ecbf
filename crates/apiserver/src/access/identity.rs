//! A client's certificate says who it is: CN is the user, each O a group.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Members may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// A certificate that names nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the client's certificate can't be read: {0}")]
    Certificate(String),
    #[error("the client's certificate has no common name, so it names no user")]
    Nameless,
}

impl User {
    /// Reads a certificate whose chain has been verified.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Result<User, Refused> {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| Refused::Certificate(error.to_string()))?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
        if name.is_empty() {
            return Err(Refused::Nameless);
        }
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
        Ok(User { name: name.to_owned(), groups: groups.collect() })
    }

    pub(crate) fn is_administrator(&self) -> bool {
        self.groups.iter().any(|group| group == ADMINISTRATORS)
    }

    /// The part of the name after its last colon: `gw-1` of `gateway:gw-1`.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or(&self.name)
    }
}
