//! An empty root with the one binary in it: what a container made from scratch is to a process.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Devices of every container, with their minor numbers.
const DEVICES: [(&str, &str); 2] = [("random", "8"), ("urandom", "9")];

/// A folder that becomes `/` of the processes started in it.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Puts a statically linked binary into an empty folder, as `/wasmbed`.
    ///
    /// # Errors
    /// When the binary needs an interpreter, which a container from scratch doesn't have.
    pub fn create(dir: &Path, binary: &Path) -> Result<Self> {
        let linked = Command::new("readelf").args(["--program-headers", "--wide"]).arg(binary).output();
        let linked = linked.context("can't run readelf")?;
        let headers = String::from_utf8_lossy(&linked.stdout);
        ensure!(linked.status.success() && headers.contains("LOAD"), "{} is no program", binary.display());
        ensure!(!headers.contains("INTERP"), "{} is not linked statically", binary.display());
        fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
        let entries = fs::read_dir(dir).context("can't list the root")?.count();
        ensure!(entries == 0, "{} is not empty", dir.display());
        // A link costs nothing; on another file system it has to be a copy.
        let inside = dir.join("wasmbed");
        if fs::hard_link(binary, &inside).is_err() {
            fs::copy(binary, &inside).with_context(|| format!("can't copy {}", binary.display()))?;
        }
        let root = Self { dir: dir.to_owned() };
        // Every container runtime gives a container these: a static program finds getrandom(2) only through them.
        for (name, minor) in DEVICES {
            root.write(&format!("/dev/{name}"), b"")?;
            if privileged() {
                let device = root.outside(&format!("/dev/{name}"));
                fs::remove_file(&device).context("can't remove a file")?;
                let made =
                    Command::new("mknod").args(["-m", "666"]).arg(&device).args(["c", "1", minor]).status();
                ensure!(made.context("can't run mknod")?.success(), "can't make {}", device.display());
            }
        }
        Ok(root)
    }

    /// Where a path of the root is outside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// Writes a file that everybody may read, as a mounted Secret or ConfigMap is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let outside = self.outside(path);
        if let Some(parent) = outside.parent() {
            fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
        }
        fs::write(&outside, bytes).with_context(|| format!("can't write {}", outside.display()))?;
        let readable = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&outside, readable).with_context(|| format!("can't open {path} to all"))
    }

    /// Makes a folder that a user may write to, as a mounted volume is.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn volume(&self, path: &str) -> Result<()> {
        let outside = self.outside(path);
        fs::create_dir_all(&outside).with_context(|| format!("can't create {}", outside.display()))?;
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&outside, open).with_context(|| format!("can't open {path} to all"))
    }

    /// The binary with this folder as its root and nothing of our environment. As root it also gives up being root, as
    /// the chart's pods do; elsewhere a user namespace stands in.
    #[must_use]
    pub fn command(
        &self,
        user: Option<u32>,
        environment: &[(String, String)],
        arguments: &[String],
    ) -> Command {
        let mut command = Command::new("env");
        command.arg("-i").arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()));
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        match user {
            _ if !privileged() => {
                let mount = |(name, _): (&str, &str)| {
                    let device = self.outside(&format!("/dev/{name}"));
                    format!("mount --bind /dev/{name} {} && ", device.display())
                };
                command.args(["unshare", "--map-root-user", "--mount", "sh", "-c"]);
                command.arg(DEVICES.map(mount).concat() + "exec chroot \"$@\"");
                command.arg("chroot");
            }
            Some(user) => {
                command.arg("chroot").arg(format!("--userspec={user}:{user}"));
            }
            None => {
                command.arg("chroot");
            }
        }
        command.arg(&self.dir).arg("/wasmbed").args(arguments);
        command
    }
}

fn privileged() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
