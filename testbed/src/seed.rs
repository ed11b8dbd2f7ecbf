//! What etcd holds once kube-apiserver has begun and Wasmbed is installed, kept for clusters that start later: to write it again takes
//! kube-apiserver longer than all else of its start.
//!
//! It may not hold anything of a test.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{Cluster, ControlPlane, Part, process::profile_dir};

/// Folder of the seeds, beside what Cargo built.
const FOLDER: &str = "testbed";

/// The folder of the seed that fits, there or not.
pub(crate) fn path(installed: &str) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (crate::kubernetes("etcd")?, installed).hash(&mut hasher);
    Ok(profile_dir()?.join(FOLDER).join(format!("etcd-{:016x}", hasher.finish())))
}

/// Lays a seed where etcd will look for its data. False where there is none.
pub(crate) fn lay(seed: &Path, data: &Path) -> Result<bool> {
    if !seed.is_dir() {
        return Ok(false);
    }
    copy(seed, data).with_context(|| format!("can't copy {}", seed.display()))?;
    Ok(true)
}

/// Keeps what a cluster's etcd holds: both processes end for it, as no copy of files that are written to is whole, and start again.
pub(crate) async fn keep(cluster: &Cluster, seed: &Path) -> Result<()> {
    debug_assert_eq!(cluster.plane(), ControlPlane::Kubernetes, "the other has no etcd");
    cluster.kill(Part::ApiServer)?;
    cluster.stop(Part::Etcd).await?;
    let folder = seed.parent().context("a seed has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    let unfinished = tempfile::tempdir_in(folder).context("can't create a folder")?;
    copy(&cluster.etcd_data(), &unfinished.path().join("etcd")).context("can't copy what etcd holds")?;
    // Another program may have been first; what it kept serves as well.
    if fs::rename(unfinished.path().join("etcd"), seed).is_err() && !seed.is_dir() {
        anyhow::bail!("can't write {}", seed.display());
    }
    cluster.start_part(Part::Etcd).await?;
    cluster.start_part(Part::ApiServer).await
}

/// Copies a folder. Files of etcd end in megabytes of zeros that it has set aside: they become holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
            continue;
        }
        let bytes = fs::read(&from)?;
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut file = File::create(&to)?;
        file.write_all(&bytes[..written])?;
        file.set_len(u64::try_from(bytes.len())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::lay;

    #[test]
    fn a_seed_is_laid_whole_and_its_zeros_take_no_room() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (seed, data) = (folder.path().join("seed"), folder.path().join("data"));
        assert!(!lay(&seed, &data)?, "there is none");
        fs::create_dir_all(seed.join("member/wal"))?;
        let mut bytes = vec![7; 5_000];
        bytes.resize(4 << 20, 0);
        fs::write(seed.join("member/wal/0.wal"), &bytes)?;
        fs::write(seed.join("empty"), b"")?;
        assert!(lay(&seed, &data)?);
        assert_eq!(fs::read(data.join("member/wal/0.wal"))?, bytes);
        assert!(fs::read(data.join("empty"))?.is_empty());
        assert!(fs::metadata(data.join("member/wal/0.wal"))?.blocks() * 512 < 100_000);
        Ok(())
    }
}
