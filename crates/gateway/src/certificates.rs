//! The gateway's own certificate and the roots that it trusts: read at the start, and again when their files change.
//!
//! A new connection gets the newest that could be used. Standing ones keep what they began with.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use wasmbed_pki::{
    Identity, Renewed, Role, SpiffeId, read_certificates,
    tls::{Profile, roots, server_config},
};

use crate::{Config, TlsFiles, error::Error, metrics::Metrics};

/// Both profiles of the port.
struct Served {
    devices: Arc<ServerConfig>,
    services: Arc<ServerConfig>,
    /// Of the own certificate, seconds since 1970.
    not_after: i64,
}

/// What the files said when they last could be used.
pub(crate) struct Certificates {
    name: String,
    served: Arc<Renewed<Served, Error>>,
}

impl Certificates {
    /// Reads the files; what watches them is for [`Certificates::follow`].
    pub(crate) fn open(config: &Config) -> Result<Arc<Self>, Error> {
        let files = config.tls.clone();
        let TlsFiles { certificate, key, device_roots, services_roots } = files.clone();
        let (trust_domain, namespace) = (config.trust_domain.clone(), config.namespace.clone());
        let name = config.name.clone();
        let served = Renewed::open([certificate, key, device_roots, services_roots], move || {
            read(&files, &trust_domain, &namespace, &name)
        })?;
        Ok(Arc::new(Self { name: config.name.clone(), served: Arc::new(served) }))
    }

    /// For a new connection.
    pub(crate) fn of(&self, profile: Profile) -> Arc<ServerConfig> {
        let served = self.served.current();
        Arc::clone(match profile {
            Profile::Device => &served.devices,
            Profile::Service => &served.services,
        })
    }

    /// Looks at the files until `stop`. Files that can't be used are logged and counted once, and change nothing.
    pub(crate) async fn follow(
        self: Arc<Self>,
        interval: Duration,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        metrics.certificate_expires(self.served.current().not_after);
        let gateway = self.name.clone();
        let renewed = move |read: Result<Arc<Served>, Error>| match read {
            Ok(served) => {
                let not_after = served.not_after;
                metrics.certificate_expires(not_after);
                metrics.certificate_reloads.inc();
                tracing::info!(gateway, not_after, "certificates were read again; new connections get them");
            }
            Err(error) => {
                metrics.certificate_reload_failures.inc();
                tracing::error!(
                    gateway,
                    reason = "BadCertificateFiles",
                    %error,
                    "changed certificate files can't be used; the earlier ones stay in use"
                );
            }
        };
        match Arc::clone(&self.served).follow(interval, renewed) {
            Ok(_following) => stop.cancelled().await,
            Err(error) => {
                tracing::error!(gateway = self.name, %error, "changed certificate files won't be noticed");
            }
        }
    }
}

fn read(files: &TlsFiles, trust_domain: &str, namespace: &str, name: &str) -> Result<Served, Error> {
    let identity = Identity::read(&files.certificate, &files.key)?;
    let wrong = |found: String| Error::WrongCertificate {
        path: files.certificate.display().to_string(),
        found,
        expected: format!("spiffe://{trust_domain}/ns/{namespace}/gateway/{name}"),
    };
    let id: SpiffeId = identity.spiffe_id().map_err(|error| wrong(error.to_string()))?;
    if id.role() != Role::Gateway || id.trust_domain() != trust_domain || id.name() != name {
        return Err(wrong(id.to_string()));
    }
    let services_roots = roots(read_certificates(&files.services_roots)?)?;
    let device_roots = roots(read_certificates(&files.device_roots)?)?;
    Ok(Served {
        devices: server_config(Profile::Device, &identity, device_roots)?,
        services: server_config(Profile::Service, &identity, services_roots)?,
        not_after: identity.facts().not_after,
    })
}
