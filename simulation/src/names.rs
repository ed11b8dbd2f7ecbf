//! Names of what is applied, deleted and selected.

/// Applications.
pub(crate) const APPLICATIONS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];
/// Modules.
pub(crate) const MODULES: [&str; 2] = ["first", "second"];
/// Values of the label that Applications select by.
pub(crate) const SITES: [&str; 2] = ["attic", "cellar"];
