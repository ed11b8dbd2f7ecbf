//! The table of host functions: the scan resolves imports by it, engines link by it, the sandbox dispatches by it.

use core::fmt;

use super::capability::Capability;
use super::value::Signature;
use super::value::ValueType::{self, I32, I64};

/// Parameters of a host function, the most that any engine passes on.
pub const ARGUMENTS_MAX: usize = 9;

/// What a host function does; the sandbox's dispatch has one arm for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its function")]
pub enum Call {
    GpioEdges,
    GpioRead,
    GpioWatch,
    GpioWrite,
    I2cTransfer,
    KeyValueDelete,
    KeyValueGet,
    KeyValuePut,
    Log,
    Now,
    Publish,
    Receive,
    SensorRead,
    SettingGet,
    SpiTransfer,
    UartRead,
    UartWrite,
    Uptime,
    Wait,
    Wasi(WasiCall),
    /// Answers NOSYS (52).
    NotSupported,
}

/// The functions of WASI preview 1 that do more than answer NOSYS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its function")]
pub enum WasiCall {
    ArgsGet,
    ArgsSizesGet,
    EnvironGet,
    EnvironSizesGet,
    ClockResGet,
    ClockTimeGet,
    FdClose,
    FdFdstatGet,
    FdPread,
    FdPrestatDirName,
    FdPrestatGet,
    FdPwrite,
    FdRead,
    FdSeek,
    FdTell,
    FdWrite,
    PollOneoff,
    ProcExit,
    RandomGet,
    SchedYield,
}

/// One host function.
#[derive(Debug, PartialEq, Eq)]
pub struct HostFunction {
    module: &'static str,
    name: &'static str,
    params: &'static [ValueType],
    results: &'static [ValueType],
    capability: Option<Capability>,
    call: Call,
}

impl HostFunction {
    /// A function of this name and type that answers 52, "not supported". For tables of a tool's own.
    pub const fn not_supported(
        module: &'static str,
        name: &'static str,
        params: &'static [ValueType],
        results: &'static [ValueType],
    ) -> HostFunction {
        HostFunction { module, name, params, results, capability: None, call: Call::NotSupported }
    }

    /// The import module, for example `wasmbed`.
    pub fn module(&self) -> &'static str {
        self.module
    }

    /// The name within the import module.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Types of its parameters.
    pub fn params(&self) -> &'static [ValueType] {
        self.params
    }

    /// Type of its result: none or one.
    pub fn results(&self) -> &'static [ValueType] {
        self.results
    }

    /// The capability that a program needs to import it.
    pub fn capability(&self) -> Option<Capability> {
        self.capability
    }

    /// Whether it is there only to be imported, and answers NOSYS (52).
    pub fn is_stub(&self) -> bool {
        self.call == Call::NotSupported
    }

    /// What the sandbox does when it is called.
    pub fn call(&self) -> Call {
        self.call
    }
}

impl fmt::Display for HostFunction {
    /// `wasmbed.gpio_write (i32, i32) -> i32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", self.module, self.name, Signature(self.params, self.results))
    }
}

/// Every host function, by module and name, ascending.
pub fn host_functions() -> &'static [HostFunction] {
    TABLE
}

const fn wasi(
    name: &'static str,
    params: &'static [ValueType],
    results: &'static [ValueType],
    call: Call,
) -> HostFunction {
    HostFunction { module: "wasi_snapshot_preview1", name, params, results, capability: None, call }
}

const fn native(
    name: &'static str,
    params: &'static [ValueType],
    results: &'static [ValueType],
    capability: Option<Capability>,
    call: Call,
) -> HostFunction {
    HostFunction { module: "wasmbed", name, params, results, capability, call }
}

