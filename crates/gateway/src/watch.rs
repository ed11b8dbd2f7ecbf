//! The watch on Devices: of all namespaces, or of those that the gateway serves, each with a watch of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, stream::SelectAll};
use kube::{
    Api, Client, Resource as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio_util::sync::CancellationToken;
use wasmbed_api::Device;
use wasmbed_control::ObjectKey;
use wasmbed_kubernetes::{Unreadable, Watched, describe_watch_error};
use wasmbed_telemetry::{Health, Readiness};

use crate::core::Core;

type Event = Result<watcher::Event<Watched<Device>>, watcher::Error>;

/// Watches Devices until the process ends: those of the namespaces, or all if there is none.
pub(crate) async fn follow(
    client: Client,
    namespaces: BTreeSet<String>,
    core: Arc<Core>,
    health: Health,
    stop: CancellationToken,
) {
    let scopes: Vec<Option<String>> = match namespaces.is_empty() {
        true => vec![None],
        false => namespaces.into_iter().map(Some).collect(),
    };
    let mut events = SelectAll::new();
    for (index, scope) in scopes.iter().enumerate() {
        let devices: Api<Watched<Device>> = match scope {
            None => Api::all(client.clone()),
            Some(namespace) => Api::namespaced(client.clone(), namespace),
        };
        let watched = watcher(devices, watcher::Config::default()).default_backoff();
        events.push(Box::pin(watched.map(move |event| (index, event))));
    }
    let mut following =
        Following { core, health, unreadable: Unreadable::default(), lists: Lists::of(scopes.len()) };
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let Some((index, event)) = event else { return };
        following.handle(index, scopes.get(index).and_then(Option::as_deref), event);
    }
}

struct Following {
    core: Arc<Core>,
    health: Health,
    unreadable: Unreadable,
    lists: Lists,
}

impl Following {
    /// What one of the watches brought.
    fn handle(&mut self, index: usize, namespace: Option<&str>, event: Event) {
        match event {
            Ok(watcher::Event::Init) => {
                if self.lists.begin(index) {
                    self.core.with(|gateway, _| gateway.handle_list_started());
                }
            }
            Ok(watcher::Event::InitApply(device) | watcher::Event::Apply(device)) => {
                if let Some(key) = ObjectKey::of(device.meta()) {
                    self.lists.see(index, &key);
                }
                match self.unreadable.read(device) {
                    Ok(device) => self.core.with(|gateway, now| gateway.handle_device(now, &device)),
                    Err(metadata) => {
                        if let Some(key) = ObjectKey::of(&metadata) {
                            let uid = metadata.uid.as_deref();
                            self.core.with(|gateway, now| gateway.handle_unreadable_device(now, &key, uid));
                        }
                    }
                }
            }
            Ok(watcher::Event::InitDone) => {
                let ended = self.lists.end(index);
                for key in &ended.gone {
                    self.core.with(|gateway, now| gateway.handle_device_deleted(now, key, None));
                }
                if ended.all {
                    self.core.with(|gateway, now| gateway.handle_list_done(now));
                    self.health.set("kubernetes", Readiness::Ready);
                    tracing::info!("all Devices are known");
                }
            }
            Ok(watcher::Event::Delete(mut device)) => {
                let metadata = std::mem::take(device.meta_mut());
                self.unreadable.forget(&metadata);
                if let Some(key) = ObjectKey::of(&metadata) {
                    self.lists.forget(index, &key);
                    let uid = metadata.uid;
                    self.core.with(|gateway, now| gateway.handle_device_deleted(now, &key, uid.as_deref()));
                }
            }
            Err(error) => {
                // Devices that are known are served on; it is for people to know.
                let error = describe_watch_error(&error);
                tracing::warn!(
                    reason = "WatchFailed",
                    namespace,
                    error,
                    "the watch on Devices broke; trying again"
                );
                if !self.core.read(|gateway, _| gateway.is_synced()) {
                    let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
                    let reason = format!("Devices{place} can't be listed: {error}");
                    self.health.set("kubernetes", Readiness::NotReady(reason));
                }
            }
        }
    }
}

