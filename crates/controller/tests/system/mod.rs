//! The parts around a controller, each the real one, in one process on free ports.

use std::{fmt::Debug, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    core::v1::{Event, Namespace},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{
    Application, DEVICE_SIGNER, Device, DevicePhase, OPERATOR_SIGNER, request_annotation as annotation,
};
use wasmbed_controller::{
    Config, GatewayConfig, Handle, HealthConfig, LeaseConfig, ReconciliationConfig, TlsFiles,
};
use wasmbed_device::fleet::{self, FleetConfig, FleetHandle};
use wasmbed_pki::{Authorities, ClusterAuthority, Identity};

const TRUST_DOMAIN: &str = "test.wasmbed";
const SYSTEM: &str = "wasmbed-system";
const LOOPBACK: &str = "127.0.0.1:0";
/// The standard roles, and one of users who may ask for certificates and not log in.
const ROLES: &str = include_str!("../../../apiserver/src/access/roles.yaml");
const ASKERS: &str = "
- group: askers
  rules:
    - groups: [certificates.k8s.io]
      resources: [certificatesigningrequests]
      verbs: [get, create]
";
/// A state that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct System {
    folder: TempDir,
    authorities: Authorities,
    cluster: ClusterAuthority,
    address: SocketAddr,
    client: Client,
    controller: Option<(Handle, CancellationToken)>,
    rest: CancellationToken,
    gateway: Option<wasmbed_gateway::Handle>,
    devices: Option<FleetHandle>,
    server: tokio::task::JoinHandle<()>,
}

