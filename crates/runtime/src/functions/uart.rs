//! UARTs.

use super::context::{Context, Outcome};
use super::errno::{FAULT, INVAL};
use super::failures;
use super::pending::PendingCall;
use crate::engine::{Arguments, Engine};
use crate::host::Host;
use crate::host::uart::BYTES_MAX;
use crate::scan::Value;

/// A time that is never over.
const FOREVER: u32 = u32::MAX;

fn answer(result: i32) -> Outcome {
    Outcome::Answer(Some(Value::I32(result)))
}

/// The last moment of a call that may take so long.
fn until_us(now_us: u64, ms: u32) -> u64 {
    if ms == FOREVER { u64::MAX } else { now_us.saturating_add(u64::from(ms) * 1_000) }
}

/// `uart_read(uart, timeout, buffer, room) -> how many`
pub(crate) fn read<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (address, room) = (arguments.u32(2), arguments.u32(3));
    if room == 0 {
        return answer(-INVAL);
    }
    // What came is not to go to where nothing can be written.
    if u64::from(address) + u64::from(room) > context.engine.linear_memory_bytes() as u64 {
        return answer(-FAULT);
    }
    let room = room.min(BYTES_MAX as u32);
    context.bytes_moved += u64::from(room);
    let until_us = until_us(context.now_us, arguments.u32(1));
    match context.host.uart_read(context.id, arguments.u32(0), room as usize, until_us) {
        Ok(()) => Outcome::Blocked(PendingCall::UartRead { address, length: room }),
        Err(error) => answer(failures::of_uart(error)),
    }
}

/// `uart_write(uart, bytes, length, timeout) -> how many`
pub(crate) fn write<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let mut bytes = [0; BYTES_MAX];
    // Of more than that a part is taken, as of a stream.
    let taken = (arguments.u32(2) as usize).min(BYTES_MAX);
    let bytes = bytes.get_mut(..taken).unwrap_or_default();
    if context.engine.read_memory(arguments.u32(1), bytes).is_err() {
        return answer(-FAULT);
    }
    context.bytes_moved += taken as u64;
    let until_us = until_us(context.now_us, arguments.u32(3));
    match context.host.uart_write(context.id, arguments.u32(0), bytes, until_us) {
        Ok(()) => Outcome::Blocked(PendingCall::UartWrite),
        Err(error) => answer(failures::of_uart(error)),
    }
}
