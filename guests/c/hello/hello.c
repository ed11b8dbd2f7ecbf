// Says hello, and then every ten seconds how often it has done so.

#include <wasmbed.h>

enum { PAUSE_MS = 10000, DIGITS_MAX = 10 };

static void log_text(const char *text) {
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    wasmbed_log(text, length);
}

// "hello again, NUMBER", without a C library.
static void log_again(uint32_t number) {
    static const char prefix[] = "hello again, ";
    char line[sizeof prefix - 1 + DIGITS_MAX];
    size_t length = 0;
    for (; prefix[length] != '\0'; length++) {
        line[length] = prefix[length];
    }
    uint32_t divisor = 1;
    while (number / divisor >= 10) {
        divisor *= 10;
    }
    for (; divisor > 0; divisor /= 10) {
        line[length++] = (char)('0' + number / divisor % 10);
    }
    wasmbed_log(line, length);
}

static void hello(void) {
    log_text("hello from C");
    for (uint32_t number = 1;; number++) {
        wasmbed_wait(PAUSE_MS);
        log_again(number);
    }
}

WASMBED_ENTRY(hello)
