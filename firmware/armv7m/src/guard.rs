//! A stack that can't overflow unseen: the memory below it is nobody's, by the memory protection unit (Armv7-M, B3.5).

use cortex_m::peripheral::MPU;

unsafe extern "C" {
    static _stack_end: u32;
}

/// Bytes below the stack's end that nobody may touch: more than any one function takes.
pub const GUARD_BYTES: u32 = 4_096;

/// RASR: a region of 2^(n + 1) bytes, not to be executed, accessible to nobody.
const RASR_EXECUTE_NEVER: u32 = 1 << 28;
const RASR_SIZE: u32 = (GUARD_BYTES.ilog2() - 1) << 1;
const RASR_ENABLE: u32 = 1;
/// CTRL: all other memory is as without the unit; handlers of faults do without it.
const CTRL_PRIVILEGED_DEFAULT: u32 = 1 << 2;
const CTRL_ENABLE: u32 = 1;

/// Guards the stack from now on. The linker script leaves [`GUARD_BYTES`] below `_stack_end`, which is a multiple of them.
pub fn arm(mpu: &mut MPU) {
    let guard = (&raw const _stack_end as u32).wrapping_sub(GUARD_BYTES);
    // SAFETY: region 0 is used for nothing else.
    unsafe { mpu.rnr.write(0) };
    // SAFETY: nothing of the program lies in the guard.
    unsafe { mpu.rbar.write(guard) };
    // SAFETY: as above.
    unsafe { mpu.rasr.write(RASR_EXECUTE_NEVER | RASR_SIZE | RASR_ENABLE) };
    // SAFETY: what is not the guard stays as it is.
    unsafe { mpu.ctrl.write(CTRL_PRIVILEGED_DEFAULT | CTRL_ENABLE) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}
