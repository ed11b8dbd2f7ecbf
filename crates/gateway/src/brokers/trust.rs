//! TLS of connections to brokers: the provider is that of all other connections, the roots are those that a MessageBroker names.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use wasmbed_api::ReasonCode;
use wasmbed_control::gateway::{BrokerEndpoint, BrokerFailure};

/// The TLS configuration for a broker.
pub(super) fn client_config(endpoint: &BrokerEndpoint) -> Result<Arc<ClientConfig>, BrokerFailure> {
    let invalid = |message: &str| BrokerFailure::new(ReasonCode::BrokerInvalid, message);
    let mut roots = RootCertStore::empty();
    match &endpoint.ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate =
                    certificate.map_err(|error| invalid(&format!("spec.ca is not PEM: {error}")))?;
                roots.add(certificate).map_err(|error| {
                    invalid(&format!("spec.ca has a certificate that can't be used: {error}"))
                })?;
            }
            if roots.is_empty() {
                return Err(invalid("spec.ca has no certificate in PEM"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(invalid("the gateway's system trusts no authority: set spec.ca"));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(wasmbed_pki::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&format!("TLS can't be used: {error}")))?
        .with_root_certificates(roots);
    let config = match &endpoint.certificate {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| invalid("tls.crt of the Secret of spec.credentials is not PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| invalid("tls.key of the Secret of spec.credentials is no private key in PEM"))?;
            config.with_client_auth_cert(chain, key).map_err(|_| {
                invalid("tls.crt and tls.key of the Secret of spec.credentials do not belong together")
            })?
        }
    };
    Ok(Arc::new(config))
}
