//! A Kubernetes API on a free port, and the binary run against it as a person would.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tokio::sync::oneshot;
use wasmbed::machine::layout::{KubeUser, Layout};
use wasmbed_apiserver::{Config, Limits, Policy, ServerTls};
use wasmbed_pki::{Identity, read_certificates};

/// A Kubernetes API on a free port. It ends when this is dropped.
pub(crate) struct Api {
    folder: tempfile::TempDir,
    pub(crate) layout: Layout,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create_or_open(&folder.path().join("state")).unwrap();
        let files = layout.apiserver_identity().unwrap();
        let identity = Identity::read(&files.certificate, &files.key).unwrap();
        let config = Config {
            data_dir: layout.apiserver_dir(),
            encryption_keys: None,
            audit_log: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: ServerTls { certificates: identity.chain(), key: identity.key() },
            client_roots: read_certificates(&layout.cluster_root()).unwrap(),
            definitions: wasmbed_api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect(),
            policy: Policy::standard().unwrap(),
            limits: Limits::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let server = wasmbed_apiserver::start(config).await.unwrap();
                    bound.send(server.address()).unwrap();
                    server.run(async { stopped.await.unwrap_or(()) }).await;
                });
        });
        layout.write_kubeconfig(address.recv().unwrap(), KubeUser::Administrator).unwrap();
        Self { folder, layout, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbed"));
        command.args(arguments).env("KUBECONFIG", self.layout.kubeconfig()).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.succeeds(&["get", kind, name, "-o", "json"])).unwrap()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A failed server has already said why.
            let _ = thread.join();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
