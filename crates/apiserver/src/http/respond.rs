//! Building answers, and bodies that hold resources until they are read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, SizeHint};
use serde_json::Value;

use super::shares::Delivery;
use crate::status::Status;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

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
    let code = StatusCode::from_u16(status.reason().code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    if let Some(seconds) = status.details().retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A stream of JSON documents.
pub(super) fn stream(documents: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = documents.map(|document| Ok(Frame::data(document)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Bytes handed to the connection at a time. It takes the next piece when its client has read, so that unread answers stay
/// here, where they are accounted for.
const PIECE_BYTES: usize = 16 * 1024;

/// A body that holds a resource until it is sent or its client is gone.
struct Holding<G> {
    body: Body,
    rest: Bytes,
    delivery: Option<Delivery>,
    _held: G,
}

impl<G> Holding<G> {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        let most = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(most)))))
    }
}

impl<G: Send + Unpin> hyper::body::Body for Holding<G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(delivery) = &self.delivery {
            delivery.read();
        }
        let next = self.next(context);
        if let (Some(delivery), Poll::Ready(Some(_))) = (&self.delivery, &next) {
            delivery.handed_out();
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let upper = hint.upper().map(|upper| upper.saturating_add(rest));
        hint.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint
    }
}

/// The answer, which holds `held` until it is sent or its client is gone.
pub(super) fn holding<G: Send + Unpin + 'static>(response: Response<Body>, held: G) -> Response<Body> {
    response.map(|body| Holding { body, rest: Bytes::new(), delivery: None, _held: held }.boxed_unsync())
}

/// As [`holding`]; `delivery` tracks since when the client hasn't read the answer.
pub(super) fn tracked<G: Send + Unpin + 'static>(
    response: Response<Body>,
    held: G,
    delivery: Delivery,
) -> Response<Body> {
    let delivery = Some(delivery);
    response.map(|body| Holding { body, rest: Bytes::new(), delivery, _held: held }.boxed_unsync())
}

/// Bytes of all warnings of an answer, and of each if they have more, as in Kubernetes: they are headers, of which clients
/// accept some kilobytes.
const WARNINGS_BYTES_MAX: usize = 4 * 1_024;
const WARNING_BYTES_MAX: usize = 256;

/// Adds `Warning` headers (RFC 9111 section 5.5, code 299 as in Kubernetes).
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let most = match warnings.iter().map(String::len).sum::<usize>() {
        ..=WARNINGS_BYTES_MAX => WARNINGS_BYTES_MAX,
        _ => WARNING_BYTES_MAX,
    };
    for warning in warnings.iter().take(WARNINGS_BYTES_MAX / WARNING_BYTES_MAX) {
        let warning = &warning[..warning.floor_char_boundary(most)];
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let printable: String =
            quoted.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{printable}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
