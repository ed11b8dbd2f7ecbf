//! The label of what is counted by reasons.

use prometheus_client::encoding::EncodeLabelSet;

/// A reason, in CamelCase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    pub(super) reason: &'static str,
}
