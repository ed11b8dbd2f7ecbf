//! A redb database in a file, whose failures can be got over.
//!
//! After one failed write redb refuses all others until the database is closed and opened again, and then continues at
//! the last commit that reached the disk.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, StorageError, backends::FileBackend};

use crate::{private_options, tighten};

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// There is a file, but what was in it is gone or can't be read.
    #[error("{} is damaged ({why}): put a copy of it in its place, or move it away to begin with an empty one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk fails, or the file may not be opened.
    #[error("{}: {why}", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

/// Where a database is, and how it is opened.
#[derive(Clone, Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    cache_bytes: usize,
}

impl DatabaseFile {
    /// A database at that path, of whose pages so many bytes are kept in memory.
    #[must_use]
    pub fn new(path: PathBuf, cache_bytes: usize) -> Self {
        Self { path, cache_bytes }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for the first time in a process: all of it is checked. Where there is no file one is made, beside its place
    /// first, so that a crash can't leave one that looks damaged; `prepare` gives it its tables. A file that is empty was
    /// one that held something, and is refused.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &self,
        prepare: impl FnOnce(&Database) -> Result<(), redb::Error>,
    ) -> Result<Database, OpenError> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() == 0 => return Err(self.damaged("it has 0 bytes")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(prepare)?,
            Err(error) => return Err(self.disk(&error)),
        }
        self.open_checked(true)
    }

    /// Opens it again in a process that had it open: what was committed is there, and nothing else.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn reopen(&self) -> Result<Database, OpenError> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() == 0 => Err(self.damaged("it has 0 bytes")),
            Ok(_) => self.open_checked(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.damaged("it is gone")),
            Err(error) => Err(self.disk(&error)),
        }
    }

    fn create(&self, prepare: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), OpenError> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let failed = |error: redb::Error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse(self.path.clone()),
            other => self.disk(&other),
        };
        // What an interrupted start left is not looked at.
        let file = private_options().read(true).write(true).create(true).truncate(true).open(&new);
        let file = file.map_err(|error| self.disk(&error))?;
        let created = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
        let made = created.map_err(redb::Error::from).and_then(|database| {
            prepare(&database)?;
            database.close().map_err(redb::Error::from)
        });
        if let Err(error) = made {
            // The first error says what happened.
            let _ = fs::remove_file(&new);
            return Err(failed(error));
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let placed = fs::rename(&new, &self.path)
            .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
        placed.map_err(|error| self.disk(&error))
    }

    fn open_checked(&self, check: bool) -> Result<Database, OpenError> {
        tighten(&self.path).map_err(|error| self.disk(&error))?;
        let file = File::options().read(true).write(true).open(&self.path);
        let file = file.map_err(|error| self.disk(&error))?;
        let open = || {
            Database::builder()
                .set_cache_size(self.cache_bytes)
                .set_check_integrity_on_open(check)
                .create_with_backend(FileBackend::new(file)?)
        };
        // The library may panic on a file that something else wrote to.
        let opened = catch_unwind(AssertUnwindSafe(open));
        opened.map_err(|_| self.damaged("its content contradicts itself"))?.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                OpenError::InUse(self.path.clone())
            }
            DatabaseError::Storage(StorageError::Corrupted(why)) => self.damaged(&why),
            DatabaseError::Storage(StorageError::Io(error))
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                self.damaged(&error.to_string())
            }
            error @ (DatabaseError::RepairAborted | DatabaseError::UpgradeRequired(_)) => {
                self.damaged(&error.to_string())
            }
            other => self.disk(&other),
        })
    }

    fn damaged(&self, why: &str) -> OpenError {
        OpenError::Damaged { path: self.path.clone(), why: why.to_owned() }
    }

    fn disk(&self, error: &dyn std::fmt::Display) -> OpenError {
        OpenError::Disk { path: self.path.clone(), why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use redb::{ReadableDatabase as _, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    fn file(folder: &Path) -> DatabaseFile {
        DatabaseFile::new(folder.join("a.redb"), 1024 * 1024)
    }

    fn put(database: &Database, key: u64, bytes: usize) -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(TABLE)?.insert(key, vec![7; bytes].as_slice())?;
        write.commit()?;
        Ok(())
    }

    #[test]
    fn a_database_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = file(folder.path()).open(|database| put(database, 1, 10)).unwrap();
        assert!(matches!(file(folder.path()).open(|_| Ok(())), Err(OpenError::InUse(_))));
        drop(database);
        fs::set_permissions(folder.path().join("a.redb"), fs::Permissions::from_mode(0o644)).unwrap();
        let database = file(folder.path()).open(|_| panic!("it is there")).unwrap();
        assert!(database.begin_read().unwrap().open_table(TABLE).unwrap().get(1).unwrap().is_some());
        let mode = fs::metadata(folder.path().join("a.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_lost_what_it_held_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.redb");
        drop(file(folder.path()).open(|database| put(database, 1, 100_000)).unwrap());
        let whole = fs::read(&path).unwrap();
        let mut holed = whole.clone();
        holed[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let text = b"#!/bin/sh\necho this is no database\n".repeat(200);
        for (what, bytes) in [
            ("empty", &b""[..]),
            ("cut", &whole[..whole.len() / 2]),
            ("a few bytes", &whole[..100]),
            ("holed", &holed),
            ("another file", &text),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = file(folder.path()).open(|_| panic!("{what} is not new")).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
            assert!(error.to_string().contains("a.redb is damaged ("), "{what}: {error}");
            assert_eq!(fs::read(&path).unwrap().len(), bytes.len(), "{what} is left as it is");
        }
        fs::write(&path, whole).unwrap();
        file(folder.path()).open(|_| panic!("it is there")).unwrap();
    }

    #[test]
    fn a_first_start_that_was_interrupted_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.redb.new"), b"").unwrap();
        file(folder.path()).open(|database| put(database, 1, 10)).unwrap();
        assert!(!folder.path().join("a.redb.new").exists());
    }
}
