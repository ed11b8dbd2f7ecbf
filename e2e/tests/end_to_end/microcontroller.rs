//! What only a microcontroller shows, each on a real QEMU board: modules that start from flash before there is a network, a
//! download that goes on after a reset and after a cut cable, an arena that is full, and gateways and modules that it
//! refuses.
//!
//! The rest of what a device does is tested with boards as devices of the other tests.

/// Makes two tests of each function that takes a board: `riscv32_virt::NAME` and `mps2_an385::NAME`.
macro_rules! each_board {
    ($($name:ident),+ $(,)?) => {
        mod riscv32_virt {
            $(
                #[test]
                fn $name() -> ::anyhow::Result<()> {
                    let _turn = ::wasmbed_e2e::Turn::wait();
                    super::$name("riscv32-virt".parse()?)
                }
            )+
        }

        mod mps2_an385 {
            $(
                #[test]
                fn $name() -> ::anyhow::Result<()> {
                    let _turn = ::wasmbed_e2e::Turn::wait();
                    super::$name("mps2-an385".parse()?)
                }
            )+
        }
    };
}

mod brokered;
mod decommission;
mod digests;
mod gateways;
mod impostor;
mod joining;
mod memory;
mod pins;
mod registrar;
mod relay;
mod resets;
mod resume;
mod sensors;
mod serial;
mod start;
