//! What a host function works with and what comes out of it.

use super::log::LogLines;
use super::pending::PendingCall;
use super::strings::Strings;
use crate::engine::{Engine, Trap};
use crate::host::{AppId, Host};
use crate::scan::Value;

/// What a host function made of its call.
pub(crate) enum Outcome {
    /// It is answered.
    Answer(Option<Value>),
    /// The application sleeps, and finds this answer when it wakes.
    Sleep { until_us: u64, answer: Option<Value> },
    /// The answer comes through `complete`.
    Blocked(PendingCall),
    /// The program asked to end.
    Exit(u32),
    /// The call can't be answered.
    Trap(Trap),
}

/// What a host function works with.
pub(crate) struct Context<'a, E: Engine, H: Host + ?Sized> {
    pub(crate) id: AppId,
    pub(crate) now_us: u64,
    pub(crate) engine: &'a mut E,
    pub(crate) host: &'a mut H,
    pub(crate) strings: &'a Strings,
    pub(crate) log: &'a mut LogLines,
    /// Whether it has asked for messages in this run: then its waits end when one comes.
    pub(crate) receives: &'a mut bool,
    /// Bytes that the call moved; they are paid for.
    pub(crate) bytes_moved: u64,
}
