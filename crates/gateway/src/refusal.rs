//! Why connections are refused before a session.

use std::fmt;

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
