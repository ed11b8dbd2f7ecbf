//! Content negotiation: `Accept`.

use http::HeaderMap;
use http::header::ACCEPT;

use super::protobuf;
use crate::status::{Reason, Status};

/// Forms of objects in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they are.
    Object,
    /// Rows of cells, in this version of `meta.k8s.io`.
    Table(&'static str),
    /// Metadata alone.
    Partial,
}

/// The versions of `meta.k8s.io` in which Tables are offered.
fn version(text: Option<&str>) -> Option<&'static str> {
    ["v1", "v1beta1"].into_iter().find(|known| text == Some(*known))
}

/// The first supported form in the client's order. Objects `in_protobuf` are also available as protobuf; metadata and
/// Tables as JSON only.
pub(super) fn shape(headers: &HeaderMap, in_protobuf: bool) -> Result<Shape, Status> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(Shape::Object) };
    let accept = accept.to_str().map_err(|_| Status::bad_request("the Accept header is not text"))?;
    for offer in accept.split(',').map(MediaType::parse) {
        if in_protobuf && offer.is_protobuf() {
            return Ok(Shape::Object);
        }
        let json = offer.is_json();
        let version = version(offer.parameter("v")).filter(|_| offer.parameter("g") == Some("meta.k8s.io"));
        match (json, offer.parameter("as"), version) {
            (true, None, _) => return Ok(Shape::Object),
            (true, Some("Table"), Some(version)) => return Ok(Shape::Table(version)),
            (true, Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                return Ok(Shape::Partial);
            }
            (true, Some(_), _) | (false, _, _) => {}
        }
    }
    if in_protobuf {
        let accepted = format!(
            "only the following media types are accepted: application/json, {}",
            protobuf::MEDIA_TYPE
        );
        return Err(Status::new(Reason::NotAcceptable, accepted));
    }
    Err(not_acceptable())
}

fn not_acceptable() -> Status {
    Status::new(Reason::NotAcceptable, "only the following media types are accepted: application/json")
}

/// Whether a client prefers protobuf to JSON.
pub(super) fn prefers_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept
        .split(',')
        .map(MediaType::parse)
        .find(|offer| offer.is_protobuf() || offer.is_json())
        .is_some_and(|offer| offer.is_protobuf())
}

/// Checks that metadata is requested as `PartialObjectMetadataList` for lists and as `PartialObjectMetadata` for objects.
pub(super) fn check_partial(headers: &HeaderMap, of_list: bool) -> Result<(), Status> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let asked = accept
        .split(',')
        .map(MediaType::parse)
        .filter(MediaType::is_json)
        .find_map(|offer| offer.parameter("as").filter(|form| form.starts_with("PartialObjectMetadata")));
    let wrong = match (asked, of_list) {
        (Some("PartialObjectMetadata"), true) => {
            "you requested PartialObjectMetadata, but the requested object is a list (*unstructured.UnstructuredList)"
        }
        (Some("PartialObjectMetadataList"), false) => {
            "you requested PartialObjectMetadataList, but the requested object is not a list"
        }
        (Some(_) | None, _) => return Ok(()),
    };
    Err(Status::new(Reason::NotAcceptable, wrong))
}

/// Whether aggregated discovery is requested; false for the old form.
pub(super) fn discovery(headers: &HeaderMap) -> Result<bool, Status> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(false) };
    let accept = accept.to_str().map_err(|_| Status::bad_request("the Accept header is not text"))?;
    for offer in accept.split(',').map(MediaType::parse).filter(MediaType::is_json) {
        match (offer.parameter("as"), offer.parameter("g"), offer.parameter("v")) {
            (None, _, _) => return Ok(false),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => return Ok(true),
            (Some(_), _, _) => {}
        }
    }
    Err(not_acceptable())
}

/// A media type with its parameters.
pub(super) struct MediaType<'a> {
    pub(super) name: &'a str,
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    pub(super) fn parse(text: &'a str) -> MediaType<'a> {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        MediaType { name: name.trim(), parameters }
    }

    fn is_json(&self) -> bool {
        matches!(self.name, "application/json" | "application/*" | "*/*" | "")
    }

    /// Objects only; Tables and metadata are available as JSON.
    fn is_protobuf(&self) -> bool {
        self.name == protobuf::MEDIA_TYPE && self.parameter("as").is_none()
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.parameters.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(known, value)| (known.trim(), value.trim()))
            .find(|(known, _)| *known == name)
            .map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{Shape, check_partial, discovery, prefers_protobuf, shape};

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_first_supported_form_wins() {
        for (accept, wanted) in [
            ("application/json", Shape::Object),
            ("*/*", Shape::Object),
            ("application/vnd.kubernetes.protobuf, application/json", Shape::Object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Shape::Table("v1"),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io, application/json", Shape::Object),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Shape::Partial,
            ),
        ] {
            assert_eq!(shape(&headers(accept), false).unwrap(), wanted, "{accept}");
            assert_eq!(shape(&headers(accept), true).unwrap(), wanted, "{accept}");
        }
        let protobuf = headers("application/vnd.kubernetes.protobuf");
        assert_eq!(shape(&protobuf, false).unwrap_err().reason().code(), 406);
        assert_eq!(shape(&protobuf, true).unwrap(), Shape::Object);
        assert!(prefers_protobuf(&protobuf));
        assert!(prefers_protobuf(&headers("application/vnd.kubernetes.protobuf,application/json")));
        assert!(!prefers_protobuf(&headers("application/json,application/vnd.kubernetes.protobuf")));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        assert!(!prefers_protobuf(&headers(partial)));
        let one = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert!(discovery(&headers(one)).unwrap());
        assert!(!discovery(&headers("application/json")).unwrap());
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(discovery(&headers(old)).unwrap_err().reason().code(), 406);
        let list = headers("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
        assert!(check_partial(&list, true).is_ok() && check_partial(&list, false).is_err());
    }
}
