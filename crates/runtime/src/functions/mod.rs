//! The host functions themselves, on top of the engine and of the device's [`Host`].
//!
//! ```text
//! errno, log, strings <- failures, operations <- pending <- context <- gpio, transfer, uart, native, wasi <- dispatch
//! ```

mod context;
mod errno;
mod failures;
mod gpio;
mod log;
mod native;
mod operations;
mod pending;
mod strings;
mod transfer;
mod uart;
mod wasi;

pub(crate) use context::{Asked, Context, Outcome};
pub(crate) use log::LogLines;
pub(crate) use pending::PendingCall;
pub use strings::ARGUMENT_BYTES_MAX;
pub(crate) use strings::Strings;

use crate::engine::{Engine, HostCall};
use crate::host::Host;
use crate::scan::interface::Call;

/// Calls the host function that an application is waiting for.
pub(crate) fn dispatch<E: Engine, H: Host + ?Sized>(
    context: &mut Context<'_, E, H>,
    call: &HostCall,
) -> Outcome {
    let arguments = &call.arguments;
    match call.function.call() {
        Call::Log => native::log(context, arguments),
        Call::Wait => native::wait(context, arguments),
        Call::Now => native::now(context),
        Call::Uptime => native::uptime(context),
        Call::KeyValueGet => native::key_value_get(context, arguments),
        Call::KeyValuePut => native::key_value_put(context, arguments),
        Call::KeyValueDelete => native::key_value_delete(context, arguments),
        Call::GpioEdges => gpio::edges(context, arguments),
        Call::GpioRead => gpio::read(context, arguments),
        Call::GpioWatch => gpio::watch(context, arguments),
        Call::GpioWrite => gpio::write(context, arguments),
        Call::Publish => native::publish(context, arguments),
        Call::Receive => native::receive(context, arguments),
        Call::SettingGet => native::setting_get(context, arguments),
        Call::SensorRead => native::sensor_read(context, arguments),
        Call::I2cTransfer => transfer::i2c(context, arguments),
        Call::SpiTransfer => transfer::spi(context, arguments),
        Call::UartRead => uart::read(context, arguments),
        Call::UartWrite => uart::write(context, arguments),
        Call::Wasi(function) => wasi::call(context, function, arguments),
        Call::NotSupported => wasi::not_supported(call.function),
    }
}
