//! The gateway's own certificate and the roots that it trusts: read at the start, and again when their files change.
//!
//! A new connection gets the newest that could be used. Standing ones keep what they began with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use wasmbed_pki::{
    DeviceClients, DeviceServer, Identity, Renewed, Role, ServiceClients, ServiceServer, SpiffeId,
    read_certificates, tls::roots,
};

use crate::{Config, TlsFiles, error::Error, metrics::Metrics};

/// Both profiles of the port.
struct Served {
    devices: DeviceServer,
    services: ServiceServer,
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
        let TlsFiles { certificate, key, device_roots, services_roots, operators_roots, factory_roots } =
            files.clone();
        let watched = [certificate, key, device_roots, services_roots]
            .into_iter()
            .chain(operators_roots)
            .chain(factory_roots);
        let tokens = config.joining.tokens;
        let (trust_domain, namespace) = (config.trust_domain.clone(), config.namespace.clone());
        let name = config.name.clone();
        let served = Renewed::open(watched.collect::<Vec<_>>(), move || {
            read(&files, tokens, &trust_domain, &namespace, &name)
        })?;
        Ok(Arc::new(Self { name: config.name.clone(), served: Arc::new(served) }))
    }

    /// For a new connection of a device.
    pub(crate) fn devices(&self) -> DeviceServer {
        self.served.current().devices.clone()
    }

    /// For a new connection of a controller or a person.
    pub(crate) fn services(&self) -> ServiceServer {
        self.served.current().services.clone()
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

fn read(
    files: &TlsFiles,
    tokens: bool,
    trust_domain: &str,
    namespace: &str,
    name: &str,
) -> Result<Served, Error> {
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
    let trusted = |path: &PathBuf| Ok::<_, Error>(roots(read_certificates(path)?)?);
    let optional = |path: &Option<PathBuf>| path.as_ref().map(trusted).transpose();
    let people = ServiceClients {
        services: trusted(&files.services_roots)?,
        operators: optional(&files.operators_roots)?,
    };
    let devices = trusted(&files.device_roots)?;
    let clients = DeviceClients { devices, factory: optional(&files.factory_roots)?, self_signed: tokens };
    Ok(Served {
        devices: DeviceServer::new(&identity, clients)?,
        services: ServiceServer::new(&identity, people)?,
        not_after: identity.facts().not_after,
    })
}
