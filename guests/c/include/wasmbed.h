// What an application in C needs to run on a Wasmbed device: the imports of docs/host-interface.md.
//
// Build it with
//   clang --target=wasm32 -Os -nostdlib -I guests/c/include -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=2048 app.c -o app.wasm
// and export the entry with WASMBED_ENTRY(main_function).
//
// Functions that return int answer 0 or more for success and, below zero, an error number of WASI preview 1, negated.

#ifndef WASMBED_H
#define WASMBED_H

#include <stddef.h>
#include <stdint.h>

#define WASMBED_IMPORT(name) __attribute__((import_module("wasmbed"), import_name(#name)))

// Names the function that a device starts: void f(void).
#define WASMBED_ENTRY(function) \
    __attribute__((export_name("run"))) void wasmbed_run(void) { \
        function(); \
    }

enum {
    WASMBED_ARBITRATION_LOST = -6, // the data line of a bus was pulled by another
    WASMBED_BUSY = -10,      // another application has the UART
    WASMBED_INVALID = -28,   // a key, a value or a number outside its bounds
    WASMBED_FAILED = -29,    // storage, pin or sensor is there and did not work; a bus does not work
    WASMBED_NOT_FOUND = -44, // no such key, pin, sensor or bus, or the bus was not granted
    WASMBED_NO_SPACE = -51,  // no room left for key-value data
    WASMBED_NO_DEVICE = -60, // no device has the address
    WASMBED_OVERRUN = -61,   // the controller of the bus, or the UART, lost bytes
    WASMBED_NOT_TAKEN = -65, // the device did not take a byte; what came through a UART was none
    WASMBED_TIMEOUT = -73,   // a bus took too long; a UART had nothing in time
    WASMBED_DENIED = -76,    // the address, the chip select, or the pin or its edges, were not granted
};

// One line of the application's log; more than 256 bytes become several lines.
WASMBED_IMPORT(log) void wasmbed_log(const char *text, size_t length);

// Sleeps; 0 counts as 1. The processor time that an application may use starts anew after each wait.
WASMBED_IMPORT(wait) void wasmbed_wait(uint32_t milliseconds);

// Milliseconds since 1970 in UTC, -1 while the device doesn't know them.
WASMBED_IMPORT(now) int64_t wasmbed_now(void);

// Milliseconds of a monotonic clock that began at the device's start or earlier.
WASMBED_IMPORT(uptime) int64_t wasmbed_uptime(void);

// Data that outlives a restart; needs the capability `key-value`. Keys have 1 to 64 bytes, values at most 1,024.
// get answers the length of the whole value, of which it wrote as much as there was room for.
WASMBED_IMPORT(key_value_get) int wasmbed_key_value_get(const char *key, size_t key_length, void *value, size_t room);
WASMBED_IMPORT(key_value_put) int wasmbed_key_value_put(const char *key, size_t key_length, const void *value, size_t length);
WASMBED_IMPORT(key_value_delete) int wasmbed_key_value_delete(const char *key, size_t key_length);

// Messages; need the capability `messages` and topics that the Application declares. A payload has at most 1,024 bytes. Answers
// -6 if there is no room, or the topic's rate is used up; with WASMBED_DROP_OLDEST the oldest messages make room.
#define WASMBED_DROP_OLDEST 1
WASMBED_IMPORT(publish) int wasmbed_publish(const char *topic, size_t topic_length, const void *payload, size_t length, uint32_t flags);

// Takes the oldest message that came in and answers its length, or -6 if there is none. It is a byte for its source (0 an operator,
// 1 a broker, 255 unknown), a byte for the length of its topic, the topic, the payload. One that is longer than the room stays.
#define WASMBED_RECEIVED_BYTES_MAX 1090
WASMBED_IMPORT(receive) int wasmbed_receive(void *message, size_t room);

