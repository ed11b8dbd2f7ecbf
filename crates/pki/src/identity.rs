//! A certificate chain with its private key.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{CertificateError, CertificateFacts, IdentityError, PemError, PkiError, SpiffeId, write_private};

/// A leaf certificate, its issuing authority and the leaf's private key.
pub struct Identity {
    /// PEM of the leaf, then of the issuing authorities, the root not among them.
    pub chain_pem: String,
    /// PEM of the private key, PKCS#8 v1.
    pub key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    facts: CertificateFacts,
}

impl Identity {
    /// An identity from PEM texts.
    ///
    /// # Errors
    /// One of the texts does not hold what it should, or they do not belong together.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, PemError> {
        let chain = parse_certificates(chain_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(PemError::Key)?;
        Self::new(chain, chain_pem.to_owned(), key, key_pem.to_owned())
    }

    /// An identity from DER; `key_pem` is the key once more.
    pub(crate) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        key_pem: String,
    ) -> Result<Self, PemError> {
        let chain_pem = pem_of("CERTIFICATE", chain.iter().map(AsRef::as_ref));
        Self::new(chain, chain_pem, key, key_pem)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        chain_pem: String,
        key: PrivateKeyDer<'static>,
        key_pem: String,
    ) -> Result<Self, PemError> {
        let facts = CertificateFacts::parse(chain.first().ok_or(PemError::NoCertificate)?)?;
        let signer = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| PemError::KeyKind)?;
        if signer.public_key().is_none_or(|public| public.as_ref() != facts.public_key) {
            return Err(PemError::KeyMismatch);
        }
        Ok(Self { chain_pem, key_pem, chain, key, facts })
    }

    /// Reads an identity from its two files.
    ///
    /// # Errors
    /// A file can't be read, does not hold PEM of the right kind, or the key does not belong to the certificate.
    pub fn read(chain_file: &Path, key_file: &Path) -> Result<Self, IdentityError> {
        let chain_pem = read_text(chain_file)?;
        let key_pem = read_text(key_file)?;
        let in_chain = |problem| IdentityError::File { path: chain_file.to_owned(), problem };
        parse_certificates(chain_pem.as_bytes()).map_err(in_chain)?;
        Self::from_pem(&chain_pem, &key_pem)
            .map_err(|problem| IdentityError::File { path: key_file.to_owned(), problem })
    }

    /// Writes `STEM.crt` and `STEM.key`, both of mode 0600, the key first.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<(), PkiError> {
        let (chain_file, key_file) = Self::files(folder, stem);
        for (path, text) in [(key_file, &self.key_pem), (chain_file, &self.chain_pem)] {
            write_private(&path, text.as_bytes()).map_err(|source| PkiError::Io { path, source })?;
        }
        Ok(())
    }

    /// Where [`write`](Self::write) puts the chain and the key.
    #[must_use]
    pub fn files(folder: &Path, stem: &str) -> (PathBuf, PathBuf) {
        (folder.join(format!("{stem}.crt")), folder.join(format!("{stem}.key")))
    }

    /// The leaf, then the issuing authorities.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The leaf's facts.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The leaf's SPIFFE id.
    ///
    /// # Errors
    /// The leaf has none, or one that is not ours.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        self.facts.spiffe_id()
    }

    /// The leaf's public key as `Device.spec.public_key` has it.
    #[must_use]
    pub fn public_key_base64(&self) -> String {
        self.facts.public_key_base64()
    }

    /// Whether the leaf has not begun at `now` (seconds since 1970-01-01T00:00:00Z), or its issuing authority in the chain has
    /// not: the clock was ahead when it was made, or is behind now.
    #[must_use]
    pub fn is_early(&self, now: i64) -> bool {
        let begins = |certificate: &CertificateDer<'_>| {
            CertificateFacts::parse(certificate).map(|facts| facts.not_before)
        };
        self.chain.iter().any(|certificate| begins(certificate).is_ok_and(|begins| begins > now))
    }

    /// Whether less than a third of the leaf's life is left at `now` (seconds since 1970-01-01T00:00:00Z), or it has
    /// not begun.
    #[must_use]
    pub fn should_renew(&self, now: i64) -> bool {
        let life = self.facts.not_after.saturating_sub(self.facts.not_before);
        self.is_early(now) || self.facts.not_after.saturating_sub(now) < life / 3
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Reads a PEM file of one or more certificates, for example the roots that a process trusts.
///
/// # Errors
/// The file can't be read or holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    parse_certificates(read_text(path)?.as_bytes())
        .map_err(|problem| IdentityError::File { path: path.to_owned(), problem })
}

/// Reads PEM of one or more certificates.
///
/// # Errors
/// It is no PEM, or holds no certificate.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(PemError::Syntax)?;
    if certificates.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(certificates)
}

/// PEM (RFC 7468) of DER objects of one kind, one after the other; `label` is "CERTIFICATE", for example.
#[must_use]
pub fn pem_of<'a>(label: &str, objects: impl IntoIterator<Item = &'a [u8]>) -> String {
    const LINE: usize = 64;
    let mut pem = String::new();
    for der in objects {
        let text = STANDARD.encode(der);
        pem.push_str(&format!("-----BEGIN {label}-----\n"));
        let mut rest = text.as_str();
        while !rest.is_empty() {
            // Base64 is ASCII.
            let (line, after) = rest.split_at(rest.len().min(LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str(&format!("-----END {label}-----\n"));
    }
    pem
}

fn read_text(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_read_as_it_is_written() {
        let objects: Vec<Vec<u8>> = [1, 47, 48, 49, 1_000].map(|bytes| vec![0xa5; bytes]).into();
        let pem = pem_of("CERTIFICATE", objects.iter().map(Vec::as_slice));
        assert!(pem.lines().all(|line| line.len() <= 64));
        let read = parse_certificates(pem.as_bytes()).unwrap();
        assert_eq!(read, objects.into_iter().map(CertificateDer::from).collect::<Vec<_>>());
        assert!(parse_certificates(b"").is_err());
    }
}
