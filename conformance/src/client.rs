//! Sends a request and reads its whole answer, or some events of a watch.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use crate::corpus::User;

/// Longest wait for an answer, or for the next event of a watch.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval of attempts to reach a server that restarts.
const PAUSE: Duration = Duration::from_millis(100);
/// Name of the field manager; the same for both servers.
const USER_AGENT: &str = "conformance/1";

/// Makes a server drop its history; it serves again once this resolves.
pub type Forget = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A server with a client for each user.
pub struct Server {
    /// For messages.
    pub name: &'static str,
    clients: BTreeMap<User, kube::Client>,
    forget: Option<Forget>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; of a watch, the events that were read.
    pub body: Value,
}

impl Server {
    /// A server with a kubeconfig for each user.
    ///
    /// # Errors
    /// When a kubeconfig can't be used.
    pub async fn new(name: &'static str, kubeconfig: impl Fn(User) -> std::path::PathBuf) -> Result<Server> {
        let mut clients = BTreeMap::new();
        for user in User::ALL {
            clients.insert(user, connect(&kubeconfig(user)).await?);
        }
        Ok(Server { name, clients, forget: None })
    }

    /// Allows cases to make the server drop its history.
    #[must_use]
    pub fn forgetting(self, forget: Forget) -> Server {
        Server { forget: Some(forget), ..self }
    }

    /// Makes it drop its history, and waits until its clients can reach it again.
    ///
    /// # Errors
    /// When it can't, or doesn't come back.
    pub async fn forget(&self) -> Result<()> {
        let forget =
            self.forget.as_ref().with_context(|| format!("{} can't be restarted here", self.name))?;
        forget().await?;
        for user in User::ALL {
            let since = Instant::now();
            // The first request on an old connection fails.
            while self.send(user, "GET", "/version", &BTreeMap::new(), Vec::new(), None).await.is_err() {
                ensure!(since.elapsed() < PATIENCE, "{} doesn't come back", self.name);
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// The user's client.
    ///
    /// # Errors
    /// Never: all users have one.
    pub fn client(&self, user: User) -> Result<&kube::Client> {
        self.clients.get(&user).context("every user has a client")
    }

    /// Sends one request; with `events`, it is a watch of which that many events are read.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        user: User,
        method: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        body: Vec<u8>,
        events: Option<usize>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("user-agent", USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body)).with_context(|| format!("{method} {path}"))?;
        let client = self.client(user)?;
        let exchange = async {
            let (parts, body) = client.send(request).await?.into_parts();
            let is_stream = parts.status.is_success();
            let body = match events {
                Some(most) if is_stream => Value::Array(read_events(body, most).await?),
                Some(_) | None => parse(&body.collect().await?.to_bytes()),
            };
            anyhow::Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body })
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.with_context(|| format!("{}: {method} {path}", self.name)),
            Err(_) => bail!("{}: {method} {path}: no end of the answer after {PATIENCE:?}", self.name),
        }
    }
}

async fn connect(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    // A watch ends by the timeout above.
    config.read_timeout = None;
    // Errors are answers too.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

async fn read_events(mut body: Body, most: usize) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    let mut buffer = BytesMut::new();
    while events.len() < most {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            buffer.extend_from_slice(&data);
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n')
            && events.len() < most
        {
            let line = buffer.split_to(end + 1);
            events.push(parse(&line.freeze()));
        }
    }
    Ok(events)
}

/// JSON, or else the text.
fn parse(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
