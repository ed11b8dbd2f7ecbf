//! Decodes large bodies off the threads that serve connections.

use http::HeaderMap;
use tokio::sync::Semaphore;

use super::body;
use super::shares::{Held, Share};
use crate::schema::decode::{Decoded, Extent};
use crate::status::Status;

/// Larger bodies are decoded on a blocking thread: they take milliseconds.
const INLINE_BYTES_MAX: usize = 16 * 1_024;
/// Large bodies that are decoded at once, in all servers of a process: each takes one processor, and memory that is
/// accounted for only once it is decoded.
static DECODING: Semaphore = Semaphore::const_new(4);
/// Memory of a value in bytes at most, without its text: an object with one field is two values in a node of a tree.
const VALUE_BYTES: usize = 320;
/// Values that the bound on requests accounts for; those of larger documents count against the share of bodies.
const UNCOUNTED_VALUES: usize = 256;

/// Decodes a body of `bytes` bytes. The share that is returned accounts for the memory of the document until the request is
/// answered.
pub(super) async fn decode(
    bodies: Share<'_>,
    bytes: usize,
    decode: impl FnOnce() -> Result<Decoded, Status> + Send + 'static,
) -> Result<(Decoded, Held), Status> {
    let (decoded, values) = if bytes <= INLINE_BYTES_MAX {
        let decoded = decode()?;
        let values = Extent::of(&decoded.value).values;
        (decoded, values)
    } else {
        let turn = DECODING.acquire().await.map_err(Status::internal)?;
        let decode = move || {
            let decoded = decode()?;
            let values = Extent::of(&decoded.value).values;
            Ok::<_, Status>((decoded, values))
        };
        let done = tokio::task::spawn_blocking(decode).await.map_err(Status::internal)??;
        drop(turn);
        done
    };
    let counted = values.saturating_sub(UNCOUNTED_VALUES) * VALUE_BYTES;
    Ok((decoded, bodies.take(counted)?))
}

/// Decodes the object in a body; see [`body::decode_object`].
pub(super) async fn decode_object(
    bodies: Share<'_>,
    headers: &HeaderMap,
    bytes: &bytes::Bytes,
) -> Result<(Decoded, Held), Status> {
    let (headers, bytes) = (headers.clone(), bytes.clone());
    decode(bodies, bytes.len(), move || body::decode_object(&headers, &bytes)).await
}
