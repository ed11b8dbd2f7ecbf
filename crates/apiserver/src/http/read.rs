//! get and list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::negotiate;
use super::params::Params;
use super::protobuf;
use super::respond::{self, Body};
use super::route::Target;
use super::show::{Include, ListMeta, View};
use crate::kinds::Kind;
use crate::selector::Selection;
use crate::status::{Cause, Details, Reason, Status};
use crate::store::{Pager, Read, Snapshot, StorageError, Store};

/// Snapshots kept for paged lists; each pins old pages on disk.
const SNAPSHOTS_MAX: usize = 8;
/// Of them, those of one user.
const SNAPSHOTS_OF_USER_MAX: usize = 4;
/// Time between two pages of one list.
const SNAPSHOT_LIFETIME: Duration = Duration::from_secs(60);

/// Snapshots that later pages are read from, so that a paged list is consistent.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    user: Arc<str>,
    snapshot: Arc<Snapshot>,
}

impl Snapshots {
    fn keep(&self, user: &Arc<str>, snapshot: &Arc<Snapshot>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| {
            let again = known.user == *user && known.snapshot.revision() == snapshot.revision();
            known.since.elapsed() < SNAPSHOT_LIFETIME && !again
        });
        let held = |user: &Arc<str>| kept.iter().filter(|known| known.user == *user).count();
        let most = kept.iter().map(|known| &known.user).max_by_key(|user| held(user)).cloned();
        let gives = if held(user) >= SNAPSHOTS_OF_USER_MAX { Some(user.clone()) } else { most };
        let full = kept.len() >= SNAPSHOTS_MAX || held(user) >= SNAPSHOTS_OF_USER_MAX;
        if full && let Some(oldest) = kept.iter().position(|known| Some(&known.user) == gives.as_ref()) {
            kept.remove(oldest);
        }
        let (user, snapshot) = (Arc::clone(user), Arc::clone(snapshot));
        kept.push_back(Kept { since: Instant::now(), user, snapshot });
    }

    fn find(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found =
            kept.iter().filter(|known| known.snapshot.revision() == revision && !known.snapshot.is_closed());
        let found = found.find(|known| known.since.elapsed() < SNAPSHOT_LIFETIME)?;
        Some(Arc::clone(&found.snapshot))
    }

    /// Drops snapshots that expired.
    pub(super) fn expire(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.since.elapsed() < SNAPSHOT_LIFETIME);
    }
}

/// The token with which a list continues.
#[derive(Serialize, Deserialize)]
struct Continue {
    /// Revision of the snapshot; `None` continues in the current objects.
    revision: Option<u64>,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!(self).to_string())
    }

    fn decode(token: &str) -> Result<Continue, Status> {
        let decoded = URL_SAFE_NO_PAD.decode(token).ok();
        let parsed = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        parsed.ok_or_else(|| Status::bad_request("continue key is not valid"))
    }
}

pub(super) fn view(kind: &Kind, headers: &HeaderMap, params: &Params) -> Result<View, Status> {
    let shape = negotiate::shape(headers, protobuf::has_form(kind))?;
    Ok(View { shape, include: Include::parse(params.get("includeObject"))? })
}

pub(super) fn get(
    store: &Store,
    target: &Target,
    name: &str,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Response<Body>, Status> {
    params.check_get()?;
    negotiate::check_partial(headers, false)?;
    let view = view(&target.kind, headers, params)?;
    let snapshot = store.snapshot()?;
    check_not_newer(params, snapshot.revision())?;
    let kind = &*target.kind;
    let stored = snapshot.get(&kind.key(target.namespace.as_deref().unwrap_or_default(), name));
    let stored = stored?.ok_or_else(|| Status::not_found(kind.names(), name))?;
    Ok(respond::json_bytes(StatusCode::OK, view.object(kind, &stored.into())?))
}

pub(super) fn list(
    store: &Store,
    snapshots: &Snapshots,
    user: &Arc<str>,
    target: &Target,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Response<Body>, Status> {
    params.check_list()?;
    negotiate::check_partial(headers, true)?;
    let view = view(&target.kind, headers, params)?;
    let kind = &*target.kind;
    let selection = selection(target, params)?;
    params.check_versions(false)?;
    params.number("timeoutSeconds")?;
    let limit = params
        .number("limit")?
        .filter(|limit| *limit > 0)
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let token = params.get("continue").map(Continue::decode).transpose()?;
    let snapshot = match &token {
        Some(token) => {
            if params.get("resourceVersion").is_some_and(|version| version != "0") {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            match token.revision {
                Some(revision) => snapshots.find(revision).ok_or_else(|| continue_expired(&token.after))?,
                None => Arc::new(store.snapshot()?),
            }
        }
        None => Arc::new(store.snapshot()?),
    };
    check_version(params, snapshot.revision())?;
    let after = token.as_ref().map(|token| token.after.as_str());
    let page = Pager { selection: &selection, after, limit }.read(kind, &*snapshot);
    let page = page.map_err(|error| match (error, &token) {
        (StorageError::Reopened, Some(token)) => continue_expired(&token.after),
        (error, _) => error.into(),
    })?;
    let next = page.next.clone().map(|after| {
        snapshots.keep(user, &snapshot);
        Continue { revision: Some(snapshot.revision()), after }.encode()
    });
    let meta = ListMeta { revision: snapshot.revision(), next, remaining: page.remaining };
    Ok(respond::json_bytes(StatusCode::OK, view.list(kind, &page, &meta)?))
}

/// 410: the snapshot is gone. The token in the answer continues in the current objects.
fn continue_expired(after: &str) -> Status {
    let rest = Continue { revision: None, after: after.to_owned() }.encode();
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    Status::expired(message).with(Details { continue_token: Some(rest), ..Details::default() })
}

pub(super) fn selection(target: &Target, params: &Params) -> Result<Selection, Status> {
    let (labels, fields) = (params.get("labelSelector"), params.get("fieldSelector"));
    Selection::parse(&target.kind, target.namespace.as_deref(), labels, fields)
}

/// `resourceVersion` of a list: any version, at least this one, or exactly this one.
fn check_version(params: &Params, revision: u64) -> Result<(), Status> {
    let version = params.version()?;
    match (params.get("resourceVersionMatch"), version) {
        (Some("Exact"), Some(exact)) if exact == revision => Ok(()),
        (Some("Exact"), Some(exact)) if exact > revision => Err(too_large(exact, revision)),
        (Some("Exact"), Some(_)) => {
            Err(Status::expired("The resourceVersion for the provided list is too old."))
        }
        (_, _) => check_not_newer(params, revision),
    }
}

pub(super) fn check_not_newer(params: &Params, revision: u64) -> Result<(), Status> {
    match params.version()? {
        Some(version) if version > revision => Err(too_large(version, revision)),
        Some(_) | None => Ok(()),
    }
}

/// 504: a version that this store never had. The client knows another store, or one that was reset.
pub(super) fn too_large(version: u64, revision: u64) -> Status {
    let cause = Cause::new("ResourceVersionTooLarge", "", "Too large resource version".into());
    let message = format!("Timeout: Too large resource version: {version}, current: {revision}");
    let details = Details { causes: vec![cause], retry_after: Some(1), ..Details::default() };
    Status::new(Reason::Timeout, message).with(details)
}
