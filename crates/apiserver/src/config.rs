//! What a server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Policy;

/// Everything the server needs; nothing is read from the environment.
#[derive(Debug)]
pub struct Config {
    /// Folder of the store, created if absent. One process at a time may hold it.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one, see [`crate::Server::address`].
    pub listen: SocketAddr,
    /// The server's own certificate and key.
    pub tls: ServerTls,
    /// Authorities whose client certificates are believed: CN is the user, each O a group.
    pub client_roots: Vec<CertificateDer<'static>>,
    /// CustomResourceDefinitions (`apiextensions.k8s.io/v1`) as JSON, one served version each.
    pub definitions: Vec<serde_json::Value>,
    /// Who may do what besides the administrators (`system:masters`).
    pub policy: Policy,
    /// Bounds on clients.
    pub limits: Limits,
}

/// The server's identity.
#[derive(Debug)]
pub struct ServerTls {
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Bounds on clients. The defaults serve a fleet of 10,000 devices behind a few gateways.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Connections at once that have not proved who they are: in their handshake, or without a certificate. More are
    /// closed, so that strangers can't take all connections.
    pub unauthenticated_max: usize,
    /// Time to finish a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time to send a request's headers.
    pub header_timeout: Duration,
    /// Bytes of a request's headers.
    pub header_bytes_max: usize,
    /// Bytes of one request body: a Module of 1 MiB in base64 with room to spare, as in Kubernetes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that are being worked on: bounds the write queue's memory.
    pub body_bytes_total: usize,
    /// Time to send a request's body.
    pub body_timeout: Duration,
    /// Requests at once, watches apart; more are answered 429.
    pub requests_max: usize,
    /// Watches at once; more are answered 429.
    pub watches_max: usize,
    /// Changes kept per kind for watches to resume from; older ones answer 410.
    pub history_events: usize,
    /// Bytes of those changes per kind.
    pub history_bytes: usize,
    /// Age at which an Event is dropped, as in Kubernetes.
    pub event_lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 1_024,
            unauthenticated_max: 128,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 * 1024,
            body_bytes_max: 3 * 1024 * 1024,
            body_bytes_total: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            requests_max: 512,
            watches_max: 1_024,
            history_events: 4_096,
            history_bytes: 16 * 1024 * 1024,
            event_lifetime: Duration::from_secs(3_600),
        }
    }
}
