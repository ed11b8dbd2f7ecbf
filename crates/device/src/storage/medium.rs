//! Named files in one flat folder, as small operations whose durability is told apart from their success. The store above
//! is written against this, so that a test can cut the power between any two of them.

use std::io;

/// A folder of files. A change is certain to survive a loss of power only after the operation that says so.
pub trait Medium: Send {
    /// The files with their lengths.
    ///
    /// # Errors
    /// The medium failed.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// At most `length` bytes from `offset`; fewer only at the end.
    ///
    /// # Errors
    /// `NotFound`, or the medium failed.
    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes `bytes` at `offset` and ends the file there; creates it if it is not there.
    ///
    /// # Errors
    /// `StorageFull`, or the medium failed.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file's content survive.
    ///
    /// # Errors
    /// `NotFound`, or the medium failed.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of the file that had it.
    ///
    /// # Errors
    /// `NotFound`, or the medium failed.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, or the medium failed.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes the names survive: creations, renames and removals so far.
    ///
    /// # Errors
    /// The medium failed.
    fn sync_names(&mut self) -> io::Result<()>;
}
