//! What happened, for the device's own log; nothing depends on anyone reading it.

use alloc::{collections::VecDeque, string::String};

use wasmbed_protocol::{
    ApplicationUid, CloseReason, CorrelationId, DeviceUid, Epoch, KeyHash, ModuleDigest, ReportReason,
    Revision,
};

use crate::{identity::IdentityError, why::Why};

/// Events that wait to be read; more are dropped.
pub const EVENTS_MAX: usize = 32;

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is established.
    Welcomed {
        /// Its epoch.
        epoch: Epoch,
        /// Whether the gateway has a set for this device.
        desired_known: bool,
    },
    /// The gateway ended the session, or refused it.
    Closed {
        /// Why.
        reason: CloseReason,
        /// In its words.
        detail: String,
        /// When it asked to be tried again, milliseconds.
        retry_after_ms: u32,
    },
    /// Nothing was heard for too long, or the gateway did not answer in time.
    Silent,
    /// A frame of the gateway was not usable.
    BadFrame {
        /// What was wrong.
        detail: String,
    },
    /// The gateway could not use a message of ours.
    Complaint {
        /// In its words.
        detail: String,
    },
    /// The next attempt to connect.
    Pause {
        /// In so many milliseconds.
        pause_ms: u64,
    },
    /// A desired set was adopted.
    Desired {
        /// Its revision.
        revision: Revision,
        /// Its size.
        applications: usize,
    },
    /// The gateway reported that there is no Device any more, or that it is revoked: everything was stopped and the set forgotten.
    Forgotten {
        /// Applications that were stopped.
        applications: usize,
    },
    /// A desired set with a lower revision than the one held was refused.
    StaleDesired {
        /// Its revision.
        revision: Revision,
    },
    /// An assignment arrived and is one that this device can run.
    Assigned {
        /// Of which application.
        uid: ApplicationUid,
        /// Of the change that led here.
        correlation_id: CorrelationId,
        /// Its module.
        digest: ModuleDigest,
    },
    /// A module is verified and stored.
    ModuleStored {
        /// The module's digest.
        digest: ModuleDigest,
    },
    /// An application's assignment or module could not be had, or it ended, or could not be loaded.
    Trouble {
        /// Which application.
        uid: ApplicationUid,
        /// Of the change that led here.
        correlation_id: CorrelationId,
        /// Why.
        reason: ReportReason,
        /// For people.
        message: String,
    },
    /// The state record could not be written.
    StateFailed {
        /// For people.
        message: String,
    },
    /// The state record that storage held could not be read as one: what the device knew is gone, the count of its starts
    /// included.
    StateLost,
    /// The identity record could not be read. It is tried again.
    IdentityUnread,
    /// The identity record that storage held could not be read as one, or its key is none: the device begins anew.
    IdentityLost,
    /// The identity record is another identity's: the device was provisioned anew, and begins anew.
    IdentityReplaced,
    /// The identity record could not be written.
    IdentityUnwritten {
        /// For people.
        message: String,
    },
    /// The board could not do what was asked of its identity.
    IdentityFailed {
        /// Why.
        error: IdentityError,
    },
    /// The key that the device made is in use.
    KeyUsed {
        /// What a person compares before approving it.
        key: KeyHash,
    },
    /// The pairing token is used up and every certificate is over: a person has to pair the device again.
    Unpaired,
    /// A certificate was asked for.
    Asked {
        /// Within a session, of a key that has one.
        renews: bool,
    },
    /// The gateway knows the Device and waits for something.
    Waiting {
        /// The Device's namespace.
        namespace: String,
        /// The Device's name.
        name: String,
        /// What for, in the gateway's words.
        detail: String,
    },
    /// The gateway refused to have a certificate issued.
    JoinRefused {
        /// In its words.
        detail: String,
        /// When it asked to be asked again, milliseconds.
        retry_after_ms: u32,
    },
    /// A chain arrived and is one for this device's key.
    Issued {
        /// Unix seconds.
        not_after_s: u64,
    },
    /// A session was established with a new chain.
    Proven,
    /// An order to decommission the device was refused.
    OrderRefused {
        /// Why, as the gateway is told.
        detail: String,
    },
    /// An order to decommission the device is followed: everything was stopped, and is being erased.
    Decommissioning {
        /// The Device that it names.
        device_uid: DeviceUid,
    },
    /// Something could not be erased; the proof does not claim it.
    NotErased,
    /// Everything is erased, and the proof of that is stored.
    Decommissioned,
    /// The proof arrived: the key is being erased.
    ProofAcknowledged,
    /// The device was decommissioned and does nothing any more.
    AtRest {
        /// Why its key could not be erased, if it could not.
        problem: Option<String>,
    },
    /// The number of this start could not be stored: sessions go without it, told apart by the boot id alone.
    StartUncounted,
}

impl Event {
    pub(crate) fn trouble(uid: ApplicationUid, correlation_id: CorrelationId, why: &Why) -> Self {
        Self::Trouble { uid, correlation_id, reason: why.reason(), message: why.message().into() }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() < EVENTS_MAX {
            self.0.push_back(event);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
