//! HTTPS calls to gateways, with mutual authentication.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wasmbed_control::{
    fleet::{BrokersOutcome, OrdersOutcome, PutOutcome, SettingsOutcome, UploadOutcome},
    gateway_api::{PutBrokers, PutDecommissions, PutSets, PutSettings, Refusal},
};
use wasmbed_pki::{
    Role, SpiffeId,
    tls::{
        ClientParams, Profile, TlsError, authenticate_gateway, client_config, handshake_reason, server_name,
    },
};
use wasmbed_protocol::ModuleDigest;

use crate::certificates::Certificates;

/// An answer's body at most: a refusal for each of 256 sets fits many times.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// A connection that is not made in this time is given up, whatever the timeout of the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;

/// Calls gateways; cheap to clone.
#[derive(Clone)]
pub(crate) struct GatewayClient {
    shared: Arc<Shared>,
}

struct Shared {
    certificates: Arc<Certificates>,
    trust_domain: String,
    namespace: String,
    /// `host:port` from the configuration, instead of each gateway's own.
    address: Option<String>,
    timeout: Duration,
    /// One idle connection per gateway: calls to it come one after the other.
    idle: Mutex<BTreeMap<String, Sender>>,
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no connection to {address}: {message}")]
    Connect { address: String, message: String },
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the answer can't be read: {0}")]
    Answer(String),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

impl GatewayClient {
    pub(crate) fn new(
        config: &crate::Config,
        certificates: Arc<Certificates>,
    ) -> Result<Self, crate::error::Error> {
        let address = config.gateway.url.as_deref().map(address_of).transpose()?;
        let shared = Shared {
            certificates,
            trust_domain: config.trust_domain.clone(),
            namespace: config.system_namespace.clone(),
            address,
            timeout: config.gateway.timeout,
            idle: Mutex::new(BTreeMap::new()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// `PUT /v1/sets`.
    pub(crate) async fn put_sets(&self, gateway: &str, address: &str, sets: &PutSets) -> PutOutcome {
        let body = match serde_json::to_vec(sets) {
            Ok(body) => Bytes::from(body),
            Err(error) => return PutOutcome::Failed(format!("the sets can't be written as JSON: {error}")),
        };
        match self.call(gateway, address, Method::PUT, "/v1/sets".to_owned(), body).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
                Ok(answer) => PutOutcome::Answered(answer),
                Err(error) => PutOutcome::Failed(format!("the answer can't be read: {error}")),
            },
            Ok((status, body)) => match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) if status == StatusCode::CONFLICT => PutOutcome::Fenced(refusal),
                Ok(refusal) => PutOutcome::Failed(format!("{status}: {}", refusal.message)),
                Err(_) => PutOutcome::Failed(format!("the gateway answered {status}")),
            },
            Err(error) => PutOutcome::Failed(error.to_string()),
        }
    }

