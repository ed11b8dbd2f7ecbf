//! Assignments that this firmware can run.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{
    ApplicationUid, CorrelationId, ModuleDigest, ReportReason, RestartPolicy, SpecHash, decode_spec,
};

use crate::why::Why;

/// An assignment whose spec was checked and can be run by this firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) spec_hash: SpecHash,
    pub(crate) spec: Vec<u8>,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) digest: ModuleDigest,
    pub(crate) module_bytes: u32,
    pub(crate) policy: RestartPolicy,
}

impl Held {
    /// Reads a spec whose hash is right. A spec that this firmware can't act on refuses its assignment and nothing else.
    pub(crate) fn check(
        uid: ApplicationUid,
        spec_hash: SpecHash,
        bytes: &[u8],
        correlation_id: CorrelationId,
    ) -> Result<Self, Why> {
        debug_assert!(has_hash(bytes, spec_hash), "the hash is checked first");
        let refuse = |message: &str| Why::new(ReportReason::Unsupported, message);
        let spec =
            decode_spec(bytes).map_err(|error| refuse(&alloc::format!("assignment not usable: {error}")))?;
        if spec.uid != uid {
            return Err(refuse("the assignment is another application's"));
        }
        if let RestartPolicy::Unknown(policy) = spec.restart_policy {
            return Err(refuse(&alloc::format!("restart policy {policy} is newer than this firmware")));
        }
        if spec.module_bytes == 0 {
            return Err(Why::new(ReportReason::InvalidModule, "the module is empty"));
        }
        Ok(Self {
            spec_hash,
            spec: Vec::from(bytes),
            correlation_id,
            digest: spec.digest,
            module_bytes: spec.module_bytes,
            policy: spec.restart_policy,
        })
    }

    /// The same, unless its module is larger than this device takes.
    pub(crate) fn within(self, module_bytes_max: u32) -> Result<Self, Why> {
        if self.module_bytes <= module_bytes_max {
            return Ok(self);
        }
        let message = alloc::format!(
            "module has {} bytes, this device takes at most {module_bytes_max}",
            self.module_bytes
        );
        Err(Why::new(ReportReason::OutOfFlash, &message))
    }
}

/// Whether these are the bytes of the spec with this hash.
pub(crate) fn has_hash(spec: &[u8], hash: SpecHash) -> bool {
    SpecHash(Sha256::digest(spec).into()) == hash
}
