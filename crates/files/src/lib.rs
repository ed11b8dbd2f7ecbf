//! How processes keep files on a host: folders and files that other users can't read, files that are written whole or not
//! at all, logs that make room for themselves, what is damaged set aside, databases that come back after a full disk, and values in
//! them that are encrypted.
//!
//! It may not know what stands in them.

#![forbid(unsafe_code)]

#[cfg(feature = "database")]
mod database;
mod private;
mod room;
mod rotating;
#[cfg(feature = "seal")]
mod seal;

#[cfg(feature = "database")]
pub use database::{DatabaseFile, OpenError};
pub use private::{create_private_file, private_folder, private_options, set_aside, tighten, write_private};
pub use room::check_room;
pub use rotating::RotatingFile;
#[cfg(feature = "seal")]
pub use seal::{DataKey, KeyFileError, SealError, Sealer, is_sealed};
