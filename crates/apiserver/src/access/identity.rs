//! The user that a client certificate names: its CN is the user, each O a group.

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Group whose members may do everything.
const ADMINISTRATORS: &str = "system:masters";
/// Group of all users.
const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    /// Identifies the certificate.
    pub(crate) credential: String,
}

/// A certificate that names no user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("cannot decode the client certificate: {0}")]
    Certificate(String),
    #[error("the client certificate has no common name and names no user")]
    Nameless,
}

impl User {
    /// Reads a certificate whose chain has been verified.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Result<User, IdentityError> {
        let credential = format!("X509SHA256={:x}", Sha256::digest(certificate));
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
        if name.is_empty() {
            return Err(IdentityError::Nameless);
        }
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
        Ok(User { name: name.to_owned(), groups: groups.collect(), credential })
    }

    /// The groups with the one of all users.
    pub(crate) fn all_groups(&self) -> Vec<String> {
        self.groups.iter().cloned().chain([AUTHENTICATED.to_owned()]).collect()
    }

    pub(crate) fn is_administrator(&self) -> bool {
        self.groups.iter().any(|group| group == ADMINISTRATORS)
    }

    /// The part of the name after its last colon: `gw-1` of `gateway:gw-1`.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or(&self.name)
    }
}
