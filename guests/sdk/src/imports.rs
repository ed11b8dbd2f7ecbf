//! The imports as they are. Numbers below zero are error numbers of WASI preview 1, negated.

/// A part of a transfer, as it stands in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// 0 writes, 1 reads, 2 exchanges in place, 3 pauses for as many nanoseconds as its length says.
    pub(crate) kind: u32,
    pub(crate) bytes: *const u8,
    pub(crate) length: usize,
}

#[link(wasm_import_module = "wasmbed")]
unsafe extern "C" {
    pub(crate) fn log(text: *const u8, length: usize);
    pub(crate) safe fn wait(milliseconds: u32);
    pub(crate) safe fn now() -> i64;
    pub(crate) safe fn uptime() -> i64;
    pub(crate) fn key_value_get(key: *const u8, key_length: usize, value: *mut u8, room: usize) -> i32;
    pub(crate) fn key_value_put(key: *const u8, key_length: usize, value: *const u8, length: usize) -> i32;
    pub(crate) fn key_value_delete(key: *const u8, key_length: usize) -> i32;
    pub(crate) fn publish(
        topic: *const u8,
        topic_length: usize,
        payload: *const u8,
        length: usize,
        flags: u32,
    ) -> i32;
    pub(crate) fn receive(message: *mut u8, room: usize) -> i32;
    pub(crate) fn setting_get(name: *const u8, name_length: usize, value: *mut u8, room: usize) -> i32;
    pub(crate) safe fn gpio_read(pin: u32) -> i32;
    pub(crate) safe fn gpio_write(pin: u32, level: u32) -> i32;
    pub(crate) safe fn gpio_watch(pin: u32, edges: u32) -> i32;
    pub(crate) safe fn gpio_edges(pin: u32) -> i32;
    pub(crate) fn i2c_transfer(bus: u32, address: u32, operations: *const Operation, count: usize) -> i32;
    pub(crate) fn spi_transfer(bus: u32, chip_select: u32, operations: *const Operation, count: usize)
    -> i32;
    pub(crate) fn uart_read(uart: u32, timeout_ms: u32, buffer: *mut u8, room: usize) -> i32;
    pub(crate) fn uart_write(uart: u32, bytes: *const u8, length: usize, timeout_ms: u32) -> i32;
    pub(crate) fn sensor_read(sensor: u32, milli_units: *mut i32) -> i32;
}
