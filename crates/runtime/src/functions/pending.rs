//! Calls whose answer comes later, and how such answers become results.

use super::errno::{FAULT, IO, NOENT, NOSPC, SUCCESS};
use super::failures;
use super::operations::Operations;
use crate::engine::Engine;
use crate::host::{Completion, KeyValueError};
use crate::scan::Value;

/// A call whose answer comes later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PendingCall {
    Get { address: u32, length: u32 },
    Put,
    Delete,
    Transfer(Operations),
    UartRead { address: u32, length: u32 },
    UartWrite,
}

impl PendingCall {
    /// Whether the call is a wait: one that took time begins the CPU limit anew.
    pub(crate) fn is_wait(&self) -> bool {
        matches!(self, PendingCall::UartRead { .. } | PendingCall::UartWrite)
    }

    /// The result of the call, if this is an answer to it.
    pub(crate) fn finish<E: Engine>(&self, completion: Completion<'_>, engine: &mut E) -> Option<Value> {
        let result = match (self, completion) {
            (PendingCall::Transfer(operations), Completion::Transferred(Ok(bytes))) => {
                operations.hand_over(engine, bytes)
            }
            (PendingCall::Transfer(_), Completion::Transferred(Err(error))) => failures::of_transfer(error),
            (PendingCall::UartRead { address, length }, Completion::Received(Ok(bytes))) => {
                hand_over(engine, *address, *length, bytes)
            }
            (PendingCall::UartWrite, Completion::Sent(Ok(count))) => i32::try_from(count).unwrap_or(i32::MAX),
            (PendingCall::UartRead { .. }, Completion::Received(Err(error)))
            | (PendingCall::UartWrite, Completion::Sent(Err(error))) => failures::of_uart(error),
            (PendingCall::Transfer(_) | PendingCall::UartRead { .. } | PendingCall::UartWrite, _)
            | (_, Completion::Transferred(_) | Completion::Received(_) | Completion::Sent(_)) => return None,
            (_, Completion::Failed(error)) => -errno_of(error),
            (PendingCall::Get { address, length }, Completion::Value(Some(value))) => {
                hand_over(engine, *address, *length, value)
            }
            (PendingCall::Get { .. }, Completion::Value(None)) => -NOENT,
            (PendingCall::Put, Completion::Stored) => SUCCESS,
            (PendingCall::Delete, Completion::Deleted(found)) => deleted(found),
            (PendingCall::Get { .. }, Completion::Stored | Completion::Deleted(_))
            | (PendingCall::Put, Completion::Value(_) | Completion::Deleted(_))
            | (PendingCall::Delete, Completion::Value(_) | Completion::Stored) => return None,
        };
        Some(Value::I32(result))
    }
}

pub(crate) fn errno_of(error: KeyValueError) -> i32 {
    match error {
        KeyValueError::NoSpace => NOSPC,
        KeyValueError::Storage => IO,
    }
}

pub(crate) fn deleted(found: bool) -> i32 {
    if found { SUCCESS } else { -NOENT }
}

/// Writes as much of a value as the program has room for and answers the length of all of it.
pub(crate) fn hand_over<E: Engine>(engine: &mut E, address: u32, room: u32, value: &[u8]) -> i32 {
    let fits = value.len().min(room as usize);
    match engine.write_memory(address, value.get(..fits).unwrap_or(value)) {
        Ok(()) => i32::try_from(value.len()).unwrap_or(i32::MAX),
        Err(_) => -FAULT,
    }
}
