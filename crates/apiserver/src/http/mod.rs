//! The Kubernetes protocol over HTTP and mutual TLS.

mod certificates;
mod discovery;
mod handler;
mod listen;
mod negotiate;
mod offload;
mod openapi;
mod params;
mod protobuf;
mod read;
mod respond;
mod review;
mod route;
mod shares;
mod show;
#[cfg(test)]
mod tests;
mod untrusted;
mod watch;
mod write;

pub use certificates::Certificates;
pub use listen::{Server, ServerError, serve, start};
pub use untrusted::read_untrusted;
