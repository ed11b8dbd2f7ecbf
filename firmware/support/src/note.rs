//! What the board writes down before a reset, in memory that neither a reset nor the start clears.

use alloc::string::String;
use core::{
    cell::UnsafeCell,
    fmt::{self, Write},
    mem::MaybeUninit,
    sync::atomic::{Ordering, fence},
};

use wasmbed_board::ResetReason;

/// Bytes of text that are kept; the gateway is told no more than this either.
pub const TEXT_BYTES_MAX: usize = 200;
/// In front of a note; anything else is what the memory held when power came.
const MARK: u32 = 0x6e6f_7465;

/// Why the board is about to reset itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The firmware panicked.
    Panic = 1,
    /// The processor could not go on.
    Fault = 2,
    /// The watchdog was not fed.
    Watchdog = 3,
}

/// A note.
#[derive(Clone, Copy)]
pub struct Note {
    kind: u8,
    bytes: u8,
    text: [u8; TEXT_BYTES_MAX],
}

impl Note {
    /// An empty one, to be written into.
    pub const fn new(kind: Kind) -> Self {
        Self { kind: kind as u8, bytes: 0, text: [0; TEXT_BYTES_MAX] }
    }

    /// Why, in the words of the device protocol, for which a fault is a panic; the text tells them apart.
    fn reason(&self) -> ResetReason {
        if self.kind == Kind::Watchdog as u8 { ResetReason::Watchdog } else { ResetReason::Panic }
    }

    /// Details; what is not text is left out.
    pub fn text(&self) -> &str {
        let bytes = self.text.get(..usize::from(self.bytes)).unwrap_or_default();
        match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    fn check(&self) -> u32 {
        let start = [self.kind, self.bytes];
        // FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/
        let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        start.iter().chain(&self.text).fold(0x811c_9dc5, hash)
    }
}

impl Write for Note {
    /// Takes what fits, as one line, and drops the rest.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(space) = self.text.get_mut(usize::from(self.bytes)) {
                *space = if byte.is_ascii_control() { b' ' } else { byte };
                self.bytes += 1;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Kept {
    mark: u32,
    check: u32,
    note: Note,
}

struct Place(UnsafeCell<MaybeUninit<Kept>>);

// SAFETY: there is one processor, and who accesses the place does so in one go with interrupts masked or from a handler
// that never returns.
unsafe impl Sync for Place {}

#[unsafe(link_section = ".uninit.note")]
static PLACE: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));

/// Keeps a note for the next start.
pub fn keep(note: Note) {
    let kept = Kept { mark: MARK, check: note.check(), note };
    // SAFETY: nobody else accesses the place meanwhile, as said there.
    unsafe { PLACE.0.get().write_volatile(MaybeUninit::new(kept)) }
    fence(Ordering::SeqCst);
}

/// Takes the reason of the last reset and its details, if the run before wrote them down.
pub fn take_reason() -> Option<(ResetReason, String)> {
    take().map(|note| (note.reason(), note.text().into()))
}

/// Takes the note of the run before, if there is a whole one.
fn take() -> Option<Note> {
    let place = PLACE.0.get().cast::<u32>();
    // SAFETY: nobody else accesses the place meanwhile; the first word is `mark`, and memory has some value in any case.
    let mark = unsafe { place.read_volatile() };
    if mark != MARK {
        return None;
    }
    // SAFETY: nobody else accesses the place meanwhile.
    let kept = unsafe { PLACE.0.get().read_volatile() };
    // SAFETY: every bit pattern is a `Kept`, which consists of integers.
    let kept = unsafe { kept.assume_init() };
    // SAFETY: as above.
    unsafe { place.write_volatile(0) }
    (kept.check == kept.note.check()).then_some(kept.note)
}
