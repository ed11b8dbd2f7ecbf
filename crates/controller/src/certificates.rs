//! The controller's own certificate and the roots that it trusts: read at the start, and again when their files change.
//!
//! A new connection gets the newest that could be used. Standing ones keep what they began with.

use std::sync::Arc;

use rustls::RootCertStore;
use tokio_util::sync::CancellationToken;
use wasmbed_pki::{Identity, RENEWAL_INTERVAL, Renewed, read_certificates, tls::roots};

use crate::{TlsFiles, error::Error};

/// Who the controller is, and whom it believes.
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) roots: Arc<RootCertStore>,
}

/// What the files said when they last could be used.
pub(crate) type Certificates = Renewed<Credentials, Error>;

/// Reads the files for the first time.
pub(crate) fn open(files: &TlsFiles) -> Result<Arc<Certificates>, Error> {
    let names = [files.certificate.clone(), files.key.clone(), files.services_roots.clone()];
    let files = files.clone();
    let read = move || {
        let identity = Identity::read(&files.certificate, &files.key)?;
        Ok(Credentials { identity, roots: roots(read_certificates(&files.services_roots)?)? })
    };
    Renewed::open(names, read).map(Arc::new)
}

/// Looks at the files until `stop`.
pub(crate) async fn follow(certificates: Arc<Certificates>, stop: CancellationToken) {
    let renewed = |read: Result<Arc<Credentials>, Error>| match read {
        Ok(credentials) => {
            let not_after = credentials.identity.facts().not_after;
            tracing::info!(not_after, "certificates were read again; new connections use them");
        }
        Err(error) => tracing::error!(
            reason = "BadCertificateFiles",
            %error,
            "changed certificate files can't be used; the earlier ones stay in use"
        ),
    };
    match certificates.follow(RENEWAL_INTERVAL, renewed) {
        Ok(_following) => stop.cancelled().await,
        Err(error) => tracing::error!(%error, "changed certificate files won't be noticed"),
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_pki::Authorities;

    use super::*;

    #[test]
    fn a_new_connection_uses_the_renewed_identity() {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open(&folder.path().join("pki"), "example").unwrap();
        let issue = || {
            let identity = authorities.issue_controller("wasmbed-system", "c").unwrap();
            identity.write(folder.path(), "c").unwrap();
            identity.public_key_base64()
        };
        let services_roots = folder.path().join("services.crt");
        std::fs::write(&services_roots, authorities.services_root_pem()).unwrap();
        let (certificate, key) = Identity::files(folder.path(), "c");
        let first = issue();
        let certificates = open(&TlsFiles { certificate, key, services_roots }).unwrap();
        let key = || certificates.current().identity.public_key_base64();
        assert_eq!(key(), first);
        let second = issue();
        assert!(certificates.refresh().is_some_and(|renewed| renewed.is_ok()));
        assert_eq!(key(), second);
    }
}
