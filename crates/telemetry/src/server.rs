//! `/health`, `/ready` and `/metrics` over plain HTTP.

use std::{fmt::Write, io, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Health;

/// Content type of the OpenMetrics text format, version 1.0.0.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves health, readiness and metrics until `shutdown`.
///
/// `health_path` is where liveness is answered besides `/health`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_health(
    listener: TcpListener,
    health: Health,
    metrics: Arc<Registry>,
    health_path: &str,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = router(health, metrics, health_path);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
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

    #[tokio::test]
    async fn the_three_paths_answer() -> anyhow::Result<()> {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("wasmbed_test_calls", "Calls of a test", counter.clone());
        counter.inc();
        let health = Health::starting(&["kubernetes"]);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
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
        health.set("kubernetes", Ok(()));
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
