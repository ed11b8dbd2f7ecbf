//! SMSC LAN9118 Ethernet controller (datasheet revision 1.5), by reads and writes of its FIFOs; its interrupt ends a sleep.

use wasmbed_board::{
    ethernet::{self, FRAME_BYTES_MAX, Received},
    smoltcp::{
        phy::{self, DeviceCapabilities},
        time::Instant,
        wire::EthernetAddress,
    },
};

use wasmbed_firmware_support::register::Block;

const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const TX_STATUS: usize = 0x48;
const IRQ_CONFIG: usize = 0x54;
const INT_STATUS: usize = 0x58;
const INT_ENABLE: usize = 0x5c;
const BYTE_TEST: usize = 0x64;
const FIFO_INT: usize = 0x68;
const RX_CONFIG: usize = 0x6c;
const TX_CONFIG: usize = 0x70;
const HW_CONFIG: usize = 0x74;
const RX_FIFO_INFO: usize = 0x7c;
const TX_FIFO_INFO: usize = 0x80;
const RX_DROPPED: usize = 0xa0;
const MAC_COMMAND: usize = 0xa4;
const MAC_DATA: usize = 0xa8;

const BYTE_TEST_VALUE: u32 = 0x8765_4321;
const HW_SOFT_RESET: u32 = 1;
/// The bit that must be one, and 5 KiB of the FIFOs for sending.
const HW_TX_FIFO_5_KIB: u32 = 1 << 20 | 5 << 16;
const TX_ON: u32 = 1 << 1;
const TX_STATUS_DUMP: u32 = 1 << 15;
const TX_DATA_DUMP: u32 = 1 << 14;
const RX_DUMP: u32 = 1 << 15;
/// Enabled, high when there is something, push-pull.
const IRQ_ON: u32 = 1 << 8 | 1 << 4 | 1;
/// More entries in the receive status FIFO than its level, which is 0.
const INT_RX_STATUS_LEVEL: u32 = 1 << 3;
const INT_RX_ERROR: u32 = 1 << 14;
const INT_TX_ERROR: u32 = 1 << 13;
const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;

const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
const MAC_MII_ACCESS: u32 = 6;
const MAC_MII_DATA: u32 = 7;
const CONTROL_FULL_DUPLEX: u32 = 1 << 20;
const CONTROL_SEND: u32 = 1 << 3;
const CONTROL_RECEIVE: u32 = 1 << 2;
const CONTROL_ALL_ON: u32 = CONTROL_FULL_DUPLEX | CONTROL_SEND | CONTROL_RECEIVE;
/// Physical transceiver 1, write, in progress.
const MII_WRITE: u32 = 1 << 11 | 1 << 1 | 1;
const MII_BUSY: u32 = 1;
const PHY_CONTROL: u32 = 0;
const PHY_NEGOTIATE_AGAIN: u32 = 1 << 12 | 1 << 9;

const TX_FIRST_AND_LAST: u32 = 1 << 13 | 1 << 12;
const STATUS_ERROR: u32 = 1 << 15;
const CHECKSUM_BYTES: usize = 4;
/// Two command words and a frame, in whole words.
const TX_ROOM_BYTES: u32 = 8 + 1_516;
/// Statuses of sent frames that are read at once; the FIFO holds 128.
const TX_STATUSES_MAX: u32 = 128;
/// Damaged frames that are passed over in one call, so that a storm of them leaves time for the rest.
const DAMAGED_FRAMES_MAX: usize = 8;
/// Reads of a busy bit before the chip counts as absent or stuck; a reset takes 30 µs by the datasheet.
const ATTEMPTS_MAX: u32 = 100_000;

/// The chip did not answer as the datasheet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotThere;

/// What went wrong since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that the chip marked as damaged.
    pub damaged: u32,
    /// Frames that the chip dropped because its FIFO was full.
    pub dropped: u32,
    /// Frames that were not sent.
    pub unsent: u32,
    /// Times that the receiver was emptied because it made no sense.
    pub emptied: u32,
}

impl Faults {
    /// Frames that did not get through.
    pub fn frames(&self) -> u32 {
        self.damaged.wrapping_add(self.dropped).wrapping_add(self.unsent)
    }
}

