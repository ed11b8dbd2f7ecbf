//! Why connections are refused before a session.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Refusals that are logged each second; metrics count them all.
const REFUSALS_LOGGED_PER_SECOND: u64 = 20;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// The reason as metrics and logs name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum RefusalReason {
            $($(#[$doc])+ $name,)+
        }

        impl RefusalReason {
            /// All reasons.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),+];

            /// CamelCase.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    /// Environment: the connection could not be accepted, most likely for lack of open files.
    AcceptFailed,
    /// Peer: a certificate that is not trusted, not valid now, or of another authority.
    BadCertificate,
    /// Network: the connection broke.
    ConnectionLost,
    /// Load: there is no room for another device.
    Full,
    /// Peer: TLS failed for another reason.
    HandshakeFailed,
    /// Load: the handshake made no progress while others waited.
    HandshakeGaveWay,
    /// Peer: the handshake took too long.
    HandshakeTimeout,
    /// Peer: no ALPN name was offered.
    NoAlpn,
    /// Peer: no certificate was presented.
    NoCertificate,
    /// Load: there are as many connections of controllers and operators as are allowed.
    TooManyApiConnections,
    /// Peer: no ALPN name of ours was offered.
    WrongAlpn,
    /// Peer: the certificate is valid, but not for a client of this gateway.
    WrongIdentity,
    /// Peer: the role in the certificate may not call the API.
    WrongRole,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Keeps a flood of refusals from becoming a flood of log lines.
pub(crate) struct Refusals {
    started: Instant,
    second: AtomicU64,
    logged: AtomicU64,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), second: AtomicU64::new(0), logged: AtomicU64::new(0) }
    }

    pub(crate) fn may_log(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        if self.second.swap(second, Ordering::Relaxed) != second {
            let before = self.logged.swap(0, Ordering::Relaxed);
            if before > REFUSALS_LOGGED_PER_SECOND {
                let left_out = before - REFUSALS_LOGGED_PER_SECOND;
                tracing::warn!(reason = "Flood", left_out, "refusals were left out of this log");
            }
        }
        self.logged.fetch_add(1, Ordering::Relaxed) < REFUSALS_LOGGED_PER_SECOND
    }
}
