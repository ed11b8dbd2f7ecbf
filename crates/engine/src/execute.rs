//! The executor: one match in a loop, its state in registers.
//!
//! `unsafe` is behind the accessors in [`access`]. What they rely on, the translator upholds:
//! * `pc` stands at the number of an operator, and all its operands follow;
//! * a slot lies within the frame of its function, and a call checks the whole frame against the end of the call stack;
//! * every path ends in a terminator, and every branch arrives at an operator of the same function;
//! * a global's place is one that its module has.
//!
//! Addresses of linear memory are checked here: the translator hands out a `k` (offset and size of the access) that is
//! at most the memory's least size, so that `memory_bytes - k` can't be less than zero.
//!
//! The checked executor is the same code with `CHECKED`: each of those accesses is compared with its bounds before it is
//! made, and [`exit::INTERNAL`] says where one was not within them.
#![allow(unsafe_code)]

use crate::generated::RARE_LENGTHS;
use crate::machine::{FLOAT, Machine, exit, header};
use crate::rare;

/// Fuel that a call costs beside the bytes of the callee's code.
const CALL: i32 = 16;

mod access {
    //! Loads and stores that need no alignment. RV32 traps on one that is not aligned, or takes a hundred times as long,
    //! so there the usual case is an aligned access; volatile, since the compiler merges both cases into bytes otherwise.

    const ALIGNS: bool = cfg!(any(target_arch = "riscv32", target_arch = "riscv64"));

    macro_rules! access {
        ($load:ident, $store:ident, $type:ty) => {
            /// # Safety
            /// `p` is valid for reads of this size.
            #[inline(always)]
            pub(super) unsafe fn $load(p: *const u8) -> $type {
                let p = p.cast::<$type>();
                // SAFETY: the caller's.
                let value =
                    unsafe { if ALIGNS && p.is_aligned() { p.read_volatile() } else { p.read_unaligned() } };
                <$type>::from_le(value)
            }

            /// # Safety
            /// `p` is valid for writes of this size.
            #[inline(always)]
            pub(super) unsafe fn $store(p: *mut u8, value: $type) {
                let p = p.cast::<$type>();
                let value = value.to_le();
                // SAFETY: the caller's.
                unsafe {
                    if ALIGNS && p.is_aligned() { p.write_volatile(value) } else { p.write_unaligned(value) }
                }
            }
        };
    }

    access!(load16, store16, u16);
    access!(load32, store32, u32);

    /// # Safety
    /// `p` is valid for reads of 8 bytes.
    #[inline(always)]
    pub(super) unsafe fn load64(p: *const u8) -> u64 {
        // SAFETY: the caller's.
        unsafe { u64::from(load32(p)) | u64::from(load32(p.add(4))) << 32 }
    }

    /// # Safety
    /// `p` is valid for writes of 8 bytes.
    #[inline(always)]
    pub(super) unsafe fn store64(p: *mut u8, value: u64) {
        // SAFETY: the caller's.
        unsafe {
            store32(p, value as u32);
            store32(p.add(4), (value >> 32) as u32);
        }
    }
}

/// The same value, of which the compiler knows nothing: what is computed from it stays in the arm of the match that needs
/// it. Otherwise it moves to where all arms come together, and costs every operator instructions.
#[inline(always)]
fn here<T>(value: T) -> T {
    #[cfg(all(
        any(target_arch = "riscv32", target_arch = "arm", target_arch = "x86_64", target_arch = "aarch64"),
        not(miri)
    ))]
    {
        const { assert!(size_of::<T>() == size_of::<usize>()) }
        let mut value = value;
        let register = (&raw mut value).cast::<usize>();
        // SAFETY: the value is one register wide, and there is no instruction.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) * register, options(nomem, nostack, preserves_flags));
        }
        return value;
    }
    #[allow(unreachable_code)]
    value
}

