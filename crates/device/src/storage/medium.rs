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

    /// As [`Medium::rename`], and writes over the bytes of the file that had the name, where the medium can.
    ///
    /// # Errors
    /// As [`Medium::rename`].
    fn rename_over(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.rename(from, to)
    }

    /// As [`Medium::remove`], and writes over the file's bytes first, where the medium can.
    ///
    /// # Errors
    /// As [`Medium::remove`].
    fn erase(&mut self, name: &str) -> io::Result<()> {
        self.remove(name)
    }

    /// Makes the names survive: creations, renames and removals so far.
    ///
    /// # Errors
    /// The medium failed.
    fn sync_names(&mut self) -> io::Result<()>;
}
