//! What holds of an agent after every input, whatever the input was.

use core::fmt;

use wasmbed_protocol::ApplicationUid;

/// A rule that does not hold: a bug of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// No application is in the set twice.
    UniqueApplications(ApplicationUid),
    /// At most so many applications are accepted as the device runs.
    AcceptedMax(usize),
    /// An application has a current assignment, a next one, or both with different specs.
    Assignments(ApplicationUid),
    /// Only accepted applications run, each run belongs to one.
    Runs(ApplicationUid),
    /// A module is pulled only while an application waits for it and storage does not have it.
    Pull,
    /// What the link is asked for follows from the session's state.
    Link,
    /// More traps wait than may, or two of one application.
    Traps(usize),
    /// Storage has no later state record than there is.
    Durability,
    /// No key is used before storage has it, and a certificate is asked for only where one is.
    Identity,
    /// A device that was decommissioned has no application and pulls nothing.
    Decommissioned,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UniqueApplications(uid) => write!(f, "application {uid:?} is in the set twice"),
            Self::AcceptedMax(accepted) => write!(f, "{accepted} applications are accepted"),
            Self::Assignments(uid) => {
                write!(f, "application {uid:?} has no assignment, or the same as current and next")
            }
            Self::Runs(uid) => {
                write!(f, "application {uid:?} runs without being accepted, or shares its run")
            }
            Self::Pull => f.write_str("a module is pulled that nothing waits for"),
            Self::Traps(waiting) => write!(f, "{waiting} traps wait"),
            Self::Link => f.write_str("the link is asked for something that the session is not about"),
            Self::Identity => f.write_str("an identity is used before it may be, or asked for by nobody"),
            Self::Decommissioned => {
                f.write_str("a decommissioned device has applications, or pulls a module")
            }
            Self::Durability => f.write_str("storage has a later state than there is"),
        }
    }
}

impl core::error::Error for Invariant {}
