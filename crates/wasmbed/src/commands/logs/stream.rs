//! One gateway's log stream: HTTP/1.1 over mutual TLS, one JSON object a line.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use wasmbed_control::gateway_api::{BOOT_ID_HEADER, LogLine, Refusal};
use wasmbed_pki::tls::{self, ClientParams, Profile};

use super::source::{Credentials, Filter, Source};
use crate::{cluster::encode_query, login::Operator, output::harmless};

/// How long a gateway may take until it answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A followed stream may be silent for hours: probes find out that the gateway's machine is gone.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The longest line taken: a log text of 1,024 bytes with its names, escaped.
const LINE_BYTES_MAX: usize = 16 * 1_024;
/// A refusal's body.
const REFUSAL_BYTES_MAX: usize = 16 * 1_024;

/// A person's side of TLS; HTTP/1.1 suffices for one answer.
fn tls_config(operator: &Operator) -> Result<Arc<ClientConfig>> {
    let params = ClientParams {
        profile: Profile::Service,
        identity: &operator.identity,
        roots: tls::roots(operator.services_roots.iter().cloned())?,
        trust_domain: &operator.trust_domain,
        gateway: None,
        time: None,
    };
    let mut config = Arc::unwrap_or_clone(tls::client_config(params)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A gateway and what to ask it for.
pub(super) struct Gateway {
    address: String,
    path: String,
    credentials: Credentials,
}

/// A gateway answered, and not with lines.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub(super) struct Refused {
    status: u16,
    reason: String,
    message: String,
}

impl Refused {
    /// Whether asking again in a while makes no difference: this user may not, and has a certificate that counts.
    pub(super) fn is_final(&self) -> bool {
        self.status == 403 && self.reason != "Expired"
    }
}

impl Gateway {
    fn new(address: &str, credentials: Credentials, filter: &Filter, follow: bool) -> Self {
        let mut path = format!("/v1/logs?follow={follow}");
        let optional = [
            ("namespace", &filter.namespace),
            ("application", &filter.application),
            ("device", &filter.device),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encode_query(value)));
            }
        }
        Self { address: address.to_owned(), path, credentials }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Calls the gateway; the lines follow.
    ///
    /// # Errors
    /// The gateway can't be reached, or refuses.
    pub(super) async fn open(&self) -> Result<Lines> {
        let operator = self.credentials.current().await?;
        let answer = timeout(CONNECT_TIMEOUT, self.call(&operator))
            .await
            .with_context(|| format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))??;
        let boot_id =
            answer.headers().get(BOOT_ID_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Lines { boot_id, body: answer.into_body(), held: BytesMut::new() })
    }

    /// What else to try when neither side knows the other.
    fn advice(&self) -> &'static str {
        match self.credentials {
            Credentials::Issued(_) => "",
            Credentials::Login(_) => {
                "; after the cluster's authorities were replaced, wasmbed login --force helps"
            }
        }
    }

    async fn call(&self, operator: &Operator) -> Result<http::Response<Incoming>> {
        let tls = tls_config(operator)?;
        let socket = TcpStream::connect(&self.address).await.context("can't connect")?;
        let probes = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&socket).set_tcp_keepalive(&probes).context("can't set keep-alive probes")?;
        let connection =
            TlsConnector::from(tls).connect(tls::server_name(), socket).await.map_err(|error| match error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                Some(tls) => anyhow!("TLS: {}{}", tls::handshake_reason(tls), self.advice()),
                None => anyhow::Error::new(error).context("TLS"),
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.context("HTTP")?;
        // Ends when the body is dropped or the gateway closes; what went wrong shows in the body.
        tokio::spawn(connection);
        let request = http::Request::get(&self.path)
            .header(http::header::HOST, &self.address)
            .header(http::header::ACCEPT, "application/x-ndjson")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await.context("the gateway closed the connection")?;
        if answer.status() == http::StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let refusal = body.ok().and_then(|body| serde_json::from_slice::<Refusal>(&body.to_bytes()).ok());
        match refusal {
            Some(refusal) => bail!(Refused {
                status: status.as_u16(),
                reason: harmless(&refusal.reason).into_owned(),
                message: harmless(&refusal.message).into_owned(),
            }),
            None => bail!("the gateway answered {status}"),
        }
    }
}

/// The lines of one answer.
pub(super) struct Lines {
    boot_id: Option<String>,
    body: Incoming,
    held: BytesMut,
}

impl Lines {
    /// Names the gateway's start; older gateways say nothing.
    pub(super) fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    /// The next line; none when the gateway ended the stream.
    ///
    /// # Errors
    /// The connection broke, or the gateway sent what is no line.
    pub(super) async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let text = self.held.split_to(end);
                self.held.advance(1);
                if !text.is_empty() {
                    return serde_json::from_slice(&text)
                        .map(Some)
                        .context("the gateway sent what is no log line");
                }
            }
            if self.held.len() > LINE_BYTES_MAX {
                bail!("the gateway sent a line longer than {LINE_BYTES_MAX} bytes");
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.context("the connection broke")?.into_data() {
                self.held.extend_from_slice(&data);
            }
        }
    }
}

impl Source {
    /// A client of each gateway.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn gateways(&self, filter: &Filter, follow: bool) -> Result<Vec<Gateway>> {
        ensure!(!self.gateways.is_empty(), "the cluster has no DeviceGateway; is a gateway running?");
        let gateway = |address: &String| Gateway::new(address, self.credentials.clone(), filter, follow);
        Ok(self.gateways.iter().map(gateway).collect())
    }
}
