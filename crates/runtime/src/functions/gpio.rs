//! Pins.

use super::context::{Context, Outcome};
use super::errno::{INVAL, IO, NOENT, NOTCAPABLE, SUCCESS};
use crate::engine::{Arguments, Engine};
use crate::host::{Edges, Host, PeripheralError};
use crate::scan::Value;

/// What a program is told of a pin or a sensor that did not answer.
pub(crate) fn result_of(error: PeripheralError) -> i32 {
    -match error {
        PeripheralError::NotFound => NOENT,
        PeripheralError::Failed => IO,
        PeripheralError::Denied => NOTCAPABLE,
    }
}

fn answer(result: Result<i32, PeripheralError>) -> Outcome {
    Outcome::Answer(Some(Value::I32(result.unwrap_or_else(result_of))))
}

const INVALID: Outcome = Outcome::Answer(Some(Value::I32(-INVAL)));

/// `gpio_read(pin) -> 0 or 1`
pub(crate) fn read<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    answer(context.host.gpio_read(context.id, arguments.u32(0)).map(i32::from))
}

/// `gpio_write(pin, level) -> 0`
pub(crate) fn write<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let level = match arguments.u32(1) {
        0 => false,
        1 => true,
        _ => return INVALID,
    };
    answer(context.host.gpio_write(context.id, arguments.u32(0), level).map(|()| SUCCESS))
}

/// `gpio_watch(pin, edges) -> 0`: from now on edges are counted and end waits; 1 rising, 2 falling, 3 both, 0 none any more.
pub(crate) fn watch<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let edges = arguments.u32(1);
    if edges > 3 {
        return INVALID;
    }
    context.asked.edges = true;
    let edges = Edges { rising: edges & 1 != 0, falling: edges & 2 != 0 };
    answer(context.host.gpio_watch(context.id, arguments.u32(0), edges).map(|()| SUCCESS))
}

/// `gpio_edges(pin) -> edges since the call before`
pub(crate) fn edges<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let count = context.host.gpio_edges(context.id, arguments.u32(0));
    answer(count.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
}
