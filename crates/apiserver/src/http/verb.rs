//! From method, path and query to a verb.

use http::Method;

use super::params::Params;
use super::route::Target;
use crate::access::Verb;
use crate::resource::Part;
use crate::status::{Details, Reason, Status};

/// What a request does, as metrics and logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A request on a resource.
    Verb(Verb),
    /// Discovery and OpenAPI.
    Discovery,
    /// Health, metrics, and paths that aren't served.
    Other,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Verb(verb) => verb.as_str(),
            Action::Discovery => "discovery",
            Action::Other => "other",
        }
    }
}

/// The verb of a request on a resource.
pub(super) fn verb(method: &Method, target: &Target, params: &Params) -> Result<Verb, Status> {
    let on_object = target.name.is_some();
    let custom = target.kind.is_custom();
    let whole = !target.kind.namespaced || target.namespace.is_some();
    match (method, on_object) {
        (&Method::GET, true) if params.flag("watch")? => {
            Err(Status::bad_request("a watch is of a list: use a field selector on metadata.name"))
        }
        (&Method::GET | &Method::HEAD, true) => Ok(Verb::Get),
        (&Method::GET, false) if params.flag("watch")? => Ok(Verb::Watch),
        (&Method::GET | &Method::HEAD, false) => Ok(Verb::List),
        (&Method::POST, false) if whole => Ok(Verb::Create),
        (&Method::PUT, true) => Ok(Verb::Update),
        (&Method::PATCH, true) => Ok(Verb::Patch),
        (&Method::DELETE, true) if target.part == Part::Main => Ok(Verb::Delete),
        (&Method::DELETE, false) if target.kind.has_delete_collection() && whole => {
            Ok(Verb::DeleteCollection)
        }
        (&Method::PUT | &Method::PATCH, false) if custom && whole => {
            Err(Status::bad_request("name must be provided"))
        }
        _ if custom && whole => Err(not_supported(method, target)),
        _ => Err(method_not_allowed()),
    }
}

/// The answer of Kubernetes for custom kinds.
fn not_supported(method: &Method, target: &Target) -> Status {
    let verb = match *method {
        Method::POST => "create",
        Method::DELETE => "delete",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => "",
    };
    let message = format!("{verb} is not supported on resources of kind \"{}\"", target.kind.qualified());
    let about = Some((target.kind.group.clone(), target.kind.plural.clone()));
    Status::new(Reason::MethodNotAllowed, message).with(Details { target: about, ..Details::default() })
}

/// The answer of Kubernetes for everything else.
pub(super) fn method_not_allowed() -> Status {
    let message = "the server does not allow this method on the requested resource";
    Status::new(Reason::MethodNotAllowed, message).with(Details { always: true, ..Details::default() })
}
