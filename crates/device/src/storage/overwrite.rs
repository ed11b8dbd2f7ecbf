//! Files that held secrets: their bytes are written over before they go. A file system that copies on write, and flash that spreads
//! its wear, may keep the bytes elsewhere all the same.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Written at once.
const PIECE_BYTES: usize = 4_096;

/// Writes zeros over all of a file and makes that durable.
pub(super) fn overwrite(file: &mut File) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        file.write_all(&[0; PIECE_BYTES][..piece])?;
        left -= piece as u64;
    }
    file.sync_data()
}

/// The same, and removes it. Succeeds if there is none.
pub(super) fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).open(path) {
        Ok(mut file) => overwrite(&mut file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::remove_file(path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        // Another name shows what became of the bytes.
        let other = folder.path().join("other");
        for length in [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 7] {
            fs::write(&path, vec![0x5a; length]).unwrap();
            fs::hard_link(&path, &other).unwrap();
            overwrite_and_remove(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(fs::read(&other).unwrap(), vec![0; length]);
            fs::remove_file(&other).unwrap();
        }
        overwrite_and_remove(&path).unwrap();
        assert!(overwrite_and_remove(&folder.path().join("no folder/key")).is_ok(), "it is not there");
        assert!(overwrite_and_remove(folder.path()).is_err());
    }
}
