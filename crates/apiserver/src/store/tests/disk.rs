//! The store on a disk that fails and recovers.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::*;
use crate::store::disk::Open;
use crate::store::{HistoryExpired, Page};

/// State of the disk.
pub(crate) const WELL: u8 = 0;
/// Full.
pub(crate) const FULL: u8 = 1;
/// It stores a write and reports a failure, once.
const LIES: u8 = 2;
/// Full, and so broken that its file can't be opened again.
pub(crate) const GONE: u8 = 3;

#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    path: PathBuf,
    state: Arc<AtomicU8>,
}

impl Faulty {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    fn open_store(&self) -> Disk {
        Disk::open_with(Arc::new(self.clone()), &self.path.with_extension("keys")).unwrap()
    }

    fn full(&self) -> io::Result<()> {
        if matches!(self.state(), FULL | GONE) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn database(&self) -> Result<Database, wasmbed_files::OpenError> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&self.path).unwrap();
        let inner = FileBackend::new(file).unwrap();
        let backend = FaultyBackend { inner, faulty: self.clone() };
        Database::builder().create_with_backend(backend).map_err(|error| wasmbed_files::OpenError::Disk {
            path: self.path.clone(),
            why: error.to_string(),
        })
    }
}

impl Open for Faulty {
    fn open(&self) -> Result<Database, wasmbed_files::OpenError> {
        self.database()
    }

    fn reopen(&self) -> Result<Database, wasmbed_files::OpenError> {
        if self.state() == GONE {
            let why = "input/output error".to_owned();
            return Err(wasmbed_files::OpenError::Disk { path: self.path.clone(), why });
        }
        self.database()
    }

    fn check_room(&self) -> io::Result<()> {
        self.full()
    }
}

#[derive(Debug)]
struct FaultyBackend {
    inner: FileBackend,
    faulty: Faulty,
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faulty.full()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faulty.full()?;
        self.inner.sync_data()?;
        let lies = self.faulty.state.compare_exchange(LIES, WELL, Ordering::Relaxed, Ordering::Relaxed);
        if lies.is_ok() { Err(io::Error::other("the disk reports a failure")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faulty.full()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) faulty: Faulty,
    pub(crate) leases: Arc<Kind>,
    pub(crate) store: Store,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl World {
    pub(crate) async fn new() -> World {
        let kinds = kinds();
        let leases = leases(&kinds);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.redb");
        let faulty = Faulty { path, state: Arc::new(AtomicU8::new(WELL)) };
        let disk = faulty.open_store();
        let (store, ended) = Store::start(Arc::clone(&kinds), disk, HISTORY, |_| {}).unwrap();
        store.write(create(kinds.namespaces(), "default", json!({}))).await.unwrap();
        World { _folder: folder, faulty, leases, store, ended }
    }

    pub(crate) async fn lease(&self, name: &str) -> Result<u64, u16> {
        self.write(name).await.map_err(|status| status.reason().code())
    }

    /// Creates a Lease of that name; gives its revision.
    pub(crate) async fn write(&self, name: &str) -> Result<u64, Status> {
        let written = self.store.write(create(&self.leases, name, json!({}))).await;
        written.map(|applied| applied.event.unwrap().revision())
    }

    fn names(&self) -> Vec<String> {
        let snapshot = self.store.snapshot().unwrap();
        let selection = Selection::default();
        let Page { objects, .. } =
            Pager { selection: &selection, after: None, limit: None }.read(&self.leases, &snapshot).unwrap();
        let name = |object: Vec<u8>| {
            let object: serde_json::Value = serde_json::from_slice(&object).unwrap();
            object["metadata"]["name"].as_str().unwrap().to_owned()
        };
        objects.into_iter().map(name).collect()
    }

    pub(crate) async fn until_well(&self) {
        while self.store.failure().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_full_disk_that_has_room_again_is_written_again_and_lost_nothing() {
    let world = World::new().await;
    let first = world.lease("a").await.unwrap();
    world.faulty.set(FULL);
    assert_eq!(world.lease("b").await, Err(500));
    assert!(world.store.failure().is_some());
    assert!([500, 503].contains(&world.lease("c").await.unwrap_err()));
    assert!(world.store.failure().unwrap().contains("no storage space"), "{:?}", world.store.failure());
    world.faulty.set(WELL);
    // Without a write.
    world.until_well().await;
    assert_eq!(world.names(), ["a"], "a write that was reported as failed is not stored");
    assert_eq!(world.lease("b").await, Ok(first + 1), "no revision is used twice or left out");
    let changes = world.store.feed(&world.leases).unwrap().since(first - 1).unwrap();
    assert_eq!(changes.events.iter().map(|event| event.revision()).collect::<Vec<_>>(), [first, first + 1]);
    drop(world.store);
    world.ended.await.unwrap();
    let disk = world.faulty.open_store();
    assert_eq!(disk.snapshot().unwrap().revision(), first + 1);
}

#[tokio::test]
async fn a_commit_that_reached_the_disk_as_it_failed_is_in_no_history() {
    let world = World::new().await;
    let first = world.lease("a").await.unwrap();
    world.faulty.set(LIES);
    assert_eq!(world.lease("b").await, Err(500));
    world.until_well().await;
    let revision = world.store.snapshot().unwrap().revision();
    let since = world.store.feed(&world.leases).unwrap().since(first);
    // Either is right, but reads and watches must agree.
    if world.names() == ["a", "b"] {
        assert_eq!(revision, first + 1);
        assert_eq!(since.unwrap_err(), HistoryExpired { oldest: revision });
    } else {
        assert_eq!((world.names(), revision), (vec!["a".to_owned()], first));
        assert!(since.unwrap().events.is_empty());
    }
    assert_eq!(world.lease("c").await, Ok(revision + 1));
    assert!(world.store.feed(&world.leases).unwrap().since(revision).unwrap().events.len() == 1);
}

#[test]
fn a_store_of_version_0_1_0_opens_and_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("apiserver");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.join("objects.redb");
    std::fs::write(&path, include_bytes!("fixtures/objects-0.1.0.redb")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let disk = Disk::open(&folder, None).unwrap();
    let snapshot = disk.snapshot().unwrap();
    assert!(snapshot.revision() > 0);
    assert!(snapshot.get("/namespaces//default").unwrap().is_some());
    for (path, mode) in [(&folder, 0o700), (&path, 0o600)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn a_store_that_lost_its_content_is_refused_with_instructions() {
    let folder = tempfile::tempdir().unwrap();
    drop(Disk::open(folder.path(), None).unwrap());
    let path = folder.path().join("objects.redb");
    let whole = std::fs::read(&path).unwrap();
    for damaged in [&[][..], &whole[..whole.len() / 3]] {
        std::fs::write(&path, damaged).unwrap();
        let error = Disk::open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("objects.redb is damaged (") && error.contains("put a copy of it"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "it is left as it is");
    }
}
