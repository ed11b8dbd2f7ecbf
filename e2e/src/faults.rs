//! A proxy that stands between a process and the Kubernetes API and makes it a bad one: 429, 500, 410, connections that end.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use rustls::ServerConfig;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use wasmbed_pki::{ClusterAuthority, tls::provider};
use wasmbed_testbed::{Cluster, User};

/// One request of so many is spoilt while faults are on: every kind of fault comes within some dozens of requests.
const SPOILT_ONE_OF: u64 = 4;

/// What went through the proxy.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    writes: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
    broken: AtomicU64,
}

/// Numbers of what went through a proxy so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Requests, spoilt ones included.
    pub requests: u64,
    /// Of them those that are no reads.
    pub writes: u64,
    /// Answered with 429.
    pub throttled: u64,
    /// Answered with 500.
    pub failed: u64,
    /// Watches and lists answered with 410.
    pub expired: u64,
    /// Connections that ended instead of an answer.
    pub broken: u64,
}

impl Passed {
    /// Requests that were not passed on.
    #[must_use]
    pub fn spoilt(&self) -> u64 {
        self.throttled + self.failed + self.expired + self.broken
    }
}

/// A proxy for one user. It ends when it is dropped.
#[derive(Debug)]
pub struct FaultyApi {
    counters: Arc<Counters>,
    faults: Arc<watch::Sender<bool>>,
    cut: watch::Sender<u64>,
    kubeconfig: PathBuf,
    task: JoinHandle<()>,
}

struct Proxy {
    client: Client,
    counters: Arc<Counters>,
    faults: watch::Receiver<bool>,
    next: AtomicU64,
    /// Watches, counted by themselves: others may come in step with what is spoilt.
    resumed: AtomicU64,
}

impl FaultyApi {
    /// Starts one with faults off. It calls the API as that user, so whoever connects to it needs no certificate.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(cluster: &Cluster, user: &User) -> Result<Self> {
        let client = cluster.client(user).await?;
        let authority = ClusterAuthority::create_or_open(cluster.dir())?;
        let identity = authority.issue_server(&["127.0.0.1".to_owned()])?;
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.key())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let kubeconfig = cluster.dir().join(format!("faulty-{}.kubeconfig", user.name().replace(':', "-")));
        let text = kubeconfig_text(listener.local_addr()?, authority.certificate_pem())?;
        std::fs::write(&kubeconfig, text).context("can't write a kubeconfig")?;
        let counters = Arc::new(Counters::default());
        let (faults, faulty) = watch::channel(false);
        let (cut, cuts) = watch::channel(0);
        let (next, resumed) = (AtomicU64::new(0), AtomicU64::new(1));
        let proxy =
            Arc::new(Proxy { client, counters: Arc::clone(&counters), faults: faulty, next, resumed });
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), proxy, cuts));
        Ok(Self { counters, faults: Arc::new(faults), cut, kubeconfig, task })
    }

    /// How a process finds it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// From now on requests are spoilt, or no longer.
    pub fn set_faults(&self, on: bool) {
        self.faults.send_replace(on);
    }

    /// Ends every connection that stands.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// What went through so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, writes, throttled, failed, expired, broken } = &*self.counters;
        Passed {
            requests: read(requests),
            writes: read(writes),
            throttled: read(throttled),
            failed: read(failed),
            expired: read(expired),
            broken: read(broken),
        }
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, proxy: Arc<Proxy>, cuts: watch::Receiver<u64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, proxy, mut cuts) = (tls.clone(), Arc::clone(&proxy), cuts.clone());
        cuts.mark_unchanged();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move { proxy.pass(request).await }
            });
            tokio::select! {
                // How a connection ends is its client's affair.
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

impl Proxy {
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.counters.requests);
        let read = request.method() == hyper::Method::GET;
        if !read {
            count(&self.counters.writes);
        }
        let faulty = *self.faults.borrow();
        let query = request.uri().query().unwrap_or_default();
        let expirable = query.contains("resourceVersion=") && read;
        if faulty && expirable && count(&self.resumed).is_multiple_of(SPOILT_ONE_OF) {
            count(&self.counters.expired);
            return status(StatusCode::GONE, "Expired", None);
        }
        let number = if faulty { count(&self.next) } else { 1 };
        if number.is_multiple_of(SPOILT_ONE_OF) {
            match number / SPOILT_ONE_OF % 4 {
                // As the API server's own queues say it, and as its priority and fairness does, which is no Status.
                0 => {
                    count(&self.counters.throttled);
                    return status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", Some(1));
                }
                1 => {
                    count(&self.counters.throttled);
                    let body = Body::from(b"Too many requests, please try again later.".to_vec());
                    let builder = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
                    return Ok(builder.header(header::RETRY_AFTER, "1").body(body)?);
                }
                2 => {
                    count(&self.counters.failed);
                    return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", None);
                }
                // After the write was made: the client can't know whether it was.
                _ => {
                    count(&self.counters.broken);
                    if !read {
                        self.forward(request).await?;
                    }
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
            }
        }
        self.forward(request).await
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        // The client has its own address for it.
        head.headers.remove(header::HOST);
        let body = body.collect().await?.to_bytes().to_vec();
        let mut response = self.client.send(Request::from_parts(head, Body::from(body))).await?;
        // Framing belongs to a connection.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }
}

fn status(code: StatusCode, reason: &str, retry_after: Option<u32>) -> Result<Response<Body>> {
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": format!("{reason}, says the proxy"),
        "reason": reason,
        "code": code.as_u16(),
        "details": { "retryAfterSeconds": retry_after.unwrap_or(0) },
    });
    let mut builder = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after {
        builder = builder.header(header::RETRY_AFTER, seconds);
    }
    Ok(builder.body(Body::from(serde_json::to_vec(&body)?))?)
}

fn kubeconfig_text(server: SocketAddr, authority: &str) -> Result<String> {
    let cluster = json!({
        "server": format!("https://{server}"),
        "certificate-authority-data": STANDARD.encode(authority),
    });
    serde_json::to_string_pretty(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "faulty", "cluster": cluster }],
        "users": [{ "name": "anyone", "user": {} }],
        "contexts": [{ "name": "faulty", "context": { "cluster": "faulty", "user": "anyone" } }],
        "current-context": "faulty",
    }))
    .context("can't write a kubeconfig")
}
