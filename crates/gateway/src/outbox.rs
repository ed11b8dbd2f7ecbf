//! The outbox: messages of applications on the gateway's disk.
//!
//! A redb database of its own, so that neither its size nor its failures touch the sets: one record for all messages that came
//! while the write before was under way, by ascending numbers, and places of devices. What stands in both is
//! `wasmbed_control::gateway`'s; here they are written, removed and read. One thread writes.
//!
//! A full disk must not keep the oldest from being removed, for which a tree that copies on write takes some pages first: a reserve
//! in a file beside it is given up then, and taken back when there is room.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc},
};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use wasmbed_control::{
    gateway::{
        BrokerCursor, BrokerPage, MessageCursor, OutboxFailure, OutboxWrite, RestoredMessages,
        config::MESSAGE_SCAN_BYTES, message_lines,
    },
    gateway_api::MessageLine,
};
use wasmbed_files::{DatabaseFile, OpenError};

use crate::store::StoreError;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const PLACES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("places");
/// How far brokers are, by UID.
const POSITIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("positions");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const PLACED_BEFORE: &str = "placed_before";

/// Pages of the database in memory: the last records, which readers that follow ask for, and the way to the next one.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// What is kept free for the removal of records: the pages of some levels of three trees.
const RESERVE_BYTES: usize = 512 * 1024;
const RESERVE: &str = "messages.reserve";

/// How writes end.
pub(crate) type OnWritten = Box<dyn Fn(Result<Vec<Vec<u8>>, OutboxFailure>) + Send>;

/// What readers are given at once.
pub(crate) struct Page {
    pub(crate) lines: Vec<MessageLine>,
    /// Whether there is more to be looked at now; `lines` may be empty all the same.
    pub(crate) more: bool,
}

/// The outbox; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    writes: mpsc::Sender<Option<OutboxWrite>>,
    shared: Arc<Shared>,
}

struct Shared {
    file: DatabaseFile,
    /// None while it can't be opened.
    database: RwLock<Option<Database>>,
    reserve: PathBuf,
}

/// An opened outbox whose thread does not run yet.
pub(crate) struct Opened {
    shared: Shared,
    /// What was in it.
    pub(crate) restored: RestoredMessages,
}

/// Opens the outbox, creating it if there is none. One that is damaged is set aside.
pub(crate) fn open(folder: &Path) -> Result<Opened, StoreError> {
    wasmbed_files::private_folder(folder)
        .map_err(|source| StoreError::Io { path: folder.to_owned(), source })?;
    let file = DatabaseFile::new(folder.join("messages.redb"), CACHE_BYTES);
    let (database, restored) = match open_records(&file) {
        Err(StoreError::Open(OpenError::Damaged { path, why })) => {
            let aside = wasmbed_files::set_aside(&path)
                .map_err(|source| StoreError::Io { path: path.clone(), source })?;
            tracing::error!(
                reason = "StoreSetAside",
                "{} was damaged ({why}) and is now {}; its messages are not delivered",
                path.display(),
                aside.display()
            );
            open_records(&file)?
        }
        other => other?,
    };
    let reserve = folder.join(RESERVE);
    let shared = Shared { file, database: RwLock::new(Some(database)), reserve };
    shared.take_reserve();
    Ok(Opened { shared, restored })
}

