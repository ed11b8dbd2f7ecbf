//! The gateway's own certificate and the roots that it trusts: read at the start, and again when their files change.
//!
//! A new connection gets the newest that could be used. Standing ones keep what they began with.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{task::spawn_blocking, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wasmbed_pki::{
    Identity, Renewal, Role, SpiffeId, read_certificates,
    tls::{Profile, roots, server_config},
};

use crate::{Config, Error, TlsFiles, metrics::Metrics};

/// Both profiles of the port.
#[derive(Clone)]
struct Served {
    devices: Arc<ServerConfig>,
    services: Arc<ServerConfig>,
    /// Of the own certificate, seconds since 1970.
    not_after: i64,
}

/// What the files said when they last could be used.
pub(crate) struct Certificates {
    files: TlsFiles,
    trust_domain: String,
    namespace: String,
    name: String,
    served: RwLock<Served>,
}

impl Certificates {
    /// Reads the files; what watches them is for [`Certificates::follow`].
    pub(crate) fn open(config: &Config) -> Result<(Arc<Self>, Renewal), Error> {
        let files = config.tls.clone();
        let TlsFiles { certificate, key, device_roots, services_roots } = files.clone();
        let renewal = Renewal::new([certificate, key, device_roots, services_roots]);
        let (trust_domain, namespace, name) = (&config.trust_domain, &config.namespace, &config.name);
        let served = RwLock::new(read(&files, trust_domain, namespace, name)?);
        let (trust_domain, namespace, name) = (trust_domain.clone(), namespace.clone(), name.clone());
        Ok((Arc::new(Self { files, trust_domain, namespace, name, served }), renewal))
    }

    /// For a new connection.
    pub(crate) fn of(&self, profile: Profile) -> Arc<ServerConfig> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(match profile {
            Profile::Device => &served.devices,
            Profile::Service => &served.services,
        })
    }

    fn not_after(&self) -> i64 {
        self.served.read().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Looks at the files until `stop`. Files that can't be used are logged and counted once, and change nothing.
    pub(crate) async fn follow(
        self: Arc<Self>,
        mut renewal: Renewal,
        interval: Duration,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        metrics.certificate_expires(self.not_after());
        let mut looks = tokio::time::interval(interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(&self);
            let looked = spawn_blocking(move || {
                let found = renewal
                    .has_changed()
                    .then(|| read(&this.files, &this.trust_domain, &this.namespace, &this.name));
                (renewal, found)
            });
            let Ok((again, found)) = looked.await else { return };
            renewal = again;
            match found {
                None => {}
                Some(Ok(served)) => {
                    let not_after = served.not_after;
                    *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
                    metrics.certificate_expires(not_after);
                    metrics.certificate_reloads.inc();
                    tracing::info!(
                        gateway = self.name,
                        not_after,
                        "certificates were read again; new connections get them"
                    );
                }
                Some(Err(error)) => {
                    metrics.certificate_reload_failures.inc();
                    tracing::error!(
                        gateway = self.name,
                        reason = "BadCertificateFiles",
                        %error,
                        "changed certificate files can't be used; the earlier ones stay in use"
                    );
                }
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
