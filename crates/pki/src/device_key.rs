//! A device's own key, and what it signs before anyone issued a certificate for it.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SigningKey as _,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{Identity, PemError, PkiError};

/// A key on P-256.
pub struct DeviceKey {
    pair: KeyPair,
}

impl DeviceKey {
    /// A new one.
    ///
    /// # Errors
    /// The machine has no random bytes.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self { pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// The one that [`pkcs8`](Self::pkcs8) gave.
    ///
    /// # Errors
    /// The bytes are no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PkiError> {
        let der = PrivatePkcs8KeyDer::from(der);
        Ok(Self { pair: KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)? })
    }

    /// The key of an identity.
    ///
    /// # Errors
    /// It is of another kind.
    pub fn of(identity: &Identity) -> Result<Self, PkiError> {
        Ok(Self { pair: KeyPair::from_pem_and_sign_algo(&identity.key_pem, &PKCS_ECDSA_P256_SHA256)? })
    }

    /// PKCS #8 (RFC 5208), DER. It is as secret as can be.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.pair.serialized_der()
    }

    /// DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// A certification request (RFC 2986), DER, with an empty subject.
    ///
    /// # Errors
    /// It could not be signed.
    pub fn request(&self) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.pair)?.der().to_vec())
    }

    /// ECDSA with SHA-256 over a message (X9.62, DER).
    ///
    /// # Errors
    /// It could not be signed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        Ok(self.pair.sign(message)?)
    }

    /// An identity that this key alone vouches for: what a device with a pairing token presents. No date of it means anything.
    ///
    /// # Errors
    /// It could not be signed.
    pub fn self_signed(&self) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "wasmbed device");
        let certificate = params.self_signed(&self.pair)?;
        let identity = Identity::from_pem(&certificate.pem(), &self.pair.serialize_pem());
        identity.map_err(|_| PkiError::Generate(rcgen::Error::CouldNotParseCertificate))
    }

    /// An identity with a chain that was issued for this key.
    ///
    /// # Errors
    /// It is another key's, or no chain.
    pub fn with_chain(&self, chain: Vec<CertificateDer<'static>>) -> Result<Identity, PemError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8().to_vec()));
        Identity::from_der(chain, key, self.pair.serialize_pem())
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authorities, CertificationRequest, split_chain};

    #[test]
    fn a_key_comes_back_as_it_was_and_signs_what_others_verify() {
        let key = DeviceKey::generate().unwrap();
        let again = DeviceKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.public_key_info(), key.public_key_info());
        let request = again.request().unwrap();
        assert_eq!(CertificationRequest::parse(&request).unwrap().public_key_info(), key.public_key_info());
        assert!(key.pkcs8().len() <= 256 && request.len() <= 512, "{} {}", key.pkcs8().len(), request.len());
        let identity = key.self_signed().unwrap();
        assert_eq!(identity.facts().public_key, key.public_key_info());
        assert!(identity.facts().uris.is_empty() && identity.chain()[0].len() <= 1_024);
        let signature = DeviceKey::of(&identity).unwrap().sign(b"message").unwrap();
        assert!(signature.len() <= 128);
        for bytes in [&b""[..], &key.pkcs8()[..50], &[0x30; 138]] {
            assert!(DeviceKey::from_pkcs8(bytes).is_err());
        }
    }

    #[test]
    fn a_chain_is_split_and_only_its_own_key_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open(folder.path(), "example.org").unwrap();
        let issued = authorities.issue_device("default", "one").unwrap();
        let der: Vec<u8> = issued.chain().iter().flat_map(|one| one.to_vec()).collect();
        let chain = split_chain(&der).unwrap();
        assert_eq!(chain, issued.chain());
        let identity = DeviceKey::of(&issued).unwrap().with_chain(chain.clone()).unwrap();
        assert_eq!((identity.chain_pem, identity.key_pem), (issued.chain_pem, issued.key_pem));
        let other = DeviceKey::generate().unwrap().with_chain(chain);
        assert!(matches!(other, Err(PemError::KeyMismatch)));
        for bytes in [&[][..], &der[..der.len() - 1], &der.repeat(8)] {
            assert!(split_chain(bytes).is_err());
        }
    }
}
