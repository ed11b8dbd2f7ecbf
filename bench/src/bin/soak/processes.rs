//! Memory and log bytes of the servers, looked at every second.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};

/// A log that is longer than this is emptied: what a flood writes is counted and not kept.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Memory is flat if the line through the second half of a run rises by no more than this share and this many bytes from its
/// begin to its end: the first half is for caches to fill.
const GROWTH: f64 = 0.05;
const GROWTH_BYTES: f64 = 8e6;
/// The line goes through means of so many seconds, after which an API ends the connections of clients that don't read: what
/// attackers hold goes up and down as often.
const TIDE: f64 = 60.0;
/// A second half that is shorter shows a tide and no more.
const JUDGED: f64 = 2.0 * TIDE;
/// Figures of a series at most.
const SERIES: usize = 30;

/// One server.
pub(crate) struct Server {
    pub(crate) name: String,
    pid: u32,
    log: PathBuf,
    begun: Instant,
    logged: u64,
    length: u64,
    /// Seconds since the begin, and bytes.
    resident: Vec<(f64, f64)>,
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
        self.resident.push((self.begun.elapsed().as_secs_f64(), kilobytes * 1_024.0));
        Ok(())
    }

    pub(crate) fn line(&self) -> String {
        let megabytes = |seen: Option<&(f64, f64)>| seen.map_or(f64::NAN, |(_, bytes)| bytes / 1e6);
        let peak = self.resident.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let rise = self.rise().map_or("too short to say whether it grows".to_owned(), |(rise, _)| {
            format!("the line through the second half rises by {:.1}", rise / 1e6)
        });
        format!(
            "{}: {:.0} MB at the start, {:.0} at most, {:.0} at the end, {rise}; {:.0} bytes of log a second",
            self.name,
            megabytes(self.resident.first()),
            megabytes(peak),
            megabytes(self.resident.last()),
            self.logged as f64 / self.begun.elapsed().as_secs_f64()
        )
    }

    /// Memory over time.
    pub(crate) fn series(&self) -> String {
        let step = self.resident.len().div_ceil(SERIES).max(1);
        let shown: Vec<String> =
            self.resident.iter().step_by(step).map(|(_, bytes)| format!("{:.0}", bytes / 1e6)).collect();
        format!("  MB every {step} s: {}", shown.join(" "))
    }

    /// Whether memory has stopped to grow, as far as the run can show it.
    pub(crate) fn is_flat(&self) -> bool {
        self.rise().is_none_or(|(rise, mean)| rise <= (mean * GROWTH).max(GROWTH_BYTES))
    }

    /// Bytes by which the line of least squares rises in the second half, and their mean.
    fn rise(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.resident.first()?.0, self.resident.last()?.0);
        let half = first + (last - first) / 2.0;
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / count
        };
        let second: Vec<(f64, f64)> = self
            .resident
            .iter()
            .filter(|(at, _)| *at >= half && *at <= last - TIDE)
            .map(|(at, _)| {
                let tide = self.resident.iter().filter(|(other, _)| (*at..*at + TIDE).contains(other));
                (*at, mean(&mut tide.map(|(_, bytes)| *bytes)))
            })
            .collect();
        if last - half < JUDGED {
            return None;
        }
        let at = mean(&mut second.iter().map(|seen| seen.0));
        let bytes = mean(&mut second.iter().map(|seen| seen.1));
        let spread: f64 = second.iter().map(|seen| (seen.0 - at).powi(2)).sum();
        let together: f64 = second.iter().map(|seen| (seen.0 - at) * (seen.1 - bytes)).sum();
        Some((together / spread * (last - half), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_goes_on_growing_is_told_from_memory_that_has_stopped() {
        let mut server = Server::new("none", 0, Path::new("/nowhere"));
        let mut grow = |megabytes: fn(u32) -> f64| {
            server.resident = (0..400).map(|at| (f64::from(at), megabytes(at) * 1e6)).collect();
            server.is_flat()
        };
        assert!(grow(|at| 100.0 + f64::from(at.min(180)) * 2.0), "a cache that has filled");
        assert!(grow(|at| 100.0 + f64::from(at % 60)), "up and down");
        assert!(!grow(|at| 100.0 + f64::from(at % 60) + f64::from(at) * 0.1), "20 MB in 200 s");
        server.resident.truncate(200);
        assert!(server.is_flat() && server.rise().is_none(), "too short");
    }
}
