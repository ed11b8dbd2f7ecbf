//! A server for each test, with its own CA, on a free port and in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmbed_apiserver::{AuditLog, Config, Limits, Policy, ServerTls};

/// Version of kubectl in the tests.
const KUBECTL: &str = "kubectl-v1.36.3";

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test cluster");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn server(&self) -> ServerTls {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        ServerTls {
            certificates: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// Certificate and key of a client, as PEM.
    pub(crate) fn client(&self, user: &str, group: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) fn definitions() -> Vec<serde_json::Value> {
    ["devices", "devicegateways"]
        .iter()
        .map(|name| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/api/fixtures/{name}.yaml"));
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        })
        .collect()
}

impl Running {
    pub(crate) async fn start() -> Running {
        Running::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Running {
        Running::start_in(tempfile::tempdir().unwrap(), Authority::new(), limits).await
    }

    pub(crate) async fn start_in(folder: TempDir, authority: Authority, limits: Limits) -> Running {
        let roots = rustls_pem(&authority.pem());
        let config = Config {
            data_dir: folder.path().join("store"),
            encryption_keys: None,
            audit_log: Some(AuditLog::new(folder.path().join("audit.log"))),
            listen: ([127, 0, 0, 1], 0).into(),
            tls: authority.server(),
            client_roots: roots,
            definitions: definitions(),
            policy: Policy::standard().unwrap(),
            limits,
        };
        let server = wasmbed_apiserver::start(config).await.unwrap();
        let address = server.address();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        Running { address, authority, folder, stop, task }
    }

    /// Stops and starts again on the same disk.
    pub(crate) async fn restart(self) -> Running {
        self.stop.cancel();
        self.task.await.unwrap();
        Running::start_in(self.folder, self.authority, Limits::default()).await
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Writes a kubeconfig for a user and returns its path.
    pub(crate) fn kubeconfig(&self, user: &str, group: &str) -> PathBuf {
        use base64::Engine as _;
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (certificate, key) = self.authority.client(user, group);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": base64(&self.authority.pem()),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": base64(&certificate), "client-key-data": base64(&key),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
        });
        let path = self.folder.path().join(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) async fn client(&self, user: &str, group: &str) -> kube::Client {
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig(user, group)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) async fn admin(&self) -> kube::Client {
        self.client("admin", "system:masters").await
    }
}

fn rustls_pem(pem: &str) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    vec![rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
}

/// kubectl, set up for one server.
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(server: &Running) -> Kubectl {
        Kubectl {
            program: program(),
            kubeconfig: server.kubeconfig("admin", "system:masters"),
            home: server.folder.path().join("home"),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home).args(arguments);
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs kubectl, which must succeed, and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments:?}\n{out}\n{err}");
        out.into_owned()
    }

    /// Runs kubectl, which must fail, and returns its error output.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "kubectl {arguments:?} should fail\n{out}\n{err}");
        err.into_owned()
    }

    /// Writes a file beside the server's folder and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::create_dir_all(&self.home).unwrap();
        let path = self.home.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("WASMBED_KUBECTL") {
        return path.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    let path = cache.join("wasmbed/tools").join(KUBECTL).join("kubectl");
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask tools kubectl`, or name one in WASMBED_KUBECTL",
        path.display()
    );
    path
}
