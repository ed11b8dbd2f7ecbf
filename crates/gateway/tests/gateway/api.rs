//! The HTTPS API for controllers and operators.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wasmbed_control::{
    ObjectKey,
    gateway_api::{
        DecommissionOrder, DeviceSet, LogLine, PUT_DECOMMISSIONS_BYTES_MAX, PutDecommissions, PutSets,
        StreamEvent,
    },
};
use wasmbed_pki::tls::Profile;
use wasmbed_protocol::{ApplicationUid, DeviceMessage, Log, ModuleDigest, Sequence};

use crate::support::*;

fn put(term: u64, sets: Vec<DeviceSet>) -> Vec<u8> {
    serde_json::to_vec(&PutSets { leader_term: term, sets }).unwrap()
}

fn set(name: &str, revision: u64) -> DeviceSet {
    let device = ObjectKey { namespace: "default".into(), name: name.into() };
    DeviceSet { device, revision, assignments: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_are_fenced_and_streams_resume() {
    let world = World::start().await;
    let mut device = world.device("a").await;
    let mut http = world.controller().await;
    let (status, answer) = http.call("PUT", "/v1/sets", put(3, vec![set("a", 1)])).await;
    assert_eq!((status, answer["refused"].as_array().map(Vec::len)), (200, Some(0)));
    assert!(device.next().await.unwrap().starts_with("Desired(Desired { revision: Revision(1)"));
    let (status, answer) = http.call("PUT", "/v1/sets", put(2, vec![])).await;
    assert_eq!((status, answer["leader_term"].as_u64()), (409, Some(3)));
    // Nobody leads in these terms, so that nobody is fenced by them.
    for (term, reason) in [(1 << 63, "TermOutOfRange"), (1 << 31, "TermOutOfRange"), (10, "TermNotGiven")] {
        let (status, answer) = http.call("PUT", "/v1/sets", put(term, vec![])).await;
        assert_eq!((status, answer["reason"].as_str()), (400, Some(reason)), "{term}");
    }

    let mut reader = world.controller().await;
    let mut lines = Lines::new(reader.open("GET", "/v1/stream", "").await);
    let mut token = None;
    let mut seen = Vec::new();
    while token.is_none() {
        match lines.next::<StreamEvent>().await.unwrap() {
            StreamEvent::Device { device, .. } => seen.push((device.device.name, device.revision_held)),
            StreamEvent::SnapshotEnd { token: end } => token = Some(end),
            _ => {}
        }
    }
    assert_eq!(seen, [("a".to_owned(), Some(1))]);
    drop(lines);
    http.call("PUT", "/v1/sets", put(3, vec![set("a", 2)])).await;
    let mut reader = world.controller().await;
    let path = format!("/v1/stream?token={}", token.unwrap());
    let mut lines = Lines::new(reader.open("GET", &path, "").await);
    match lines.next::<StreamEvent>().await.unwrap() {
        StreamEvent::Device { device, .. } => assert_eq!(device.revision_held, Some(2)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_to_decommission_are_a_controller_s_and_fenced_as_sets_are() {
    let world = World::start().await;
    let _device = world.device("a").await;
    let body = |term: u64, order: &str| {
        let device = ObjectKey { namespace: "default".into(), name: "a".into() };
        let orders = vec![DecommissionOrder { device, order: order.to_owned() }];
        serde_json::to_vec(&PutDecommissions { leader_term: term, orders }).unwrap()
    };
    let path = "/v1/decommissions";
    let mut http = world.controller().await;
    let (status, answer) = http.call("PUT", path, body(3, "AAAA")).await;
    assert_eq!((status, answer["refused"].as_array().map(Vec::len)), (200, Some(0)));
    let (status, answer) = http.call("PUT", path, body(3, "no base64")).await;
    assert_eq!((status, answer["refused"][0]["device"]["name"].as_str()), (200, Some("a")));
    assert_eq!(http.call("PUT", path, body(2, "AAAA")).await.0, 409);
    assert_eq!(http.call("PUT", "/v1/sets", put(2, vec![])).await.0, 409, "one fence holds for both");
    assert_eq!(http.call("PUT", path, body(10, "AAAA")).await.1["reason"], "TermNotGiven");
    assert_eq!(http.call("PUT", path, "{\"leader_term\":3,\"orders\":[],\"x\":1}").await.0, 400);
    let large = vec![b' '; PUT_DECOMMISSIONS_BYTES_MAX + 1];
    assert_eq!(world.controller().await.call("PUT", path, large).await.0, 413);
    let operator = world.authorities.issue_operator("wasmbed-system", "someone").unwrap();
    assert_eq!(world.http(&operator).await.call("PUT", path, body(3, "AAAA")).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_checked_and_bounded() {
    let world = World::start_with(|config| config.limits.modules_bytes_max = 1_500_000).await;
    let mut http = world.controller().await;
    let module = vec![7; 1 << 20];
    let path = |bytes: &[u8]| format!("/v1/modules/{}", ModuleDigest::of(bytes));
    assert_eq!(http.call("HEAD", &path(&module), "").await.0, 404);
    assert_eq!(http.call("PUT", &path(b"other"), module.clone()).await.1["reason"], "DigestMismatch");
    assert_eq!(http.call("PUT", &path(&module), module.clone()).await.0, 201);
    assert_eq!(http.call("PUT", &path(&module), module.clone()).await.0, 200);
    assert_eq!(http.call("HEAD", &path(&module), "").await.0, 200);
    assert_eq!(http.call("PUT", "/v1/modules/xyz", "x").await.0, 400);
    assert_eq!(http.call("PUT", &path(b""), "").await.0, 413);
    let other = vec![8; 600_000];
    assert_eq!(http.call("PUT", &path(&other), other.clone()).await.1["reason"], "NoSpace");
    let large = vec![9; (1 << 20) + 1];
    assert_eq!(world.controller().await.call("PUT", &path(&large), large.clone()).await.0, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_kept_and_followed() {
    let world = World::start().await;
    let mut device = world.device("a").await;
    let uid = ApplicationUid([7; 16]);
    let log =
        |sequence, text| DeviceMessage::Log(Log { uid, sequence: Sequence(sequence), lines_lost: 0, text });
    device.send(&log(1, "hello")).await.unwrap();
    device.beat(1).await;
    let name = "07070707-0707-0707-0707-070707070707";
    let path = format!("/v1/logs?namespace=default&application={name}&follow=true");
    let mut lines = Lines::new(world.administrator().await.open("GET", &path, "").await);
    assert_eq!(lines.next::<LogLine>().await.unwrap().text, "hello");
    device.send(&log(2, "world")).await.unwrap();
    let line = lines.next::<LogLine>().await.unwrap();
    assert_eq!((line.text.as_str(), line.sequence, line.device.name.as_str()), ("world", 2, "a"));
    let path = format!("/v1/logs?namespace=other&application={name}");
    let mut lines = Lines::new(world.administrator().await.open("GET", &path, "").await);
    assert!(lines.next::<LogLine>().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_and_the_routes_agree() {
    let world = World::start().await;
    let (status, document) = world.controller().await.call("GET", "/openapi.json", "").await;
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    assert_eq!(document, wasmbed_gateway::openapi());
    let digest = "00".repeat(32);
    let methods = ["get", "head", "put", "post", "delete", "patch"];
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in methods {
            // Required parameters of the query are left out: a 400 of the handler proves the route as well.
            let url = path.replace("{digest}", &digest);
            let mut http = match path.as_str() {
                "/v1/logs" | "/v1/messages" => world.administrator().await,
                _ => world.controller().await,
            };
            let response = http.open(&method.to_uppercase(), &url, "").await;
            let status = response.status().as_u16();
            // Whoever answers GET answers HEAD (RFC 9110 section 9.3.2).
            let described =
                operations.get(method).or_else(|| operations.get("get").filter(|_| method == "head"));
            match described {
                None => assert_eq!(status, 405, "{method} {path}"),
                Some(operation) if operations.get(method).is_some() => {
                    assert!(
                        operation["responses"].get(status.to_string()).is_some(),
                        "{method} {path}: {status}"
                    );
                }
                Some(_) => assert!(status != 405 && status != 404, "{method} {path}: {status}"),
            }
        }
    }
    let mut http = world.controller().await;
    assert_eq!(http.call("GET", "/v1/other", "").await.1["reason"], "NotFound");
    assert_eq!(http.call("GET", "/v1/stream?tokem=1", "").await.0, 400);
    assert_eq!(http.call("PUT", "/v1/sets", "{\"leader_term\":1,\"sets\":[],\"x\":1}").await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_its_bound_is_refused() {
    let world = World::start().await;
    let body = vec![b' '; wasmbed_control::gateway_api::PUT_SETS_BYTES_MAX + 1];
    let mut http = world.controller().await;
    assert_eq!(http.call("PUT", "/v1/sets", body).await.0, 413);
}

/// Begins a PUT of a megabyte and brings no more than its first byte.
async fn begin_put(
    world: &World,
    controller: &str,
    path: &str,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let identity = world.authorities.issue_controller("wasmbed-system", controller).unwrap();
    let mut config = Arc::unwrap_or_clone(world.client_config(Profile::Service, &identity));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = world.tls(Arc::new(config)).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000000\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_keeps_no_other_controller_out() {
    let world = World::start().await;
    let module = vec![7; 1000];
    let path = format!("/v1/modules/{}", ModuleDigest::of(&module));
    let mut slow = Vec::new();
    for path in ["/v1/sets", &path, "/v1/sets", &path, "/v1/sets", &path, "/v1/sets", &path] {
        slow.push(begin_put(&world, "slow", path).await);
    }
    let mut http = world.controller().await;
    let started = Instant::now();
    assert_eq!(http.call("PUT", "/v1/sets", put(3, vec![set("a", 1)])).await.0, 200);
    assert_eq!(http.call("PUT", &path, module).await.0, 201);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Together several can hold all places, but no longer than a body may stand still.
    for controller in ["b", "c", "d", "e", "f"] {
        slow.push(begin_put(&world, controller, "/v1/sets").await);
    }
    let (status, _) = http.call("PUT", "/v1/sets", put(3, vec![set("a", 2)])).await;
    assert_eq!(status, 200);
    let mut answer = [0; 12];
    soon("an answer", slow[0].read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}
