//! One call of a gateway: HTTP/1.1 over mutual TLS. What is read comes as one JSON object a line.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::{Serialize, de::DeserializeOwned};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use wasmbed_control::gateway_api::{BOOT_ID_HEADER, Refusal};
use wasmbed_pki::tls::{self, ClientParams, Profile};

use super::source::{Credentials, Filter, Source};
use crate::{cluster::encode_query, login::Operator, output::harmless};

/// How long a gateway may take until it answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A followed stream may be silent for hours: probes find out that the gateway's machine is gone.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The longest line taken: a log text or a message of 1,024 bytes with its names, escaped.
const LINE_BYTES_MAX: usize = 16 * 1_024;
/// A refusal's body.
const REFUSAL_BYTES_MAX: usize = 16 * 1_024;
/// How long a gateway may take for what it asks devices about.
const POST_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer that is one JSON object.
const ANSWER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

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
pub(in crate::commands) struct Gateway {
    address: String,
    path: String,
    /// JSON to be posted; none if something is asked for.
    body: Option<Bytes>,
    credentials: Credentials,
}

/// A gateway answered, and not with lines.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub(in crate::commands) struct Refused {
    status: u16,
    reason: String,
    message: String,
}

impl Refused {
    /// Whether asking again in a while makes no difference: this user may not, and has a certificate that counts.
    pub(in crate::commands) fn is_final(&self) -> bool {
        self.status == 403 && self.reason != "Expired"
    }
}

impl Gateway {
    /// What is asked for is the answer to `GET` of this path with `follow` and the parameters that are some.
    pub(in crate::commands) fn new(
        address: &str,
        credentials: Credentials,
        path: &str,
        follow: bool,
        parameters: &[(&str, Option<&str>)],
    ) -> Self {
        let mut path = format!("{path}?follow={follow}");
        for (key, value) in parameters {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encode_query(value)));
            }
        }
        Self { address: address.to_owned(), path, body: None, credentials }
    }

    /// What is asked for is the answer to `GET` of this path with the parameters that are some.
    pub(in crate::commands) fn getting(
        address: &str,
        credentials: Credentials,
        path: &str,
        parameters: &[(&str, Option<&str>)],
    ) -> Self {
        let given = parameters.iter().filter_map(|(key, value)| Some((key, (*value)?)));
        let query: Vec<String> = given.map(|(key, value)| format!("{key}={}", encode_query(value))).collect();
        Self {
            address: address.to_owned(),
            path: format!("{path}?{}", query.join("&")),
            body: None,
            credentials,
        }
    }

    /// A call that brings this JSON.
    pub(in crate::commands) fn posting(
        address: &str,
        credentials: Credentials,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body = Some(serde_json::to_vec(body)?.into());
        Ok(Self { address: address.to_owned(), path: path.to_owned(), body, credentials })
    }

    pub(in crate::commands) fn address(&self) -> &str {
        &self.address
    }

    /// Calls the gateway; the lines follow.
    ///
    /// # Errors
    /// The gateway can't be reached, or refuses.
    pub(in crate::commands) async fn open<T>(&self) -> Result<Lines<T>> {
        let operator = self.credentials.current().await?;
        let answer = timeout(CONNECT_TIMEOUT, self.call(&operator))
            .await
            .with_context(|| format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))??;
        let boot_id =
            answer.headers().get(BOOT_ID_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Lines { boot_id, body: answer.into_body(), held: BytesMut::new(), of: PhantomData })
    }

    /// Calls the gateway; the answer is one JSON object.
    ///
    /// # Errors
    /// The gateway can't be reached, refuses, or answers with something else.
    pub(in crate::commands) async fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        let operator = self.credentials.current().await?;
        let answered = async {
            let body = self.call(&operator).await?.into_body();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!("the answer did not arrive: {error}"))?;
            serde_json::from_slice(&body.to_bytes()).context("the gateway's answer is not what was asked for")
        };
        timeout(POST_TIMEOUT, answered)
            .await
            .with_context(|| format!("no answer within {} s", POST_TIMEOUT.as_secs()))?
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
        let request = http::Request::builder().uri(&self.path).header(http::header::HOST, &self.address);
        let request = match &self.body {
            None => request.header(http::header::ACCEPT, "application/x-ndjson"),
            Some(_) => request
                .method(http::Method::POST)
                .header(http::header::ACCEPT, "application/json")
                .header(http::header::CONTENT_TYPE, "application/json"),
        };
        let request = request.body(Full::new(self.body.clone().unwrap_or_default()))?;
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
pub(in crate::commands) struct Lines<T> {
    boot_id: Option<String>,
    body: Incoming,
    held: BytesMut,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// Names the gateway's start; older gateways say nothing.
    pub(super) fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    /// The next line; none when the gateway ended the stream.
    ///
    /// # Errors
    /// The connection broke, or the gateway sent what is no line.
    pub(in crate::commands) async fn next(&mut self) -> Result<Option<T>> {
        loop {
            while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let text = self.held.split_to(end);
                self.held.advance(1);
                if !text.is_empty() {
                    return serde_json::from_slice(&text)
                        .map(Some)
                        .context("the gateway sent a line that is not what was asked for");
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
        let parameters = [
            ("namespace", filter.namespace.as_deref()),
            ("application", filter.application.as_deref()),
            ("device", filter.device.as_deref()),
        ];
        let gateway = |address: &String| {
            Gateway::new(address, self.credentials.clone(), "/v1/logs", follow, &parameters)
        };
        Ok(self.gateways.iter().map(gateway).collect())
    }
}
