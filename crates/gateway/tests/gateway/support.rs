//! A Kubernetes API, a gateway and clients, all on free ports and in a folder that goes with the test.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use kube::{Api, Client, config::Kubeconfig};
use rustls::ClientConfig;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use wasmbed_api::{Device, DevicePhase, DeviceSpec};
use wasmbed_gateway::{Config, Handle, TlsFiles};
use wasmbed_pki::{
    Authorities, ClusterAuthority, Identity, OperatorAuthority,
    tls::{ClientParams, Profile, client_config, roots, server_name},
};
use wasmbed_protocol::{
    DeviceMessage, Epoch, Facts, Frames, GatewayMessage, Heartbeat, Hello, List, ResetReason, Revision,
    Sequence, decode_gateway, encode_device, limits::FRAME_BYTES_MAX,
};

pub(crate) const TRUST_DOMAIN: &str = "test.example";

/// Everything that a test waits for happens within this, or the test fails.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// The Kubernetes API.
pub(crate) struct Cluster {
    authority: ClusterAuthority,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn start(folder: &Path, listen: SocketAddr) -> Self {
        let authority = ClusterAuthority::create_or_open(&folder.join("cluster")).unwrap();
        let server = authority.issue_server(&["127.0.0.1".to_owned()]).unwrap();
        let config = wasmbed_apiserver::Config {
            data_dir: folder.join("apiserver"),
            encryption_keys: None,
            audit_log: None,
            listen,
            tls: wasmbed_apiserver::ServerTls { certificates: server.chain(), key: server.key() },
            client_roots: vec![authority.certificate().clone()],
            definitions: wasmbed_api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect(),
            policy: wasmbed_apiserver::Policy::standard().unwrap(),
            limits: wasmbed_apiserver::Limits::default(),
        };
        let server = wasmbed_apiserver::start(config).await.unwrap();
        let address = server.address();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        Self { authority, address, stop, task }
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        self.task.await.unwrap();
        self.address
    }

    pub(crate) async fn config(&self, user: &str, group: &str) -> kube::Config {
        use base64::Engine as _;
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let identity = self.authority.issue_client(user, group).unwrap();
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": base64(self.authority.certificate_pem()),
            }}],
            "users": [{ "name": user, "user": {
                "client-certificate-data": base64(&identity.chain_pem),
                "client-key-data": base64(&identity.key_pem),
            }}],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
        }))
        .unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .unwrap()
    }
}

