//! Who a client is and what it may do.

mod identity;
mod policy;

pub(crate) use identity::User;
pub(crate) use policy::{Access, Decision};
pub use policy::{Policy, PolicyError};
