//! How processes keep files on a host: folders and files that other users can't read, files that are written whole or not
//! at all, logs that make room for themselves, what is damaged set aside, and databases that come back after a full disk.
//!
//! It may not know what stands in them.

#![forbid(unsafe_code)]

#[cfg(feature = "database")]
mod database;
mod private;
mod room;
mod rotating;

#[cfg(feature = "database")]
pub use database::{DatabaseFile, OpenError};
pub use private::{create_private_file, private_folder, private_options, set_aside, tighten, write_private};
pub use room::check_room;
pub use rotating::RotatingFile;
