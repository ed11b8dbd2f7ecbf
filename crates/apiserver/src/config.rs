//! Configuration of a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Policy, resource::Lifetimes};

/// Everything the server needs; nothing is read from the environment.
#[derive(Debug)]
pub struct Config {
    /// Folder of the store, created if absent. One process at a time may hold it.
    pub data_dir: PathBuf,
    /// File of the keys that encrypt Secrets in the store, one of 64 hexadecimal digits on each line, the newest first;
    /// `encryption-keys` in `data_dir` if none is named. It is made with a new store.
    pub encryption_keys: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one, see [`crate::Server::address`].
    pub listen: SocketAddr,
    /// The server's own certificate and key.
    pub tls: ServerTls,
    /// CAs of client certificates: the CN is the user, each O a group.
    pub client_roots: Vec<CertificateDer<'static>>,
    /// CustomResourceDefinitions (`apiextensions.k8s.io/v1`) as JSON, one served version each.
    pub definitions: Vec<serde_json::Value>,
    /// Permissions of everybody but administrators (`system:masters`).
    pub policy: Policy,
    /// Where requests that change something are recorded; nowhere if `None`.
    pub audit_log: Option<AuditLog>,
    /// Bounds on clients.
    pub limits: Limits,
}

/// A file of `audit.k8s.io/v1` events, one a line.
#[derive(Clone, Debug)]
pub struct AuditLog {
    /// The file; earlier ones beside it have a number after their name, the highest for the oldest.
    pub path: PathBuf,
    /// Bytes of each file.
    pub bytes_max: u64,
    /// Earlier files that are kept.
    pub kept: u32,
}

impl AuditLog {
    /// 100 MB, and as many in four earlier files.
    #[must_use]
    pub fn new(path: PathBuf) -> AuditLog {
        AuditLog { path, bytes_max: 100 * 1_000_000, kept: 4 }
    }
}

/// The server's identity.
#[derive(Debug)]
pub struct ServerTls {
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Bounds on clients. The defaults serve a fleet of 10,000 devices behind a few gateways. Bounds on connections shrink
/// together if the process may open fewer files.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of authenticated clients at once. For one more, one without a request in progress gives way.
    pub connections_max: usize,
    /// The same of one user: the CN of the client certificate. Further ones are answered 429.
    pub connections_per_user_max: usize,
    /// Connections in their handshake at once, apart from the others. For one more the oldest gives way.
    pub handshakes_max: usize,
    /// The same from one address.
    pub handshakes_per_source_max: usize,
    /// Connections without a certificate at once, apart from the others; they may only ask whether the server is alive. For
    /// one more, the one that has been idle for longest gives way.
    pub unauthenticated_max: usize,
    /// The same from one address.
    pub unauthenticated_per_source_max: usize,
    /// Time that a connection without a certificate may have no request in progress, or an answer that isn't read.
    pub unauthenticated_idle: Duration,
    /// Lifetime of a connection without a certificate.
    pub unauthenticated_life: Duration,
    /// Time to finish a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time to send a request's headers.
    pub header_timeout: Duration,
    /// Bytes of a request's headers.
    pub header_bytes_max: usize,
    /// Bytes of one request body: a Module of 1 MiB in base64 with room to spare, as in Kubernetes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies in progress: bounds the memory of the write queue.
    pub body_bytes_total: usize,
    /// The same of one user.
    pub body_bytes_per_user: usize,
    /// Time to send a request's body.
    pub body_timeout: Duration,
    /// Bytes of all unread answers, watches apart.
    pub answer_bytes_total: usize,
    /// The same of one user. An answer that alone has more may be read by one client of the user at a time.
    pub answer_bytes_per_user: usize,
    /// Requests at once, until their answers are read, watches apart; more are answered 429.
    pub requests_max: usize,
    /// The same of one user.
    pub requests_per_user_max: usize,
    /// Watches at once; more are answered 429.
    pub watches_max: usize,
    /// The same of one user.
    pub watches_per_user_max: usize,
    /// Time that a client may leave a part of an answer or watch unread; then its connection is closed.
    pub unread_timeout: Duration,
    /// Time for a client to read the initial objects of a watch.
    pub watch_initial: Duration,
    /// Changes kept per kind for watches to resume from; older ones answer 410.
    pub history_events: usize,
    /// Bytes of those changes per kind.
    pub history_bytes: usize,
    /// Age at which an Event is dropped, as in Kubernetes.
    pub event_lifetime: Duration,
    /// Age since its last change at which a CertificateSigningRequest is dropped that is issued, denied or failed, as in
    /// Kubernetes.
    pub signing_requests_finished: Duration,
    /// Age at which any other is dropped, as in Kubernetes.
    pub signing_requests_pending: Duration,
}

impl Limits {
    /// How long CertificateSigningRequests are kept.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes { finished: self.signing_requests_finished, pending: self.signing_requests_pending }
    }
}

/// One user may hold a quarter of each shared bound: many times what a controller or gateway needs, and too little to
/// starve three others.
const SHARE_OF_USER: usize = 4;

impl Default for Limits {
    fn default() -> Limits {
        let (connections, requests, watches) = (1_024, 512, 1_024);
        let (bodies, answers) = (64 * 1024 * 1024, 256 * 1024 * 1024);
        Limits {
            connections_max: connections,
            connections_per_user_max: connections / SHARE_OF_USER,
            handshakes_max: 256,
            handshakes_per_source_max: 192,
            unauthenticated_max: 128,
            unauthenticated_per_source_max: 64,
            unauthenticated_idle: Duration::from_secs(10),
            unauthenticated_life: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 * 1024,
            body_bytes_max: 3 * 1024 * 1024,
            body_bytes_total: bodies,
            // The values of one large body may take many times its bytes.
            body_bytes_per_user: bodies / 2,
            body_timeout: Duration::from_secs(30),
            answer_bytes_total: answers,
            answer_bytes_per_user: answers / SHARE_OF_USER,
            requests_max: requests,
            requests_per_user_max: requests / SHARE_OF_USER,
            watches_max: watches,
            watches_per_user_max: watches / SHARE_OF_USER,
            unread_timeout: Duration::from_secs(60),
            watch_initial: Duration::from_secs(120),
            history_events: 4_096,
            history_bytes: 32 * 1024 * 1024,
            event_lifetime: Duration::from_secs(3_600),
            signing_requests_finished: Duration::from_secs(3_600),
            signing_requests_pending: Duration::from_secs(24 * 3_600),
        }
    }
}