/// The lists of several watches as one: complete once each was read, and from then on kept up to date by what a list of one namespace
/// does not name any more. With one watch there is nothing to keep: every list is the list of all.
#[derive(Debug)]
struct Lists {
    /// What each names so far, while it is read.
    reading: BTreeMap<usize, BTreeSet<ObjectKey>>,
    /// What the watches of several namespaces show.
    known: Vec<BTreeSet<ObjectKey>>,
    /// Watches that have not been read yet.
    missing: BTreeSet<usize>,
    begun: bool,
}

/// The end of a list.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    /// All lists together are complete for the first time, or there is one alone.
    all: bool,
    /// What was known and is in no list any more.
    gone: Vec<ObjectKey>,
}

impl Lists {
    fn of(watches: usize) -> Self {
        let known = vec![BTreeSet::new(); watches];
        Self { reading: BTreeMap::new(), known, missing: (0..watches).collect(), begun: false }
    }

    fn is_one(&self) -> bool {
        self.known.len() == 1
    }

    /// A list begins; whether it begins the list of all.
    fn begin(&mut self, index: usize) -> bool {
        self.reading.insert(index, BTreeSet::new());
        !std::mem::replace(&mut self.begun, true) || self.is_one()
    }

    /// An object is there.
    fn see(&mut self, index: usize, key: &ObjectKey) {
        if self.is_one() {
            return;
        }
        if let Some(listed) = self.reading.get_mut(&index) {
            listed.insert(key.clone());
        } else if let Some(known) = self.known.get_mut(index) {
            known.insert(key.clone());
        }
    }

    fn forget(&mut self, index: usize, key: &ObjectKey) {
        if let Some(known) = self.known.get_mut(index) {
            known.remove(key);
        }
    }

    fn end(&mut self, index: usize) -> Ended {
        let listed = self.reading.remove(&index).unwrap_or_default();
        if self.is_one() {
            return Ended { all: true, gone: Vec::new() };
        }
        let before = self.known.get_mut(index).map(|known| std::mem::replace(known, listed.clone()));
        let gone = before.unwrap_or_default().difference(&listed).cloned().collect();
        let all = self.missing.remove(&index) && self.missing.is_empty();
        Ended { all, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("plant", name)
    }

    #[test]
    fn one_watch_is_the_list_of_all_each_time() {
        let mut lists = Lists::of(1);
        for _ in 0..2 {
            assert!(lists.begin(0));
            lists.see(0, &key("a"));
            assert_eq!(lists.end(0), Ended { all: true, gone: Vec::new() });
        }
    }

    #[test]
    fn several_are_complete_together_once_and_each_tells_what_went_from_then_on() {
        let mut lists = Lists::of(2);
        assert!(lists.begin(0));
        assert!(!lists.begin(1));
        lists.see(0, &key("a"));
        lists.see(0, &key("b"));
        lists.see(1, &key("c"));
        assert_eq!(lists.end(0), Ended { all: false, gone: Vec::new() });
        assert_eq!(lists.end(1), Ended { all: true, gone: Vec::new() });
        lists.see(0, &key("d"));
        lists.forget(0, &key("b"));
        // A watch that lags too far behind lists again.
        assert!(!lists.begin(0));
        lists.see(0, &key("d"));
        assert_eq!(lists.end(0), Ended { all: false, gone: vec![key("a")] });
    }

    #[test]
    fn a_list_that_breaks_off_and_begins_again_before_the_others_are_read_counts_once() {
        let mut lists = Lists::of(2);
        lists.begin(0);
        lists.see(0, &key("a"));
        lists.begin(0);
        assert_eq!(lists.end(0), Ended { all: false, gone: Vec::new() });
        lists.begin(0);
        assert!(!lists.end(0).all);
        lists.begin(1);
        assert!(lists.end(1).all);
    }
}
