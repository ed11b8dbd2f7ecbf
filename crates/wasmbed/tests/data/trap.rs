//! Traps two calls deep, one of which is inlined. Made by
//! `rustc --edition 2024 --target wasm32v1-none -C opt-level=1 -C debuginfo=1 -C panic=abort --crate-type cdylib
//! -C link-arg=-zstack-size=4096 --remap-path-prefix $PWD=src trap.rs`.
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

static mut READINGS: [u32; 4] = [0; 4];

#[inline(always)]
fn checked(place: *const u32) -> u32 {
    unsafe { place.wrapping_add(0x1000_0000).read_volatile() }
}

#[inline(never)]
fn read(sensor: usize) -> u32 {
    let place = (&raw const READINGS).cast::<u32>().wrapping_add(sensor);
    checked(place) + 1
}

#[inline(never)]
fn measure(sensors: usize) -> u32 {
    let mut sum = 1;
    for sensor in 1..sensors {
        sum += read(sensor);
    }
    sum
}

#[unsafe(no_mangle)]
pub extern "C" fn run() {
    let sum = measure(core::hint::black_box(3));
    core::hint::black_box(sum);
}
