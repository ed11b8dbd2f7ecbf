//! Whether a process can do its job, by component.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The state of a process's components; clones share it.
///
/// A process is ready when every component that it named is ready.
#[derive(Clone, Debug, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<&'static str, Readiness>>>,
}

/// Whether one component does its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not; the text says why, for people.
    NotReady(String),
}

impl Readiness {
    /// Ready unless there is a reason why not.
    #[must_use]
    pub fn unless(reason: Option<String>) -> Self {
        reason.map_or(Self::Ready, Self::NotReady)
    }
}

/// A component that is not ready, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// As the process named it.
    pub component: &'static str,
    /// For people.
    pub reason: String,
}

impl Health {
    /// Names the components that must become ready before the process is.
    #[must_use]
    pub fn starting(components: &[&'static str]) -> Self {
        let states =
            components.iter().map(|&name| (name, Readiness::NotReady("starting".to_owned()))).collect();
        Self { components: Arc::new(Mutex::new(states)) }
    }

    /// Sets the state of one component.
    pub fn set(&self, component: &'static str, state: Readiness) {
        self.lock().insert(component, state);
    }

    /// The components that are not ready, by name.
    #[must_use]
    pub fn not_ready(&self) -> Vec<NotReady> {
        let components = self.lock();
        let not_ready = |(&component, state): (&&'static str, &Readiness)| match state {
            Readiness::Ready => None,
            Readiness::NotReady(reason) => Some(NotReady { component, reason: reason.clone() }),
        };
        components.iter().filter_map(not_ready).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Readiness>> {
        // A map of finished values is whole even if a holder of the lock panicked.
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_component_is() {
        let health = Health::starting(&["listener", "kubernetes"]);
        health.set("listener", Readiness::Ready);
        let waiting = health.not_ready();
        assert_eq!(waiting, [NotReady { component: "kubernetes", reason: "starting".to_owned() }]);
        health.clone().set("kubernetes", Readiness::unless(None));
        assert!(health.not_ready().is_empty());
    }
}
