//! Which form of an answer a client wants.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::{Reason, Status};

/// The forms objects can be shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they are.
    Object,
    /// Rows of cells.
    Table,
    /// Metadata alone.
    Partial,
}

/// The first form in the client's order of preference that is offered. Protobuf is passed over: clients that ask for
/// it offer JSON after it.
pub(super) fn shape(headers: &HeaderMap) -> Result<Shape, Status> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(Shape::Object) };
    let accept = accept.to_str().map_err(|_| Status::bad_request("the Accept header is not text"))?;
    for offer in accept.split(',').map(MediaType::parse) {
        let json = matches!(offer.name, "application/json" | "application/*" | "*/*" | "");
        match (json, offer.parameter("as"), offer.parameter("g")) {
            (true, None, _) => return Ok(Shape::Object),
            (true, Some("Table"), Some("meta.k8s.io")) => return Ok(Shape::Table),
            (true, Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => {
                return Ok(Shape::Partial);
            }
            (true, Some(_), _) | (false, _, _) => {}
        }
    }
    let told = "only the following media types are accepted: application/json, also as Table and PartialObjectMetadata";
    Err(Status::new(Reason::NotAcceptable, told))
}

/// Whether the client wants discovery in one document, and how that names itself.
pub(super) fn aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wanted = accept.split(',').map(MediaType::parse).find(|offer| offer.name == "application/json");
    wanted.is_some_and(|offer| {
        offer.parameter("g") == Some("apidiscovery.k8s.io")
            && offer.parameter("v") == Some("v2")
            && offer.parameter("as") == Some("APIGroupDiscoveryList")
    })
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

    use super::{Shape, aggregated, shape};

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_first_form_that_is_offered_wins() {
        for (accept, wanted) in [
            ("application/json", Shape::Object),
            ("*/*", Shape::Object),
            ("application/vnd.kubernetes.protobuf, application/json", Shape::Object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Shape::Table,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Shape::Partial,
            ),
        ] {
            assert_eq!(shape(&headers(accept)).unwrap(), wanted, "{accept}");
        }
        assert_eq!(shape(&headers("application/vnd.kubernetes.protobuf")).unwrap_err().reason.code(), 406);
        assert!(aggregated(&headers(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        )));
        assert!(!aggregated(&headers("application/json")));
    }
}
