//! Requests that well-behaved clients don't send, and documents that they don't read closely.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmbed_apiserver::{Limits, store::OpenError};

use crate::support::{Authority, Running};

pub(crate) const DEVICES: &str = "/apis/wasmbed.github.io/v1alpha1/namespaces/default/devices";

pub(crate) async fn connect(
    server: &Running,
    identity: Option<(String, String)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_to(server.address, &server.authority.pem(), identity, &[]).await
}

pub(crate) async fn connect_to(
    address: SocketAddr,
    authority: &str,
    identity: Option<(String, String)>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

pub(crate) async fn sender(server: &Running, identity: Option<(String, String)>) -> SendRequest<Full<Bytes>> {
    let stream = connect(server, identity).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn admin(server: &Running) -> SendRequest<Full<Bytes>> {
    sender(server, Some(server.authority.client("admin", "system:masters"))).await
}

pub(crate) fn request(
    method: Method,
    path: &str,
    media_type: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    request.header("content-type", media_type).body(Full::new(body.into())).unwrap()
}

pub(crate) async fn json_of(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

pub(crate) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (u16, Value) {
    sender.ready().await.unwrap();
    json_of(sender.send_request(request).await.unwrap()).await
}

pub(crate) async fn get(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> (u16, Value) {
    send(sender, request(Method::GET, path, "application/json", "")).await
}

pub(crate) fn device(name: &str, spec: Value) -> String {
    json!({"apiVersion": "wasmbed.github.io/v1alpha1", "kind": "Device", "metadata": {"name": name}, "spec": spec}).to_string()
}

#[tokio::test]
async fn clients_without_a_certificate_get_health_only() {
    let server = Running::start().await;
    let mut sender = sender(&server, None).await;
    for path in ["/livez", "/readyz", "/healthz", "/health", "/ready", "/metrics"] {
        assert_eq!(get(&mut sender, path).await.0, 200, "{path}");
    }
    for path in ["/version", "/api", DEVICES] {
        let (code, status) = get(&mut sender, path).await;
        assert_eq!((code, &status["reason"]), (401, &json!("Unauthorized")), "{path}");
    }
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let server = Running::start().await;
    let stranger = Authority::new().client("admin", "system:masters");
    // In TLS 1.3 the client learns of it with its first read.
    let refused = match connect(&server, Some(stranger)).await {
        Err(_) => true,
        Ok(mut stream) => {
            let mut answer = [0; 16];
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err()
                || !matches!(stream.read(&mut answer).await, Ok(read) if read > 0)
        }
    };
    assert!(refused);
    server.stop().await;
}

#[tokio::test]
async fn unsupported_features_are_refused() {
    let server = Running::start().await;
    let mut sender = admin(&server).await;
    let one = &format!("{DEVICES}/a");
    assert_eq!(
        send(&mut sender, request(Method::POST, DEVICES, "application/json", device("a", json!({})))).await.0,
        201
    );
    let refusals: Vec<(Method, String, &str, String, u16)> = vec![
        (Method::GET, format!("{DEVICES}?unknown=1"), "", String::new(), 400),
        (Method::GET, format!("{DEVICES}?fieldSelector=spec.nothing%3D1"), "", String::new(), 400),
        (Method::GET, format!("{DEVICES}?resourceVersion=999999"), "", String::new(), 504),
        (
            Method::GET,
            format!("{DEVICES}?resourceVersion=1&resourceVersionMatch=Exact"),
            "",
            String::new(),
            410,
        ),
        (Method::GET, format!("{DEVICES}?continue=rubbish"), "", String::new(), 400),
        (Method::GET, format!("{DEVICES}?watch=true&sendInitialEvents=true"), "", String::new(), 422),
        (Method::GET, format!("{one}?watch=true"), "", String::new(), 400),
        (Method::GET, "/apis/wasmbed.github.io/v1alpha1/pods".into(), "", String::new(), 404),
        (
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews?a=b".into(),
            "application/json",
            "{}".into(),
            400,
        ),
        (Method::POST, "/api/v1".into(), "application/json", "{}".into(), 405),
        (Method::GET, "/apis/nothing.example.com".into(), "", String::new(), 404),
        (Method::POST, one.clone(), "application/json", device("a", json!({})), 405),
        (Method::POST, DEVICES.into(), "application/json", device("a", json!({})), 409),
        (Method::POST, DEVICES.into(), "application/json", device("A_", json!({})), 422),
        (Method::POST, DEVICES.into(), "application/json", "{".into(), 400),
        (Method::POST, DEVICES.into(), "application/json", "[]".into(), 400),
        (
            Method::POST,
            DEVICES.into(),
            "application/json",
            json!({"kind": "Pod", "apiVersion": "v1"}).to_string(),
            400,
        ),
        (Method::POST, DEVICES.into(), "text/plain", device("b", json!({})), 415),
        (Method::POST, DEVICES.into(), "application/vnd.kubernetes.protobuf", "k8s\0".into(), 415),
        (Method::POST, format!("{DEVICES}?dryRun=Perhaps"), "application/json", device("b", json!({})), 422),
        (Method::PATCH, one.clone(), "application/apply-patch+yaml", device("a", json!({})), 422),
        (
            Method::PATCH,
            format!("{one}?fieldManager=m"),
            "application/apply-patch+yaml",
            device("b", json!({})),
            400,
        ),
        (Method::PATCH, one.clone(), "application/apply-patch+cbor", String::new(), 415),
        (Method::PATCH, one.clone(), "application/strategic-merge-patch+json", "{}".into(), 415),
        (Method::PATCH, one.clone(), "application/json", "{}".into(), 415),
        (
            Method::PATCH,
            one.clone(),
            "application/json-patch+json",
            json!([{"op": "test", "path": "/spec/approved", "value": 1}]).to_string(),
            422,
        ),
        (Method::PATCH, format!("{DEVICES}/nothing"), "application/merge-patch+json", "{}".into(), 404),
        (
            Method::PATCH,
            one.clone(),
            "application/merge-patch+json",
            json!({"metadata": {"name": "b"}}).to_string(),
            400,
        ),
        (Method::PUT, one.clone(), "application/json", device("a", json!({})), 422),
        (
            Method::DELETE,
            format!("{one}?propagationPolicy=Foreground"),
            "application/json",
            String::new(),
            400,
        ),
        (
            Method::DELETE,
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/devices.wasmbed.github.io".into(),
            "application/json",
            String::new(),
            405,
        ),
    ];
    let mut wrong = Vec::new();
    for (method, path, media_type, body, expected) in refusals {
        let sent = format!("{method} {path} {media_type}");
        let (code, status) = send(&mut sender, request(method, &path, media_type, body)).await;
        let refused = status["kind"] == "Status" && status["code"] == json!(code);
        if code != expected || !refused || status["message"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{sent}: {expected} expected: {status}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut impersonating = request(Method::GET, DEVICES, "", "");
    impersonating.headers_mut().insert("impersonate-user", "eve".parse().unwrap());
    assert_eq!(send(&mut sender, impersonating).await.0, 403);
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn bodies_have_a_bound_and_may_be_yaml() {
    let limits = Limits { body_bytes_max: 64 * 1024, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let mut sender = admin(&server).await;
    let large = device("a", json!({"public_key": "x".repeat(70_000)}));
    let (code, status) = send(&mut sender, request(Method::POST, DEVICES, "application/json", large)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    let mut sender = admin(&server).await;
    let yaml = "apiVersion: wasmbed.github.io/v1alpha1\nkind: Device\nmetadata: {generateName: d-}\nspec: {approved: false}\n";
    let (code, created) = send(&mut sender, request(Method::POST, DEVICES, "application/yaml", yaml)).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["metadata"]["name"].as_str().unwrap().len(), 7);
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn unknown_fields_are_warnings_by_default() {
    let server = Running::start().await;
    let mut sender = admin(&server).await;
    let body = r#"{"apiVersion": "wasmbed.github.io/v1alpha1", "kind": "Device", "metadata": {"name": "a", "odd": 1},
        "spec": {"unknown": 1, "revoked": false, "revoked": true}}"#;
    sender.ready().await.unwrap();
    let response =
        sender.send_request(request(Method::POST, DEVICES, "application/json", body)).await.unwrap();
    let warnings: Vec<&str> =
        response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"metadata.odd\"""#,
            r#"299 - "unknown field \"spec.unknown\"""#,
            r#"299 - "duplicate field \"spec.revoked\"""#,
        ]
    );
    let (code, created) = json_of(response).await;
    assert_eq!((code, &created["spec"]), (201, &json!({"approved": true, "revoked": true})));
    let strict = format!("{DEVICES}?fieldValidation=Strict");
    let (code, status) = send(&mut sender, request(Method::POST, &strict, "application/json", body)).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("duplicate field \"spec.revoked\""), "{status}");
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn an_invalid_object_is_reported_field_by_field() {
    let server = Running::start().await;
    let mut sender = admin(&server).await;
    let wrong = device("a", json!({"device_type": "x".repeat(20), "capabilities": ["a", "a"]}));
    let (code, status) = send(&mut sender, request(Method::POST, DEVICES, "application/json", wrong)).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    let details = json!({"name": "a", "group": "wasmbed.github.io", "kind": "Device", "causes": [
        {"reason": "FieldValueDuplicate", "message": "Duplicate value: \"a\"", "field": "spec.capabilities[1]"},
        {"reason": "FieldValueTooLong", "message": "Too long: may not be more than 16 bytes", "field": "spec.device_type"},
        {"reason": "FieldValueInvalid", "message": "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation", "field": "<nil>"},
    ]});
    assert_eq!(status["details"], details);
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn slow_and_silent_clients_are_disconnected() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Running::start_with(limits).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let mut slow = connect(&server, None).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap_or(0);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let mut large = connect(&server, None).await.unwrap();
    let header = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    // The server may close before all of it is written.
    let _ = large.write_all(header.as_bytes()).await;
    let mut answer = Vec::new();
    large.read_to_end(&mut answer).await.unwrap_or(0);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(get(&mut sender(&server, None).await, "/livez").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_sends_bookmarks() {
    let server = Running::start().await;
    let mut sender = admin(&server).await;
    send(&mut sender, request(Method::POST, DEVICES, "application/json", device("a", json!({})))).await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    for table in [false, true] {
        // A change of another kind, whose revision the last bookmark has.
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("n-{table}")}});
        let posted = request(Method::POST, "/api/v1/namespaces", "application/json", namespace.to_string());
        let (_, created) = send(&mut sender, posted).await;
        let mut watch = request(Method::GET, &format!("{DEVICES}?{query}"), "", "");
        if table {
            let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json".parse().unwrap();
            watch.headers_mut().insert("accept", accept);
        }
        sender.ready().await.unwrap();
        let body = sender.send_request(watch).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let events: Vec<Value> =
            body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["ADDED", "BOOKMARK", "BOOKMARK"]);
        let metadata = |event: &Value| match table {
            false => event["object"]["metadata"].clone(),
            true => event["object"]["rows"][0]["object"]["metadata"].clone(),
        };
        assert_eq!(metadata(&events[1])["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(metadata(&events[2])["resourceVersion"], created["metadata"]["resourceVersion"]);
        if table {
            assert_eq!(events[0]["object"]["rows"][0]["cells"][0], "a");
            assert!(events[0]["object"]["columnDefinitions"].is_array());
            assert!(events[1]["object"]["columnDefinitions"].is_null());
        }
    }
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_and_commits() {
    let server = Running::start().await;
    let mut sender = admin(&server).await;
    send(&mut sender, request(Method::POST, DEVICES, "application/json", device("a", json!({})))).await;
    sender.ready().await.unwrap();
    let response = sender.send_request(request(Method::GET, "/metrics", "", "")).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    for line in [
        "wasmbed_apiserver_requests_total{verb=\"create\",resource=\"devices\",code=\"201\"} 1",
        "wasmbed_apiserver_request_duration_seconds_count{verb=\"create\",resource=\"devices\"} 1",
        "wasmbed_apiserver_connections 1",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(!text.contains("wasmbed_apiserver_commit_duration_seconds_count 0"));
    drop(sender);
    server.stop().await;
}

#[tokio::test]
async fn a_store_has_one_server() {
    let server = Running::start().await;
    let second = wasmbed_apiserver::store::Disk::open(&server.folder.path().join("store"), None);
    assert!(matches!(second, Err(OpenError::Database(wasmbed_files::OpenError::InUse(_)))), "{second:?}");
    server.stop().await;
}

/// A log that tests read.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_lines_of_a_request_have_its_verb_resource_and_user() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // For all threads: interest in a span is cached for whichever of them meets it first.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = Running::start().await;
    let identity = server.authority.client("traced", "nobody");
    let mut sender = sender(&server, Some(identity)).await;
    let path = format!("{DEVICES}/a/status");
    let (code, _) = send(&mut sender, request(Method::PATCH, &path, "application/json", "{}")).await;
    assert_eq!(code, 403);
    drop(sender);
    server.stop().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let span = r#"request{user="traced" verb="patch" resource="devices/status"}"#;
    assert!(text.lines().any(|line| line.contains(span) && line.contains("code=403")), "{text}");
}