/// Runs until something has to be said.
///
/// # Safety
/// The machine is at an operator of code that the translator wrote, and all of its pointers are those of one region.
#[inline(never)]
#[allow(clippy::cognitive_complexity, clippy::too_many_lines)]
#[allow(clippy::needless_late_init, clippy::identity_op, clippy::undocumented_unsafe_blocks)]
pub(crate) unsafe fn run<const CHECKED: bool>(machine: &mut Machine) -> u32 {
    let mut pc = machine.pc;
    let mut frame = machine.frame;
    let mut fuel = machine.fuel;
    let mut acc: u32 = 0;
    let memory = machine.memory;
    let mut memory_bytes = machine.memory_bytes;

    macro_rules! exit {
        ($why:expr) => {{
            machine.pc = pc;
            machine.frame = frame;
            machine.fuel = fuel;
            return $why;
        }};
    }
    macro_rules! promised {
        ($holds:expr) => {
            if CHECKED && !$holds {
                exit!(exit::INTERNAL)
            }
        };
    }
    macro_rules! advance {
        ($words:expr) => {
            pc = here(unsafe { pc.add($words) })
        };
    }
    macro_rules! word {
        ($at:expr) => {{
            let p = pc.wrapping_add($at);
            promised!(machine.is_code(p));
            usize::from(unsafe { *p })
        }};
    }
    macro_rules! immediate {
        ($at:expr) => {
            word!($at) as u16 as i16 as i32 as u32
        };
    }
    macro_rules! slot_at {
        ($bytes:expr) => {{
            let p = frame.wrapping_add($bytes).cast::<u32>();
            promised!(machine.is_stack(p));
            p
        }};
    }
    macro_rules! slot {
        ($at:expr) => {{
            let p = slot_at!(word!($at));
            unsafe { *p }
        }};
    }
    macro_rules! pair {
        ($at:expr) => {{
            let at = word!($at);
            let (low, high) = (slot_at!(at), slot_at!(at + 4));
            unsafe { u64::from(*low) | u64::from(*high) << 32 }
        }};
    }
    macro_rules! set_at {
        ($bytes:expr, $value:expr) => {{
            let value = $value;
            let p = slot_at!($bytes);
            unsafe { *p = value }
        }};
    }
    macro_rules! set {
        ($at:expr, $value:expr) => {{
            let at = word!($at);
            set_at!(at, $value)
        }};
    }
    macro_rules! set_pair {
        ($at:expr, $value:expr) => {{
            let at = word!($at);
            set_at!(at, $value as u32);
            set_at!(at + 4, ($value >> 32) as u32);
        }};
    }
    macro_rules! set_first {
        ($value:expr) => {
            set_at!(0, $value)
        };
    }
    macro_rules! charge {
        ($fuel:expr) => {
            fuel = fuel.wrapping_sub($fuel)
        };
    }
    macro_rules! skip {
        ($at:expr) => {{
            advance!($at + 1);
            continue;
        }};
    }
    macro_rules! go {
        ($from:expr, $bytes:expr) => {{
            pc = $from.cast::<u8>().wrapping_offset($bytes as isize).cast::<u16>();
        }};
    }
    macro_rules! forward {
        ($at:expr) => {{
            let distance = word!($at) as u16 as i16;
            go!(pc, distance);
            continue;
        }};
    }
    macro_rules! back {
        ($at:expr) => {{
            let distance = word!($at) as u16 as i16;
            go!(pc, distance);
            fuel = fuel.wrapping_add(i32::from(distance));
            if fuel < 0 {
                exit!(exit::FUEL)
            }
            continue;
        }};
    }
    macro_rules! far {
        ($low:expr, $high:expr) => {{
            go!(pc, ($low as u32 | ($high as u32) << 16) as i32);
            continue;
        }};
    }
    macro_rules! back_far {
        ($low:expr, $high:expr) => {{
            let distance = ($low as u32 | ($high as u32) << 16) as i32;
            go!(pc, distance);
            fuel = fuel.wrapping_add(distance);
            if fuel < 0 {
                exit!(exit::FUEL)
            }
            continue;
        }};
    }
    macro_rules! br_table {
        ($index:expr, $count:expr, $at:expr) => {{
            let index = ($index as usize).min($count);
            let distance = word!($at + 1 + index) as u16 as i16;
            go!(pc.wrapping_add($at + 1 + index), distance);
            if distance < 0 {
                fuel = fuel.wrapping_add(i32::from(distance));
                if fuel < 0 {
                    exit!(exit::FUEL)
                }
            }
            continue;
        }};
    }
    macro_rules! br_table_far {
        ($index:expr, $count:expr, $at:expr) => {{
            let entry = $at + 1 + ($index as usize).min($count) * 2;
            let distance = (word!(entry) as u32 | (word!(entry + 1) as u32) << 16) as i32;
            go!(pc.wrapping_add(entry), distance);
            if distance < 0 {
                fuel = fuel.wrapping_add(distance);
                if fuel < 0 {
                    exit!(exit::FUEL)
                }
            }
            continue;
        }};
    }
    macro_rules! head {
        ($head:expr, $at:expr) => {{
            let p = $head.wrapping_add($at);
            promised!(machine.is_code(p));
            usize::from(unsafe { *p })
        }};
    }
    // Checks the callee's frame and enters it: what has to be saved is written, other locals become zero.
    macro_rules! enter {
        ($head:expr, $frame:expr, $return:expr, $caller:expr) => {{
            let head: *const u16 = $head;
            let callee: *mut u8 = $frame;
            if head!(head, header::FRAME) > machine.stack_end as usize - callee as usize {
                exit!(exit::STACK)
            }
            let (return_to, caller) = ($return, $caller);
            frame = callee;
            let save = head!(head, header::SAVE);
            set_at!(save, return_to);
            set_at!(save + 4, caller);
            let mut p = frame.wrapping_add(save + 8).cast::<u32>();
            let end = p.wrapping_add(head!(head, header::ZEROED));
            while p < end {
                promised!(machine.is_stack(p));
                // Volatile: the compiler makes a call of memset of it otherwise, with registers to save in every call.
                unsafe { p.write_volatile(0) }
                p = p.wrapping_add(1);
            }
            pc = head.wrapping_add(header::WORDS);
            charge!(head!(head, header::COST) as i32 + CALL);
            if fuel < 0 {
                exit!(exit::FUEL)
            }
            continue;
        }};
    }
    macro_rules! call {
        ($at:expr, $function:expr, $words:expr) => {{
            let head = unsafe { machine.function($function) };
            let callee = frame.wrapping_add($at);
            enter!(head, callee, machine.save_code(pc.wrapping_add($words)), machine.save_frame(frame))
        }};
    }
    // The function that an element of a table names, once its type is the wanted one.
    macro_rules! element {
        ($index:expr, $kind:expr, $table:expr) => {{
            let (elements, length) = unsafe { machine.table($table) };
            if $index >= length {
                exit!(exit::TABLE)
            }
            let element = unsafe { *elements.add($index as usize) };
            if element == 0 {
                exit!(exit::UNINITIALIZED)
            }
            let head = unsafe { machine.function(element as usize - 1) };
            if head!(head, header::KIND) != $kind {
                exit!(exit::KIND)
            }
            head
        }};
    }
    macro_rules! call_indirect {
        ($index:expr, $at:expr, $kind:expr, $table:expr, $words:expr) => {{
            let head = element!($index, $kind, $table);
            let callee = frame.wrapping_add($at);
            enter!(head, callee, machine.save_code(pc.wrapping_add($words)), machine.save_frame(frame))
        }};
    }
    macro_rules! move_many {
        ($from:expr, $to:expr, $count:expr) => {{
            charge!($count as i32);
            let mut done = 0;
            while done < $count * 4 {
                let p = slot_at!($from + done);
                set_at!($to + done, unsafe { *p });
                done += 4;
            }
        }};
    }
    macro_rules! saved {
        ($save:expr) => {{
            let (code, caller) = (slot_at!($save), slot_at!($save + 4));
            unsafe { (*code, *caller) }
        }};
    }
    macro_rules! tail {
        ($head:expr, $at:expr, $words:expr, $save:expr) => {{
            let head = $head;
            let (return_to, caller) = saved!($save);
            // Before the frame changes, so that a trap finds the caller's.
            if head!(head, header::FRAME) > machine.stack_end as usize - frame as usize {
                exit!(exit::STACK)
            }
            move_many!($at, 0, $words);
            enter!(head, frame, return_to, caller)
        }};
    }
    macro_rules! return_call {
        ($at:expr, $function:expr, $words:expr, $save:expr) => {
            tail!(unsafe { machine.function($function) }, $at, $words, $save)
        };
    }
    macro_rules! return_call_indirect {
        ($index:expr, $at:expr, $kind:expr, $table:expr, $words:expr, $save:expr) => {
            tail!(element!($index, $kind, $table), $at, $words, $save)
        };
    }
    macro_rules! host {
        ($at:expr, $function:expr, $words:expr) => {{
            machine.host_function = $function as u16;
            machine.host_frame = frame.wrapping_add($at);
            advance!($words);
            exit!(exit::HOST)
        }};
    }
    macro_rules! ret {
        ($save:expr) => {{
            let (code, caller) = saved!($save);
            pc = machine.saved_code(code);
            frame = machine.saved_frame(caller);
            continue;
        }};
    }
    macro_rules! return_many {
        ($save:expr, $from:expr, $count:expr) => {{
            let (code, caller) = saved!($save);
            move_many!($from, 0, $count);
            pc = machine.saved_code(code);
            frame = machine.saved_frame(caller);
            continue;
        }};
    }
    macro_rules! address {
        ($address:expr, $size:expr, $k:expr) => {{
            let (address, k) = ($address, $k as usize);
            if address > memory_bytes.wrapping_sub(k as u32) {
                exit!(exit::MEMORY)
            }
            let p = memory.wrapping_add(address as usize).wrapping_add(k - $size);
            promised!(machine.is_memory(p, $size));
            p
        }};
    }
    // The same where the offset is zero.
    macro_rules! address0 {
        ($address:expr, $size:expr) => {{
            let address = $address;
            if address > (here(memory_bytes as usize) as u32).wrapping_sub($size) {
                exit!(exit::MEMORY)
            }
            let p = memory.wrapping_add(address as usize);
            promised!(machine.is_memory(p, $size));
            p
        }};
    }
    macro_rules! fixed {
        ($low:expr, $high:expr, $size:expr) => {{
            let p = memory.wrapping_add($low | $high << 16);
            promised!(machine.is_memory(p, $size));
            p
        }};
    }
    macro_rules! load8 {
        ($p:expr) => {
            unsafe { *$p }
        };
    }
    macro_rules! store8 {
        ($p:expr, $value:expr) => {{
            let value = $value;
            unsafe { *$p = value }
        }};
    }
    macro_rules! global {
        ($at:expr) => {{
            let p = machine.globals.wrapping_add($at);
            promised!(machine.is_global(p));
            unsafe { *p }
        }};
    }
    macro_rules! set_global {
        ($at:expr, $value:expr) => {{
            let value = $value;
            let p = machine.globals.wrapping_add($at);
            promised!(machine.is_global(p));
            unsafe { *p = value }
        }};
    }
    macro_rules! rare {
        ($kind:expr) => {{
            machine.pc = pc;
            machine.frame = frame;
            machine.fuel = fuel;
            let why = unsafe { rare::run::<CHECKED>(machine, $kind as u16) };
            fuel = machine.fuel;
            if why != exit::NEXT {
                return why;
            }
            memory_bytes = machine.memory_bytes;
            advance!(usize::from(RARE_LENGTHS[$kind]));
            continue;
        }};
    }
    macro_rules! otherwise {
        () => {{
            promised!(false);
            // SAFETY: the translator writes no other numbers.
            unsafe { core::hint::unreachable_unchecked() }
        }};
    }
    macro_rules! load16 {
        ($p:expr) => {
            unsafe { access::load16($p) }
        };
    }
    macro_rules! load32 {
        ($p:expr) => {
            unsafe { access::load32($p) }
        };
    }
    macro_rules! load64 {
        ($p:expr) => {
            unsafe { access::load64($p) }
        };
    }
    macro_rules! store16 {
        ($p:expr, $v:expr) => {{
            let v = $v;
            unsafe { access::store16($p, v) }
        }};
    }
    macro_rules! store32 {
        ($p:expr, $v:expr) => {{
            let v = $v;
            unsafe { access::store32($p, v) }
        }};
    }
    macro_rules! store64 {
        ($p:expr, $v:expr) => {{
            let v = $v;
            unsafe { access::store64($p, v) }
        }};
    }

    loop {
        let code = word!(0) as u16;
        include!(concat!(env!("OUT_DIR"), "/executor.rs"))
    }
}
