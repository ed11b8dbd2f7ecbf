//! The signer process: it alone holds the issuing authorities of devices and of people. It follows CertificateSigningRequests, verifies what speaks
//! for them down to the factory root, a pairing token or the certificate that is renewed, and carries out what
//! [`wasmbed_control::signer`] and, of people, [`wasmbed_control::login`] decide.
//!
//! It may not decide whether a proof is enough, and believes nothing that a gateway wrote into a request.

#![forbid(unsafe_code)]

mod answer;
mod config;
mod error;
mod files;
mod logins;
mod metrics;
mod pairing;
mod request;
mod service;
mod verifier;

pub use config::{Config, HealthConfig, OperatorsConfig, PkiFiles};
pub use error::Error;
pub use metrics::describe as describe_metrics;
pub use request::{Asked, Malformed, Proof};
pub use service::{Handle, start};
pub use verifier::{Verifier, VerifierError};
