//! Requests on resources: authorize, receive the body, run the verb.

use std::sync::Arc;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use super::authorize::{authorize, authorize_some_create};
use super::client::Caller;
use super::params::Params;
use super::respond::Body;
use super::route::Target;
use super::state::State;
use super::watch::Terms;
use super::{body, offload, protobuf, read, watch, write};
use crate::access::Verb;
use crate::status::Status;

/// Answers a request on a resource, watches apart.
pub(super) async fn answer(
    state: &Arc<State>,
    caller: Caller<'_>,
    parts: &Parts,
    params: &Params,
    verb: Verb,
    target: Target,
    incoming: Incoming,
) -> Result<Response<Body>, Status> {
    let Caller { client, user } = caller;
    if verb == Verb::Create {
        return create(state, caller, parts, params, &target, incoming).await;
    }
    let name = target.name.clone().unwrap_or_default();
    let constraints = authorize(&state.policy, user, verb, &target, &name)?;
    match verb {
        Verb::Get => return read::get(&state.store, &target, &name, &parts.headers, params),
        Verb::List => {
            let (store, snapshots) = (state.store.clone(), Arc::clone(&state.snapshots));
            let user = Arc::clone(&client.name);
            let (headers, params) = (parts.headers.clone(), params.clone());
            // Reading and encoding a long list takes a while.
            let list = move || read::list(&store, &snapshots, &user, &target, &headers, &params);
            return tokio::task::spawn_blocking(list).await.map_err(Status::internal)?;
        }
        Verb::Watch | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {}
        Verb::Approve | Verb::Sign => return Err(no_request(verb)),
    }
    let (bytes, _held) =
        body::receive(state, client, &parts.headers, incoming, state.limits.body_bytes_max).await?;
    // Server-side apply creates an object that doesn't exist.
    let creation = match verb {
        Verb::Patch => authorize(&state.policy, user, Verb::Create, &target, &name),
        _ => Ok(Vec::new()),
    };
    let request = write::Request {
        store: &state.store,
        bodies: state.bodies(client),
        target: &target,
        headers: &parts.headers,
        params,
        author: Arc::new(state.policy.author(user)),
        constraints,
        creation,
    };
    match verb {
        Verb::Update => {
            let (decoded, _tree) =
                offload::decode_object(state.bodies(client), &parts.headers, &bytes).await?;
            request.update(&name, decoded).await
        }
        Verb::Patch => request.patch(&name, &bytes).await,
        Verb::Delete => request.delete(&name, &bytes).await,
        Verb::DeleteCollection => request.delete_collection(&bytes).await,
        Verb::Get | Verb::List | Verb::Watch | Verb::Create | Verb::Approve | Verb::Sign => {
            Err(no_request(verb))
        }
    }
}

/// A bug: no request of this verb comes here.
fn no_request(verb: Verb) -> Status {
    debug_assert!(false, "{verb} is answered elsewhere");
    Status::internal(format!("{verb} is answered elsewhere"))
}

/// A create names its object in the body, so it is authorized in two steps.
async fn create(
    state: &Arc<State>,
    caller: Caller<'_>,
    parts: &Parts,
    params: &Params,
    target: &Target,
    incoming: Incoming,
) -> Result<Response<Body>, Status> {
    let Caller { client, user } = caller;
    if !user.is_administrator() {
        // Before the body is received.
        authorize_some_create(&state.policy, user, target)?;
    }
    let (bytes, _held) =
        body::receive(state, client, &parts.headers, incoming, state.limits.body_bytes_max).await?;
    let (decoded, _tree) = offload::decode_object(state.bodies(client), &parts.headers, &bytes).await?;
    let name = decoded.value["metadata"]["name"].as_str().unwrap_or_default();
    let constraints = authorize(&state.policy, user, Verb::Create, target, name)?;
    let request = write::Request {
        store: &state.store,
        bodies: state.bodies(client),
        target,
        headers: &parts.headers,
        params,
        author: Arc::new(state.policy.author(user)),
        constraints,
        creation: Ok(Vec::new()),
    };
    request.create(decoded).await
}

/// Starts a watch.
pub(super) fn watch(
    state: &State,
    caller: Caller<'_>,
    parts: &Parts,
    params: &Params,
    target: Target,
) -> Result<Response<Body>, Status> {
    let Caller { client, user } = caller;
    authorize(&state.policy, user, Verb::Watch, &target, target.name.as_deref().unwrap_or_default())?;
    let terms = Terms {
        store: state.store.clone(),
        large: Arc::clone(&state.large),
        initial_time: state.limits.watch_initial,
        held: state.watches.take(&client.name, 1)?,
        gauge: state.metrics.watch(&target.resource()),
        shutdown: state.shutdown.clone(),
    };
    let encodable = protobuf::has_form(&target.kind);
    let mut response = watch::start(terms, target, &parts.headers, params)?;
    if encodable {
        response.extensions_mut().insert(protobuf::Events);
    }
    Ok(response)
}
