//! A disk that can be full: a file system in memory that the kernel bounds, which one process alone sees.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use wasmbed_testbed::Process;

/// Megabytes of the disk: several times what a role needs in a test.
const MIB: u32 = 24;

/// Where the disk is for its process.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

/// A file that takes all that is left; removed when it is dropped.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
}

impl SmallDisk {
    /// A disk at `DIR/disk`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("disk");
        fs::create_dir_all(&path).context("can't make a folder")?;
        Ok(Self { path })
    }

    /// Where its process finds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command with the disk mounted, in a mount namespace that ends with it; it stays the same process. Who isn't root
    /// becomes it in a user namespace.
    #[must_use]
    pub fn mount(&self, command: &Command) -> Command {
        let mut mounted = Command::new("unshare");
        if !is_root() {
            mounted.args(["--user", "--map-root-user"]);
        }
        let script = format!("mount -t tmpfs -o size={MIB}m,mode=700 tmpfs \"$1\" && shift && exec \"$@\"");
        mounted.args(["--mount", "--", "sh", "-c", &script, "sh"]).arg(&self.path);
        mounted.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => mounted.env(name, value),
                None => mounted.env_remove(name),
            };
        }
        mounted
    }

    /// The disk as it is seen from outside.
    #[must_use]
    pub fn of(&self, process: &Process) -> PathBuf {
        let inside = self.path.strip_prefix("/").unwrap_or(&self.path);
        Path::new("/proc").join(process.id().to_string()).join("root").join(inside)
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// When it can't be written, or never gets full.
    pub fn fill(&self, process: &Process) -> Result<Filler> {
        let filler = Filler { path: self.of(process).join("filler") };
        let mut file = File::create(&filler.path).context("can't write to the small disk")?;
        let mut block = vec![0xa5; 64 * 1_024];
        // Twice the disk, in blocks that get smaller where they don't fit any more.
        for _ in 0..2 * MIB * 16 + 64 {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull && block.len() > 1 => {
                    block.truncate(block.len() / 2);
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(filler),
                Err(error) => return Err(error).context("can't fill the small disk"),
            }
        }
        bail!("{} takes more than it may hold: it is no disk of its own", filler.path.display())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // With its process the whole disk is gone.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
