//! CPU time and memory of a server process, as the kernel counts them.

use anyhow::{Context, Result};

/// CPU time of a process so far, milliseconds, all its threads together. The kernel counts in steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    /// USER_HZ of Linux on every architecture that Rust has a standard library for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("can't read the process's times")?;
    // proc(5): the name may hold anything, the fields after its closing bracket begin with the third.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = times.sum::<Result<f64, _>>().context("a time that is no number")?;
    Ok(ticks * 1_000.0 / TICKS_PER_SECOND)
}
