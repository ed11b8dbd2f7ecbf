//! WASI preview 1, as far as a device without files has it. What real toolchains need of it, and which answers keep
//! their programs going, is in `docs/host-interface.md`.

use super::context::{Context, Outcome};
use super::errno::{BADF, FAULT, INVAL, NOSYS, NOTSUP, SPIPE, SUCCESS};
use super::log::Stream;
use crate::engine::{Arguments, Engine};
use crate::host::Host;
use crate::scan::interface::WasiCall;
use crate::scan::{HostFunction, Value, ValueType};
use alloc::string::String;

/// Bytes that one call moves at most; a longer write or read is answered with the part that was done, as WASI allows.
const CALL_BYTES_MAX: u32 = 1_024;
/// Pieces of one write or read that are looked at.
const VECTORS_MAX: u32 = 16;
/// Subscriptions of one `poll_oneoff`.
const SUBSCRIPTIONS_MAX: u32 = 16;
const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: usize = 32;

const CLOCK_REALTIME: u32 = 0;
const CLOCK_MONOTONIC: u32 = 1;

/// A WASI answer: success, or an errno.
type Errno = Result<(), i32>;

fn fault<T>(result: Result<T, crate::engine::OutOfBounds>) -> Result<T, i32> {
    result.map_err(|_| FAULT)
}

/// Calls one function.
pub(crate) fn call<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    function: WasiCall,
    arguments: &Arguments,
) -> Outcome {
    let done = match function {
        WasiCall::ArgsGet => strings(context, arguments, |context| &context.strings.args),
        WasiCall::ArgsSizesGet => string_sizes(context, arguments, |context| &context.strings.args),
        WasiCall::EnvironGet => strings(context, arguments, |context| &context.strings.env),
        WasiCall::EnvironSizesGet => string_sizes(context, arguments, |context| &context.strings.env),
        WasiCall::ClockResGet => clock_res_get(context, arguments),
        WasiCall::ClockTimeGet => clock_time_get(context, arguments),
        WasiCall::FdFdstatGet => fd_fdstat_get(context, arguments),
        WasiCall::FdRead => fd_read(context, arguments),
        WasiCall::FdWrite => fd_write(context, arguments),
        WasiCall::FdClose => standard(arguments),
        WasiCall::FdPread | WasiCall::FdPwrite | WasiCall::FdSeek | WasiCall::FdTell => {
            standard(arguments).and(Err(SPIPE))
        }
        WasiCall::FdPrestatGet | WasiCall::FdPrestatDirName => Err(BADF),
        WasiCall::RandomGet => random_get(context, arguments),
        WasiCall::SchedYield => Ok(()),
        WasiCall::ProcExit => return Outcome::Exit(arguments.u32(0)),
        WasiCall::PollOneoff => match poll_oneoff(context, arguments) {
            Ok(until_us) => return Outcome::Sleep { until_us, answer: Some(Value::I32(SUCCESS)) },
            Err(errno) => Err(errno),
        },
    };
    let errno = match done {
        Ok(()) => SUCCESS,
        Err(errno) => errno,
    };
    Outcome::Answer(Some(Value::I32(errno)))
}

/// Any function that is there only to be imported.
pub(crate) fn not_supported(function: &HostFunction) -> Outcome {
    Outcome::Answer(function.results().first().map(|value_type| match value_type {
        ValueType::I32 => Value::I32(NOSYS),
        ValueType::I64 => Value::I64(NOSYS.into()),
        ValueType::F32 => Value::F32(0),
        ValueType::F64 => Value::F64(0),
    }))
}

/// Only the three standard streams are open.
fn standard(arguments: &Arguments) -> Errno {
    if arguments.u32(0) <= 2 { Ok(()) } else { Err(BADF) }
}

fn write_u32<E: Engine>(engine: &mut E, address: u32, value: u32) -> Errno {
    fault(engine.write_memory(address, &value.to_le_bytes()))
}

