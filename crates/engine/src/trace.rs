//! Where a program trapped: the functions that were under way, and the operator of the module at which each of them was.
//!
//! Nothing is kept for this while a program runs. Translation is a function of the module alone, so the module is
//! translated once more, into memory that the trapped instance has given back, and of each operator that is written it is
//! noted which of the module's it does the work of ([`Loader::locate`]). Names are read from the module as well.
//!
//! [`Loader::locate`]: crate::Loader::locate

use crate::error::Error;
use crate::reader::{Failed, Reader, Source};

/// Functions in a trace: the one that trapped, and eight callers.
pub const FRAMES_MAX: usize = 9;
/// Bytes of a function's name.
pub const FUNCTION_NAME_BYTES_MAX: usize = 32;

/// The section that has names, and its part that has those of functions (WebAssembly 2.0, appendix, "Name Section").
const NAME_SECTION: &[u8; 4] = b"name";
const FUNCTION_NAMES: u8 = 1;

/// A function that was under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackFrame {
    /// Its index.
    pub function: u32,
    /// The byte of the module at which its operator begins: of the innermost the one that trapped, of others their call.
    /// `None` until it was [located](crate::Loader::locate).
    pub offset: Option<u32>,
    /// A word of that operator's code.
    code: u32,
}

/// The functions that were under way when a program trapped, the innermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    frames: [StackFrame; FRAMES_MAX],
    count: u8,
    /// Functions beyond those.
    left_out: u32,
}

impl Trace {
    /// The innermost functions, at most [`FRAMES_MAX`].
    pub fn frames(&self) -> &[StackFrame] {
        self.frames.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// How many more called those.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    pub(crate) fn push(&mut self, function: u32, code: u32) {
        match self.frames.get_mut(usize::from(self.count)) {
            Some(frame) => {
                *frame = StackFrame { function, offset: None, code };
                self.count += 1;
            }
            None => self.left_out = self.left_out.saturating_add(1),
        }
    }

    /// An operator is written at this place, for the module's operator at `offset`. Places only grow, but for what is taken
    /// back and written anew: the last operator that begins at or before a word is the one that has it.
    #[cold]
    #[inline(never)]
    pub(crate) fn note(&mut self, place: u32, offset: u32) {
        for frame in self.frames.iter_mut().take(usize::from(self.count)) {
            if place <= frame.code {
                frame.offset = Some(offset);
            }
        }
    }

    /// Whether all of it is in code before this place.
    pub(crate) fn is_before(&self, place: u32) -> bool {
        self.frames().iter().all(|frame| frame.code < place)
    }

    /// Hands out the names that the module has for these functions: the place of each among the frames, and its name, cut to
    /// [`FUNCTION_NAME_BYTES_MAX`], with `?` for what is no text or would change how other text is shown.
    ///
    /// # Errors
    /// The module can't be read, or its sections have other sizes than they say.
    pub fn names(&self, source: &mut dyn Source, named: &mut dyn FnMut(usize, &str)) -> Result<(), Error> {
        let mut reader = Reader::new(source.length());
        let found = self.find_names(&mut reader, source, named);
        found.map_err(|Failed| {
            let unread = Error { kind: crate::ErrorKind::Source, offset: reader.position() };
            reader.take_error().unwrap_or(unread)
        })
    }

    fn find_names(
        &self,
        reader: &mut Reader,
        source: &mut dyn Source,
        named: &mut dyn FnMut(usize, &str),
    ) -> Result<(), Failed> {
        reader.long_word(source)?;
        while !reader.is_done() {
            let section = reader.byte(source)?;
            let size = reader.number(source)?;
            let end = reader.end_of(size)?;
            if section == 0 && is_name(reader, source)? {
                reader.set_end(end);
                // Parts ascend, and only one, the module's own name, may come before those of functions.
                for _ in 0..=FUNCTION_NAMES {
                    if reader.is_done() {
                        break;
                    }
                    let part = reader.byte(source)?;
                    let size = reader.number(source)?;
                    let part_end = reader.end_of(size)?;
                    if part == FUNCTION_NAMES {
                        return self.function_names(reader, source, named);
                    }
                    reader.seek(part_end);
                }
                return Ok(());
            }
            reader.seek(end);
        }
        Ok(())
    }

    fn function_names(
        &self,
        reader: &mut Reader,
        source: &mut dyn Source,
        named: &mut dyn FnMut(usize, &str),
    ) -> Result<(), Failed> {
        let last = self.frames().iter().map(|frame| frame.function).max().unwrap_or(0);
        let mut least = 0;
        for _ in 0..reader.number(source)? {
            let function = reader.number(source)?;
            // Ascending, each once: there are no more than functions.
            if function < least || function > last {
                break;
            }
            least = function + 1;
            let length = reader.number(source)?;
            let wanted = self.frames().iter().any(|frame| frame.function == function);
            let kept = if wanted { (length as usize).min(FUNCTION_NAME_BYTES_MAX) } else { 0 };
            let mut bytes = [0; FUNCTION_NAME_BYTES_MAX];
            let bytes = bytes.get_mut(..kept).unwrap_or_default();
            reader.bytes(source, bytes)?;
            reader.pass(length - kept as u32)?;
            let name = text(bytes);
            for (at, _) in self.frames().iter().enumerate().filter(|(_, frame)| frame.function == function) {
                named(at, name);
            }
        }
        Ok(())
    }
}

/// Whether a custom section has the names. Reads its own name only as far as it is the same.
fn is_name(reader: &mut Reader, source: &mut dyn Source) -> Result<bool, Failed> {
    if reader.number(source)? as usize != NAME_SECTION.len() {
        return Ok(false);
    }
    let mut name = [0; NAME_SECTION.len()];
    reader.bytes(source, &mut name)?;
    Ok(name == *NAME_SECTION)
}

/// A name that was cut anywhere: whole characters of it, and none that acts on a terminal.
fn text(bytes: &mut [u8]) -> &str {
    let valid = match core::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    // Control characters: one byte below 0x20 or 0x7f, or C2 80 to C2 9f; E2 80 8x to E2 81 6x has those that turn the
    // direction of text.
    let mut at = 0;
    while at < valid {
        let length = match bytes.get(at..valid) {
            Some([0..0x20 | 0x7f, ..]) => 1,
            Some([0xc2, 0x80..=0x9f, ..]) => 2,
            Some([0xe2, 0x80 | 0x81, ..]) => 3,
            _ => 0,
        };
        for byte in bytes.iter_mut().skip(at).take(length) {
            *byte = b'?';
        }
        at += length.max(1);
    }
    core::str::from_utf8(bytes.get(..valid).unwrap_or_default()).unwrap_or_default()
}
