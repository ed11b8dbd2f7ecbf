//! What a peer is told about a message that could not be used.

use crate::enumeration::enumeration;

enumeration! {
    /// What was wrong with a message.
    ErrorCode {
        /// Not a frame of this protocol.
        Malformed = 0,
        /// A critical key that the receiver does not know.
        UnknownCritical = 1,
        /// A message that makes no sense in this state.
        Unexpected = 2,
        /// A revision or epoch lower than one seen.
        Stale = 3,
        /// A bound was exceeded.
        TooLarge = 4,
        /// An order that the receiver does not follow: the detail says why.
        Refused = 5,
    }
}