fn read_u32<E: Engine>(engine: &E, address: u32) -> Result<u32, i32> {
    let mut bytes = [0; 4];
    fault(engine.read_memory(address, &mut bytes))?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64<E: Engine>(engine: &E, address: u32) -> Result<u64, i32> {
    let mut bytes = [0; 8];
    fault(engine.read_memory(address, &mut bytes))?;
    Ok(u64::from_le_bytes(bytes))
}

fn offset(address: u32, by: u32) -> Result<u32, i32> {
    address.checked_add(by).ok_or(FAULT)
}

/// `args_get`, `environ_get`: pointers at the first address, bytes at the second.
fn strings<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
    list: for<'a> fn(&'a Context<'_, E, H>) -> &'a [String],
) -> Errno {
    let (mut pointer, mut text) = (arguments.u32(0), arguments.u32(1));
    // By index: the list and the memory live in the same context. Its length is bounded when the program is loaded.
    let mut index = 0;
    loop {
        let Some(length) = list(context).get(index).map(String::len) else { return Ok(()) };
        write_u32(context.engine, pointer, text)?;
        let mut written = 0;
        while written < length {
            let mut piece = [0; 64];
            let bytes = list(context).get(index).map(String::as_bytes).unwrap_or_default();
            let part = bytes.get(written..length.min(written + piece.len())).unwrap_or_default();
            let Some(piece) = piece.get_mut(..part.len()) else {
                debug_assert!(false, "a part is no longer than a piece");
                return Err(FAULT);
            };
            piece.copy_from_slice(part);
            fault(context.engine.write_memory(offset(text, written as u32)?, piece))?;
            written += piece.len();
        }
        context.bytes_moved += length as u64;
        pointer = offset(pointer, 4)?;
        text = offset(text, length as u32)?;
        index += 1;
    }
}

fn string_sizes<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
    list: for<'a> fn(&'a Context<'_, E, H>) -> &'a [String],
) -> Errno {
    let count = list(context).len() as u32;
    let bytes = list(context).iter().map(String::len).sum::<usize>() as u32;
    write_u32(context.engine, arguments.u32(0), count)?;
    write_u32(context.engine, arguments.u32(1), bytes)
}

fn clock_res_get<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Errno {
    let resolution_ns: u64 = match arguments.u32(0) {
        CLOCK_REALTIME => 1_000_000,
        CLOCK_MONOTONIC => 1_000,
        _ => return Err(INVAL),
    };
    fault(context.engine.write_memory(arguments.u32(1), &resolution_ns.to_le_bytes()))
}

fn clock_ns<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>, clock: u32) -> Result<u64, i32> {
    match clock {
        CLOCK_REALTIME => context.host.unix_ms().map(|ms| ms.saturating_mul(1_000_000)).ok_or(NOTSUP),
        CLOCK_MONOTONIC => Ok(context.now_us.saturating_mul(1_000)),
        _ => Err(INVAL),
    }
}

fn clock_time_get<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Errno {
    let ns = clock_ns(context, arguments.u32(0))?;
    fault(context.engine.write_memory(arguments.u32(2), &ns.to_le_bytes()))
}

/// A character device that can only be read (0) or written (1, 2): C's stdout then writes line by line.
fn fd_fdstat_get<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Errno {
    const CHARACTER_DEVICE: u8 = 2;
    const RIGHT_FD_READ: u64 = 1 << 1;
    const RIGHT_FD_WRITE: u64 = 1 << 6;
    standard(arguments)?;
    let rights = if arguments.u32(0) == 0 { RIGHT_FD_READ } else { RIGHT_FD_WRITE };
    // filetype u8, padding, flags u16, padding, rights u64, inheriting rights u64.
    let mut stat = [0; 24];
    stat[0] = CHARACTER_DEVICE;
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    fault(context.engine.write_memory(arguments.u32(1), &stat))
}

/// Standard input is always at its end.
fn fd_read<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>, arguments: &Arguments) -> Errno {
    if arguments.u32(0) != 0 {
        return Err(BADF);
    }
    write_u32(context.engine, arguments.u32(3), 0)
}

/// Standard output and standard error go to the log.
fn fd_write<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>, arguments: &Arguments) -> Errno {
    let stream = match arguments.u32(0) {
        1 => Stream::Out,
        2 => Stream::Error,
        _ => return Err(BADF),
    };
    let (vectors, count) = (arguments.u32(1), arguments.u32(2).min(VECTORS_MAX));
    let mut buffer = [0; CALL_BYTES_MAX as usize];
    let mut filled = 0;
    for index in 0..count {
        let vector = offset(vectors, index * 8)?;
        let (address, length) =
            (read_u32(context.engine, vector)?, read_u32(context.engine, offset(vector, 4)?)?);
        let taken = length.min(CALL_BYTES_MAX - filled);
        let piece = buffer.get_mut(filled as usize..(filled + taken) as usize).ok_or(FAULT)?;
        fault(context.engine.read_memory(address, piece))?;
        filled += taken;
        if taken < length {
            break;
        }
    }
    // The count first: a program that can't learn how much was written has written nothing.
    write_u32(context.engine, arguments.u32(3), filled)?;
    context.bytes_moved += u64::from(filled);
    let bytes = buffer.get(..filled as usize).ok_or(FAULT)?;
    context.log.write(context.id, context.now_us, stream, bytes, context.host);
    Ok(())
}

