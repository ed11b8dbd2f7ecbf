//! Transfers over I2C and SPI buses.

use super::context::{Context, Outcome};
use super::errno::INVAL;
use super::failures;
use super::operations::Operations;
use super::pending::PendingCall;
use crate::engine::{Arguments, Engine};
use crate::host::{Host, bus::Target, i2c::Address, spi::Device};
use crate::scan::Value;

/// `i2c_transfer(bus, address, operations, count) -> 0`
pub(crate) fn i2c<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    transfer(context, arguments, Address::new(arguments.u32(1)).map(Target::I2c))
}

/// `spi_transfer(bus, chip select, operations, count) -> 0`
pub(crate) fn spi<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
) -> Outcome {
    let chip_select = u8::try_from(arguments.u32(1));
    // The rest is granted.
    let device = chip_select.map(|chip_select| Device { chip_select, mode: 0, clock_khz: 0 });
    transfer(context, arguments, device.map(Target::Spi).ok())
}

fn transfer<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    arguments: &Arguments,
    target: Option<Target>,
) -> Outcome {
    let answer = |result| Outcome::Answer(Some(Value::I32(result)));
    let operations = Operations { address: arguments.u32(2), count: arguments.u32(3) };
    let transfer = target.ok_or(-INVAL).and_then(|target| operations.transfer(context.engine, target));
    let transfer = match transfer {
        Ok(transfer) => transfer,
        Err(result) => return answer(result),
    };
    context.bytes_moved += transfer.bytes().len() as u64;
    match context.host.transfer(context.id, arguments.u32(0), transfer) {
        Ok(()) => Outcome::Blocked(PendingCall::Transfer(operations)),
        Err(error) => answer(failures::of_transfer(error)),
    }
}
