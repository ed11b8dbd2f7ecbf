// Built with clang and wasi-libc: one line on standard output, then exit code 7.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int main(void) {
    // Some work that brings in the allocator, calls through pointers, and formatting of floats.
    const char *words[] = {"the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"};
    size_t count = sizeof words / sizeof words[0];
    qsort(words, count, sizeof words[0], compare);
    char *joined = calloc(1, 64);
    for (size_t i = 0; i < count; i++) {
        strcat(joined, words[i]);
    }
    volatile double pi = 22.0;
    printf("hello from c: %zu letters, first %s, %.3f\n", strlen(joined), words[0], pi / 7.0);
    free(joined);
    return 7;
}
