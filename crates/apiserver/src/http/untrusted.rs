//! Parsers that run on the bytes of clients, for fuzzing.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::params::Params;
use super::route::route;
use super::{body, negotiate, protobuf};
use crate::kinds::Kinds;

/// Parses bytes as a path, a query, headers and bodies, and drops the results. Never panics.
pub fn read_untrusted(kinds: &Kinds, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = route(kinds, &text);
    let params = Params::parse(&http::Method::GET, Some(&text));
    let _ = (params.check_list(), params.check_patch(), params.check_delete_collection());
    let _ = (params.dry_run(), params.field_validation());
    for name in ["limit", "timeoutSeconds", "gracePeriodSeconds"] {
        let _ = params.number(name);
    }
    for name in ["watch", "force", "allowWatchBookmarks"] {
        let _ = params.flag(name);
    }
    if let Ok(object) = protobuf::decode(bytes) {
        let _ = protobuf::encode(&object);
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert(ACCEPT, value);
        let _ = negotiate::shape(&headers, true);
    }
    let bytes_of_body = Bytes::copy_from_slice(bytes);
    for media_type in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let _ = body::decode_object(&headers, &bytes_of_body);
    }
}