fn open_records(file: &DatabaseFile) -> Result<(Database, RestoredMessages), StoreError> {
    let failed =
        |source: redb::Error| StoreError::Database { path: file.path().to_owned(), source: Box::new(source) };
    let database = file.open(make_tables)?;
    match read(&database) {
        Ok(restored) => Ok((database, restored)),
        Err(redb::Error::Corrupted(why)) => {
            Err(OpenError::Damaged { path: file.path().to_owned(), why }.into())
        }
        Err(error) => Err(failed(error)),
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(RECORDS)?;
    write.open_table(PLACES)?;
    write.open_table(POSITIONS)?;
    write.open_table(META)?;
    write.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<RestoredMessages, redb::Error> {
    let read = database.begin_read()?;
    let mut restored = RestoredMessages::default();
    restored.placed_before(read.open_table(META)?.get(PLACED_BEFORE)?.map_or(0, |number| number.value()));
    for entry in read.open_table(PLACES)?.iter()? {
        let (device, places) = entry?;
        restored.place(device.value(), places.value());
    }
    // A gateway of a version before brokers made no such table.
    match read.open_table(POSITIONS) {
        Ok(positions) => {
            for entry in positions.iter()? {
                let (uid, position) = entry?;
                restored.position(uid.value(), position.value());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    for entry in read.open_table(RECORDS)?.iter()? {
        let (number, record) = entry?;
        restored.record(number.value(), record.value());
    }
    Ok(restored)
}

impl Opened {
    /// Starts the thread that writes.
    pub(crate) fn start(self, on_written: OnWritten) -> Result<(Outbox, OutboxThread), StoreError> {
        let shared = Arc::new(self.shared);
        let (writes, receiver) = mpsc::channel();
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("gateway-outbox".to_owned())
            .spawn(move || {
                while let Ok(Some(write)) = receiver.recv() {
                    on_written(writing.write(&write));
                }
                // The file is free when this returns, whoever still holds an Outbox.
                drop(writing.exclusively().take());
            })
            .map_err(StoreError::Thread)?;
        let outbox = Outbox { writes: writes.clone(), shared };
        Ok((outbox, OutboxThread { writes, thread }))
    }
}

/// The thread that writes, for the one who ends it.
pub(crate) struct OutboxThread {
    writes: mpsc::Sender<Option<OutboxWrite>>,
    thread: std::thread::JoinHandle<()>,
}

impl OutboxThread {
    /// Does what was asked for so far and closes the outbox.
    pub(crate) async fn stop(self) {
        let _ = self.writes.send(None);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!(reason = "TaskPanicked", "outbox thread panicked");
        }
    }
}

impl Outbox {
    /// Asks for a write. There is one at a time: the decisions give the next one after the answer.
    pub(crate) fn start(&self, write: OutboxWrite) {
        // Refused only once the thread was stopped, and what then stays undone is not answered.
        let _ = self.writes.send(Some(write));
    }

    /// The next messages for a reader.
    pub(crate) async fn page(&self, mut cursor: MessageCursor) -> (MessageCursor, io::Result<Page>) {
        let shared = Arc::clone(&self.shared);
        let before = cursor.clone();
        let read = tokio::task::spawn_blocking(move || {
            let page = shared.page(&mut cursor).map_err(io::Error::other);
            (cursor, page)
        });
        read.await.unwrap_or_else(|error| (before, Err(io::Error::other(error))))
    }
}

impl Outbox {
    /// The next messages for a broker.
    pub(crate) async fn broker_page(&self, cursor: BrokerCursor) -> io::Result<BrokerPage> {
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.broker_page(&cursor).map_err(io::Error::other));
        read.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Shared {
    fn exclusively(&self) -> std::sync::RwLockWriteGuard<'_, Option<Database>> {
        // Whether there is a database is whole even if a holder of the lock panicked.
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> std::sync::RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: &OutboxWrite) -> Result<Vec<Vec<u8>>, OutboxFailure> {
        if write.make_room {
            let _ = fs::remove_file(&self.reserve);
        }
        if self.database().is_none() {
            self.reopen()?;
        }
        let written = match &*self.database() {
            Some(database) => transact(database, write),
            None => return Err(OutboxFailure { full: false, detail: "the database is closed".to_owned() }),
        };
        match written {
            Ok(removed) => {
                if write.make_room || !self.reserve.exists() {
                    self.take_reserve();
                }
                Ok(removed)
            }
            Err(error) => {
                // The database takes no write any more until it is opened anew, at the last commit that is on the disk.
                let _ = self.reopen();
                Err(OutboxFailure { full: is_full(&error), detail: error.to_string() })
            }
        }
    }

    fn reopen(&self) -> Result<(), OutboxFailure> {
        let mut database = self.exclusively();
        // Closed first, since a file is opened once at a time.
        drop(database.take());
        let opened = self.file.reopen();
        let opened = opened.map_err(|error| OutboxFailure { full: false, detail: error.to_string() })?;
        *database = Some(opened);
        Ok(())
    }

    /// A disk that has no room for it has none for more messages soon; that is then found out by a write.
    fn take_reserve(&self) {
        if fs::metadata(&self.reserve).is_ok_and(|file| file.len() >= RESERVE_BYTES as u64) {
            return;
        }
        let written = wasmbed_files::create_private_file(&self.reserve).and_then(|mut file| {
            // Not zeros, which some file systems don't store.
            file.write_all(&vec![0xa5; RESERVE_BYTES])?;
            file.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&self.reserve);
        }
    }

    fn page(&self, cursor: &mut MessageCursor) -> Result<Page, redb::Error> {
        let database = self.database();
        let Some(database) = &*database else { return Ok(Page { lines: Vec::new(), more: false }) };
        let read = database.begin_read()?;
        let mut looked_at = 0;
        for entry in read.open_table(RECORDS)?.range(cursor.record()..)? {
            let (number, record) = entry?;
            let (lines, finished) = message_lines(cursor, number.value(), record.value());
            looked_at += record.value().len();
            if !lines.is_empty() || !finished || looked_at >= MESSAGE_SCAN_BYTES {
                return Ok(Page { lines, more: true });
            }
        }
        Ok(Page { lines: Vec::new(), more: false })
    }
}

impl Shared {
    fn broker_page(&self, cursor: &BrokerCursor) -> Result<BrokerPage, redb::Error> {
        let mut page = cursor.page();
        let database = self.database();
        let Some(database) = &*database else {
            return Err(redb::Error::DatabaseClosed);
        };
        let read = database.begin_read()?;
        let mut looked_at = 0;
        for entry in read.open_table(RECORDS)?.range(cursor.record()..)? {
            let (number, record) = entry?;
            looked_at += record.value().len();
            if !cursor.read_record(&mut page, number.value(), record.value())
                || looked_at >= MESSAGE_SCAN_BYTES
            {
                return Ok(page);
            }
        }
        page.finish(cursor);
        Ok(page)
    }
}

/// Whether the disk has no room, or may have none for this file.
fn is_full(error: &redb::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

fn transact(database: &Database, work: &OutboxWrite) -> Result<Vec<Vec<u8>>, redb::Error> {
    let write = database.begin_write()?;
    let mut removed = Vec::with_capacity(work.remove.len());
    {
        let mut records = write.open_table(RECORDS)?;
        for number in &work.remove {
            let record = records.remove(number)?;
            removed.push(record.map(|record| record.value().to_vec()).unwrap_or_default());
        }
        for (number, record) in &work.append {
            records.insert(number, &**record)?;
        }
        if !work.places.is_empty() || !work.forget.is_empty() {
            let mut places = write.open_table(PLACES)?;
            for device in &work.forget {
                places.remove(device.as_str())?;
            }
            for (device, bytes) in &work.places {
                places.insert(device.as_str(), bytes.as_slice())?;
            }
        }
        if !work.positions.is_empty() || !work.released.is_empty() {
            let mut positions = write.open_table(POSITIONS)?;
            for uid in &work.released {
                positions.remove(uid.as_str())?;
            }
            for (uid, position) in &work.positions {
                positions.insert(uid.as_str(), position)?;
            }
        }
        if !work.places.is_empty() {
            write.open_table(META)?.insert(PLACED_BEFORE, work.placed_before)?;
        }
    }
    write.commit()?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use wasmbed_control::gateway::OutboxWrite;

    use super::*;

    type Written = mpsc::Receiver<Result<Vec<Vec<u8>>, OutboxFailure>>;

    fn start(opened: Opened) -> (Outbox, OutboxThread, Written) {
        let (sender, receiver) = mpsc::channel();
        let (outbox, thread) = opened.start(Box::new(move |result| drop(sender.send(result)))).unwrap();
        (outbox, thread, receiver)
    }

    fn append(number: u64, bytes: &[u8]) -> OutboxWrite {
        OutboxWrite { append: vec![(number, bytes.into())], ..OutboxWrite::default() }
    }

    fn records(folder: &Path) -> Vec<(u64, usize)> {
        let file = DatabaseFile::new(folder.join("messages.redb"), CACHE_BYTES);
        let database = file.open(|_| panic!("it is there")).unwrap();
        let read = database.begin_read().unwrap();
        let records = read.open_table(RECORDS).unwrap();
        let entries = records.iter().unwrap().map(Result::unwrap);
        entries.map(|(number, record)| (number.value(), record.value().len())).collect()
    }

    #[tokio::test]
    async fn a_write_is_done_whole_and_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, thread, written) = start(open(folder.path()).unwrap());
        for number in 1..=3 {
            outbox.start(append(number, &[7; 100]));
            assert_eq!(written.recv().unwrap(), Ok(Vec::new()));
        }
        let places = vec![("lab/a".to_owned(), vec![1, 2])];
        let mut write = OutboxWrite { remove: vec![1, 9], places, placed_before: 4, ..append(4, &[8; 10]) };
        outbox.start(write.clone());
        assert_eq!(written.recv().unwrap(), Ok(vec![vec![7; 100], Vec::new()]), "9 is not there");
        (write.append, write.remove) = (Vec::new(), Vec::new());
        (write.places, write.forget) = (Vec::new(), vec!["lab/a".to_owned(), "lab/b".to_owned()]);
        outbox.start(write);
        thread.stop().await;
        assert_eq!(written.recv().unwrap(), Ok(Vec::new()), "what was asked for before the stop is done");
        assert_eq!(records(folder.path()), [(2, 100), (3, 100), (4, 10)]);
        let opened = open(folder.path()).unwrap();
        let mut restored = RestoredMessages::default();
        restored.placed_before(4);
        for (number, bytes) in [(2, &[7; 100][..]), (3, &[7; 100]), (4, &[8; 10])] {
            restored.record(number, bytes);
        }
        assert_eq!(opened.restored, restored);
    }

    #[test]
    fn a_damaged_outbox_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        fs::write(folder.path().join("messages.redb"), b"no database").unwrap();
        assert_eq!(open(folder.path()).unwrap().restored, RestoredMessages::default());
        assert_eq!(fs::read(folder.path().join("messages.redb.damaged-1")).unwrap(), b"no database");
    }

    #[tokio::test]
    async fn readers_read_while_records_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, thread, written) = start(open(folder.path()).unwrap());
        // What is no record has no messages, and a reader gets over it.
        for number in 1..=20 {
            outbox.start(append(number, &[0; 100_000]));
            written.recv().unwrap().unwrap();
        }
        let (cursor, page) = outbox.page(MessageCursor::default()).await;
        assert!(page.unwrap().more, "a page looks at some only");
        let (cursor, page) = outbox.page(cursor).await;
        assert!(!page.unwrap().more);
        assert_eq!(cursor.record(), 21);
        thread.stop().await;
        assert!(outbox.page(cursor).await.1.unwrap().lines.is_empty(), "it is closed");
    }
}