/// The controller. There is one.
pub struct Lan9118 {
    chip: Chip,
    address: EthernetAddress,
    received: [u8; FRAME_BYTES_MAX],
    sending: [u8; FRAME_BYTES_MAX + 2],
    faults: Faults,
}

impl Lan9118 {
    /// Resets the chip and starts it.
    pub fn start(registers: Block) -> Result<Self, NotThere> {
        let chip = Chip(registers);
        // The first access after power is on wakes it and need not answer.
        wait(|| chip.read(BYTE_TEST) == BYTE_TEST_VALUE)?;
        chip.write(HW_CONFIG, HW_SOFT_RESET);
        wait(|| chip.read(HW_CONFIG) & HW_SOFT_RESET == 0)?;
        chip.write(HW_CONFIG, HW_TX_FIFO_5_KIB);
        chip.write(FIFO_INT, 0);
        chip.write(INT_STATUS, u32::MAX);
        chip.write(INT_ENABLE, INT_RX_STATUS_LEVEL);
        chip.write(IRQ_CONFIG, IRQ_ON);
        chip.mac_write(MAC_MII_DATA, PHY_NEGOTIATE_AGAIN)?;
        chip.mac_write(MAC_MII_ACCESS, MII_WRITE | PHY_CONTROL << 6)?;
        wait(|| chip.mac_read(MAC_MII_ACCESS).is_ok_and(|access| access & MII_BUSY == 0))?;
        chip.write(RX_CONFIG, 0);
        chip.write(TX_CONFIG, TX_ON);
        let low = chip.mac_read(MAC_ADDRESS_LOW)?.to_le_bytes();
        let high = chip.mac_read(MAC_ADDRESS_HIGH)?.to_le_bytes();
        chip.mac_write(MAC_CONTROL, CONTROL_ALL_ON)?;
        Ok(Self {
            chip,
            address: EthernetAddress([low[0], low[1], low[2], low[3], high[0], high[1]]),
            received: [0; FRAME_BYTES_MAX],
            sending: [0; FRAME_BYTES_MAX + 2],
            faults: Faults::default(),
        })
    }

    /// The hardware address that the board's EEPROM gave the chip.
    pub fn address(&self) -> EthernetAddress {
        self.address
    }

    /// What went wrong since the start.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Whether a frame waits; if not, the next one makes an interrupt.
    pub fn has_frame(&self) -> bool {
        // Cleared before looking: a frame that comes in between sets it again.
        self.chip.write(INT_STATUS, INT_RX_STATUS_LEVEL);
        self.chip.frames_waiting() > 0
    }

    /// Copies the next whole frame out of the FIFO.
    fn take_frame(&mut self) -> Option<usize> {
        self.note_faults();
        for _ in 0..DAMAGED_FRAMES_MAX {
            if self.chip.frames_waiting() == 0 {
                return None;
            }
            let status = self.chip.read(RX_STATUS);
            let bytes = (status >> 16 & 0x3fff) as usize;
            let words = bytes.div_ceil(4);
            let in_fifo = (self.chip.read(RX_FIFO_INFO) & 0xffff) as usize;
            if words * 4 > in_fifo {
                self.empty_receiver();
                return None;
            }
            let frame = bytes.saturating_sub(CHECKSUM_BYTES);
            let good = status & STATUS_ERROR == 0 && frame > 0 && frame <= FRAME_BYTES_MAX;
            for index in 0..words {
                let word = self.chip.read(RX_DATA).to_le_bytes();
                if let Some(space) = self.received.get_mut(index * 4..).filter(|_| good) {
                    let count = space.len().min(4);
                    space[..count].copy_from_slice(&word[..count]);
                }
            }
            if good {
                return Some(frame);
            }
            self.faults.damaged = self.faults.damaged.wrapping_add(1);
        }
        None
    }

    fn note_faults(&mut self) {
        let status = self.chip.read(INT_STATUS) & (INT_RX_ERROR | INT_TX_ERROR);
        if status == 0 {
            self.faults.dropped = self.faults.dropped.wrapping_add(self.chip.read(RX_DROPPED));
            return;
        }
        self.chip.write(INT_STATUS, status);
        if status & INT_RX_ERROR != 0 {
            self.empty_receiver();
        }
        if status & INT_TX_ERROR != 0 {
            self.empty_transmitter();
        }
    }

