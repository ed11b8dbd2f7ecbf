//! ST's NUCLEO-H743ZI2: a Cortex-M7 at 400 MHz with 2 MiB of flash in two banks, 1 MiB of RAM, a random source and 100 Mbit/s
//! Ethernet. Memory map, clocks, pins, drivers.
//!
//! It builds in every test run and has never run. It may not hold logic that a host test could run.

#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod clock;
mod console;
mod flash;
mod network;
mod pins;
mod watchdog;

use alloc::{format, string::String};

use cortex_m_rt::{entry, exception};
use stm32h7xx_hal::{pac, prelude::*, rcc::ResetReason as Cause};
use wasmbed_board::{ResetReason, Start, data::NUCLEO_H743ZI2};
use wasmbed_firmware_cortex_m::{fault, guard};
use wasmbed_firmware_support::{
    heap,
    note::{self, Kind},
    stack,
};

use crate::{
    board::Nucleo,
    clock::{BUS_MHZ, CORE_MHZ},
    flash::DataFlash,
    network::Network,
    pins::Pins,
};

wasmbed_firmware_support::memory!(NUCLEO_H743ZI2);

/// Longer than anything that the loop does at once: the erase of a sector takes up to 4 s (STM32H743 datasheet, table 53).
const WATCHDOG_MS: u32 = 16_000;

/// An interrupt that nobody asked for.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    fault::end(Kind::Fault, format_args!("interrupt {number} was not asked for"))
}

#[entry]
fn main() -> ! {
    // SAFETY: nothing came before this.
    unsafe { stack::paint() };
    wasmbed_board::run(start)
}

/// Starts the heap, clocks and drivers.
fn start() -> Start<Nucleo> {
    let (Some(device), Some(mut core)) = (pac::Peripherals::take(), cortex_m::Peripherals::take()) else {
        fault::end(Kind::Fault, format_args!("peripherals were taken"))
    };
    guard::arm(&mut core.MPU);
    watchdog::arm(device.IWDG, WATCHDOG_MS);
    // Without its clock the memory of this domain is not there (RM0433, section 8.5.15).
    device.RCC.ahb2enr.modify(|_, bits| bits.sram1en().set_bit().sram2en().set_bit().sram3en().set_bit());
    // SAFETY: this runs once.
    heap::start(unsafe { HEAP_MEMORY.take() });
    core.SCB.enable_icache();

    let mut rcc = device.RCC.constrain();
    let cause = rcc.get_reset_reason();
    let clocks = rcc
        .sys_ck(CORE_MHZ.MHz())
        .hclk(BUS_MHZ.MHz())
        .freeze(device.PWR.constrain().freeze(), &device.SYSCFG);
    clock::start(device.TIM2, clocks.peripheral.TIM2, &clocks.clocks);

    let (gpioa, gpiob) =
        (device.GPIOA.split(clocks.peripheral.GPIOA), device.GPIOB.split(clocks.peripheral.GPIOB));
    let (gpioc, gpiod) =
        (device.GPIOC.split(clocks.peripheral.GPIOC), device.GPIOD.split(clocks.peripheral.GPIOD));
    let gpioe = device.GPIOE.split(clocks.peripheral.GPIOE);
    let gpiog = device.GPIOG.split(clocks.peripheral.GPIOG);
    let pins = (gpiod.pd8.into_alternate(), gpiod.pd9.into_alternate());
    console::start(device.USART3, pins, clocks.peripheral.USART3, &clocks.clocks);
    fault::set_console(console::write);

    // UM2407, table 22.
    let pins = (
        gpioa.pa1.into_alternate(),
        gpioa.pa2.into_alternate(),
        gpioc.pc1.into_alternate(),
        gpioa.pa7.into_alternate(),
        gpioc.pc4.into_alternate(),
        gpioc.pc5.into_alternate(),
        gpiog.pg11.into_alternate(),
        gpiog.pg13.into_alternate(),
        gpiob.pb13.into_alternate(),
    );
    let controller = (device.ETHERNET_MAC, device.ETHERNET_MTL, device.ETHERNET_DMA);
    let network = Network::start(controller, pins, clocks.peripheral.ETH1MAC, &clocks.clocks);
    let random = device.RNG.constrain(clocks.peripheral.RNG, &clocks.clocks);
    let (_, Some(bank)) = device.FLASH.split() else {
        fault::end(Kind::Fault, format_args!("this processor has one bank of flash"))
    };
    let flash = DataFlash::new(bank, &mut core.SCB);
    let pins = Pins {
        green: gpiob.pb0.into_push_pull_output(),
        yellow: gpioe.pe1.into_push_pull_output(),
        red: gpiob.pb14.into_push_pull_output(),
        button: gpioc.pc13.into_floating_input(),
    };
    let (reset_reason, reset_detail) = reason(cause);
    // SAFETY: this runs once.
    let arena = unsafe { ARENA.take() };
    Start {
        hardware: Nucleo { core, random },
        network,
        flash,
        peripherals: pins,
        arena,
        reset_reason,
        reset_detail,
    }
}

/// What the run before wrote down, or what the processor saw.
fn reason(cause: Cause) -> (ResetReason, String) {
    if let Some(reason) = note::take_reason() {
        return reason;
    }
    match cause {
        Cause::IndependentWatchdogReset => (ResetReason::Watchdog, String::new()),
        Cause::PowerOnReset => (ResetReason::PowerOn, String::new()),
        other => (ResetReason::PowerOn, format!("{other}")),
    }
}
