//! Where lines are read, and which.

use std::path::Path;

use anyhow::{Context, Result};
use rustls_pki_types::CertificateDer;
use wasmbed_pki::{Identity, read_certificates};

/// Which gateways to read, and as whom.
pub struct Source {
    /// An operator.
    pub identity: Identity,
    /// Below which the gateways stand.
    pub services_roots: Vec<CertificateDer<'static>>,
    /// The gateways' trust domain.
    pub trust_domain: String,
    /// `host:port` of each.
    pub gateways: Vec<String>,
    /// Whether these are all gateways that the devices may have sessions with.
    pub all_gateways: bool,
}

/// Which lines; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of Applications in this namespace.
    pub namespace: Option<String>,
    /// Of the Application of this name.
    pub application: Option<String>,
    /// From the Device of this name.
    pub device: Option<String>,
}

impl Source {
    /// An operator's files in a folder, as `wasmbed up` and `wasmbed pki issue operator` write them: the root of the services is
    /// `services-root.crt` among the authorities and `services-ca.crt` among what was issued.
    ///
    /// # Errors
    /// A file is missing or can't be used.
    pub fn operator(folder: &Path, gateways: Vec<String>, all_gateways: bool) -> Result<Self> {
        let (chain, key) = Identity::files(folder, "operator");
        let identity = Identity::read(&chain, &key)
            .context("no operator's identity: say --pki DIR, for example the pki folder of `wasmbed up`")?;
        let trust_domain =
            identity.spiffe_id().with_context(|| format!("{} can't be used", chain.display()))?;
        let issued = folder.join("services-ca.crt");
        let root = if issued.is_file() { issued } else { folder.join("services-root.crt") };
        let services_roots = read_certificates(&root)?;
        let trust_domain = trust_domain.trust_domain().to_owned();
        Ok(Self { identity, services_roots, trust_domain, gateways, all_gateways })
    }
}