    /// The datasheet's way out of a receiver error: stop, dump what it holds, go on.
    fn empty_receiver(&mut self) {
        self.faults.emptied = self.faults.emptied.wrapping_add(1);
        // A chip that doesn't take these has an error again next time.
        let _ = self.chip.mac_write(MAC_CONTROL, CONTROL_ALL_ON & !CONTROL_RECEIVE);
        self.chip.write(RX_CONFIG, RX_DUMP);
        let _ = wait(|| self.chip.read(RX_CONFIG) & RX_DUMP == 0);
        let _ = self.chip.mac_write(MAC_CONTROL, CONTROL_ALL_ON);
    }

    fn empty_transmitter(&mut self) {
        self.faults.unsent = self.faults.unsent.wrapping_add(1);
        self.chip.write(TX_CONFIG, TX_STATUS_DUMP | TX_DATA_DUMP);
        let _ = wait(|| self.chip.read(TX_CONFIG) & (TX_STATUS_DUMP | TX_DATA_DUMP) == 0);
        self.chip.write(TX_CONFIG, TX_ON);
    }

    /// Reads the statuses of frames that are sent, without which sending stops when their FIFO is full, and says whether a
    /// frame fits now.
    fn has_room(&mut self) -> bool {
        for _ in 0..TX_STATUSES_MAX {
            if self.chip.read(TX_FIFO_INFO) >> 16 & 0xff == 0 {
                break;
            }
            if self.chip.read(TX_STATUS) & STATUS_ERROR != 0 {
                self.faults.unsent = self.faults.unsent.wrapping_add(1);
            }
        }
        self.chip.read(TX_FIFO_INFO) & 0xffff >= TX_ROOM_BYTES
    }
}

impl phy::Device for Lan9118 {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        // A frame stays in the chip until its answer has room.
        if !self.has_room() {
            return None;
        }
        let bytes = self.take_frame()?;
        Some((Received(&self.received[..bytes]), Room(self.chip, &mut self.sending)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.has_room().then_some(Room(self.chip, &mut self.sending))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        ethernet::capabilities()
    }
}

/// Room for a frame.
pub struct Room<'a>(Chip, &'a mut [u8; FRAME_BYTES_MAX + 2]);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        // smoltcp asks for no more than the `max_transmission_unit` above.
        let bytes = bytes.min(FRAME_BYTES_MAX);
        let result = fill(&mut self.1[..bytes]);
        self.0.write(TX_DATA, TX_FIRST_AND_LAST | bytes as u32);
        self.0.write(TX_DATA, bytes as u32);
        for word in self.1[..bytes.next_multiple_of(4)].as_chunks().0 {
            self.0.write(TX_DATA, u32::from_le_bytes(*word));
        }
        result
    }
}

/// The controller's registers.
#[derive(Clone, Copy)]
struct Chip(Block);

impl Chip {
    fn read(self, offset: usize) -> u32 {
        self.0.read(offset)
    }

    fn write(self, offset: usize, value: u32) {
        self.0.write(offset, value);
    }

    fn frames_waiting(self) -> u32 {
        self.read(RX_FIFO_INFO) >> 16 & 0xff
    }

    fn mac_read(self, register: u32) -> Result<u32, NotThere> {
        self.write(MAC_COMMAND, MAC_BUSY | MAC_READ | register);
        wait(|| self.read(MAC_COMMAND) & MAC_BUSY == 0)?;
        Ok(self.read(MAC_DATA))
    }

    fn mac_write(self, register: u32, value: u32) -> Result<(), NotThere> {
        self.write(MAC_DATA, value);
        self.write(MAC_COMMAND, MAC_BUSY | register);
        wait(|| self.read(MAC_COMMAND) & MAC_BUSY == 0)
    }
}

fn wait(mut done: impl FnMut() -> bool) -> Result<(), NotThere> {
    (0..ATTEMPTS_MAX).any(|_| done()).then_some(()).ok_or(NotThere)
}
