//! The UARTs of applications: CMSDK APB UARTs (Arm DDI 0479D, section 4.3), which hold one byte each way. Interrupts keep what comes and
//! send what is to go, since the loop may be away for longer than a byte takes.

use core::{
    cell::RefCell,
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

use cortex_m::{
    interrupt::{self, Mutex},
    peripheral::NVIC,
};
use embedded_hal_nb::{
    nb,
    serial::{ErrorKind, ErrorType, Read, Write},
};
use heapless::Deque;
use wasmbed_board::uart::{Line, Serial};
use wasmbed_firmware_support::register::Block;

use crate::{Image, interrupt::Interrupt};

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CONTROL: usize = 0x08;
/// Read: which interrupts are pending; written ones are no more.
const INTERRUPTS: usize = 0x0c;
const BAUD_DIVIDER: usize = 0x10;
const STATE_SENDS: u32 = 1 << 0;
const STATE_RECEIVED: u32 = 1 << 1;
/// Written to, it is no more.
const STATE_OVERRUN: u32 = 1 << 3;
/// Sending and receiving, and their interrupts.
const CONTROL_ALL: u32 = 0xf;
const INTERRUPTS_ALL: u32 = 0xf;
const BAUD_DIVIDER_MIN: u32 = 16;
const BAUD_DIVIDER_MAX: u32 = (1 << 20) - 1;

/// Bytes that came and were not read: 22 ms at 115,200 baud, a quarter of a second at 9,600.
const RECEIVED_BYTES: usize = 256;
/// Bytes that wait to be sent.
const TO_SEND_BYTES: usize = 64;
/// Bytes that one interrupt takes, for a UART that always has another.
const BYTES_PER_INTERRUPT: usize = 4;

struct State {
    /// While it is open.
    registers: Option<Block>,
    interrupts: [u16; 2],
    received: Deque<u8, RECEIVED_BYTES>,
    is_overrun: bool,
    to_send: Deque<u8, TO_SEND_BYTES>,
}

impl State {
    const fn closed() -> Self {
        Self {
            registers: None,
            interrupts: [0; 2],
            received: Deque::new(),
            is_overrun: false,
            to_send: Deque::new(),
        }
    }
}

static STATES: [Mutex<RefCell<State>>; 2] = [const { Mutex::new(RefCell::new(State::closed())) }; 2];

/// Whether bytes came, or all have gone, since the loop looked last.
static NEWS: AtomicBool = AtomicBool::new(false);

/// Whether the loop has something to do because of a UART; answered once.
pub(crate) fn take_news() -> bool {
    NEWS.swap(false, Ordering::Relaxed)
}

/// An interrupt; false if it is none of a UART that is open.
pub(crate) fn handle(number: u16) -> bool {
    interrupt::free(|section| STATES.iter().any(|state| state.borrow(section).borrow_mut().handle(number)))
}

/// All UARTs, closed.
pub(crate) fn uarts<I: Image>() -> [Serial<Uart<I>>; 2] {
    [0, 1].map(|index| Serial::new(Uart { index, image: PhantomData }))
}

impl State {
    fn handle(&mut self, number: u16) -> bool {
        let Some(registers) = self.registers.filter(|_| self.interrupts.contains(&number)) else {
            return false;
        };
        registers.write(INTERRUPTS, INTERRUPTS_ALL);
        for _ in 0..BYTES_PER_INTERRUPT {
            if registers.read(STATE) & STATE_RECEIVED == 0 {
                break;
            }
            let byte = registers.read(DATA) as u8;
            // Nothing is kept after a gap until whoever reads knows of it.
            self.is_overrun = self.is_overrun || self.received.push_back(byte).is_err();
            NEWS.store(true, Ordering::Relaxed);
        }
        if registers.read(STATE) & STATE_OVERRUN != 0 {
            registers.write(STATE, STATE_OVERRUN);
            self.is_overrun = true;
            NEWS.store(true, Ordering::Relaxed);
        }
        self.send(registers);
        true
    }

    fn send(&mut self, registers: Block) {
        while registers.read(STATE) & STATE_SENDS == 0 {
            let Some(byte) = self.to_send.pop_front() else { return };
            registers.write(DATA, byte.into());
            if self.to_send.is_empty() {
                NEWS.store(true, Ordering::Relaxed);
            }
        }
    }

    fn clear(&mut self) {
        self.received.clear();
        self.is_overrun = false;
        self.to_send.clear();
    }
}

/// One of them.
pub(crate) struct Uart<I> {
    index: usize,
    image: PhantomData<I>,
}

impl<I: Image> Uart<I> {
    /// Works on its state while no interrupt does.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let state = STATES.get(self.index)?;
        Some(interrupt::free(|section| act(&mut state.borrow(section).borrow_mut())))
    }

    fn at(&self) -> Option<(Block, [u16; 2])> {
        let (address, interrupts) = I::UARTS.get(self.index)?;
        // SAFETY: the image vouches for the address.
        Some((unsafe { Block::new(*address) }, *interrupts))
    }
}