/// A Kubernetes API and a gateway.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) authorities: Authorities,
    pub(crate) operators: OperatorAuthority,
    pub(crate) admin: Client,
    gateway: Option<(Handle, CancellationToken)>,
    pub(crate) server: SocketAddr,
    pub(crate) health: SocketAddr,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(folder.path(), ([127, 0, 0, 1], 0).into()).await;
        let admin = Client::try_from(cluster.config("admin", "system:masters").await).unwrap();
        // Gateways may not make namespaces: who installs them does.
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(admin.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": "wasmbed-system" } })).unwrap();
        namespaces.create(&kube::api::PostParams::default(), &namespace).await.unwrap();
        // A controller has led some times.
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(admin.clone(), "wasmbed-system");
        let lease = serde_json::from_value(json!({
            "metadata": { "name": wasmbed_api::LEADER_LEASE }, "spec": { "leaseTransitions": 9 },
        }));
        leases.create(&kube::api::PostParams::default(), &lease.unwrap()).await.unwrap();
        let authorities = Authorities::create_or_open(&folder.path().join("pki"), TRUST_DOMAIN).unwrap();
        let operators = OperatorAuthority::create_or_open(&folder.path().join("pki"), TRUST_DOMAIN).unwrap();
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = Self {
            folder,
            cluster: Some(cluster),
            authorities,
            operators,
            admin,
            gateway: None,
            server: unbound,
            health: unbound,
        };
        world.start_gateway(change).await;
        world.wait_ready().await;
        world
    }

    /// Of the gateway `gw`, on free ports.
    pub(crate) async fn config(&self) -> Config {
        let pki = self.folder.path().join("gateway-pki");
        std::fs::create_dir_all(&pki).unwrap();
        let hosts = ["127.0.0.1".to_owned()];
        self.authorities.issue_gateway("wasmbed-system", "gw", &hosts).unwrap().write(&pki, "gw").unwrap();
        std::fs::write(pki.join("devices.crt"), self.authorities.devices_root_pem()).unwrap();
        std::fs::write(pki.join("services.crt"), self.authorities.services_root_pem()).unwrap();
        std::fs::write(pki.join("operators.crt"), self.operators.root_pem()).unwrap();
        let tls = TlsFiles {
            certificate: pki.join("gw.crt"),
            key: pki.join("gw.key"),
            device_roots: pki.join("devices.crt"),
            services_roots: pki.join("services.crt"),
            operators_roots: Some(pki.join("operators.crt")),
            factory_roots: None,
        };
        let kube = match &self.cluster {
            Some(cluster) => cluster.config("gateway:gw", "wasmbed:gateways").await,
            None => panic!("the cluster is stopped"),
        };
        let mut config = Config::new("gw", TRUST_DOMAIN, tls, self.folder.path().join("gateway"), kube);
        config.listen = ([127, 0, 0, 1], 0).into();
        config.health_listen = Some(([127, 0, 0, 1], 0).into());
        config
    }

    pub(crate) async fn start_gateway(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config().await;
        config.listen = self.server;
        change(&mut config);
        let stop = CancellationToken::new();
        let handle = wasmbed_gateway::start(config, stop.clone()).await.unwrap();
        self.server = handle.addresses.server;
        self.health = handle.addresses.health.unwrap();
        self.gateway = Some((handle, stop));
    }

    pub(crate) async fn stop_gateway(&mut self) {
        if let Some((handle, stop)) = self.gateway.take() {
            stop.cancel();
            soon("the gateway to stop", handle.wait()).await;
        }
    }

    pub(crate) async fn wait_ready(&self) {
        soon("readiness", async {
            while !self.plain("/ready").await.starts_with("HTTP/1.1 200") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// A plain request to the health port.
    pub(crate) async fn plain(&self, path: &str) -> String {
        plain(self.health, path).await
    }

    /// Waits until a line of the metrics is there.
    pub(crate) async fn metric(&self, line: &str) {
        soon(line, async {
            while !self.plain("/metrics").await.lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    pub(crate) async fn refused(&self, reason: &str) {
        self.metric(&format!("wasmbed_gateway_refusals_total{{reason=\"{reason}\"}} 1")).await;
    }

    pub(crate) fn devices(&self) -> Api<Device> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Creates an approved Device with a pinned key.
    pub(crate) async fn enroll(&self, name: &str) -> Identity {
        let identity = self.authorities.issue_device("default", name).unwrap();
        let spec = DeviceSpec {
            approved: true,
            public_key: Some(identity.public_key_base64()),
            ..DeviceSpec::default()
        };
        self.devices().create(&kube::api::PostParams::default(), &Device::new(name, spec)).await.unwrap();
        identity
    }

    pub(crate) async fn phase(&self, name: &str, phase: DevicePhase) -> Device {
        let devices = self.devices();
        soon(&format!("{name} to be {phase:?}"), async {
            loop {
                if let Ok(device) = devices.get(name).await
                    && device.status.as_ref().map(|status| status.phase) == Some(phase)
                {
                    return device;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// A device with an established session, and its Device.
    pub(crate) async fn device(&self, name: &str) -> DeviceClient {
        let identity = self.enroll(name).await;
        self.connect_device(&identity).await
    }

    /// Connects until the gateway lets the device in: it may not have seen the Device yet.
    pub(crate) async fn connect_device(&self, identity: &Identity) -> DeviceClient {
        self.connect_device_as(identity, hello(0, 0)).await
    }

    /// The same with a Hello of its own.
    pub(crate) async fn connect_device_as(&self, identity: &Identity, hello: Hello<'_>) -> DeviceClient {
        soon("a session", async {
            loop {
                let mut client = DeviceClient::connect(self, identity).await.unwrap();
                client.send(&DeviceMessage::Hello(hello)).await.unwrap();
                match client.next().await {
                    Some(message) if message.starts_with("Welcome") => return client,
                    Some(message) if message.contains("PendingApproval") => {}
                    other => panic!("{other:?}"),
                }
            }
        })
        .await
    }

    pub(crate) fn client_config(&self, profile: Profile, identity: &Identity) -> Arc<ClientConfig> {
        client_config(ClientParams {
            profile,
            identity,
            roots: roots([self.authorities.services_root().clone()]).unwrap(),
            trust_domain: TRUST_DOMAIN,
            gateway: None,
            time: None,
        })
        .unwrap()
    }

    pub(crate) async fn tls(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(server_name(), stream).await
    }

    pub(crate) async fn http(&self, identity: &Identity) -> Http {
        let mut config = Arc::unwrap_or_clone(self.client_config(Profile::Service, identity));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = self.tls(Arc::new(config)).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Http { sender }
    }

    /// A person, as Kubernetes knows it.
    pub(crate) async fn person(&self, user: &str, group: &str) -> Http {
        self.http(&self.operators.issue(user, &[group.to_owned()]).unwrap()).await
    }

    /// A person who may do everything.
    pub(crate) async fn administrator(&self) -> Http {
        self.person("admin", "system:masters").await
    }

    pub(crate) async fn controller(&self) -> Http {
        self.http(&self.authorities.issue_controller("wasmbed-system", "controller").unwrap()).await
    }
}

/// A plain request to a health port.
pub(crate) async fn plain(health: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(health).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A client of the HTTPS API.
pub(crate) struct Http {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Http {
    pub(crate) async fn open(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway")
            .body(Full::new(body.into()))
            .unwrap();
        soon("the request's place", self.sender.ready()).await.unwrap();
        soon("an answer", self.sender.send_request(request)).await.unwrap()
    }

    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (u16, serde_json::Value) {
        let response = self.open(method, path, body).await;
        let status = response.status().as_u16();
        let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null))
    }
}

/// Lines of a stream.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(response: http::Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    pub(crate) async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = soon("a line", self.body.frame()).await?.unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

/// A device's end of a connection.
pub(crate) struct DeviceClient {
    pub(crate) stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl DeviceClient {
    pub(crate) async fn connect(world: &World, identity: &Identity) -> std::io::Result<Self> {
        let stream = world.tls(world.client_config(Profile::Device, identity)).await?;
        Ok(Self::new(stream))
    }

    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, message: &DeviceMessage<'_>) -> std::io::Result<()> {
        self.stream.write_all(&frame(message)).await?;
        self.stream.flush().await
    }

    /// The next frame's body; none if the gateway closed the connection.
    pub(crate) async fn next_body(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut frames = Frames::new(&self.buffer);
            if let Some(body) = frames.next() {
                let body = body.unwrap().to_vec();
                let consumed = frames.consumed();
                self.buffer.drain(..consumed);
                return Some(body);
            }
            let mut chunk = [0; FRAME_BYTES_MAX];
            match soon("a frame", self.stream.read(&mut chunk)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// The next message, written out.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let body = self.next_body().await?;
        let message: GatewayMessage<'_> = decode_gateway(&body).unwrap();
        Some(format!("{message:?}"))
    }

    /// Sends a heartbeat and waits for its answer, passing over what else comes.
    pub(crate) async fn beat(&mut self, sequence: u64) {
        self.send(&heartbeat(sequence)).await.unwrap();
        let wanted = format!("HeartbeatAck(HeartbeatAck {{ sequence: Sequence({sequence})");
        loop {
            let message = self.next().await.expect("the session is established");
            if message.starts_with(&wanted) {
                return;
            }
        }
    }
}

pub(crate) fn frame(message: &DeviceMessage<'_>) -> Vec<u8> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let length = encode_device(message, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

pub(crate) fn heartbeat(sequence: u64) -> DeviceMessage<'static> {
    DeviceMessage::Heartbeat(Heartbeat {
        sequence: Sequence(sequence),
        uptime_ms: 1,
        memory_used_bytes: 0,
        cpu_ms: 0,
    })
}

pub(crate) fn hello(epoch: u64, revision: u64) -> Hello<'static> {
    Hello {
        facts: Facts {
            board: "test",
            firmware: "0.1.0",
            engine: "spacewasm",
            memory_bytes: 524_288,
            flash_bytes: 1 << 20,
            load_permille: 2_000,
            module_bytes_max: 1 << 20,
            applications_max: 10,
            features: 3,
            imports: List::empty(),
            capabilities: List::empty(),
            peripherals: None,
        },
        last_epoch: Epoch(epoch),
        revision: Revision(revision),
        reset_reason: ResetReason::PowerOn,
        reset_detail: "",
        boot_counter: None,
        groups: None,
        boot_id: None,
    }
}
