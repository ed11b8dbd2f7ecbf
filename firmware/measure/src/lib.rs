//! What a board measures of engines: instructions of kernels as native code and on each engine, of loading, of suspensions, and how
//! much stack they use. It prints lines, which whoever started the board reads.
//!
//! It may not know a board: counting and printing are its [`Board`]'s. It is no part of what is shipped.

#![no_std]

extern crate alloc;

mod common;
mod modules;
mod ours;
mod spacewasm;
mod wasmi;

use core::hint::black_box;

use wasmbed_bench_kernels::Kernel;
use wasmbed_firmware_support::stack;

use common::{Engine, Step, counted, say};

pub use common::Board;
pub use modules::Modules;

/// Name of the module with the kernels.
const KERNELS_MODULE: &str = "kernels";
/// Fuel of a slice, where it is sliced.
const SLICE: u32 = 1_000;
/// Fuel of a slice that no kernel uses up.
const WHOLE: u32 = i32::MAX as u32;

/// Measures everything and says so line by line; the last one begins with `measured` or `failed`. `block` is the memory of the engine that
/// devices run; the others allocate from the heap.
pub fn run<B: Board>(block: &mut [u8], modules: Modules<'_>) {
    match measure::<B>(block, modules) {
        Ok(()) => say!(B, "measured"),
        Err(error) => say!(B, "failed: {error}"),
    }
}

fn measure<B: Board>(block: &mut [u8], modules: Modules<'_>) -> Result<(), &'static str> {
    // SAFETY: bytes that are there, as numbers of any value.
    let (_, block, _) = unsafe { block.align_to_mut::<u64>() };
    native::<B>();
    for (name, module) in modules {
        ours::load::<B>(block, name, module)?;
    }
    let (_, module) = modules.into_iter().find(|(name, _)| *name == KERNELS_MODULE).ok_or("no kernels")?;
    kernels::<B, _>(ours::Ours::load(block, module)?)?;
    kernels::<B, _>(spacewasm::Spacewasm::load(module)?)?;
    kernels::<B, _>(wasmi::Wasmi::load(module)?)
}

fn native<B: Board>() {
    for Kernel { name, amount, native } in wasmbed_bench_kernels::all() {
        let (sum, instructions) = counted::<B, _>(|| black_box(native)(black_box(*amount)));
        say!(B, "kernel name={name} engine=native sum={sum} instructions={instructions}");
    }
}

fn kernels<B: Board, E: Engine>(mut engine: E) -> Result<(), &'static str> {
    for Kernel { name, amount, native } in wasmbed_bench_kernels::all() {
        let mut call = |fuel| -> Result<(u32, u32), &'static str> {
            engine.start(name, *amount)?;
            let mut steps = 1;
            loop {
                match engine.step(fuel)? {
                    Step::Done(sum) => return Ok((sum, steps)),
                    Step::OutOfFuel => steps += 1,
                }
            }
        };
        let (whole, instructions) = counted::<B, _>(|| call(WHOLE));
        let (sliced, in_slices) = counted::<B, _>(|| call(SLICE));
        let stack_bytes = stack::used_by(|| {
            // Compared with what came of it before.
            let _ = black_box(call(SLICE));
        });
        let ((sum, _), (sliced, slices)) = (whole?, sliced?);
        let expected = native(*amount);
        if (sum, sliced) != (expected, expected) {
            return Err("another result than that of native code");
        }
        say!(
            B,
            "kernel name={name} engine={} sum={sum} instructions={instructions} sliced={in_slices} slices={slices} stack={stack_bytes}",
            E::NAME
        );
    }
    Ok(())
}
