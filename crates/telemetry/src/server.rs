//! `/health`, `/ready` and `/metrics` over plain HTTP.

use std::{
    convert::Infallible,
    fmt::Write,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Health, OpenFiles,
    places::{GivesWay, LEAVING_MAX, Place, PlaceLimits, Places, Stay, UnderWay},
};

/// Content type of the OpenMetrics text format, version 1.0.0.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once: a probe takes one for a moment, a Prometheus server keeps one. Half of them for one address.
const CONNECTIONS_MAX: usize = 128;
/// Connections that wait to be accepted. When the kernel has no room for one, its client asks again after a second, and then
/// after another: a crowd would keep a probe waiting for longer than all of the crowd takes.
const BACKLOG: u32 = 4_096;
/// Bytes of a request's head; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long peers may take.
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(5),
    stay: Stay {
        idle: Duration::from_secs(20),
        request: Duration::from_secs(20),
        life: Duration::from_secs(600),
    },
};
/// Time for answers to be read when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Patience {
    /// For a request's head to arrive.
    head: Duration,
    /// For the next request, for an answer to be read, and for the whole connection.
    stay: Stay,
}

/// Binds a port for [`serve_health`].
///
/// # Errors
/// When the address can't be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves health, readiness and metrics until `shutdown`.
///
/// `health_path` is where liveness is answered besides `/health`. Anyone may connect, so connections are few and give way
/// to new ones: who asks is answered, who only waits is not kept.
///
/// # Errors
/// When the listener's address can't be read.
pub async fn serve_health(
    listener: TcpListener,
    health: Health,
    metrics: Arc<Registry>,
    health_path: &str,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_router(listener, router(health, metrics, health_path), PATIENCE, shutdown).await
}

