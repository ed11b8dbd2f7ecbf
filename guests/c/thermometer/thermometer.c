// Reads an LM75, or a sensor that is like one, once a second. Needs the capability i2c and, of the bus i2c1, the address 0x48.

#include <wasmbed.h>

enum { BUS = 1, ADDRESS = 0x48, TEMPERATURE = 0, PAUSE_MS = 1000, DIGITS_MAX = 10 };

// The temperature in thousandths of a degree, from eleven bits in steps of an eighth. `error` is what the transfer came to.
static int32_t read_temperature(int *error) {
    uint8_t pointer = TEMPERATURE;
    uint8_t bytes[2] = { 0 };
    const struct wasmbed_i2c_operation operations[] = {
        { WASMBED_I2C_WRITE, &pointer, sizeof pointer },
        { WASMBED_I2C_READ, bytes, sizeof bytes },
    };
    *error = wasmbed_i2c_transfer(BUS, ADDRESS, operations, 2);
    int16_t eighths = (int16_t)(bytes[0] << 8 | bytes[1]) >> 5;
    return eighths * 125;
}

static size_t put_text(char *line, size_t length, const char *text) {
    for (; *text != '\0'; text++) {
        line[length++] = *text;
    }
    return length;
}

static size_t put_number(char *line, size_t length, int32_t number) {
    uint32_t rest = number < 0 ? -(uint32_t)number : (uint32_t)number;
    if (number < 0) {
        line[length++] = '-';
    }
    uint32_t divisor = 1;
    while (rest / divisor >= 10) {
        divisor *= 10;
    }
    for (; divisor > 0; divisor /= 10) {
        line[length++] = (char)('0' + rest / divisor % 10);
    }
    return length;
}

static void thermometer(void) {
    char line[sizeof "sensor: error - m°C" + DIGITS_MAX];
    for (;;) {
        int error;
        int32_t temperature = read_temperature(&error);
        size_t length;
        if (error < 0) {
            length = put_number(line, put_text(line, 0, "sensor: error "), error);
        } else {
            length = put_text(line, put_number(line, 0, temperature), " m°C");
        }
        wasmbed_log(line, length);
        wasmbed_wait(PAUSE_MS);
    }
}

WASMBED_ENTRY(thermometer)
