//! Long work on bytes of clients, off the threads that serve connections.

use http::HeaderMap;
use tokio::sync::Semaphore;

use super::shares::{Held, Share};
use crate::schema::decode::{Decoded, Extent};
use crate::status::Status;

/// Bodies of more bytes are read on a thread of their own kind: they take milliseconds.
const INLINE_BYTES_MAX: usize = 16 * 1_024;
/// Large bodies that are read at once, on all servers of a process: each takes one processor, and memory that isn't counted
/// until it is read.
static READING: Semaphore = Semaphore::const_new(4);
/// Bytes that a value takes in memory at most, without its text: an object with one field is two values in a node of a tree.
const VALUE_BYTES: usize = 320;
/// Values that the bound on requests accounts for; of larger documents the memory is counted as that of their bodies is.
const UNCOUNTED_VALUES: usize = 256;

/// Reads a body. What is held stands for the memory of what was read until the request is answered.
pub(super) async fn read(
    bodies: Share<'_>,
    bytes: usize,
    read: impl FnOnce() -> Result<Decoded, Status> + Send + 'static,
) -> Result<(Decoded, Held), Status> {
    let (decoded, values) = if bytes <= INLINE_BYTES_MAX {
        let decoded = read()?;
        let values = Extent::of(&decoded.value).values;
        (decoded, values)
    } else {
        let turn = READING.acquire().await.map_err(Status::internal)?;
        let read = move || {
            let decoded = read()?;
            let values = Extent::of(&decoded.value).values;
            Ok::<_, Status>((decoded, values))
        };
        let done = tokio::task::spawn_blocking(read).await.map_err(Status::internal)??;
        drop(turn);
        done
    };
    let counted = values.saturating_sub(UNCOUNTED_VALUES) * VALUE_BYTES;
    Ok((decoded, bodies.take(counted)?))
}

/// The object in a POST's or PUT's body; see [`super::write::parse_object`].
pub(super) async fn read_object(
    bodies: Share<'_>,
    headers: &HeaderMap,
    body: &bytes::Bytes,
) -> Result<(Decoded, Held), Status> {
    let (headers, body) = (headers.clone(), body.clone());
    read(bodies, body.len(), move || super::write::parse_object(&headers, &body)).await
}