static TABLE: &[HostFunction] = &[
    wasi("args_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::ArgsGet)),
    wasi("args_sizes_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::ArgsSizesGet)),
    wasi("clock_res_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::ClockResGet)),
    wasi("clock_time_get", &[I32, I64, I32], &[I32], Call::Wasi(WasiCall::ClockTimeGet)),
    wasi("environ_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::EnvironGet)),
    wasi("environ_sizes_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::EnvironSizesGet)),
    wasi("fd_advise", &[I32, I64, I64, I32], &[I32], Call::NotSupported),
    wasi("fd_allocate", &[I32, I64, I64], &[I32], Call::NotSupported),
    wasi("fd_close", &[I32], &[I32], Call::Wasi(WasiCall::FdClose)),
    wasi("fd_datasync", &[I32], &[I32], Call::NotSupported),
    wasi("fd_fdstat_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::FdFdstatGet)),
    wasi("fd_fdstat_set_flags", &[I32, I32], &[I32], Call::NotSupported),
    wasi("fd_fdstat_set_rights", &[I32, I64, I64], &[I32], Call::NotSupported),
    wasi("fd_filestat_get", &[I32, I32], &[I32], Call::NotSupported),
    wasi("fd_filestat_set_size", &[I32, I64], &[I32], Call::NotSupported),
    wasi("fd_filestat_set_times", &[I32, I64, I64, I32], &[I32], Call::NotSupported),
    wasi("fd_pread", &[I32, I32, I32, I64, I32], &[I32], Call::Wasi(WasiCall::FdPread)),
    wasi("fd_prestat_dir_name", &[I32, I32, I32], &[I32], Call::Wasi(WasiCall::FdPrestatDirName)),
    wasi("fd_prestat_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::FdPrestatGet)),
    wasi("fd_pwrite", &[I32, I32, I32, I64, I32], &[I32], Call::Wasi(WasiCall::FdPwrite)),
    wasi("fd_read", &[I32, I32, I32, I32], &[I32], Call::Wasi(WasiCall::FdRead)),
    wasi("fd_readdir", &[I32, I32, I32, I64, I32], &[I32], Call::NotSupported),
    wasi("fd_renumber", &[I32, I32], &[I32], Call::NotSupported),
    wasi("fd_seek", &[I32, I64, I32, I32], &[I32], Call::Wasi(WasiCall::FdSeek)),
    wasi("fd_sync", &[I32], &[I32], Call::NotSupported),
    wasi("fd_tell", &[I32, I32], &[I32], Call::Wasi(WasiCall::FdTell)),
    wasi("fd_write", &[I32, I32, I32, I32], &[I32], Call::Wasi(WasiCall::FdWrite)),
    wasi("path_create_directory", &[I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_filestat_get", &[I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_filestat_set_times", &[I32, I32, I32, I32, I64, I64, I32], &[I32], Call::NotSupported),
    wasi("path_link", &[I32, I32, I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_open", &[I32, I32, I32, I32, I32, I64, I64, I32, I32], &[I32], Call::NotSupported),
    wasi("path_readlink", &[I32, I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_remove_directory", &[I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_rename", &[I32, I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_symlink", &[I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("path_unlink_file", &[I32, I32, I32], &[I32], Call::NotSupported),
    wasi("poll_oneoff", &[I32, I32, I32, I32], &[I32], Call::Wasi(WasiCall::PollOneoff)),
    wasi("proc_exit", &[I32], &[], Call::Wasi(WasiCall::ProcExit)),
    wasi("proc_raise", &[I32], &[I32], Call::NotSupported),
    wasi("random_get", &[I32, I32], &[I32], Call::Wasi(WasiCall::RandomGet)),
    wasi("sched_yield", &[], &[I32], Call::Wasi(WasiCall::SchedYield)),
    wasi("sock_accept", &[I32, I32, I32], &[I32], Call::NotSupported),
    wasi("sock_recv", &[I32, I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("sock_send", &[I32, I32, I32, I32, I32], &[I32], Call::NotSupported),
    wasi("sock_shutdown", &[I32, I32], &[I32], Call::NotSupported),
    native("gpio_edges", &[I32], &[I32], Some(Capability::Gpio), Call::GpioEdges),
    native("gpio_read", &[I32], &[I32], Some(Capability::Gpio), Call::GpioRead),
    native("gpio_watch", &[I32, I32], &[I32], Some(Capability::Gpio), Call::GpioWatch),
    native("gpio_write", &[I32, I32], &[I32], Some(Capability::Gpio), Call::GpioWrite),
    native("i2c_transfer", &[I32, I32, I32, I32], &[I32], Some(Capability::I2c), Call::I2cTransfer),
    native("key_value_delete", &[I32, I32], &[I32], Some(Capability::KeyValue), Call::KeyValueDelete),
    native("key_value_get", &[I32, I32, I32, I32], &[I32], Some(Capability::KeyValue), Call::KeyValueGet),
    native("key_value_put", &[I32, I32, I32, I32], &[I32], Some(Capability::KeyValue), Call::KeyValuePut),
    native("log", &[I32, I32], &[], None, Call::Log),
    native("now", &[], &[I64], None, Call::Now),
    native("publish", &[I32, I32, I32, I32, I32], &[I32], Some(Capability::Messages), Call::Publish),
    native("receive", &[I32, I32], &[I32], Some(Capability::Messages), Call::Receive),
    native("sensor_read", &[I32, I32], &[I32], Some(Capability::Sensor), Call::SensorRead),
    native("setting_get", &[I32, I32, I32, I32], &[I32], None, Call::SettingGet),
    native("spi_transfer", &[I32, I32, I32, I32], &[I32], Some(Capability::Spi), Call::SpiTransfer),
    native("uart_read", &[I32, I32, I32, I32], &[I32], Some(Capability::Uart), Call::UartRead),
    native("uart_write", &[I32, I32, I32, I32], &[I32], Some(Capability::Uart), Call::UartWrite),
    native("uptime", &[], &[I64], None, Call::Uptime),
    native("wait", &[I32], &[], None, Call::Wait),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_order_and_within_what_engines_pass_on() {
        let keys: std::vec::Vec<_> = TABLE.iter().map(|function| (function.module, function.name)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(keys, sorted);
        for function in TABLE {
            assert!(function.params.len() <= ARGUMENTS_MAX, "{function}");
            assert!(function.results.len() <= 1, "{function}");
            assert!(function.name.len() <= 31 && function.module.len() <= 31, "{function}");
        }
    }
}
