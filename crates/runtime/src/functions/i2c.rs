//! Transfers over I2C buses.

use super::context::{Context, Outcome};
use super::failures;
use super::operations::Operations;
use super::pending::PendingCall;
use crate::engine::{Arguments, Engine};
use crate::host::Host;
use crate::scan::Value;

/// `i2c_transfer(bus, address, operations, count) -> 0`
pub(crate) fn transfer<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let answer = |result| Outcome::Answer(Some(Value::I32(result)));
    let operations = Operations { address: arguments.u32(2), count: arguments.u32(3) };
    let transfer = match operations.transfer(context.engine, arguments.u32(1)) {
        Ok(transfer) => transfer,
        Err(result) => return answer(result),
    };
    context.bytes_moved += transfer.bytes().len() as u64;
    match context.host.i2c_transfer(context.id, arguments.u32(0), transfer) {
        Ok(()) => Outcome::Blocked(PendingCall::I2c(operations)),
        Err(error) => answer(failures::of_i2c(error)),
    }
}
