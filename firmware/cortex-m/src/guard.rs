//! A stack that can't overflow unseen. On Armv7-M the memory below it is nobody's, by the memory protection unit (Armv7-M, B3.5); Armv8-M
//! has a register with the stack's limit (Armv8-M, MSPLIM).

use cortex_m::peripheral::MPU;

unsafe extern "C" {
    #[cfg(not(armv8m))]
    static _guard: u32;
    #[cfg(armv8m)]
    static _stack_end: u32;
}

#[cfg(not(armv8m))]
mod unit {
    use wasmbed_board_data::GUARD_BYTES;

    /// RASR: a region of 2^(n + 1) bytes, not to be executed, accessible to nobody.
    pub(super) const RASR: u32 = 1 << 28 | (GUARD_BYTES.ilog2() - 1) << 1 | 1;
    /// CTRL: all other memory is as without the unit; handlers of faults do without it.
    pub(super) const CTRL: u32 = 1 << 2 | 1;
}

/// Guards the stack from now on. The memory map has the guard below the stack, at a multiple of its size.
#[cfg(not(armv8m))]
pub fn arm(mpu: &mut MPU) {
    let guard = &raw const _guard as u32;
    // SAFETY: region 0 is used for nothing else.
    unsafe { mpu.rnr.write(0) };
    // SAFETY: nothing of the program lies in the guard.
    unsafe { mpu.rbar.write(guard) };
    // SAFETY: as above.
    unsafe { mpu.rasr.write(unit::RASR) };
    // SAFETY: what is not the guard stays as it is.
    unsafe { mpu.ctrl.write(unit::CTRL) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// Guards the stack from now on. Fault handlers start on a fresh stack, above the limit.
#[cfg(armv8m)]
pub fn arm(_mpu: &mut MPU) {
    // SAFETY: the stack pointer is above it, and nothing that ever runs has its stack below.
    unsafe { cortex_m::register::msplim::write(&raw const _stack_end as u32) };
    cortex_m::asm::isb();
}
