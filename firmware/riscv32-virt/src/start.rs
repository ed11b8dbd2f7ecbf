//! From the reset vector to `main`: registers, sections, the guard below the stack.

use core::arch::global_asm;

use wasmbed_board::data::GUARD_BYTES;

global_asm!(
    ".section .init, \"ax\"",
    ".global _start",
    "_start:",
    ".option push",
    ".option norelax",
    "la gp, __global_pointer$",
    ".option pop",
    "csrw mie, zero",
    "csrci mstatus, 8",
    "la t0, _trap",
    "csrw mtvec, t0",
    "la sp, _stack_start",
    // Initial values of statics.
    "la t0, _data_start",
    "la t1, _data_end",
    "la t2, _data_load",
    "1: bgeu t0, t1, 2f",
    "lw t3, 0(t2)",
    "sw t3, 0(t0)",
    "addi t0, t0, 4",
    "addi t2, t2, 4",
    "j 1b",
    "2: la t0, _bss_start",
    "la t1, _bss_end",
    "3: bgeu t0, t1, 4f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 3b",
    // Physical memory protection, entry 0: the guard, no access, locked, so that it holds for machine mode (privileged
    // architecture 1.12, 3.7.1). NAPOT: the address shifted by 2 with the low bits set, 9 ones for 4 KiB.
    "4: la t0, _guard",
    "srli t0, t0, 2",
    "ori t0, t0, {guard_ones}",
    "csrw pmpaddr0, t0",
    "li t0, 0x98",
    "csrw pmpcfg0, t0",
    "j main",
    // Every trap ends the run: interrupts are let through only as the watchdog. The stack may be what is broken.
    ".align 2",
    "_trap:",
    "la sp, _stack_start",
    "csrr a0, mcause",
    "csrr a1, mepc",
    "csrr a2, mtval",
    "j trapped",
    guard_ones = const GUARD_BYTES / 8 - 1,
);