fn random_get<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>, arguments: &Arguments) -> Errno {
    let (address, length) = (arguments.u32(0), arguments.u32(1));
    if length > CALL_BYTES_MAX * 4 {
        return Err(INVAL);
    }
    context.bytes_moved += u64::from(length);
    let mut done = 0;
    while done < length {
        let mut piece = [0; 256];
        let part = (length - done).min(piece.len() as u32);
        let Some(piece) = piece.get_mut(..part as usize) else {
            debug_assert!(false, "a part is no longer than a piece");
            return Err(FAULT);
        };
        context.host.random(piece);
        fault(context.engine.write_memory(offset(address, done)?, piece))?;
        done += part;
    }
    Ok(())
}

/// What a subscription waits for.
enum Ready {
    At(u64),
    Now,
    Refused(i32),
}

/// Sleeps until the first subscribed clock is due; streams are ready at once. The events are written before the sleep,
/// which the program can't see.
fn poll_oneoff<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Result<u64, i32> {
    let (input, output, count) = (arguments.u32(0), arguments.u32(1), arguments.u32(2));
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(INVAL);
    }
    let mut until_us = u64::MAX;
    for index in 0..count {
        let at = match subscription(context, offset(input, index * SUBSCRIPTION_BYTES)?)?.0 {
            Ready::At(us) => us,
            Ready::Now | Ready::Refused(_) => context.now_us,
        };
        until_us = until_us.min(at);
    }
    let mut events = 0;
    for index in 0..count {
        let (ready, userdata, kind) = subscription(context, offset(input, index * SUBSCRIPTION_BYTES)?)?;
        let errno = match ready {
            Ready::At(us) if us > until_us => continue,
            Ready::At(_) | Ready::Now => SUCCESS,
            Ready::Refused(errno) => errno,
        };
        let mut event = [0; EVENT_BYTES];
        event[..8].copy_from_slice(&userdata.to_le_bytes());
        event[8..10].copy_from_slice(&(errno as u16).to_le_bytes());
        event[10] = kind;
        fault(context.engine.write_memory(offset(output, events * EVENT_BYTES as u32)?, &event))?;
        events += 1;
    }
    write_u32(context.engine, arguments.u32(3), events)?;
    // At least a millisecond, so that polling in a loop is never a busy loop.
    Ok(until_us.max(context.now_us + 1_000))
}

/// Reads one subscription: when it is ready, its user data and its kind.
fn subscription<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    address: u32,
) -> Result<(Ready, u64, u8), i32> {
    const KIND_CLOCK: u8 = 0;
    const KIND_WRITE: u8 = 2;
    const FLAG_ABSOLUTE: u32 = 1;
    let userdata = read_u64(context.engine, address)?;
    let mut kind = [0];
    fault(context.engine.read_memory(offset(address, 8)?, &mut kind))?;
    let [kind] = kind;
    let ready = match kind {
        KIND_CLOCK => {
            let clock = read_u32(context.engine, offset(address, 16)?)?;
            let timeout_ns = read_u64(context.engine, offset(address, 24)?)?;
            let absolute = read_u32(context.engine, offset(address, 40)?)? & FLAG_ABSOLUTE != 0;
            match clock_ns(context, clock) {
                Err(errno) if absolute || errno == INVAL => Ready::Refused(errno),
                // A wait does not need to know the time of day.
                Err(_) => Ready::At(context.now_us.saturating_add(timeout_ns.div_ceil(1_000))),
                Ok(now_ns) => {
                    let left_ns = if absolute { timeout_ns.saturating_sub(now_ns) } else { timeout_ns };
                    Ready::At(context.now_us.saturating_add(left_ns.div_ceil(1_000)))
                }
            }
        }
        1..=KIND_WRITE => {
            let descriptor = read_u32(context.engine, offset(address, 16)?)?;
            if descriptor <= 2 { Ready::Now } else { Ready::Refused(BADF) }
        }
        _ => return Err(INVAL),
    };
    Ok((ready, userdata, kind))
}
