//! What tests ask of etcd itself, over its JSON gateway.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Forgets every version of every key but the newest, as kube-apiserver has it do every five minutes.
pub(crate) async fn compact(etcd: SocketAddr) -> Result<()> {
    // Any key will do: the answer's header has the store's revision.
    let found = post(etcd, "/v3/kv/range", &json!({ "key": "AA==" })).await?;
    let revision = found["header"]["revision"].as_str().with_context(|| format!("no revision: {found}"))?;
    post(etcd, "/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).await?;
    Ok(())
}

async fn post(etcd: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let stream = TcpStream::connect(etcd).await.context("can't connect to etcd")?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path).header("host", etcd.to_string()).body(body.to_string())?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let answer = body.collect().await?.to_bytes();
    connection.abort();
    ensure!(parts.status == StatusCode::OK, "etcd: {path}: {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer)?)
}
