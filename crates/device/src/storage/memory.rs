//! Storage of a simulated device that need not outlive its process. A thousand devices with the same module hold one copy.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::Medium;

/// Contents that several devices of one process hold.
#[derive(Clone, Debug, Default)]
pub struct SharedModules(Arc<Mutex<HashMap<String, Weak<[u8]>>>>);

impl SharedModules {
    /// The copy that others hold under this name, or `bytes` as the first one. Bytes that differ are kept apart.
    fn intern(&self, name: &str, bytes: Vec<u8>) -> Arc<[u8]> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shared.get(name).and_then(Weak::upgrade).filter(|held| **held == *bytes) {
            return held;
        }
        let bytes: Arc<[u8]> = bytes.into();
        shared.retain(|_, held| held.strong_count() > 0);
        shared.insert(name.to_owned(), Arc::downgrade(&bytes));
        bytes
    }
}

#[derive(Debug)]
enum Content {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes.to_vec(),
        }
    }
}

/// Files in memory; they end with the process.
#[derive(Debug, Default)]
pub struct Memory {
    files: BTreeMap<String, Content>,
    shared: SharedModules,
}

impl Memory {
    /// An empty folder, which shares what is renamed with others.
    #[must_use]
    pub fn new(shared: SharedModules) -> Self {
        Self { files: BTreeMap::new(), shared }
    }

    fn file(&self, name: &str) -> io::Result<&Content> {
        self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Medium for Memory {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files.iter().map(|(name, content)| (name.clone(), content.bytes().len() as u64)).collect())
    }

    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.file(name).ok()?.bytes().get(offset..));
        self.file(name)?;
        let rest = rest.unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest).to_vec())
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let mut content = self.files.remove(name).map_or_else(Vec::new, Content::into_vec);
        content.resize(offset, 0);
        content.extend_from_slice(bytes);
        self.files.insert(name.to_owned(), Content::Own(content));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name).map(drop)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let content = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let content = match content {
            // Only modules are alike on many devices, and only they are named by their content.
            Content::Own(bytes) if to.starts_with(super::MODULE) => {
                Content::Shared(self.shared.intern(to, bytes))
            }
            other => other,
        };
        self.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }
}
