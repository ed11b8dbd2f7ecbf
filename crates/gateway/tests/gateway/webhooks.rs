//! Webhooks: what they get, what they answer, and what they do not.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Api, api::PostParams};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;
use wasmbed_api::{BrokerFormat, BrokerGateway, BrokerType, MessageBroker, MessageBrokerSpec, ReasonCode};
use wasmbed_control::{
    Hidden,
    gateway_api::{BrokerEntry, PutBrokers},
};
use wasmbed_pki::ClusterAuthority;

use crate::{messages, support::*};

/// A request as a server got it.
#[derive(Clone, Debug)]
struct Asked {
    at: Instant,
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn payloads(&self) -> Vec<String> {
        let batch: Value = serde_json::from_slice(&self.body).unwrap();
        let payload = |message: &Value| message["payload"].as_str().unwrap().to_owned();
        batch["messages"].as_array().unwrap().iter().map(payload).collect()
    }
}

/// What a server does with a request, or with a connection.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer(u16),
    /// With `Retry-After: 2`.
    Busy(u16),
    Never,
    /// A good answer, whose body never ends.
    Drip(Duration),
    /// No HTTP at all: a head that never ends.
    Flood,
}

/// A server with TLS.
struct Hook {
    port: u16,
    ca: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Hook {
    async fn start(act: impl Fn(&Asked) -> Act + Clone + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create_or_open(folder.path()).unwrap();
        let identity = authority.issue_server(&["127.0.0.1".to_owned()]).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(wasmbed_pki::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let hook = Self {
            port: listener.local_addr().unwrap().port(),
            ca: authority.certificate_pem().to_owned(),
            asked: Arc::clone(&asked),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, act, asked) = (tls.clone(), act.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let begun = Asked { at: Instant::now(), head: String::new(), body: Vec::new() };
                    if matches!(act(&begun), Act::Flood) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
                        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
                        return;
                    }
                    let answer = service_fn(move |request| answer(request, act.clone(), Arc::clone(&asked)));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        hook
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn broker(&self, world: &World, name: &str, format: BrokerFormat) -> BrokerEntry {
        let url = format!("https://127.0.0.1:{}/hooks/in?site=7", self.port);
        let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
        let spec = MessageBrokerSpec {
            broker: BrokerType::Webhook,
            url: url.clone(),
            format,
            ..MessageBrokerSpec::default()
        };
        let made = brokers.create(&PostParams::default(), &MessageBroker::new(name, spec)).await.unwrap();
        BrokerEntry {
            broker: wasmbed_control::ObjectKey::new("default", name),
            uid: made.metadata.uid.unwrap(),
            generation: 1,
            kind: "Webhook".to_owned(),
            format: Some(if format == BrokerFormat::Cbor { "Cbor" } else { "Json" }.to_owned()),
            url,
            ca: Some(self.ca.clone()),
            ..BrokerEntry::default()
        }
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    act: impl Fn(&Asked) -> Act,
    all: Arc<Mutex<Vec<Asked>>>,
) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let head = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let asked = Asked { at: Instant::now(), head, body };
    let act = act(&asked);
    all.lock().unwrap().push(asked);
    let empty = || http_body_util::Empty::new().boxed();
    let answer = Response::builder();
    Ok(match act {
        Act::Answer(status) => answer.status(status).header("location", "/elsewhere").body(empty()),
        Act::Busy(status) => answer.status(status).header("retry-after", "2").body(empty()),
        Act::Never | Act::Flood => std::future::pending().await,
        Act::Drip(pause) => {
            let body = stream::unfold((), move |()| async move {
                tokio::time::sleep(pause).await;
                Some((Ok(Frame::data(Bytes::from_static(&[b'x'; 1_024]))), ()))
            });
            answer.status(200).body(BoxBody::new(StreamBody::new(body)))
        }
    }
    .unwrap())
}

async fn put(world: &World, brokers: Vec<BrokerEntry>) {
    let body = serde_json::to_vec(&PutBrokers { leader_term: 1, brokers }).unwrap();
    assert_eq!(world.controller().await.call("PUT", "/v1/brokers", body).await.0, 200);
}

/// What the gateway says of a broker once that is so.
async fn said(world: &World, name: &str, so: impl Fn(&BrokerGateway) -> bool) -> BrokerGateway {
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    soon(&format!("the status of {name}"), async {
        loop {
            let status = brokers.get(name).await.unwrap().status.unwrap_or_default();
            if let Some(entry) = status.gateways.into_iter().find(&so) {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_batches_with_what_tells_their_messages_and_who_sends_them() {
    let (world, mut device) = messages::world().await;
    let json = Hook::start(|_| Act::Answer(204)).await;
    let cbor = Hook::start(|_| Act::Answer(200)).await;
    let bearer = BrokerEntry {
        token: Some(Hidden::new("t0ken".to_owned())),
        ..json.broker(&world, "json", BrokerFormat::Json).await
    };
    let user = BrokerEntry {
        username: Some(Hidden::new("ada".to_owned())),
        password: Some(Hidden::new("pass".to_owned())),
        ..cbor.broker(&world, "cbor", BrokerFormat::Cbor).await
    };
    put(&world, vec![bearer, user]).await;
    messages::publish(&mut device, &[(1, b"21.5"), (2, b"21.6"), (3, &[0xff, 0])]).await;
    for name in ["json", "cbor"] {
        let entry = said(&world, name, |entry| entry.sent == 3).await;
        assert_eq!((entry.connected, entry.refused, entry.last_error), (true, 0, None));
    }
    let asked = json.asked();
    let payloads: Vec<String> = asked.iter().flat_map(Asked::payloads).collect();
    assert_eq!(payloads, ["MjEuNQ==", "MjEuNg==", "/wA="], "in their order, each once");
    assert!(asked[0].head.starts_with("POST /hooks/in?site=7 "), "{}", asked[0].head);
    assert!(asked[0].head.contains("application/json") && asked[0].head.contains("Bearer t0ken"));
    let batch: Value = serde_json::from_slice(&asked[0].body).unwrap();
    let first = &batch["messages"][0];
    assert_eq!((&batch["gateway"], &first["topic"]), (&"gw".into(), &"wasmbed/default/hello/a/t".into()));
    assert_eq!((&first["boot"], &first["sequence"]), (&"3".into(), &"1".into()));
    assert!(first["device_uid"].as_str().unwrap().len() == 36 && first["time"].is_string());
    let asked = cbor.asked();
    assert!(asked[0].head.contains("application/cbor") && asked[0].head.contains("Basic YWRhOnBhc3M="));
    assert!(asked[0].body.starts_with(b"\xa2\x67gateway\x62gw\x68messages"));
    world.metric("wasmbed_gateway_broker_messages_total{type=\"Webhook\"} 6").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_webhook_is_refused_by_the_api_with_what_to_write() {
    let world = World::start().await;
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    let good = MessageBrokerSpec {
        broker: BrokerType::Webhook,
        url: "https://ingest.example/in?a=b%20c".to_owned(),
        format: BrokerFormat::Json,
        ca: Some("PEM".to_owned()),
        ..MessageBrokerSpec::default()
    };
    let with_url = |url: &str| MessageBrokerSpec { url: url.to_owned(), ..good.clone() };
    let cases = [
        (
            MessageBrokerSpec { format: BrokerFormat::Raw, ..good.clone() },
            "the format of a Webhook is Json or Cbor",
        ),
        (
            MessageBrokerSpec { broker: BrokerType::Mqtt, format: BrokerFormat::Raw, ..good.clone() },
            "begins with https://",
        ),
        (with_url("mqtts://ingest.example"), "begins with https://"),
        (with_url("http://ingest.example/in"), "url"),
        (with_url("https://user@ingest.example/in"), "url"),
    ];
    for (spec, wanted) in cases {
        let refused =
            brokers.create(&PostParams::default(), &MessageBroker::new("bad", spec)).await.unwrap_err();
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    brokers.create(&PostParams::default(), &MessageBroker::new("good", good)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_webhook_does_not_take_holds_up_no_other() {
    let (world, mut device) = messages::world().await;
    // "bad" in base64.
    let bad = |asked: &Asked| !asked.body.is_empty() && asked.payloads().contains(&"YmFk".to_owned());
    let hook = Hook::start(move |asked| Act::Answer(if bad(asked) { 422 } else { 200 })).await;
    put(&world, vec![hook.broker(&world, "picky", BrokerFormat::Json).await]).await;
    messages::publish(&mut device, &[(1, b"good"), (2, b"bad"), (3, b"fine")]).await;
    let entry = said(&world, "picky", |entry| entry.sent == 2 && entry.refused == 1).await;
    assert_eq!((entry.waiting_messages, entry.connected), (Some(0), true));
    messages::publish(&mut device, &[(4, b"bad")]).await;
    let entry = said(&world, "picky", |entry| entry.refused == 2).await;
    let error = entry.last_error.unwrap();
    assert_eq!(error.reason, ReasonCode::BrokerRefused);
    assert!(error.message.contains("wasmbed/default/hello/a/t: 422"), "{}", error.message);
    messages::publish(&mut device, &[(5, b"good")]).await;
    let entry = said(&world, "picky", |entry| entry.sent == 3).await;
    assert_eq!(entry.last_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_busy_is_asked_again_when_it_said() {
    let (world, mut device) = messages::world().await;
    let busy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_busy = Arc::clone(&busy);
    let hook = Hook::start(move |asked| {
        let first = !asked.body.is_empty() && is_busy.swap(false, std::sync::atomic::Ordering::SeqCst);
        if first { Act::Busy(429) } else { Act::Answer(200) }
    })
    .await;
    put(&world, vec![hook.broker(&world, "busy", BrokerFormat::Json).await]).await;
    messages::publish(&mut device, &[(1, b"21.5")]).await;
    said(&world, "busy", |entry| entry.sent == 1).await;
    let asked = hook.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body, "the same again");
    assert!(asked[1].at.duration_since(asked[0].at) >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_does_not_do_what_it_should_harms_itself_alone() {
    let (world, mut device) = messages::world().await;
    let cases = [
        ("silent", Act::Never, ReasonCode::BrokerSilent, "did not answer within 10 s"),
        ("flood", Act::Flood, ReasonCode::BrokerRefused, "does not keep to HTTP/1.1"),
        ("moved", Act::Answer(302), ReasonCode::BrokerRefused, "redirects are not followed"),
        ("rights", Act::Answer(401), ReasonCode::NotAuthorised, "401"),
        ("broken", Act::Answer(500), ReasonCode::BrokerRefused, "500"),
    ];
    let mut hooks = Vec::new();
    let mut brokers = Vec::new();
    for (name, act, ..) in cases {
        let hook = Hook::start(move |_| act).await;
        brokers.push(hook.broker(&world, name, BrokerFormat::Json).await);
        hooks.push(hook);
    }
    // What comes with a good answer is not waited for.
    for (name, pause) in [("slow", Duration::from_millis(300)), ("fast", Duration::ZERO)] {
        let hook = Hook::start(move |_| Act::Drip(pause)).await;
        brokers.push(hook.broker(&world, name, BrokerFormat::Json).await);
        hooks.push(hook);
    }
    let other = Hook::start(|_| Act::Answer(200)).await;
    let unknown = other.broker(&world, "unknown", BrokerFormat::Json).await;
    brokers.push(BrokerEntry { ca: Some(hooks[0].ca.clone()), ..unknown });
    put(&world, brokers).await;
    messages::publish(&mut device, &[(1, b"21.5")]).await;
    let cases = cases.map(|(name, _, reason, message)| (name, reason, message));
    for (name, reason, message) in cases.into_iter().chain([("unknown", ReasonCode::BrokerUntrusted, "TLS")])
    {
        let is =
            |entry: &BrokerGateway| entry.last_error.as_ref().is_some_and(|error| error.reason == reason);
        let entry = said(&world, name, is).await;
        let said = entry.last_error.unwrap().message;
        assert!(said.contains(message), "{name}: {said}");
        assert_eq!((entry.sent, entry.waiting_messages), (0, Some(1)), "{name}: it waits");
    }
    for name in ["slow", "fast"] {
        said(&world, name, |entry| entry.sent == 1 && entry.last_error.is_none()).await;
    }
    assert!(other.asked().is_empty());
    device.beat(1).await;
}
