//! Request bodies: received within bounds, and decoded.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};

use super::client::Client;
use super::negotiate::MediaType;
use super::protobuf::{self, DecodeError};
use super::shares::Held;
use super::state::State;
use crate::schema::decode::{self, Decoded};
use crate::status::{Reason, Status};

/// Of a body that is too large, this many times the limit is read and dropped.
const DRAINED_LIMITS: usize = 4;

/// Receives a body of at most `bytes_max` bytes. The share that is returned accounts for its memory until the request is
/// answered.
pub(super) async fn receive(
    state: &State,
    client: &Client,
    headers: &HeaderMap,
    body: Incoming,
    bytes_max: usize,
) -> Result<(Bytes, Held), Status> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Status::new(Reason::UnsupportedMediaType, "compressed bodies are not accepted"));
    }
    let too_large = || {
        let message = format!("Request entity too large: limit is {bytes_max}");
        Status::new(Reason::RequestEntityTooLarge, message)
    };
    let timeout = state.limits.body_timeout;
    if body.size_hint().lower() > bytes_max as u64 {
        // Clients read the answer once they have sent the body, so part of it is received before the answer.
        let drained = Limited::new(body, bytes_max.saturating_mul(DRAINED_LIMITS));
        let _ = tokio::time::timeout(timeout, drain(drained)).await;
        return Err(too_large());
    }
    let expected =
        body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(bytes_max);
    let held = state.bodies(client).take(expected.min(bytes_max))?;
    match tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), held)),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Status::bad_request(format!("the body could not be received: {error}"))),
        Err(_) => Err(Status::new(Reason::Timeout, "Timeout: the body did not arrive in time")),
    }
}

async fn drain(mut body: Limited<Incoming>) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// The media type of a body without its parameters; empty if the header is missing.
pub(super) fn media_type(headers: &HeaderMap) -> Result<&str, Status> {
    match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        None => Ok(""),
        Some(Ok(text)) => Ok(MediaType::parse(text).name),
        Some(Err(_)) => Err(Status::bad_request("the Content-Type header is not text")),
    }
}

/// Decodes the object in a body.
pub(super) fn decode_object(headers: &HeaderMap, body: &Bytes) -> Result<Decoded, Status> {
    let unreadable =
        |error: &dyn std::fmt::Display| Status::bad_request(format!("the body can't be read: {error}"));
    let decoded = match media_type(headers)? {
        "application/json" | "" => decode::json(body).map_err(|error| unreadable(&error))?,
        "application/yaml" => decode::yaml(body).map_err(|error| unreadable(&error))?,
        protobuf::MEDIA_TYPE => match protobuf::decode(body) {
            Ok(value) => Decoded { value, duplicates: Vec::new() },
            Err(error @ DecodeError::Kind { .. }) => {
                return Err(Status::new(Reason::UnsupportedMediaType, error.to_string()));
            }
            Err(error) => return Err(unreadable(&error)),
        },
        other => return Err(unsupported(other)),
    };
    if !decoded.value.is_object() {
        return Err(Status::bad_request("the body must be one object"));
    }
    Ok(decoded)
}

fn unsupported(media_type: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format ({media_type:?}) - accepted media types include: \
             application/json, application/yaml"
        ),
    )
}