    /// `PUT /v1/decommissions`.
    pub(crate) async fn put_decommissions(
        &self,
        gateway: &str,
        address: &str,
        orders: &PutDecommissions,
    ) -> OrdersOutcome {
        let body = match serde_json::to_vec(orders) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                return OrdersOutcome::Failed(format!("the orders can't be written as JSON: {error}"));
            }
        };
        match self.call(gateway, address, Method::PUT, "/v1/decommissions".to_owned(), body).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
                Ok(answer) => OrdersOutcome::Answered(answer),
                Err(error) => OrdersOutcome::Failed(format!("the answer can't be read: {error}")),
            },
            Ok((StatusCode::NOT_FOUND, _)) => OrdersOutcome::TooOld,
            Ok((status, body)) => match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) if status == StatusCode::CONFLICT => OrdersOutcome::Fenced(refusal),
                Ok(refusal) => OrdersOutcome::Failed(format!("{status}: {}", refusal.message)),
                Err(_) => OrdersOutcome::Failed(format!("the gateway answered {status}")),
            },
            Err(error) => OrdersOutcome::Failed(error.to_string()),
        }
    }

    /// `PUT /v1/brokers`.
    pub(crate) async fn put_brokers(&self, gateway: &str, address: &str, put: &PutBrokers) -> BrokersOutcome {
        let body = match serde_json::to_vec(put) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                return BrokersOutcome::Failed(format!("the brokers can't be written as JSON: {error}"));
            }
        };
        match self.call(gateway, address, Method::PUT, "/v1/brokers".to_owned(), body).await {
            Ok((StatusCode::OK, _)) => BrokersOutcome::Taken,
            Ok((StatusCode::NOT_FOUND, _)) => BrokersOutcome::TooOld,
            Ok((status, body)) => match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) if status == StatusCode::CONFLICT => BrokersOutcome::Fenced(refusal),
                Ok(refusal) => BrokersOutcome::Failed(format!("{status}: {}", refusal.message)),
                Err(_) => BrokersOutcome::Failed(format!("the gateway answered {status}")),
            },
            Err(error) => BrokersOutcome::Failed(error.to_string()),
        }
    }

    /// `PUT /v1/settings`.
    pub(crate) async fn put_settings(
        &self,
        gateway: &str,
        address: &str,
        put: &PutSettings,
    ) -> SettingsOutcome {
        let body = match serde_json::to_vec(put) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                return SettingsOutcome::Failed(format!("the settings can't be written as JSON: {error}"));
            }
        };
        match self.call(gateway, address, Method::PUT, "/v1/settings".to_owned(), body).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
                Ok(answer) => SettingsOutcome::Answered(answer),
                Err(error) => SettingsOutcome::Failed(format!("the answer can't be read: {error}")),
            },
            Ok((StatusCode::NOT_FOUND, _)) => SettingsOutcome::TooOld,
            Ok((status, body)) => match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) if status == StatusCode::CONFLICT => SettingsOutcome::Fenced(refusal),
                Ok(refusal) => SettingsOutcome::Failed(format!("{status}: {}", refusal.message)),
                Err(_) => SettingsOutcome::Failed(format!("the gateway answered {status}")),
            },
            Err(error) => SettingsOutcome::Failed(error.to_string()),
        }
    }

    /// `HEAD /v1/modules/{digest}`: whether the gateway has it.
    pub(crate) async fn has_module(
        &self,
        gateway: &str,
        address: &str,
        digest: ModuleDigest,
    ) -> Result<bool, CallError> {
        let path = format!("/v1/modules/{digest}");
        let (status, _) = self.call(gateway, address, Method::HEAD, path, Bytes::new()).await?;
        Ok(status == StatusCode::OK)
    }

    /// `PUT /v1/modules/{digest}`.
    pub(crate) async fn put_module(
        &self,
        gateway: &str,
        address: &str,
        digest: ModuleDigest,
        bytes: Bytes,
    ) -> UploadOutcome {
        let path = format!("/v1/modules/{digest}");
        match self.call(gateway, address, Method::PUT, path, bytes).await {
            Ok((status, _)) if status.is_success() => UploadOutcome::Held,
            Ok((status, body)) => {
                let message = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.message);
                UploadOutcome::Failed(format!("{status}: {}", message.unwrap_or_default()))
            }
            Err(error) => UploadOutcome::Failed(error.to_string()),
        }
    }

    /// `GET /v1/stream`, over a connection of its own. The body goes on for as long as the connection lasts.
    pub(crate) async fn stream(
        &self,
        gateway: &str,
        address: &str,
        token: Option<&str>,
    ) -> Result<Response<Incoming>, CallError> {
        let path = token.map_or_else(|| "/v1/stream".to_owned(), |token| format!("/v1/stream?token={token}"));
        let open = async {
            let mut sender = self.connect(gateway, address).await?;
            let response =
                sender.send_request(self.request(address, Method::GET, path, Bytes::new())?).await?;
            if response.status() == StatusCode::OK {
                Ok(response)
            } else {
                Err(CallError::Answer(format!("the gateway answered {}", response.status())))
            }
        };
        tokio::time::timeout(self.shared.timeout, open)
            .await
            .unwrap_or(Err(CallError::Timeout(self.shared.timeout)))
    }

    async fn call(
        &self,
        gateway: &str,
        address: &str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let call = async {
            let idle = self.idle().remove(gateway).filter(|sender| !sender.is_closed());
            if let Some(mut sender) = idle {
                let request = self.request(address, method.clone(), path.clone(), body.clone())?;
                // The gateway may have closed it since: then the call is made anew, they are all idempotent.
                if sender.ready().await.is_ok()
                    && let Ok(response) = sender.send_request(request).await
                {
                    return self.finish(gateway, sender, response).await;
                }
            }
            let mut sender = self.connect(gateway, address).await?;
            let response = sender.send_request(self.request(address, method, path, body)?).await?;
            self.finish(gateway, sender, response).await
        };
        tokio::time::timeout(self.shared.timeout, call)
            .await
            .unwrap_or(Err(CallError::Timeout(self.shared.timeout)))
    }

    async fn finish(
        &self,
        gateway: &str,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| CallError::Answer(error.to_string()))?.to_bytes();
        self.idle().insert(gateway.to_owned(), sender);
        Ok((status, body))
    }

    fn request(
        &self,
        address: &str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let host = self.shared.address.as_deref().unwrap_or(address);
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| CallError::Answer(error.to_string()))
    }

    async fn connect(&self, gateway: &str, address: &str) -> Result<Sender, CallError> {
        let address = self.shared.address.as_deref().unwrap_or(address);
        let failed = |message: String| CallError::Connect { address: address.to_owned(), message };
        let open = async {
            let stream = TcpStream::connect(address).await.map_err(|error| failed(error.to_string()))?;
            stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
            let connector = TlsConnector::from(self.tls(gateway)?);
            let tls =
                connector.connect(server_name(), stream).await.map_err(|error| failed(reason(&error)))?;
            authenticate_gateway(Profile::Service, tls.get_ref().1, &self.shared.trust_domain)
                .map_err(|error| failed(error.to_string()))?;
            let (sender, connection) = handshake(TokioIo::new(tls)).await?;
            // It ends with its sender; its errors reach whoever waits for an answer.
            tokio::spawn(connection);
            Ok(sender)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, open)
            .await
            .unwrap_or_else(|_| Err(failed("timed out".to_owned())))
    }

    /// Only the gateway of that name may answer.
    fn tls(&self, gateway: &str) -> Result<Arc<ClientConfig>, CallError> {
        let shared = &self.shared;
        let id = SpiffeId::new(&shared.trust_domain, &shared.namespace, Role::Gateway, gateway)
            .map_err(|error| CallError::Answer(error.to_string()))?;
        let credentials = shared.certificates.current();
        let config = client_config(ClientParams {
            profile: Profile::Service,
            identity: &credentials.identity,
            roots: Arc::clone(&credentials.roots),
            trust_domain: &shared.trust_domain,
            gateway: Some(id),
            time: None,
        })?;
        // Calls come one after the other and the stream has its own connection: HTTP/2 would win nothing.
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Sender>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls.map_or_else(|| error.to_string(), handshake_reason)
}