impl<I: Image> Line for Uart<I> {
    fn start(&mut self, baud: u32) -> bool {
        let divider = I::CLOCK_HZ.checked_div(baud).unwrap_or_default();
        let Some((registers, interrupts)) =
            self.at().filter(|_| (BAUD_DIVIDER_MIN..=BAUD_DIVIDER_MAX).contains(&divider))
        else {
            return false;
        };
        self.with(|state| {
            state.clear();
            registers.write(CONTROL, 0);
            registers.write(BAUD_DIVIDER, divider);
            // What came before it was stopped.
            registers.read(DATA);
            registers.write(STATE, STATE_OVERRUN);
            registers.write(INTERRUPTS, INTERRUPTS_ALL);
            registers.write(CONTROL, CONTROL_ALL);
            (state.registers, state.interrupts) = (Some(registers), interrupts);
        });
        for number in interrupts {
            // SAFETY: no code relies on its being masked: its handler touches nothing but the state behind the mutex.
            unsafe { NVIC::unmask(Interrupt(number)) };
        }
        true
    }

    fn stop(&mut self) {
        let Some((registers, interrupts)) = self.at() else { return };
        interrupts.iter().for_each(|number| NVIC::mask(Interrupt(*number)));
        self.with(|state| {
            state.clear();
            state.registers = None;
            registers.write(CONTROL, 0);
        });
    }
}

impl<I: Image> ErrorType for Uart<I> {
    type Error = ErrorKind;
}

impl<I: Image> Read<u8> for Uart<I> {
    fn read(&mut self) -> nb::Result<u8, ErrorKind> {
        let read = self.with(|state| match state.received.pop_front() {
            Some(byte) => Ok(byte),
            None if core::mem::take(&mut state.is_overrun) => Err(nb::Error::Other(ErrorKind::Overrun)),
            None => Err(nb::Error::WouldBlock),
        });
        read.unwrap_or(Err(nb::Error::Other(ErrorKind::Other)))
    }
}

impl<I: Image> Write<u8> for Uart<I> {
    fn write(&mut self, byte: u8) -> nb::Result<(), ErrorKind> {
        let written = self.with(|state| {
            let registers = state.registers.ok_or(nb::Error::Other(ErrorKind::Other))?;
            state.to_send.push_back(byte).map_err(|_| nb::Error::WouldBlock)?;
            state.send(registers);
            Ok(())
        });
        written.unwrap_or(Err(nb::Error::Other(ErrorKind::Other)))
    }

    fn flush(&mut self) -> nb::Result<(), ErrorKind> {
        let sent = self.with(|state| {
            let registers = state.registers.ok_or(nb::Error::Other(ErrorKind::Other))?;
            let is_sent = state.to_send.is_empty() && registers.read(STATE) & STATE_SENDS == 0;
            if is_sent { Ok(()) } else { Err(nb::Error::WouldBlock) }
        });
        sent.unwrap_or(Err(nb::Error::Other(ErrorKind::Other)))
    }
}
