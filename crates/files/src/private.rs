//! Folders of mode 0700 and files of mode 0600.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// What others have no part in.
const OTHERS: u32 = 0o077;
/// The sticky bit: a folder that many users share, like `/tmp`.
const STICKY: u32 = 0o1000;
/// Names above a folder that an installation has to itself: `/var/lib` and `/home/user` are somebody else's too.
const SHARED_DEPTH_MAX: usize = 2;
/// Damaged files that are kept of one file; the oldest go.
const SET_ASIDE_MAX: usize = 3;

/// Tells the temporary files of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Makes a folder, and those above it that are missing, with mode 0700; one that is there and belongs to this user gets that
/// mode, so that folders of older versions are closed as well. Left as they are: folders of others, shared ones (sticky),
/// and those near the root of the file system, which hold other things too.
///
/// # Errors
/// The folder can't be made or looked at.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::metadata(folder)?;
    let depth =
        folder.canonicalize()?.components().filter(|part| matches!(part, Component::Normal(_))).count();
    if metadata.mode() & STICKY != 0 || depth <= SHARED_DEPTH_MAX {
        return Ok(());
    }
    tighten(folder)
}

/// Takes from others what they may do with a file or folder of this user; one of another user is left as it is.
///
/// # Errors
/// It can't be looked at or changed.
pub fn tighten(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS == 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !OTHERS))
}

/// Options that make a file with mode 0600 where they make one.
#[must_use]
pub fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a file of mode 0600, or empties the one that is there and takes it from others.
///
/// # Errors
/// The file can't be made or changed.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    let file = private_options().write(true).create(true).truncate(true).open(path)?;
    tighten(path)?;
    Ok(file)
}

/// Writes a file of mode 0600 so that a crash leaves either the old content or the new, and creates its folder
/// (mode 0700) if there is none.
///
/// # Errors
/// The folder or the file could not be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.{number}.tmp", std::process::id()));
    let temporary = folder.join(temporary_name);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error says what happened; a temporary file that can't be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A crash may have left a file of this name, from a process that had the same id.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Renames a damaged file to `NAME.damaged-N`, for a person to look at, and returns the new path. Of earlier ones the
/// youngest two are kept.
///
/// # Errors
/// The folder can't be read or changed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    let start = name.map(|name| format!("{name}.damaged-"));
    let start = start.ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&start)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let at = |number: u64| folder.join(format!("{start}{number}"));
    let next = at(numbers.last().map_or(1, |last| last.saturating_add(1)));
    let gone = (numbers.len() + 1).saturating_sub(SET_ASIDE_MAX);
    for number in numbers.into_iter().take(gone) {
        fs::remove_file(at(number))?;
    }
    fs::rename(path, &next)?;
    tighten(&next)?;
    File::open(folder)?.sync_all()?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_private_file_is_replaced_whole_and_has_mode_0600() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/key");
        write_private(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_an_older_version_left_open_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old");
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(old.join("lock"), b"x").unwrap();
        fs::set_permissions(old.join("lock"), fs::Permissions::from_mode(0o664)).unwrap();
        private_folder(&old).unwrap();
        create_private_file(&old.join("lock")).unwrap();
        private_folder(&old.join("a/b")).unwrap();
        assert_eq!((mode(&old), mode(&old.join("lock"))), (0o700, 0o600));
        assert_eq!((mode(&old.join("a")), mode(&old.join("a/b"))), (0o700, 0o700));
    }

    #[test]
    fn folders_that_many_share_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        private_folder(&shared).unwrap();
        assert_eq!(mode(&shared), 0o1777);
    }

    #[test]
    fn the_youngest_damaged_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sets.redb");
        for number in 1..=5_u8 {
            fs::write(&path, [number]).unwrap();
            assert_eq!(set_aside(&path).unwrap(), folder.path().join(format!("sets.redb.damaged-{number}")));
        }
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [[3], [4], [5]]);
    }
}
