//! Answers in protobuf, translated from JSON.

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use serde_json::Value;

use super::codec::{MEDIA_TYPE, STREAM_MEDIA_TYPE, encode, encode_event};
use crate::http::respond::{Body, JSON};

/// Longer answers are translated on a blocking thread.
const LONG_BYTES: usize = 64 * 1024;

/// Marks a stream of events whose objects all have a protobuf form.
#[derive(Clone, Copy)]
pub(crate) struct Events;

/// The answer in protobuf, or unchanged if its kind has no such form.
pub(crate) async fn answer(response: Response<Body>) -> Response<Body> {
    if response.headers().get(CONTENT_TYPE) != Some(&JSON) {
        return response;
    }
    if response.extensions().get::<Events>().is_some() {
        return events(response);
    }
    // A stream without the mark stays JSON.
    if response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(json) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let encoded = if json.len() > LONG_BYTES {
        let json = json.clone();
        tokio::task::spawn_blocking(move || from_json(&json)).await.ok().flatten()
    } else {
        from_json(&json)
    };
    let body = match encoded {
        Some(body) => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            parts.headers.remove(CONTENT_LENGTH);
            body.into()
        }
        None => json,
    };
    Response::from_parts(parts, Full::new(body).boxed_unsync())
}

fn from_json(json: &[u8]) -> Option<Vec<u8>> {
    encode(&serde_json::from_slice(json).ok()?)
}

fn events(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(STREAM_MEDIA_TYPE));
    let mut rest = BytesMut::new();
    let frames = body.into_data_stream().map(move |chunk| {
        let Ok(chunk) = chunk;
        rest.extend_from_slice(&chunk);
        Ok(Frame::data(take_events(&mut rest)))
    });
    Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
}

/// Encodes the complete lines, each of which is an event.
fn take_events(rest: &mut BytesMut) -> Bytes {
    let mut events = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest.split_to(end);
        rest.advance(1);
        let event = serde_json::from_slice::<Value>(&line).ok();
        match event.as_ref().and_then(encode_event) {
            Some(mut event) => events.append(&mut event),
            None => tracing::error!("an event of a watch has no protobuf form"),
        }
    }
    events.into()
}
