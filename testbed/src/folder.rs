//! A folder that goes with this process, also when the process is killed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

/// Waits for the end of its input. Processes that die at the same time may still write, so it tries again for a while.
const REMOVER: &str = r#"
    trap '' INT TERM
    cat > /dev/null
    for attempt in 1 2 3 4 5; do rm -rf -- "$1" 2> /dev/null && exit; sleep 1; done
"#;

/// An empty folder below the system's folder for temporary files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Removes the folder when the pipe to it closes, which the kernel does if nobody else can.
    remover: Child,
}

impl Folder {
    /// Makes one; `name` is a part of its name, for people who look for logs.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wasmbed-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("can't create {}", path.display()))?;
        // Away from its terminal's signals: Ctrl-C ends the tests first, then what they wrote.
        let remover = Command::new("sh")
            .args(["-c", REMOVER, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("can't start sh")?;
        Ok(Self { path, remover })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        // Nobody to tell, and nothing that depends on it.
        let _ = self.remover.wait();
    }
}
