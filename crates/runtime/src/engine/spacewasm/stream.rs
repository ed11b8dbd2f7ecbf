//! A module's bytes for the engine, without its custom sections: their names are bounded in the engine, and a name that a
//! toolchain chose must not keep a program from running.

use spacewasm as sw;

use super::arena::chunk;

const HEADER_BYTES: usize = 8;

/// Hands out the header and then section after section.
pub(super) struct Sections<'a> {
    rest: &'a [u8],
    at_header: bool,
}

impl<'a> Sections<'a> {
    pub(super) fn new(module: &'a [u8]) -> Sections<'a> {
        Sections { rest: module, at_header: true }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.at_header {
            self.at_header = false;
            return self.split(HEADER_BYTES);
        }
        loop {
            let (length, custom) = section_bytes(self.rest)?;
            let section = self.split(length)?;
            if !custom {
                return Some(section);
            }
        }
    }

    /// The next bytes; all of them where the module ends before.
    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        (!first.is_empty()).then_some(first)
    }
}

/// Length of the section at the start of `bytes`, its head included, and whether it is a custom one.
fn section_bytes(bytes: &[u8]) -> Option<(usize, bool)> {
    let (number, rest) = bytes.split_first()?;
    let mut length = 0usize;
    for (index, byte) in rest.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((length.saturating_add(index + 2), *number == 0));
        }
    }
    // Not a length: the engine gets to see it and says so.
    Some((bytes.len(), false))
}

impl sw::WasmStream for Sections<'_> {
    fn read(&mut self) -> Result<Option<sw::InnerVec<u8>>, u8> {
        Ok(self.next().map(chunk))
    }

    fn return_(&mut self, _: sw::InnerVec<u8>) {}
}
