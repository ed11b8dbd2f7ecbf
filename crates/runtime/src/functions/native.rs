//! The functions of the import module `wasmbed`.

use super::context::{Context, Outcome};
use super::errno::{AGAIN, FAULT, INVAL, NOENT, SUCCESS};
use super::gpio;
use super::pending::{PendingCall, deleted, errno_of, hand_over};
use crate::engine::{Arguments, Engine, Trap};
use crate::host::{
    Answer, Host, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, Published, RECEIVED_BYTES_MAX, SETTING_NAME_BYTES_MAX,
    SETTING_VALUE_BYTES_MAX, TOPIC_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::scan::Value;

/// Bytes that one call of `log` may hand over; lines are cut at 256, and this is the most of a host call's work.
const LOG_CALL_BYTES_MAX: u32 = 1_024;

fn answer(result: i32) -> Outcome {
    Outcome::Answer(Some(Value::I32(result)))
}

/// `log(text, length)`
pub(crate) fn log<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (address, length) = (arguments.u32(0), arguments.u32(1));
    let mut buffer = [0; LOG_CALL_BYTES_MAX as usize];
    let taken = length.min(LOG_CALL_BYTES_MAX) as usize;
    let Some(text) = buffer.get_mut(..taken) else {
        debug_assert!(false, "no more is taken than the buffer holds");
        return Outcome::Answer(None);
    };
    if context.engine.read_memory(address, text).is_err() {
        return Outcome::Trap(Trap::HostCall {
            function: "wasmbed.log",
            what: "text lies outside the memory",
        });
    }
    context.bytes_moved += taken as u64;
    context.log.line(context.id, context.now_us, text, context.host);
    Outcome::Answer(None)
}

/// `wait(milliseconds)`; a wait of 0 is one of 1, so that waiting in a loop is never a busy loop. Where the application
/// receives messages and one is there, reads settings and one has changed since, or watches pins and there was an edge, it is one
/// of 1 as well.
pub(crate) fn wait<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let has_message = context.asked.messages && context.host.has_message(context.id);
    let has_news = has_message
        || context.asked.settings && context.host.has_changed_setting(context.id)
        || context.asked.edges && context.host.take_wake(context.id);
    let ms = if has_news { 1 } else { u64::from(arguments.u32(0)).max(1) };
    Outcome::Sleep { until_us: context.now_us.saturating_add(ms * 1_000), answer: None }
}

/// `now() -> i64`: milliseconds since 1970, -1 while unknown.
pub(crate) fn now<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>) -> Outcome {
    let ms = context.host.unix_ms().and_then(|ms| i64::try_from(ms).ok()).unwrap_or(-1);
    Outcome::Answer(Some(Value::I64(ms)))
}

/// `uptime() -> i64`: milliseconds of the device's monotonic clock.
pub(crate) fn uptime<E: Engine, H: Host + ?Sized>(context: &mut Context<'_, E, H>) -> Outcome {
    let ms = i64::try_from(context.now_us / 1_000).unwrap_or(i64::MAX);
    Outcome::Answer(Some(Value::I64(ms)))
}

/// Reads a key: 1 to [`KEY_BYTES_MAX`] bytes.
fn read_key<'a, E: Engine>(
    engine: &E,
    address: u32,
    length: u32,
    buffer: &'a mut [u8; KEY_BYTES_MAX],
) -> Result<&'a [u8], i32> {
    let key = buffer.get_mut(..length as usize).filter(|key| !key.is_empty()).ok_or(-INVAL)?;
    engine.read_memory(address, key).map_err(|_| -FAULT)?;
    Ok(key)
}

/// `key_value_get(key, key_length, value, value_length) -> length of the value`
pub(crate) fn key_value_get<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (address, length) = (arguments.u32(2), arguments.u32(3));
    let mut key = [0; KEY_BYTES_MAX];
    let key = match read_key(context.engine, arguments.u32(0), arguments.u32(1), &mut key) {
        Ok(key) => key,
        Err(error) => return answer(error),
    };
    let mut value = [0; VALUE_BYTES_MAX];
    context.bytes_moved += (key.len() + VALUE_BYTES_MAX) as u64;
    match context.host.key_value_get(context.id, key, &mut value) {
        Answer::Pending => Outcome::Blocked(PendingCall::Get { address, length }),
        Answer::Ready(Err(error)) => answer(-errno_of(error)),
        Answer::Ready(Ok(None)) => answer(-NOENT),
        Answer::Ready(Ok(Some(found))) => {
            let value = value.get(..found).unwrap_or(&value);
            answer(hand_over(context.engine, address, length, value))
        }
    }
}

