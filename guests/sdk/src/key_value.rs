//! Data that outlives a restart of the application and of the device. Needs the capability `key-value`.
//!
//! A key has 1 to 64 bytes, a value at most 1,024. Each application has keys of its own. A value that was put survives
//! a loss of power; flash wears out, so put what changed and not more often than needed.

use crate::{Error, imports};

/// Bytes of the longest value.
pub const VALUE_BYTES_MAX: usize = 1_024;

/// Copies the value of a key to the start of `buffer` and answers that part of it, or nothing if there is no such key.
/// A value that is longer than the buffer is [`Error::Invalid`].
pub fn get<'a>(key: &str, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
    // SAFETY: both pointers come with the length of their slice; the host writes within the second one only.
    let result =
        unsafe { imports::key_value_get(key.as_ptr(), key.len(), buffer.as_mut_ptr(), buffer.len()) };
    match Error::check(result) {
        Ok(length) => match buffer.get(..length as usize) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::Invalid),
        },
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores a value under a key.
pub fn put(key: &str, value: &[u8]) -> Result<(), Error> {
    // SAFETY: both pointers come with the length of their slice, which the host only reads.
    let result = unsafe { imports::key_value_put(key.as_ptr(), key.len(), value.as_ptr(), value.len()) };
    Error::check(result).map(drop)
}

/// Removes a key; answers whether it was there.
pub fn delete(key: &str) -> Result<bool, Error> {
    // SAFETY: the pointer comes with the length of its slice, which the host only reads.
    let result = unsafe { imports::key_value_delete(key.as_ptr(), key.len()) };
    match Error::check(result) {
        Ok(_) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The number that [`put_u64`] stored, or nothing if there is no such key.
pub fn get_u64(key: &str) -> Result<Option<u64>, Error> {
    let mut buffer = [0; 8];
    match get(key, &mut buffer)? {
        None => Ok(None),
        Some(value) => match <[u8; 8]>::try_from(value) {
            Ok(bytes) => Ok(Some(u64::from_le_bytes(bytes))),
            Err(_) => Err(Error::Invalid),
        },
    }
}

/// Stores a number, as eight bytes, least significant first.
pub fn put_u64(key: &str, value: u64) -> Result<(), Error> {
    put(key, &value.to_le_bytes())
}
