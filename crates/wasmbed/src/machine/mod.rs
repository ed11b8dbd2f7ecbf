//! One machine that runs everything: its folder, the identities in it, and the processes over them.

pub mod layout;
pub(crate) mod provision;
pub(crate) mod up;
