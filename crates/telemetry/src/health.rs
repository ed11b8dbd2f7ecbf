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
    components: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
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
        let states = components.iter().map(|&name| (name, Err("starting".to_owned()))).collect();
        Self { components: Arc::new(Mutex::new(states)) }
    }

    /// Sets the state of one component; an error says why it is not ready.
    pub fn set(&self, component: &'static str, state: Result<(), String>) {
        self.lock().insert(component, state);
    }

    /// The components that are not ready, by name.
    #[must_use]
    pub fn not_ready(&self) -> Vec<NotReady> {
        let components = self.lock();
        let waiting =
            components.iter().filter_map(|(&component, state)| Some((component, state.as_ref().err()?)));
        waiting.map(|(component, reason)| NotReady { component, reason: reason.clone() }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Result<(), String>>> {
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
        health.set("listener", Ok(()));
        let waiting = health.not_ready();
        assert_eq!(waiting, [NotReady { component: "kubernetes", reason: "starting".to_owned() }]);
        health.clone().set("kubernetes", Ok(()));
        assert!(health.not_ready().is_empty());
    }
}
