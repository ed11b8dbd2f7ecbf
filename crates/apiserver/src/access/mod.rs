//! Authentication by certificate and authorization by policy.

mod identity;
mod policy;
mod verb;

pub(crate) use identity::User;
pub(crate) use policy::{Access, Decision};
pub use policy::{Policy, PolicyError};
pub(crate) use verb::Verb;
