//! Who asks.

use std::net::IpAddr;
use std::sync::Arc;

use crate::access::User;

/// The client of a connection.
pub(super) struct Client {
    /// `None` without a certificate.
    pub(super) user: Option<User>,
    /// The user's name; empty without one.
    pub(super) name: Arc<str>,
    /// Where it is.
    pub(super) address: IpAddr,
}

/// An authenticated client.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) client: &'a Client,
    pub(super) user: &'a User,
}
