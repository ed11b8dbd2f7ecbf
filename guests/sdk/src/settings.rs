//! Settings: values that operators change while the application runs. The module declares them with [`settings!`](crate::settings!);
//! a [`wait`](crate::wait()) ends when one of them changed since the last call of a function here.

use crate::{Error, imports};

/// Bytes of the longest text.
pub const TEXT_BYTES_MAX: usize = 64;

/// The value of a setting that is declared as `bool`.
pub fn boolean(name: &str) -> Result<bool, Error> {
    let mut buffer = [0; TEXT_BYTES_MAX];
    match get(name, &mut buffer)? {
        [value] => Ok(*value != 0),
        _ => Err(Error::Invalid),
    }
}

/// The value of a setting that is declared as `int`.
pub fn integer(name: &str) -> Result<i64, Error> {
    let mut buffer = [0; TEXT_BYTES_MAX];
    let value = get(name, &mut buffer)?;
    value.try_into().map(i64::from_le_bytes).map_err(|_| Error::Invalid)
}

/// The value of a setting that is declared as `text`, in the buffer.
pub fn text<'a>(name: &str, buffer: &'a mut [u8; TEXT_BYTES_MAX]) -> Result<&'a str, Error> {
    core::str::from_utf8(get(name, buffer)?).map_err(|_| Error::Invalid)
}

fn get<'a>(name: &str, buffer: &'a mut [u8; TEXT_BYTES_MAX]) -> Result<&'a [u8], Error> {
    // SAFETY: both pointers come with the length of their slice; the host writes within the second one only.
    let result =
        unsafe { imports::setting_get(name.as_ptr(), name.len(), buffer.as_mut_ptr(), buffer.len()) };
    let length = Error::check(result)?;
    buffer.get(..length as usize).ok_or(Error::Invalid)
}

/// Declares settings, a line for each: `NAME TYPE [RANGE] [reported] = DEFAULT`.
///
/// A type is `bool`; `int`, with the range `MIN..MAX`; or `text`, with the range `..BYTES`. Of a setting that is `reported` devices say
/// which value is in use. Devices and the controller refuse values that are none of the type or outside the range.
/// `wasmbed module check` shows what a module declares, or what is wrong with it.
///
/// ```ignore
/// settings! {
///     "interval_ms int 100..60000 reported = 1000",
///     "label text ..16 = beacon",
/// }
/// ```
#[macro_export]
macro_rules! settings {
    ($($line:literal),+ $(,)?) => {
        const _: () = {
            const TEXT: &[u8] = ::core::concat!($($line, "\n"),+).as_bytes();
            // SAFETY: nothing else reads or writes this section: the linker joins what is in it, and it is no part of the memory.
            #[used]
            #[unsafe(link_section = "wasmbed.settings")]
            static SCHEMA: [u8; TEXT.len()] = {
                let mut bytes = [0; TEXT.len()];
                let mut index = 0;
                while index < TEXT.len() {
                    bytes[index] = TEXT[index];
                    index += 1;
                }
                bytes
            };
        };
    };
}
