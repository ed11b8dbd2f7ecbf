//! The Kubernetes protocol over HTTP and mutual TLS.
//!
//! A request goes through [`server`] (accept), [`connection`] (TLS, user), [`handler`] (labels, log), [`route`] and
//! [`verb`] (what it asks for), [`authorize`], [`body`] (receive, decode) and then [`read`], [`mod@write`] or [`watch`].

mod audit;
mod authorize;
mod body;
mod certificates;
mod client;
mod connection;
mod discovery;
mod endpoints;
mod error;
mod handler;
mod negotiate;
mod objects;
mod offload;
mod openapi;
mod params;
mod places;
mod protobuf;
mod read;
mod respond;
mod review;
mod route;
mod server;
mod shares;
mod show;
mod state;
#[cfg(test)]
mod tests;
mod untrusted;
mod verb;
mod watch;
mod write;

pub use certificates::Certificates;
pub use error::ServerError;
pub use server::{Server, serve, start};
pub use untrusted::read_untrusted;
