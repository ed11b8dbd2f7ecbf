//! Patches that break something on purpose, and a second checkout in which they are applied.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::process;

/// The patches of a folder of this checkout, in order; those of these names if any are named.
pub(crate) fn in_folder(folder: &str, names: &[String]) -> Result<Vec<PathBuf>> {
    let folder = process::top().join(folder);
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            all.push(path);
        }
    }
    all.sort();
    for name in names {
        ensure!(all.iter().any(|path| name_of(path) == *name), "there is no {name}");
    }
    all.retain(|path| names.is_empty() || names.contains(&name_of(path)));
    ensure!(!all.is_empty(), "there is no patch in {}", folder.display());
    Ok(all)
}

/// What a patch is called.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A second checkout. It stays in the target folder, so that the next run builds only what changed.
pub(crate) struct Worktree(PathBuf);

impl Worktree {
    /// Of what was committed last.
    pub(crate) fn at_head(path: PathBuf) -> Result<Self> {
        let head =
            process::output(Command::new("git").current_dir(process::top()).args(["rev-parse", "HEAD"]))?;
        if path.join(".git").exists() {
            let tree = Self(path);
            process::run(tree.git().args(["checkout", "--quiet", "--force", "--detach", head.trim()]))?;
            return Ok(tree);
        }
        let mut git = Command::new("git");
        git.current_dir(process::top()).args(["worktree", "add", "--force", "--quiet", "--detach"]);
        process::run(git.arg(&path).arg(head.trim()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Git in it, to be completed.
    pub(crate) fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.current_dir(&self.0);
        git
    }

    /// Changes it as a patch says.
    pub(crate) fn apply(&self, patch: &Path) -> Result<()> {
        self.reset()?;
        let applied = process::run(self.git().arg("apply").arg(patch));
        applied.with_context(|| format!("{} no longer applies: bring it up to date", patch.display()))
    }

    /// Takes back what was changed in it.
    pub(crate) fn reset(&self) -> Result<()> {
        process::run(self.git().args(["checkout", "--quiet", "--", "."]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_applies_to_these_sources() {
        for folder in ["simulation/mutations", "xtask/defences"] {
            for patch in in_folder(folder, &[]).expect("there are some") {
                let mut git = Command::new("git");
                git.current_dir(process::top()).args(["apply", "--check"]).arg(&patch);
                assert!(git.status().expect("git starts").success(), "{} no longer applies", patch.display());
            }
        }
    }
}
