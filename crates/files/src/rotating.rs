//! Files of lines that grow to a bound and then make room for the next one.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use crate::{private_options, tighten};

/// A file that is only added to, line by line; with so many bytes it becomes `NAME.1`, and `NAME.1` before it `NAME.2`.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    bytes_max: u64,
    kept: u32,
    file: File,
    written: u64,
}

impl RotatingFile {
    /// Opens the file, or makes it with mode 0600. `bytes_max` bounds each file, `kept` the earlier ones beside it.
    ///
    /// # Errors
    /// The file can't be made, read or written.
    pub fn open(path: &Path, bytes_max: u64, kept: u32) -> io::Result<Self> {
        let mut file = open(path)?;
        let mut written = file.metadata()?.len();
        // A line that a crash left unfinished keeps its place, and does not take the next one with it.
        if written > 0 && !ends_a_line(&mut file)? {
            file.write_all(b"\n")?;
            written += 1;
        }
        Ok(Self { path: path.to_owned(), bytes_max, kept, file, written })
    }

    /// Adds a line, which has no line break of its own. When this returns, a crash of the process does not take it back.
    ///
    /// # Errors
    /// It can't be written, or the file can't be set aside for a new one. What was written of it is taken back where that is possible.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        let bytes = [line.as_bytes(), b"\n"].concat();
        let more = bytes.len() as u64;
        if self.written > 0 && self.written + more > self.bytes_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&bytes) {
            self.file.set_len(self.written)?;
            return Err(error);
        }
        self.written += more;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.kept).rev() {
            ignore_missing(fs::rename(self.numbered(number), self.numbered(number + 1)))?;
        }
        // Somebody may have taken it away.
        ignore_missing(match self.kept {
            0 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, self.numbered(1)),
        })?;
        self.file = open(&self.path)?;
        self.written = self.file.metadata()?.len();
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = private_options().read(true).append(true).create(true).open(path)?;
    tighten(path)?;
    Ok(file)
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_kept_up_to_the_bound_of_files_and_bytes() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        for number in 0..10 {
            // Opened again each time, as by a process that starts anew.
            let mut file = RotatingFile::open(&path, 12, 2)?;
            file.write_line(&format!("line{number}"))?;
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        assert_eq!(read("log")?, "line8\nline9\n");
        assert_eq!(read("log.1")?, "line6\nline7\n");
        assert_eq!(read("log.2")?, "line4\nline5\n");
        assert_eq!(fs::read_dir(folder.path())?.count(), 3);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        Ok(())
    }

    #[test]
    fn a_line_that_is_longer_than_a_file_has_one_to_itself() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let mut file = RotatingFile::open(&path, 4, 0)?;
        file.write_line("a long line")?;
        file.write_line("b")?;
        assert_eq!(fs::read_to_string(&path)?, "b\n");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn what_a_crash_left_of_a_line_does_not_take_the_next_one_with_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        fs::write(&path, "whole\nhal")?;
        RotatingFile::open(&path, 100, 1)?.write_line("next")?;
        assert_eq!(fs::read_to_string(&path)?, "whole\nhal\nnext\n");
        Ok(())
    }
}