/// `key_value_put(key, key_length, value, value_length) -> 0`
pub(crate) fn key_value_put<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let mut key = [0; KEY_BYTES_MAX];
    let key = match read_key(context.engine, arguments.u32(0), arguments.u32(1), &mut key) {
        Ok(key) => key,
        Err(error) => return answer(error),
    };
    let mut value = [0; VALUE_BYTES_MAX];
    let Some(value) = value.get_mut(..arguments.u32(3) as usize) else { return answer(-INVAL) };
    if context.engine.read_memory(arguments.u32(2), value).is_err() {
        return answer(-FAULT);
    }
    context.bytes_moved += (key.len() + value.len()) as u64;
    match context.host.key_value_put(context.id, key, value) {
        Answer::Pending => Outcome::Blocked(PendingCall::Put),
        Answer::Ready(Err(error)) => answer(-errno_of(error)),
        Answer::Ready(Ok(())) => answer(SUCCESS),
    }
}

/// `key_value_delete(key, key_length) -> 0`
pub(crate) fn key_value_delete<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let mut key = [0; KEY_BYTES_MAX];
    let key = match read_key(context.engine, arguments.u32(0), arguments.u32(1), &mut key) {
        Ok(key) => key,
        Err(error) => return answer(error),
    };
    context.bytes_moved += key.len() as u64;
    match context.host.key_value_delete(context.id, key) {
        Answer::Pending => Outcome::Blocked(PendingCall::Delete),
        Answer::Ready(Err(error)) => answer(-errno_of(error)),
        Answer::Ready(Ok(found)) => answer(deleted(found)),
    }
}

/// Flag of `publish`: older messages make room.
const DROP_OLDEST: u32 = 1;

/// `publish(topic, topic_length, payload, payload_length, flags) -> 0`
pub(crate) fn publish<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (mut topic, mut payload) = ([0; TOPIC_BYTES_MAX], [0; PAYLOAD_BYTES_MAX]);
    let drop_oldest = match arguments.u32(4) {
        0 => false,
        DROP_OLDEST => true,
        _ => return answer(-INVAL),
    };
    let topic = topic.get_mut(..arguments.u32(1) as usize).filter(|topic| !topic.is_empty());
    let payload = payload.get_mut(..arguments.u32(3) as usize);
    let (Some(topic), Some(payload)) = (topic, payload) else { return answer(-INVAL) };
    if context.engine.read_memory(arguments.u32(0), topic).is_err()
        || context.engine.read_memory(arguments.u32(2), payload).is_err()
    {
        return answer(-FAULT);
    }
    context.bytes_moved += (topic.len() + payload.len()) as u64;
    answer(match context.host.publish(context.id, topic, payload, drop_oldest) {
        Published::Taken => SUCCESS,
        Published::NotNow => -AGAIN,
        Published::UnknownTopic => -NOENT,
    })
}

/// `receive(message, message_length) -> length of the message`; one that has no room stays.
pub(crate) fn receive<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (address, room) = (arguments.u32(0), arguments.u32(1));
    context.asked.messages = true;
    // A message is not to go to where nothing can be written.
    if u64::from(address) + u64::from(room) > context.engine.linear_memory_bytes() as u64 {
        return answer(-FAULT);
    }
    let mut message = [0; RECEIVED_BYTES_MAX];
    let Some(length) = context.host.receive(context.id, &mut message, room as usize) else {
        return answer(-AGAIN);
    };
    let message = message.get(..length).unwrap_or(&message);
    context.bytes_moved += length as u64;
    answer(hand_over(context.engine, address, room, message))
}

/// `setting_get(name, name_length, value, value_length) -> length of the value`
pub(crate) fn setting_get<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let (address, room) = (arguments.u32(2), arguments.u32(3));
    context.asked.settings = true;
    let mut name = [0; SETTING_NAME_BYTES_MAX];
    let name = name.get_mut(..arguments.u32(1) as usize).filter(|name| !name.is_empty());
    let Some(name) = name else { return answer(-INVAL) };
    if context.engine.read_memory(arguments.u32(0), name).is_err() {
        return answer(-FAULT);
    }
    let mut value = [0; SETTING_VALUE_BYTES_MAX];
    let Some(length) = context.host.setting(context.id, name, &mut value) else { return answer(-NOENT) };
    context.bytes_moved += (name.len() + length) as u64;
    let value = value.get(..length).unwrap_or(&value);
    answer(hand_over(context.engine, address, room, value))
}

/// `sensor_read(sensor, milli_units) -> 0`
pub(crate) fn sensor_read<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    match context.host.peripherals().sensor_read(arguments.u32(0)) {
        Err(error) => answer(gpio::result_of(error)),
        Ok(milli_units) => match context.engine.write_memory(arguments.u32(1), &milli_units.to_le_bytes()) {
            Ok(()) => answer(SUCCESS),
            Err(_) => answer(-FAULT),
        },
    }
}
