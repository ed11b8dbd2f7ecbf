//! Memory and log bytes of the servers, looked at every second.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};

/// A log that is longer than this is emptied: what a flood writes is counted and not kept.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Memory that grows by no more than this share and this many bytes between the second quarter of a run and its last is flat.
const GROWTH: f64 = 0.10;
const GROWTH_BYTES: f64 = 16e6;

/// One server.
pub(crate) struct Server {
    pub(crate) name: String,
    pid: u32,
    log: PathBuf,
    begun: Instant,
    logged: u64,
    length: u64,
    resident: Vec<f64>,
}

impl Server {
    pub(crate) fn new(name: &str, pid: u32, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let length = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let name = name.to_owned();
        Self { name, pid, log, begun: Instant::now(), logged: 0, length, resident: Vec::new() }
    }

    /// Notes what there is to note.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn look(&mut self) -> Result<()> {
        let length = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        self.logged += length.saturating_sub(self.length);
        self.length = length;
        if length > LOG_BYTES_MAX {
            // The process appends, so that it goes on at the beginning.
            File::options().write(true).open(&self.log)?.set_len(0)?;
            self.length = 0;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .with_context(|| format!("{} has ended", self.name))?;
        // A process that ended and was not waited for has no such line.
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let line = line.with_context(|| format!("{} has ended", self.name))?;
        let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        self.resident.push(kilobytes * 1_024.0);
        Ok(())
    }

    pub(crate) fn line(&self) -> String {
        let megabytes = |bytes: Option<&f64>| bytes.map_or(f64::NAN, |bytes| bytes / 1e6);
        let peak = self.resident.iter().max_by(|a, b| a.total_cmp(b));
        format!(
            "{}: {:.0} MB at the start, {:.0} at most, {:.0} at the end; {:.0} bytes of log a second",
            self.name,
            megabytes(self.resident.first()),
            megabytes(peak),
            megabytes(self.resident.last()),
            self.logged as f64 / self.begun.elapsed().as_secs_f64()
        )
    }

    /// Whether memory has stopped to grow.
    pub(crate) fn is_flat(&self) -> bool {
        let quarter = self.resident.len() / 4;
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        let second = mean(&self.resident[quarter..2 * quarter]);
        let last = mean(&self.resident[self.resident.len() - quarter..]);
        last <= second * (1.0 + GROWTH) + GROWTH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_goes_on_growing_is_told_from_memory_that_has_stopped() {
        let mut server = Server::new("none", 0, Path::new("/nowhere"));
        server.resident = (0..400).map(|second| 100e6 + f64::from(second.min(80)) * 2e6).collect();
        assert!(server.is_flat());
        server.resident = (0..400).map(|second| 100e6 + f64::from(second) * 1e6).collect();
        assert!(!server.is_flat());
    }
}