async fn serve_router(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let files =
        OpenFiles::claim(&format!("health at {}", listener.local_addr()?), CONNECTIONS_MAX + LEAVING_MAX);
    let (places, connections) = (Places::new(GivesWay::Any), TaskTracker::new());
    let accept = async {
        loop {
            places.settled().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let total = files.allowed().saturating_sub(LEAVING_MAX).max(2);
                    let limits = PlaceLimits { total, each: total / 2 };
                    // Some connection may always give way, so there is always a place.
                    if let Ok(place) = places.take(peer.ip(), limits) {
                        connections.spawn(serve(stream, place, router.clone(), patience, shutdown.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(reason = "AcceptFailed", %error, "a connection to the health port can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    connections.close();
    // Who does not read is cut off with the process.
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
    Ok(())
}

async fn serve(
    stream: TcpStream,
    place: Place<IpAddr>,
    router: Router,
    patience: Patience,
    shutdown: CancellationToken,
) {
    let place = Arc::new(place);
    let inner = TowerToHyperService::new(router);
    let asked = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = asked.request();
        let answer = (request.is_end_stream()).then(|| hyper::service::Service::call(&inner, request));
        async move {
            let answer = match answer {
                Some(answer) => answer.await?,
                None => no_body(),
            };
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _under_way: under_way }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let over = place.over(patience.stay);
    tokio::pin!(over);
    let mut stopping = false;
    loop {
        tokio::select! {
            // A request that has arrived is answered before its connection gives way.
            biased;
            // A peer's error is its own affair.
            _ = connection.as_mut() => return,
            () = over.as_mut() => return,
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn no_body() -> Response<Body> {
    let mut answer = (StatusCode::PAYLOAD_TOO_LARGE, "requests to this port have no body\n").into_response();
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer whose request is under way until it is written.
struct Answer {
    body: Body,
    _under_way: UnderWay<IpAddr>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// The three paths, for a process that serves them on a port of its own making.
pub fn router(health: Health, metrics: Arc<Registry>, health_path: &str) -> Router {
    let alive = || async { "ok\n" };
    let mut router = Router::new()
        .route("/health", get(alive))
        .route("/ready", get(move || async move { ready(&health) }))
        .route("/metrics", get(move || async move { answer_metrics(&metrics) }));
    if !matches!(health_path, "/health" | "/ready" | "/metrics") {
        router = router.route(health_path, get(alive));
    }
    router
}

fn ready(health: &Health) -> (StatusCode, String) {
    let waiting = health.not_ready();
    if waiting.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut text = String::new();
    for item in waiting {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}: {}", item.component, item.reason);
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

fn answer_metrics(metrics: &Registry) -> impl IntoResponse + use<> {
    match encode_metrics(metrics) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("can't encode the metrics: {error}\n"),
        ),
    }
}

/// All metrics in the OpenMetrics text format.
///
/// # Errors
/// When a collector fails.
pub fn encode_metrics(metrics: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, metrics)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Serves until the guard is dropped.
    async fn start(
        patience: Patience,
    ) -> anyhow::Result<(std::net::SocketAddr, tokio_util::sync::DropGuard)> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let (address, shutdown) = (listener.local_addr()?, CancellationToken::new());
        let router = router(Health::default(), Arc::new(Registry::default()), "/health");
        tokio::spawn(serve_router(listener, router, patience, shutdown.clone()));
        Ok((address, shutdown.drop_guard()))
    }

    /// For what happens at once unless the server is at fault.
    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn half_requests_give_way_to_a_probe() -> anyhow::Result<()> {
        let longer = SOON * 10;
        let stay = Stay { idle: longer, request: longer, life: longer };
        let (address, _stop) = start(Patience { head: longer, stay }).await?;
        let mut halves = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            let mut half = TcpStream::connect(address).await?;
            half.write_all(b"GET /ready HTTP/1.1\r\nHost: ").await?;
            halves.push(half);
            if halves.len() % CONNECTIONS_MAX == 0 {
                assert!(get(address, "/ready").await?.starts_with("HTTP/1.1 200"));
            }
        }
        // The first have been closed although they had time.
        let closed = async {
            for half in &mut halves[..CONNECTIONS_MAX] {
                let _ = half.read(&mut [0; 16]).await;
            }
        };
        tokio::time::timeout(SOON, closed).await?;
        Ok(())
    }

    #[tokio::test]
    async fn who_sends_nothing_more_is_let_go() -> anyhow::Result<()> {
        let short = Duration::from_millis(100);
        let patience = Patience { head: short, stay: Stay { idle: short, ..PATIENCE.stay } };
        let (address, _stop) = start(patience).await?;
        let mut half = TcpStream::connect(address).await?;
        half.write_all(b"GET /ready HTTP/1.1\r\nHost: ").await?;
        let mut kept = TcpStream::connect(address).await?;
        kept.write_all(b"GET /ready HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        let mut answers = (Vec::new(), Vec::new());
        let read =
            async { tokio::try_join!(half.read_to_end(&mut answers.0), kept.read_to_end(&mut answers.1)) };
        tokio::time::timeout(SOON, read).await??;
        assert!(!answers.0.starts_with(b"HTTP/1.1 200") && answers.1.starts_with(b"HTTP/1.1 200"));
        Ok(())
    }

    #[tokio::test]
    async fn who_has_asked_is_answered_before_giving_way() -> anyhow::Result<()> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let (address, shutdown) = (listener.local_addr()?, CancellationToken::new());
        let mut asked = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /ready HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
            asked.push(stream);
        }
        let router = router(Health::default(), Arc::new(Registry::default()), "/health");
        tokio::spawn(serve_router(listener, router, PATIENCE, shutdown.clone()));
        let _stop = shutdown.drop_guard();
        for mut stream in asked {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_crowd_waits_in_the_queue() -> anyhow::Result<()> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let mut crowd = Vec::new();
        // Nobody accepts them, and fewer open files than hosts allow.
        let come = async {
            for _ in 0..600 {
                crowd.push(TcpStream::connect(address).await?);
            }
            io::Result::Ok(())
        };
        tokio::time::timeout(SOON, come).await??;
        Ok(())
    }

    #[tokio::test]
    async fn bodies_are_not_read() -> anyhow::Result<()> {
        let (address, _stop) = start(PATIENCE).await?;
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nx").await?;
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, b"HTTP/1.1 413");
        Ok(())
    }

    #[tokio::test]
    async fn the_three_paths_answer() -> anyhow::Result<()> {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("wasmbed_test_calls", "Calls of a test", counter.clone());
        counter.inc();
        let health = Health::starting(&["kubernetes"]);
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let served = tokio::spawn({
            let (health, shutdown) = (health.clone(), shutdown.clone());
            async move { serve_health(listener, health, Arc::new(registry), "/healthz", shutdown).await }
        });

        assert!(get(address, "/health").await?.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/healthz").await?.starts_with("HTTP/1.1 200"));
        let waiting = get(address, "/ready").await?;
        assert!(
            waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("kubernetes: starting\n"),
            "{waiting}"
        );
        health.set("kubernetes", crate::Readiness::Ready);
        assert!(get(address, "/ready").await?.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await?;
        assert!(
            metrics.contains("wasmbed_test_calls_total 1\n") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );

        shutdown.cancel();
        served.await??;
        Ok(())
    }
}
