//! What the agent asks the loop around it to do, and what it wants to hear about applications.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{ApplicationUid, CorrelationId, ModuleDigest, ReportReason};

use wasmbed_statement::Proof;

use crate::{identity::JoinDevice, storage::Operation, trap::Trapped};

/// Names one load of one application, so that news of an earlier one is told apart. Never reused before a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a gateway and present [`Agent::presented`](crate::Agent::presented); answered by `handle_connected` or
    /// `handle_disconnected`.
    Connect,
    /// Close the connection; answered by `handle_disconnected`.
    Close,
    /// Make an operational key; answered by `handle_key` before the next output is asked for, as are the next six.
    MakeKey,
    /// Take [`Agent::operational_key`](crate::Agent::operational_key) into use; answered by `handle_key_used`.
    UseKey,
    /// Make a certification request for the operational key; answered by `handle_request`.
    Request,
    /// Prove that this device may be this Device; answered by `handle_proof`.
    Prove(JoinDevice),
    /// Judge [`Agent::received_chain`](crate::Agent::received_chain); answered by `handle_chain`.
    CheckChain,
    /// Judge [`Agent::order`](crate::Agent::order): whether a controller of this fleet gives it to this device. Answered by
    /// `handle_order`.
    CheckOrder,
    /// Sign this proof with the key of the session; answered by `handle_proof_signed`.
    SignProof(Proof),
    /// Drop every key from memory: none is used any more. Not answered.
    ForgetKeys,
    /// Do this to storage; answered by `handle_storage`. There is at most one at a time.
    Storage(Operation),
    /// Load an application from its committed module; answered by [`ApplicationEvent::Started`],
    /// [`ApplicationEvent::Refused`] or [`ApplicationEvent::Damaged`]. An earlier run of it has been stopped.
    Start(Start),
    /// Stop a run and free what it holds; not answered.
    Stop {
        /// Which run.
        run: RunId,
        /// Of which application.
        uid: ApplicationUid,
    },
    /// A setting of this application changed, if it runs: a wait of it ends, if it reads settings. Not answered.
    SettingsChanged {
        /// Which application.
        uid: ApplicationUid,
    },
    /// A message is in the mailbox of this application, if it runs: a wait of it ends. Not answered.
    Wake {
        /// Which application.
        uid: ApplicationUid,
    },
}

/// What to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Names this run.
    pub run: RunId,
    /// Which application.
    pub uid: ApplicationUid,
    /// Its module.
    pub digest: ModuleDigest,
    /// Its spec, which decodes.
    pub spec: Vec<u8>,
    /// Of the change that led here.
    pub correlation_id: CorrelationId,
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplicationEvent {
    /// What its module declares about settings: the content of that section, at most
    /// [`SETTINGS_SCHEMA_BYTES_MAX`](wasmbed_protocol::limits::SETTINGS_SCHEMA_BYTES_MAX), empty if there is none. `Started`
    /// follows.
    Schema(Vec<u8>),
    /// It is loaded and runs.
    Started,
    /// It could not be loaded.
    Refused {
        /// Why.
        reason: ReportReason,
        /// For people; cut to the bound of a report.
        message: String,
    },
    /// Its module's bytes do not have their digest any more.
    Damaged,
    /// It trapped; that it ended follows.
    Trapped(Trapped),
    /// It ended, and holds nothing any more.
    Ended {
        /// Why.
        reason: ReportReason,
        /// For people; cut to the bound of a report.
        message: String,
    },
    /// It wrote a line.
    Line {
        /// The line.
        text: String,
        /// Lines dropped just before it.
        lines_lost: u32,
    },
    /// What it uses.
    Usage {
        /// Arena bytes.
        memory_bytes: u64,
        /// CPU time of this run, milliseconds.
        cpu_ms: u64,
    },
}

/// What all applications use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// Arena bytes in use.
    pub memory_used_bytes: u64,
    /// CPU time of all applications since the device's start, milliseconds.
    pub cpu_ms: u64,
}
