//! Health and metrics, over plain HTTP as a scraper reads them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::TIMEOUT;

/// How often a metric is read while it is waited for.
const POLL: Duration = Duration::from_millis(50);

/// Answers a GET with the status code and the body.
///
/// # Errors
/// When nobody answers, or not with HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("can't reach {address}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("can't send a request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("can't read an answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).context("the answer has no status")?;
    Ok((status.parse().context("the status is not a number")?, body.to_owned()))
}

/// Waits until a process says that it is ready.
///
/// # Errors
/// With what it said last, when the time is over.
pub async fn until_ready(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let (status, body) = get(address, "/ready").await?;
        if status == 200 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{address} answers {status}: {body}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The value of one series, by its name with labels; 0 while nobody has counted anything.
///
/// # Errors
/// When the metrics can't be read.
pub async fn metric(address: SocketAddr, series: &str) -> Result<f64> {
    let (status, body) = get(address, "/metrics").await?;
    anyhow::ensure!(status == 200, "/metrics answers {status}");
    let value = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(Ok(0.0), |value| value.parse().with_context(|| format!("{series} is not a number")))
}

/// Waits until a series has reached a value.
///
/// # Errors
/// With the value it had last, when the time is over.
pub async fn metric_at_least(address: SocketAddr, series: &str, wanted: f64) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let value = metric(address, series).await?;
        if value >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{series} is {value}, not {wanted}");
        }
        tokio::time::sleep(POLL).await;
    }
}
