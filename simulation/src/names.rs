//! Names of the objects that are applied and deleted.

/// Applications.
pub(crate) const APPLICATIONS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];
/// Modules.
pub(crate) const MODULES: [&str; 2] = ["first", "second"];
