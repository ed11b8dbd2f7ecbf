//! Assignments that this firmware can run.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{
    ApplicationUid, CorrelationId, ModuleDigest, ReportReason, RestartPolicy, SpecHash, decode_spec,
};

use crate::{messages::Topics, why::Why};

/// An assignment whose spec was checked and can be run by this firmware: [`Held::check`] makes it, and nothing changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    spec_hash: SpecHash,
    spec: Vec<u8>,
    correlation_id: CorrelationId,
    digest: ModuleDigest,
    module_bytes: u32,
    policy: RestartPolicy,
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
        if let Err(direction) = Topics::of(&spec) {
            let message = alloc::format!("direction {direction} of a topic is newer than this firmware");
            return Err(refuse(&message));
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

    pub(crate) fn spec_hash(&self) -> SpecHash {
        self.spec_hash
    }

    /// The encoded spec, which has that hash.
    pub(crate) fn spec(&self) -> &[u8] {
        &self.spec
    }

    /// Takes the encoded spec out.
    pub(crate) fn into_spec(self) -> Vec<u8> {
        self.spec
    }

    pub(crate) fn correlation_id(&self) -> CorrelationId {
        self.correlation_id
    }

    /// Of its module.
    pub(crate) fn digest(&self) -> ModuleDigest {
        self.digest
    }

    /// Of its module; not 0.
    pub(crate) fn module_bytes(&self) -> u32 {
        self.module_bytes
    }

    /// When it is started again; not an unknown one.
    pub(crate) fn policy(&self) -> RestartPolicy {
        self.policy
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
