//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use crate::status::Status;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn json_bytes(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_type(code, JSON, body)
}

pub(super) fn json(code: StatusCode, body: &Value) -> Response<Body> {
    json_bytes(code, body.to_string())
}

pub(super) fn with_type(code: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

pub(super) fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    if let Some(seconds) = status.details.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// JSON documents, one after another, until the stream ends.
pub(super) fn stream(documents: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = documents.map(|document| Ok(Frame::data(document)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Adds what the client should tell its user (RFC 9111 section 5.5, code 299 as in Kubernetes).
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let printable: String =
            quoted.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{printable}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
