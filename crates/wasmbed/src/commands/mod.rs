//! Subcommands that do one thing and end.

pub mod apply;
pub(crate) mod crds;
pub(crate) mod devices;
pub mod get;
pub(crate) mod login;
pub mod logs;
pub(crate) mod messages;
pub mod module;
pub(crate) mod pki;
pub(crate) mod publish;
pub(crate) mod settings;
