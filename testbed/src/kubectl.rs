//! The real kubectl.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::tools::collect_seldom;

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// kubectl with a kubeconfig; it keeps its caches and the test's manifests in `home`.
    ///
    /// # Errors
    /// When there is none: see [`kubernetes`](crate::kubernetes). `WASMBED_KUBECTL` names another one.
    pub fn new(kubeconfig: &Path, home: &Path) -> Result<Self> {
        let program = match std::env::var_os("WASMBED_KUBECTL") {
            Some(path) => PathBuf::from(path),
            None => crate::kubernetes("kubectl")?,
        };
        Ok(Self { program, kubeconfig: kubeconfig.to_owned(), home: home.to_owned() })
    }

    /// A kubectl command to be run as the test likes; it keeps its caches in the test's own folder.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env("HOME", &self.home)
            .stdin(Stdio::null());
        collect_seldom(&mut command);
        command
    }

    /// Runs kubectl and returns its output.
    ///
    /// # Errors
    /// With its error output, when it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("can't start kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("kubectl {} failed: {said}", arguments.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs kubectl, which is expected to fail, and returns its error output.
    ///
    /// # Errors
    /// When it was not refused.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("can't start kubectl")?;
        if output.status.success() {
            bail!(
                "kubectl {} was not refused: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies a manifest and returns kubectl's output.
    ///
    /// # Errors
    /// With its error output, when it failed.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let file = self.write(manifest)?;
        self.run(&["apply", "-f", &file])
    }

    /// Applies a manifest that is expected to be refused, and returns kubectl's error output.
    ///
    /// # Errors
    /// When it was not refused.
    pub fn apply_refused(&self, manifest: &str) -> Result<String> {
        let file = self.write(manifest)?;
        self.refused(&["apply", "-f", &file])
    }

    fn write(&self, manifest: &str) -> Result<String> {
        let mut file =
            tempfile::Builder::new().suffix(".yaml").tempfile_in(&self.home).context("can't make a file")?;
        std::io::Write::write_all(&mut file, manifest.as_bytes()).context("can't write a file")?;
        let (_, path) = file.keep().context("can't keep a file")?;
        Ok(path.display().to_string())
    }
}