impl System {
    /// Starts everything and waits until all devices are connected.
    pub(crate) async fn start(devices: usize) -> anyhow::Result<Self> {
        // `cargo test -- --nocapture` shows what the parts log.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let folder = TempDir::new()?;
        let authorities = Authorities::create_or_open(&folder.path().join("pki"), TRUST_DOMAIN)?;
        let cluster = ClusterAuthority::create_or_open(&folder.path().join("cluster"))?;
        let rest = CancellationToken::new();
        let server = wasmbed_apiserver::start(api_config(folder.path(), &cluster)?).await?;
        let address = server.address();
        let server = tokio::spawn(server.run(rest.clone().cancelled_owned()));
        let client = Client::try_from(kube_config(&cluster, address, "admin", "system:masters").await?)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in [SYSTEM, "default"] {
            let object = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            match namespaces.create(&PostParams::default(), &object).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut system = Self {
            folder,
            authorities,
            cluster,
            address,
            client,
            controller: None,
            rest,
            gateway: None,
            devices: None,
            server,
        };
        system.start_gateway().await?;
        system.start_controller().await?;
        system.start_devices(devices).await?;
        Ok(system)
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.path().join("gateway-files");
        std::fs::create_dir_all(&folder)?;
        let identity = self.authorities.issue_gateway(SYSTEM, "g", &["127.0.0.1".to_owned()])?;
        identity.write(&folder, "gateway")?;
        let (certificate, key) = Identity::files(&folder, "gateway");
        let (device_roots, services_roots) = (folder.join("devices.crt"), folder.join("services.crt"));
        std::fs::write(&device_roots, self.authorities.devices_root_pem())?;
        std::fs::write(&services_roots, self.authorities.services_root_pem())?;
        let tls = wasmbed_gateway::TlsFiles {
            certificate,
            key,
            device_roots,
            services_roots,
            operators_roots: None,
            factory_roots: None,
        };
        let kube = kube_config(&self.cluster, self.address, "gateway:g", "wasmbed:gateways").await?;
        let data = self.folder.path().join("gateway");
        let mut config = wasmbed_gateway::Config::new("g", TRUST_DOMAIN, tls, data, kube);
        config.listen = LOOPBACK.parse()?;
        config.health_listen = None;
        self.gateway = Some(wasmbed_gateway::start(config, self.rest.child_token()).await?);
        Ok(())
    }

    async fn start_controller(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.path().join("controller-files");
        std::fs::create_dir_all(&folder)?;
        self.authorities.issue_controller(SYSTEM, "c")?.write(&folder, "controller")?;
        let (certificate, key) = Identity::files(&folder, "controller");
        let services_roots = folder.join("services.crt");
        std::fs::write(&services_roots, self.authorities.services_root_pem())?;
        let config = Config {
            name: "c".to_owned(),
            system_namespace: SYSTEM.to_owned(),
            namespace: None,
            tls: TlsFiles { certificate, key, services_roots },
            trust_domain: TRUST_DOMAIN.to_owned(),
            gateway: GatewayConfig::default(),
            reconciliation: ReconciliationConfig::default(),
            values_key: None,
            health: HealthConfig { listen: LOOPBACK.parse()?, ..HealthConfig::default() },
            kube: kube_config(&self.cluster, self.address, "controller:c", "wasmbed:controllers").await?,
            lease: LeaseConfig::default(),
        };
        let stop = CancellationToken::new();
        self.controller = Some((wasmbed_controller::start(config, stop.clone()).await?, stop));
        Ok(())
    }

    pub(crate) async fn restart_controller(&mut self) -> anyhow::Result<()> {
        if let Some((controller, stop)) = self.controller.take() {
            stop.cancel();
            controller.wait().await?;
        }
        self.start_controller().await
    }

    async fn start_devices(&mut self, count: usize) -> anyhow::Result<()> {
        let api: Api<Device> = Api::namespaced(self.client.clone(), "default");
        let mut identities = Vec::new();
        for index in 0..count {
            let name = format!("device-{index:03}");
            let identity = self.authorities.issue_device("default", &name)?;
            let device = serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "device_type": "linux", "public_key": identity.public_key_base64() },
            }))?;
            api.create(&PostParams::default(), &device).await?;
            identities.push((identity.chain_pem.clone(), identity.key_pem.to_string()));
        }
        let issue: fleet::Issue = Arc::new(move |index| {
            let (chain, key) = identities.get(index).ok_or("no such device")?;
            Ok(Identity::from_pem(chain, key)?.into())
        });
        let gateway = self.gateway.as_ref().context("no gateway")?.addresses.server;
        let roots = vec![self.authorities.services_root().clone()];
        self.devices = Some(fleet::start(FleetConfig::new(count, issue, roots, vec![gateway.to_string()]))?);
        for index in 0..count {
            let connected = |device: &Device| {
                device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Connected)
            };
            self.device(&format!("device-{index:03}"), connected).await?;
        }
        Ok(())
    }

    pub(crate) async fn apply_application(
        &self,
        name: &str,
        module: &[u8],
        targets: Value,
    ) -> anyhow::Result<()> {
        let api: Api<Application> = Api::namespaced(self.client.clone(), "default");
        let spec = json!({
            "wasm_bytes": STANDARD.encode(module),
            "target_devices": targets,
            "config": { "memory_limit": 65_536, "cpu_time_limit": 100, "restart_policy": "Never" },
        });
        if api.get_opt(name).await?.is_some() {
            let patch = Patch::Merge(json!({ "spec": spec }));
            api.patch(name, &PatchParams::default(), &patch).await?;
        } else {
            let object = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
            api.create(&PostParams::default(), &object).await?;
        }
        Ok(())
    }

    /// Its UID.
    pub(crate) async fn create_device(&self, name: &str, spec: Value) -> anyhow::Result<String> {
        let api: Api<Device> = Api::namespaced(self.client.clone(), "default");
        let object = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
        let created = api.create(&PostParams::default(), &object).await?;
        created.metadata.uid.context("a Device has a UID")
    }

    pub(crate) async fn patch_device(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let api: Api<Device> = Api::namespaced(self.client.clone(), "default");
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await?;
        Ok(())
    }

    /// Makes a request as a gateway does; `claim` is the annotation that says what speaks for it.
    pub(crate) async fn request(
        &self,
        name: &str,
        device: &str,
        uid: &str,
        claim: &str,
    ) -> anyhow::Result<()> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let request = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
        let object = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {
                    annotation::DEVICE: format!("default/{device}"),
                    annotation::DEVICE_UID: uid,
                    format!("wasmbed.github.io/{claim}"): "AA==",
                },
            },
            "spec": {
                "request": STANDARD.encode(request),
                "signerName": DEVICE_SIGNER,
                "usages": ["client auth", "digital signature"],
            },
        }))?;
        let config = kube_config(&self.cluster, self.address, "gateway:g", "wasmbed:gateways").await?;
        let api: Api<CertificateSigningRequest> = Api::all(Client::try_from(config)?);
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// A person's request for a certificate.
    pub(crate) async fn login(&self, name: &str, user: &str, group: &str) -> anyhow::Result<()> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let request = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
        let object = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "request": STANDARD.encode(request),
                "signerName": OPERATOR_SIGNER,
                "usages": ["client auth", "digital signature"],
            },
        }))?;
        let config = kube_config(&self.cluster, self.address, user, group).await?;
        let api: Api<CertificateSigningRequest> = Api::all(Client::try_from(config)?);
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    pub(crate) async fn certificate_request(
        &self,
        name: &str,
        is_so: impl Fn(&CertificateSigningRequest) -> bool,
    ) -> anyhow::Result<CertificateSigningRequest> {
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        wait(&api, name, |object: &Option<CertificateSigningRequest>| object.as_ref().is_some_and(&is_so))
            .await?
            .context("it is gone")
    }

    /// Deletes it and waits until it is gone.
    pub(crate) async fn delete_application(&self, name: &str) -> anyhow::Result<()> {
        let api: Api<Application> = Api::namespaced(self.client.clone(), "default");
        api.delete(name, &DeleteParams::default()).await?;
        wait(&api, name, Option::is_none).await?;
        Ok(())
    }

    pub(crate) async fn application(
        &self,
        name: &str,
        is_so: impl Fn(&Application) -> bool,
    ) -> anyhow::Result<Application> {
        let api: Api<Application> = Api::namespaced(self.client.clone(), "default");
        wait(&api, name, |object: &Option<Application>| object.as_ref().is_some_and(&is_so))
            .await?
            .context("it is gone")
    }

    pub(crate) async fn device(&self, name: &str, is_so: impl Fn(&Device) -> bool) -> anyhow::Result<Device> {
        let api: Api<Device> = Api::namespaced(self.client.clone(), "default");
        wait(&api, name, |object: &Option<Device>| object.as_ref().is_some_and(&is_so))
            .await?
            .context("it is gone")
    }

    /// Waits for an Event about an Application.
    pub(crate) async fn event(&self, application: &str, reason: &str) -> anyhow::Result<()> {
        use futures::StreamExt as _;
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let about = watcher::Config::default().fields(&format!("involvedObject.name={application}"));
        let watch = watcher::watcher(api, about).applied_objects();
        futures::pin_mut!(watch);
        let found = async {
            while let Some(event) = watch.next().await {
                if event.is_ok_and(|event| event.reason.as_deref() == Some(reason)) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .with_context(|| format!("no Event {reason} about {application}"))
    }

    /// Status and body of a path of the controller's health port.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let (controller, _) = self.controller.as_ref().context("no controller")?;
        let mut stream = tokio::net::TcpStream::connect(controller.health).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, answer))
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some((controller, stop)) = self.controller.take() {
            stop.cancel();
            controller.wait().await?;
        }
        if let Some(devices) = self.devices.take() {
            devices.stop();
            tokio::task::spawn_blocking(move || devices.wait()).await??;
        }
        self.rest.cancel();
        if let Some(gateway) = self.gateway.take() {
            gateway.wait().await;
        }
        self.server.await?;
        Ok(())
    }
}

