//! The modules that a board is given: in its data flash, one after the other.
//!
//! ```text
//! { length of name: u8, length of module: u32, little-endian, name, module } ... 0
//! ```

/// Modules with their names.
#[derive(Clone, Copy)]
pub struct Modules<'a>(&'a [u8]);

impl Modules<'static> {
    /// What lies at this address.
    ///
    /// # Safety
    /// There are so many bytes, which nobody writes to.
    pub unsafe fn at(address: usize, bytes: usize) -> Self {
        // SAFETY: as the caller says.
        Self(unsafe { core::slice::from_raw_parts(address as *const u8, bytes) })
    }
}

impl<'a> Iterator for Modules<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_bytes, rest) = self.0.split_first()?;
        let (module_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_bytes))?;
        if name.is_empty() {
            return None;
        }
        let (module, rest) = rest.split_at_checked(u32::from_le_bytes(*module_bytes) as usize)?;
        self.0 = rest;
        Some((core::str::from_utf8(name).ok()?, module))
    }
}
