//! What a create, update, patch, apply or delete does to one object. Pure: time and random ids are arguments, storage is
//! the caller's.
//!
//! ```text
//!            create                delete, no finalizers
//!  (absent) ────────▶ live ───────────────────────────────▶ (absent)
//!                     │  ▲ update                               ▲
//!                     │  └──┘                                   │ the last finalizer is removed
//!                     └─────────▶ deleting (deletionTimestamp) ─┘
//!                      delete
//! ```

mod managers;
mod metadata;
mod patch;
mod quota;
mod request;
mod secret;
mod signing;
mod write;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use managers::Applied;
pub use patch::Patch;
pub use request::{Author, FieldValidation, Moment, Next, Part, Preconditions, Request, Signers};
pub use signing::Lifetimes;
pub(crate) use signing::{
    CREDENTIAL, REQUEST_BYTES_MAX, REQUESTS_BYTES_MAX, REQUESTS_BYTES_PER_USER_MAX, check_signer,
};
pub use write::{delete, is_deleting};
