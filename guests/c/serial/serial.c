// Asks a modem, or whatever answers lines, once a second over uart0, and logs its answer. Needs the capability uart, and that UART.

#include <wasmbed.h>

enum { UART = 0, ANSWER_MS = 500, PAUSE_MS = 1000, ANSWER_BYTES_MAX = 64 };

// The answer up to its line feed, without its end; below zero why there is none.
static int ask(const char *question, size_t length, char *answer) {
    int result = wasmbed_uart_write(UART, question, length, ANSWER_MS);
    int count = 0;
    while (result >= 0 && count < ANSWER_BYTES_MAX) {
        char byte;
        result = wasmbed_uart_read(UART, ANSWER_MS, &byte, 1);
        if (result >= 0 && byte == '\n') {
            break;
        }
        if (result >= 0 && byte != '\r') {
            answer[count++] = byte;
        }
    }
    return result < 0 ? result : count;
}

static void serial(void) {
    char answer[ANSWER_BYTES_MAX];
    for (;;) {
        int count = ask("AT\r\n", 4, answer);
        if (count == WASMBED_TIMEOUT) {
            wasmbed_log("no answer", 9);
        } else if (count < 0) {
            wasmbed_log("no modem", 8);
        } else {
            wasmbed_log(answer, (size_t)count);
        }
        wasmbed_wait(PAUSE_MS);
    }
}

WASMBED_ENTRY(serial)
