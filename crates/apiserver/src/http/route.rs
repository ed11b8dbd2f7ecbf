//! From a path to a route.

use std::sync::Arc;

use super::review::Review;
use crate::kinds::{Kind, Kinds};
use crate::resource::Part;
use crate::status::{Details, Reason, Status};

/// What a path refers to.
#[derive(Debug)]
pub(super) enum Route {
    /// `/livez`, `/healthz`, `/health` and paths below.
    Live,
    /// `/readyz`, `/ready` and paths below.
    Ready,
    Metrics,
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources {
        group: String,
        version: String,
    },
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`
    OpenApi {
        group: String,
        version: String,
    },
    Object(Target),
    Review(Review),
    /// A path in a built-in group that isn't served: its 404 has details.
    UnknownBuiltin,
    Unknown,
}

/// Objects of a kind, or one of them.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) part: Part,
}

impl Target {
    /// `devices` or `devices/status`.
    pub(super) fn resource(&self) -> String {
        match self.part {
            Part::Main => self.kind.plural.clone(),
            part => format!("{}/{}", self.kind.plural, part.subresource()),
        }
    }
}

pub(super) fn route(kinds: &Kinds, path: &str) -> Route {
    let Some(parts) = split(path) else { return Route::Unknown };
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let owned = |text: &str| text.to_owned();
    match parts.as_slice() {
        ["livez" | "healthz" | "health", ..] => Route::Live,
        ["readyz" | "ready", ..] => Route::Ready,
        ["metrics"] => Route::Metrics,
        ["version"] => Route::Version,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group(owned(group)),
        ["api", version] => Route::Resources { group: String::new(), version: owned(version) },
        ["apis", group, version] => Route::Resources { group: owned(group), version: owned(version) },
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", "api", version] => Route::OpenApi { group: String::new(), version: owned(version) },
        ["openapi", "v3", "apis", group, version] => {
            Route::OpenApi { group: owned(group), version: owned(version) }
        }
        ["api", version, rest @ ..] => object(kinds, "", version, rest),
        ["apis", group, version, rest @ ..] => object(kinds, group, version, rest),
        _ => Route::Unknown,
    }
}

fn object(kinds: &Kinds, group: &str, version: &str, rest: &[&str]) -> Route {
    let (namespace, rest) = match rest {
        // `namespaces/NAME/status` is about the namespace itself.
        ["namespaces", _, "status"] if group.is_empty() => (None, rest),
        ["namespaces", namespace, below @ ..] if !below.is_empty() => (Some(namespace.to_string()), below),
        _ => (None, rest),
    };
    let (plural, name, part) = match rest {
        [plural] => (plural, None, Part::Main),
        [plural, name] => (plural, Some(name.to_string()), Part::Main),
        [plural, name, "status"] => (plural, Some(name.to_string()), Part::Status),
        [plural, name, "approval"] => (plural, Some(name.to_string()), Part::Approval),
        _ => return Route::Unknown,
    };
    if name.is_none()
        && part == Part::Main
        && namespace.is_none()
        && let Some(review) = Review::find(group, version, plural)
    {
        return Route::Review(review);
    }
    let Some(kind) = kinds.get(group, version, plural) else {
        return if group.is_empty() { Route::UnknownBuiltin } else { Route::Unknown };
    };
    let scoped = match (kind.namespaced, &namespace, &name) {
        (true, None, Some(_)) | (false, Some(_), _) => false,
        (true, Some(_), _) | (true, None, None) | (false, None, _) => true,
    };
    let has_part = match part {
        Part::Main => true,
        Part::Status => kind.status_subresource,
        Part::Approval => kind.approval_subresource,
    };
    if !scoped || !has_part {
        return if kind.is_custom() { Route::Unknown } else { Route::UnknownBuiltin };
    }
    Route::Object(Target { kind: Arc::clone(kind), namespace, name, part })
}

const NOT_FOUND: &str = "the server could not find the requested resource";

/// 404 of [`Route::Unknown`].
pub(super) fn not_found() -> Status {
    Status::new(Reason::NotFound, NOT_FOUND)
}

/// 404 of [`Route::UnknownBuiltin`].
pub(super) fn no_such_resource() -> Status {
    Status::new(Reason::NotFound, NOT_FOUND).with(Details { always: true, ..Details::default() })
}

/// Segments, percent-decoded. `None` if a segment is empty or contains a slash.
fn split(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| {
            let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
            (!decoded.is_empty() && !decoded.contains('/')).then(|| decoded.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Route, route};
    use crate::kinds::Kinds;
    use crate::resource::Part;

    fn shown(path: &str) -> String {
        match route(&Kinds::new(&[]).unwrap(), path) {
            Route::Object(target) => format!(
                "{} {:?} {:?} {}",
                target.kind.qualified(),
                target.namespace.unwrap_or_default(),
                target.name.unwrap_or_default(),
                target.part == Part::Status
            ),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_route_as_in_kubernetes() {
        assert_eq!(shown("/api/v1/namespaces"), "namespaces \"\" \"\" false");
        assert_eq!(shown("/api/v1/namespaces/a"), "namespaces \"\" \"a\" false");
        assert_eq!(shown("/api/v1/namespaces/a/status"), "namespaces \"\" \"a\" true");
        assert_eq!(shown("/api/v1/namespaces/a/events"), "events \"a\" \"\" false");
        assert_eq!(shown("/api/v1/events"), "events \"\" \"\" false");
        let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases/l%2Db";
        assert_eq!(shown(lease), "leases.coordination.k8s.io \"a\" \"l-b\" false");
        for nothing in
            ["/apis/nothing.example.com/v1/nothings", "/api/v1/namespaces/a%2Fb", "/", "/api//v1", "/nothing"]
        {
            assert_eq!(shown(nothing), "Unknown", "{nothing}");
        }
        for nothing in
            ["/apis/coordination.k8s.io/v1/leases/l", "/api/v1/namespaces/a/events/e/status", "/api/v1/pods"]
        {
            assert_eq!(shown(nothing), "UnknownBuiltin", "{nothing}");
        }
        assert_eq!(shown("/apis/authentication.k8s.io/v1/selfsubjectreviews"), "Review(Identity)");
        assert_eq!(shown("/livez?verbose"), "Unknown");
        assert_eq!(shown("/readyz/ping"), "Ready");
    }
}
