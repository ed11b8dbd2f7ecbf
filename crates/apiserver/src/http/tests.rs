//! Readers of a store that is reopened after its disk failed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::params::Params;
use super::read::{self, Snapshots};
use super::respond::{self, Body};
use super::route::Target;
use super::shares::Pool;
use super::watch::{self, Terms};
use crate::resource::Part;
use crate::status::{Reason, Status};
use crate::store::tests::disk::{FULL, GONE, WELL, World};

struct Readers {
    world: World,
    snapshots: Snapshots,
    user: Arc<str>,
}

impl Readers {
    async fn new() -> Self {
        let world = World::new().await;
        for number in 0..400 {
            world.lease(&format!("lease-{number:03}")).await.unwrap();
        }
        Self { world, snapshots: Snapshots::default(), user: "reader".into() }
    }

    fn target(&self) -> Target {
        let kind = Arc::clone(&self.world.leases);
        Target { kind, namespace: Some("default".into()), name: None, part: Part::Main }
    }

    async fn list(&self, query: &str) -> Result<Value, Status> {
        let params = Params::parse(&Method::GET, Some(query));
        let (store, target, headers) = (&self.world.store, self.target(), HeaderMap::new());
        let list = read::list(store, &self.snapshots, &self.user, &target, &headers, &params)?;
        assert_eq!(list.status(), StatusCode::OK);
        Ok(serde_json::from_slice(&list.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    fn watch(&self, query: &str) -> Response<Body> {
        self.try_watch(query).unwrap()
    }

    fn try_watch(&self, query: &str) -> Result<Response<Body>, Status> {
        let params = Params::parse(&Method::GET, Some(query));
        let terms = Terms {
            store: self.world.store.clone(),
            large: Arc::default(),
            initial_time: Duration::from_secs(60),
            held: Pool::new("watches", 9, 9).take(&self.user, 1).unwrap(),
            gauge: prometheus_client::metrics::gauge::Gauge::default(),
            shutdown: tokio_util::sync::CancellationToken::new(),
        };
        watch::start(terms, self.target(), &HeaderMap::new(), &params)
    }

    fn get(&self, name: &str) -> Result<Response<Body>, Status> {
        let target = Target { name: Some(name.to_owned()), ..self.target() };
        read::get(&self.world.store, &target, name, &HeaderMap::new(), &Params::parse(&Method::GET, None))
    }

    async fn fail_and_come_back(&self) {
        self.world.faulty.set(FULL);
        assert_eq!(self.world.lease("lost").await, Err(500));
        self.world.faulty.set(WELL);
        self.world.until_well().await;
    }
}

async fn next(watch: &mut Response<Body>) -> Bytes {
    watch.frame().await.unwrap().unwrap().into_data().unwrap()
}

/// What a client gets of a refusal: that the API is away for now, and when to ask again.
async fn assert_unavailable(what: &str, status: &Status) {
    let response = respond::refusal(status);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}: {status}");
    assert_eq!(response.headers()[RETRY_AFTER], "1", "{what}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["reason"], &body["details"]["retryAfterSeconds"]),
        (&"ServiceUnavailable".into(), &1.into())
    );
    assert!(body["message"].as_str().unwrap().contains("store"), "{what}: {body}");
}

#[tokio::test]
async fn while_the_store_is_closed_reads_and_writes_are_answered_503_with_retry_after() {
    let readers = Readers::new().await;
    let first = readers.list("limit=300").await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    readers.world.faulty.set(GONE);
    assert_eq!(readers.world.lease("lost").await, Err(500), "its file can't be opened again");
    // The revision of the first page is gone for good; a client that takes the rest all the same asks again.
    let expired = readers.list(&format!("limit=300&continue={token}")).await.unwrap_err();
    assert_eq!(expired.reason(), Reason::Expired, "{expired}");
    let token = expired.details().continue_token.clone().unwrap();
    for attempt in 0..3 {
        let refusals = [
            ("list", readers.list("").await.unwrap_err()),
            ("next page", readers.list(&format!("limit=300&continue={token}")).await.unwrap_err()),
            ("get", readers.get("lease-000").unwrap_err()),
            ("watch", readers.try_watch("watch=true").unwrap_err()),
            ("write", readers.world.write("lost").await.unwrap_err()),
        ];
        for (what, status) in refusals {
            assert_unavailable(&format!("{what}, attempt {attempt}"), &status).await;
        }
    }
    assert!(readers.world.store.failure().is_some(), "readiness says it");
    readers.world.faulty.set(WELL);
    readers.world.until_well().await;
    assert_eq!(readers.list("").await.unwrap()["items"].as_array().map(Vec::len), Some(400));
    assert_eq!(readers.get("lease-000").unwrap().status(), StatusCode::OK);
    readers.world.write("new").await.unwrap();
}

#[tokio::test]
async fn a_paged_list_expires_after_a_reopen_and_can_continue() {
    let readers = Readers::new().await;
    let first = readers.list("limit=300").await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    readers.fail_and_come_back().await;
    let expired = readers.list(&format!("limit=300&continue={token}")).await.unwrap_err();
    assert_eq!((expired.reason(), expired.reason().code()), (Reason::Expired, 410), "{expired}");
    let token = expired.details().continue_token.clone().unwrap();
    let rest = readers.list(&format!("limit=300&continue={token}")).await.unwrap();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(100));
    // Another reader of the same revision, whose list began after the reopen.
    let first = readers.list("limit=300").await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = readers.list(&format!("limit=300&continue={token}")).await.unwrap();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(100));
}

#[tokio::test]
async fn a_reopen_expires_watches_with_initial_objects_and_no_others() {
    let readers = Readers::new().await;
    let version = readers.list("").await.unwrap()["metadata"]["resourceVersion"].clone();
    let mut begun = readers.watch("watch=true");
    assert!(next(&mut begun).await.starts_with(b"{\"type\":\"ADDED\""));
    let mut stands = readers.watch(&format!("watch=true&resourceVersion={}", version.as_str().unwrap()));
    readers.fail_and_come_back().await;
    let mut lines = vec![next(&mut begun).await];
    while lines.last().is_some_and(|line| line.starts_with(b"{\"type\":\"ADDED\"")) {
        lines.push(next(&mut begun).await);
    }
    let last: Value = serde_json::from_slice(lines.last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&"ERROR".into(), &410.into()), "{last}");
    assert!(begun.frame().await.is_none());
    readers.world.lease("new").await.unwrap();
    let mut resumed = readers.watch(&format!("watch=true&resourceVersion={}", version.as_str().unwrap()));
    for watch in [&mut stands, &mut resumed] {
        let line: Value = serde_json::from_slice(&next(watch).await).unwrap();
        assert_eq!(line["object"]["metadata"]["name"], "new");
    }
}
