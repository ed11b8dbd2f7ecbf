//! `wasmbed up`, as a person runs it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use wasmbed_testbed::{Kubectl, Process, wasmbed};

/// A running `wasmbed up` on free ports.
#[derive(Debug)]
pub struct Up {
    /// The process.
    pub process: Process,
    dir: PathBuf,
}

impl Up {
    /// Starts it in `DIR/state` and waits for `ready`.
    ///
    /// # Errors
    /// With what it printed, when it doesn't get there.
    pub fn start(dir: &Path, arguments: &[&str]) -> Result<Self> {
        let state = dir.join("state");
        let mut command = wasmbed(&["up", "--free-ports", "--data-dir"])?;
        command.arg(&state).args(arguments);
        let mut process = Process::start(command, "up", dir)?;
        process.wait_for_line("ready", |line| line == "ready")?;
        Ok(Self { process, dir: dir.to_owned() })
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("state/kubeconfig")
    }

    /// kubectl as administrator.
    ///
    /// # Errors
    /// When there is no kubectl.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig(), &self.dir)
    }
}
