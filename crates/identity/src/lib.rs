//! Who a peer is: SPIFFE ids and roles, the check of its certificate chain, and why it is refused. Shared by boards
//! (`wasmbed-tls`) and hosts (`wasmbed-pki`), so that both sides accept the same ids and describe a refusal alike.
//!
//! It may not open a connection, read a clock or issue a certificate. It needs an allocator and no `std`.
//!
//! ```text
//! spiffe <- factory, operator <- refusal <- chain <- order      alert      pairing
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod alert;
mod chain;
mod factory;
mod operator;
mod order;
mod pairing;
mod refusal;
mod spiffe;

pub use alert::Alert;
pub use chain::{Leaf, P256_KEY_INFO_HEAD};
pub use factory::{FactoryId, FactoryIdError};
pub use operator::{OperatorId, OperatorIdError};
pub use order::{Addressee, OrderRefusal, OrderRules, check_order};
pub use pairing::{PairingKey, PairingToken, PairingTokenError};
pub use refusal::{CertificateError, Constraint, Described, Refusal};
pub use spiffe::{Role, SpiffeError, SpiffeId, SpiffeProblem};
pub use wasmbed_statement as statement;