/// `host:port` of a URL, whose scheme gives the port if there is none.
fn address_of(url: &str) -> Result<String, crate::error::Error> {
    let wrong =
        || crate::error::Error::Config(format!("gateway.url is '{url}', expected http(s)://host[:port]"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let port = match uri.scheme_str() {
        Some("https") => uri.port_u16().unwrap_or(443),
        Some("http") => {
            tracing::warn!(url, "gateway.url says http: the controller speaks TLS to it all the same");
            uri.port_u16().unwrap_or(80)
        }
        Some(_) | None => return Err(wrong()),
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn the_url_of_the_overview_names_an_address() {
        assert_eq!(address_of("http://wasmbed-gateway:8080").unwrap(), "wasmbed-gateway:8080");
        assert_eq!(address_of("https://gateway.example").unwrap(), "gateway.example:443");
        assert_eq!(address_of("https://[::1]:8443/").unwrap(), "[::1]:8443");
    }

    #[test]
    fn another_scheme_is_refused_with_the_value_and_what_was_expected() {
        for url in ["wasmbed-gateway:8080", "ftp://gateway", ""] {
            let message = address_of(url).unwrap_err().to_string();
            assert!(message.contains(url) && message.contains("http(s)://host[:port]"), "{message}");
        }
    }
}