pub(crate) fn condition(application: &Application, type_: &str, wanted: &str) -> bool {
    let Some(status) = &application.status else { return false };
    status.observed_generation == application.metadata.generation
        && status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == wanted)
}

/// Its approval.
pub(crate) fn approved(request: &CertificateSigningRequest) -> Option<&CertificateSigningRequestCondition> {
    let mut conditions = request.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.find(|condition| condition.type_ == "Approved")
}

/// Waits without end; the text makes its digest.
pub(crate) fn hello(text: &str) -> anyhow::Result<Vec<u8>> {
    let module = format!(
        r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
           (memory (export "memory") 1) (data (i32.const 0) "{text}")
           (func (export "_start") (loop $again (call $wait (i32.const 100)) (br $again))))"#
    );
    Ok(wat::parse_str(module)?)
}

/// Never waits.
pub(crate) fn spinning() -> anyhow::Result<Vec<u8>> {
    Ok(wat::parse_str(r#"(module (func (export "_start") (loop $again (br $again))))"#)?)
}

fn api_config(folder: &Path, cluster: &ClusterAuthority) -> anyhow::Result<wasmbed_apiserver::Config> {
    let identity = cluster.issue_server(&["127.0.0.1".to_owned()])?;
    Ok(wasmbed_apiserver::Config {
        data_dir: folder.join("apiserver"),
        encryption_keys: None,
        audit_log: None,
        listen: LOOPBACK.parse()?,
        tls: wasmbed_apiserver::ServerTls { certificates: identity.chain(), key: identity.key() },
        client_roots: vec![cluster.certificate().clone()],
        definitions: wasmbed_api::crds().iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        policy: wasmbed_apiserver::Policy::parse(&(ROLES.to_owned() + ASKERS))?,
        limits: wasmbed_apiserver::Limits::default(),
    })
}

async fn kube_config(
    cluster: &ClusterAuthority,
    address: SocketAddr,
    user: &str,
    group: &str,
) -> anyhow::Result<kube::Config> {
    let identity = cluster.issue_client(user, group)?;
    let kubeconfig = serde_json::from_value(json!({
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(cluster.certificate_pem()),
        }}],
        "users": [{ "name": "test", "user": {
            "client-certificate-data": STANDARD.encode(&identity.chain_pem),
            "client-key-data": STANDARD.encode(&*identity.key_pem),
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "current-context": "test",
    }))?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?)
}

/// Waits for a state by watching for it; the last state is told if it does not come.
async fn wait<K>(api: &Api<K>, name: &str, is_so: impl Fn(&Option<K>) -> bool) -> anyhow::Result<Option<K>>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    use futures::StreamExt as _;
    let watch = kube::runtime::watcher::watch_object(api.clone(), name);
    futures::pin_mut!(watch);
    let mut last = None;
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(object) = watch.next().await {
            if let Ok(object) = object {
                if is_so(&object) {
                    return Some(object);
                }
                last = object;
            }
        }
        None
    });
    match found.await {
        Ok(Some(object)) => Ok(object),
        Ok(None) | Err(_) => bail!("{name} did not come to the state waited for; it is {last:#?}"),
    }
}