// Settings. WASMBED_SETTINGS declares those of the module, a line of the string for each: "NAME TYPE [RANGE] [reported] = DEFAULT\n",
// for example WASMBED_SETTINGS("interval_ms int 100..60000 reported = 1000\nlabel text ..16 = none\n"), outside of functions. A type is
// `bool`, `int` with the range MIN..MAX, or `text` with the range ..BYTES.
// get answers the length of the value, of which it wrote as much as there was room for: one byte of a bool, an int64_t of an int,
// the bytes of a text, at most 64. A wait ends when a setting changed since the last call.
#define WASMBED_SETTINGS(lines) __asm__(".section .custom_section.wasmbed.settings,\"\",@\n.ascii " #lines "\n.text\n")
WASMBED_IMPORT(setting_get) int wasmbed_setting_get(const char *name, size_t name_length, void *value, size_t room);

// Pins; need the capability `gpio`. A level is 0 or 1.
WASMBED_IMPORT(gpio_read) int wasmbed_gpio_read(uint32_t pin);
WASMBED_IMPORT(gpio_write) int wasmbed_gpio_write(uint32_t pin, uint32_t level);

// Edges of a pin that is in `config.peripherals.gpio`: after watch they are counted and end waits, edges answers how many there were
// since it was called last. 0 watches none any more.
enum { WASMBED_EDGES_RISING = 1, WASMBED_EDGES_FALLING = 2 };
WASMBED_IMPORT(gpio_watch) int wasmbed_gpio_watch(uint32_t pin, uint32_t edges);
WASMBED_IMPORT(gpio_edges) int wasmbed_gpio_edges(uint32_t pin);

// Sensors, in thousandths of their unit; need the capability `sensor`.
WASMBED_IMPORT(sensor_read) int wasmbed_sensor_read(uint32_t sensor, int32_t *milli_units);

// I2C buses; need the capability `i2c`, and the bus and the address in `config.peripherals.i2c`. A transfer is one start, 1 to 16
// operations of at most 256 bytes together, and one stop; between operations of different kinds is another start. It waits until it
// is over, and answers 0. A read has at least one byte; a write of none asks whether somebody is there.
enum { WASMBED_I2C_WRITE = 0, WASMBED_I2C_READ = 1 };
struct wasmbed_i2c_operation {
    uint32_t kind;
    void *bytes; // not changed by a write
    size_t length;
};
WASMBED_IMPORT(i2c_transfer) int wasmbed_i2c_transfer(
    uint32_t bus, uint32_t address, const struct wasmbed_i2c_operation *operations, size_t count);

// Chips on SPI buses; need the capability `spi`, and the chip select in `config.peripherals.spi`. The chip is selected during 1 to 16
// operations of at most 256 bytes together; pauses take 10 ms together at most. It waits until they are over, and answers 0. An
// exchange writes its bytes and replaces each by what came for it. A chip that is not there can't be told from one that says nothing.
enum { WASMBED_SPI_WRITE = 0, WASMBED_SPI_READ = 1, WASMBED_SPI_EXCHANGE = 2, WASMBED_SPI_PAUSE = 3 };
struct wasmbed_spi_operation {
    uint32_t kind;
    void *bytes;   // not changed by a write, not looked at by a pause
    size_t length; // of a pause: nanoseconds
};
WASMBED_IMPORT(spi_transfer) int wasmbed_spi_transfer(
    uint32_t bus, uint32_t chip_select, const struct wasmbed_spi_operation *operations, size_t count);

// UARTs; need the capability `uart`, and the UART in `config.peripherals.uart`. A UART belongs to the first application that uses it,
// until that ends. read waits for at least one byte, for so many milliseconds at most, and answers how many came; write waits until
// the device has taken all bytes, and answers how many it took in time, or with none until those before are out. Both move 256 bytes
// at most, and answer WASMBED_TIMEOUT if there were none in time. WASMBED_OVERRUN stands where bytes were lost.
#define WASMBED_FOREVER UINT32_MAX
WASMBED_IMPORT(uart_read) int wasmbed_uart_read(uint32_t uart, uint32_t milliseconds, void *buffer, size_t room);
WASMBED_IMPORT(uart_write) int wasmbed_uart_write(uint32_t uart, const void *bytes, size_t length, uint32_t milliseconds);

#endif
