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

/// What an application has asked for in this run: then its waits end when there is news of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) messages: bool,
    pub(crate) settings: bool,
    pub(crate) edges: bool,
}

/// What a host function works with.
pub(crate) struct Context<'a, E: Engine, H: Host + ?Sized> {
    pub(crate) id: AppId,
    pub(crate) now_us: u64,
    pub(crate) engine: &'a mut E,
    pub(crate) host: &'a mut H,
    pub(crate) strings: &'a Strings,
    pub(crate) log: &'a mut LogLines,
    pub(crate) asked: &'a mut Asked,
    /// Bytes that the call moved; they are paid for.
    pub(crate) bytes_moved: u64,
}
