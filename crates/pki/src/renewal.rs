//! Files that are replaced while a process runs: cert-manager renews the certificates of a mounted Secret in their place.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// How often to look: certificates are renewed days before they expire, and a few small files cost nothing.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// Tells when any of some files holds something else than before. It compares contents: a Secret's volume swaps a symbolic
/// link, other tools write in place, and they do not signal it in the same way.
#[derive(Debug)]
pub struct Renewal {
    files: Vec<PathBuf>,
    seen: u64,
}

impl Renewal {
    /// To be made before the files are read for use, so that no change falls in between.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Vec<PathBuf> = files.into_iter().collect();
        let seen = fingerprint(&files);
        Self { files, seen }
    }

    /// Whether a file changed since this was last asked, came or went.
    pub fn has_changed(&mut self) -> bool {
        let found = fingerprint(&self.files);
        std::mem::replace(&mut self.seen, found) != found
    }
}

/// A value made from files, and made anew when they change.
pub struct Renewed<T, E> {
    files: Mutex<Renewal>,
    make: Box<dyn Fn() -> Result<T, E> + Send + Sync>,
    current: RwLock<Arc<T>>,
}

impl<T, E> Renewed<T, E> {
    /// Makes it for the first time.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn open(
        files: impl IntoIterator<Item = PathBuf>,
        make: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Before the files are read, so that no change falls in between.
        let files = Mutex::new(Renewal::new(files));
        let current = RwLock::new(Arc::new(make()?));
        Ok(Self { files, make: Box::new(make), current })
    }

    /// What the files held when they last could be used.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files, and blocks while it reads them; none if they are as before. Files that can't be used change nothing, and are
    /// told once.
    pub fn refresh(&self) -> Option<Result<Arc<T>, E>> {
        if !self.files.lock().unwrap_or_else(PoisonError::into_inner).has_changed() {
            return None;
        }
        Some((self.make)().map(|made| {
            let made = Arc::new(made);
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&made);
            made
        }))
    }
}

impl<T: Send + Sync + 'static, E: 'static> Renewed<T, E> {
    /// Looks at the files now and every `interval`, in a thread of its own, for as long as what it gives is kept. `renewed` is told
    /// what changed files hold, or once that they can't be used.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn follow(
        self: Arc<Self>,
        interval: Duration,
        mut renewed: impl FnMut(Result<Arc<T>, E>) + Send + 'static,
    ) -> io::Result<Following> {
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            loop {
                self.refresh().into_iter().for_each(&mut renewed);
                match stopped.recv_timeout(interval) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name("renewal".to_owned()).spawn(look)?;
        Ok(Following { _stop: stop })
    }
}

/// Has files looked at until it is dropped; a look under way is not waited for.
#[must_use = "nobody looks at the files any more once it is dropped"]
#[derive(Debug)]
pub struct Following {
    /// The thread ends once this is gone.
    _stop: mpsc::Sender<()>,
}

fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_told_once_also_behind_a_link_and_when_a_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("old", "1"), ("new", "2")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("tls.crt"), text).unwrap();
        }
        symlink(at("old"), at("data")).unwrap();
        let mut renewal = Renewal::new([at("data").join("tls.crt")]);
        assert!(!renewal.has_changed());
        symlink(at("new"), at("next")).unwrap();
        fs::rename(at("next"), at("data")).unwrap();
        assert!(renewal.has_changed());
        assert!(!renewal.has_changed());
        fs::remove_file(at("new").join("tls.crt")).unwrap();
        assert!(renewal.has_changed());
        assert!(!renewal.has_changed());
    }

    #[test]
    fn what_can_not_be_used_leaves_the_value_that_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let path = file.clone();
        let read =
            move || fs::read_to_string(&path).unwrap_or_default().parse::<u32>().map_err(|_| "no number");
        let number = Renewed::open([file.clone()], read).unwrap();
        assert!(number.refresh().is_none());
        fs::write(&file, "x").unwrap();
        assert_eq!((number.refresh(), *number.current()), (Some(Err("no number")), 1));
        assert!(number.refresh().is_none());
        fs::write(&file, "2").unwrap();
        assert_eq!((number.refresh(), *number.current()), (Some(Ok(Arc::new(2))), 2));
    }

    #[test]
    fn files_are_followed_until_nobody_wants_to_know() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let path = file.clone();
        let number = Arc::new(Renewed::open([file.clone()], move || fs::read_to_string(&path)).unwrap());
        let (tell, told) = mpsc::channel();
        let renewed = move |outcome: io::Result<Arc<String>>| tell.send(outcome.unwrap()).unwrap();
        let following = Arc::clone(&number).follow(Duration::from_millis(5), renewed).unwrap();
        fs::write(folder.path().join("next"), "2").unwrap();
        fs::rename(folder.path().join("next"), &file).unwrap();
        assert_eq!(*told.recv_timeout(Duration::from_secs(30)).unwrap(), "2");
        drop(following);
        // The thread lets go of what it was to tell.
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
