//! `cargo xtask deep fuzz`: each fuzz target for its share of a time, and one table of what came of it.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;

/// Seconds of each target if nothing else is asked for.
const SECONDS: u64 = 300;

#[derive(Args)]
pub(crate) struct Fuzz {
    /// Seconds for each target, 300 if neither this nor `--total` is given.
    #[arg(long, conflicts_with = "total")]
    seconds: Option<u64>,
    /// Seconds for all targets together, divided evenly.
    #[arg(long)]
    total: Option<u64>,
    /// The targets; all if none is named.
    targets: Vec<String>,
}

/// What came of one target.
#[derive(Default)]
struct Ran {
    target: String,
    executions: u64,
    seconds: u64,
    /// Edges that the corpus alone covers, and those at the end.
    covered: Option<(u64, u64)>,
    /// Inputs that were kept, since they reached something new.
    kept: u64,
    findings: Vec<String>,
    succeeded: bool,
}

pub(crate) fn run(options: &Fuzz) -> Result<()> {
    let folder = process::top().join("fuzz");
    let has = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    ensure!(
        has(process::nightly().arg("--version")),
        "fuzzing needs a nightly compiler: rustup toolchain install nightly"
    );
    ensure!(
        has(Command::new("cargo").args(["fuzz", "--version"])),
        "fuzzing needs cargo-fuzz: cargo install --locked cargo-fuzz"
    );
    let mut targets = options.targets.clone();
    if targets.is_empty() {
        let listed = process::output(process::nightly().args(["fuzz", "list"]).current_dir(&folder))?;
        targets.extend(listed.lines().map(str::to_owned));
    }
    ensure!(!targets.is_empty(), "there is no fuzz target");
    let seconds = share(options.seconds, options.total, targets.len())?;
    // Apart from the runs, so that no target's time goes into it.
    process::run(process::nightly().args(["fuzz", "build"]).current_dir(&folder))?;
    let mut all = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        process::step(&format!("{target}, {} of {}, {seconds} s", index + 1, targets.len()));
        all.push(one(&folder, target, seconds)?);
    }
    print!("\n{}", table(&all));
    let failed: Vec<_> = all.iter().filter(|ran| !ran.succeeded).map(|ran| ran.target.as_str()).collect();
    ensure!(failed.is_empty(), "failed: {}; what they found lies in fuzz/artifacts", failed.join(", "));
    Ok(())
}

/// Seconds of each of so many targets.
fn share(seconds: Option<u64>, total: Option<u64>, targets: usize) -> Result<u64> {
    let each = match total {
        Some(total) => total / u64::try_from(targets)?,
        None => seconds.unwrap_or(SECONDS),
    };
    // libFuzzer takes 0 for no end.
    ensure!(each > 0, "a second for each of the {targets} targets is the least");
    Ok(each)
}

fn one(folder: &Path, target: &str, seconds: u64) -> Result<Ran> {
    // New inputs are kept out of the committed corpus, and are where the next run goes on.
    let found = folder.join("target/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("can't create {}", found.display()))?;
    let mut command = process::nightly();
    command.args(["fuzz", "run", target]).current_dir(folder);
    command.arg(&found).arg(folder.join("corpus").join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    let begun = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn().context("can't start cargo fuzz")?;
    let printed = child.stderr.take().context("cargo fuzz has a standard error")?;
    let mut ran = Ran { target: target.to_owned(), ..Ran::default() };
    for line in BufReader::new(printed).split(b'\n') {
        let line = line.context("can't read what the fuzzer prints")?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        ran.read(&line);
    }
    ran.succeeded = child.wait().context("can't wait for cargo fuzz")?.success();
    ran.seconds = begun.elapsed().as_secs();
    Ok(ran)
}

impl Ran {
    /// Takes what a line of libFuzzer says: a progress line (`#2 INITED cov: 10 ft: 11 …`), a statistic, or the file of a finding.
    fn read(&mut self, line: &str) {
        let line = line.trim();
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(executions) = first.strip_prefix('#').and_then(|number| number.parse().ok()) {
            self.executions = self.executions.max(executions);
            let covered =
                words.skip_while(|word| *word != "cov:").nth(1).and_then(|number| number.parse().ok());
            if let Some(covered) = covered {
                let begin = self.covered.map_or(covered, |(begin, _)| begin);
                self.covered = Some((begin, covered));
            }
        } else if let Some(number) = statistic(line, "number_of_executed_units") {
            self.executions = self.executions.max(number);
        } else if let Some(number) = statistic(line, "new_units_added") {
            self.kept = number;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.findings.push(name.to_owned());
        }
    }
}

fn statistic(line: &str, name: &str) -> Option<u64> {
    let (found, number) = line.strip_prefix("stat::")?.split_once(':')?;
    (found == name).then(|| number.trim().parse().ok())?
}

/// A row for each target, and their sum last.
fn table(all: &[Ran]) -> String {
    let mut text = format!(
        "{:<12} {:>7} {:>12} {:>16} {:>10}  findings\n",
        "target", "seconds", "executions", "edges covered", "new inputs"
    );
    let mut row = |target: &str, seconds: u64, executions: u64, edges: &str, kept: u64, findings: &str| {
        // Writing to a String does not fail.
        let _ =
            writeln!(text, "{target:<12} {seconds:>7} {executions:>12} {edges:>16} {kept:>10}  {findings}");
    };
    for ran in all {
        let edges = ran.covered.map_or_else(|| "?".to_owned(), |(begin, end)| format!("{begin} -> {end}"));
        let findings = match (ran.findings.is_empty(), ran.succeeded) {
            (false, _) => ran.findings.join(", "),
            (true, true) => "none".to_owned(),
            (true, false) => "it ended with an error".to_owned(),
        };
        row(&ran.target, ran.seconds, ran.executions, &edges, ran.kept, &findings);
    }
    let sum = |of: fn(&Ran) -> u64| all.iter().map(of).sum();
    let findings: usize = all.iter().map(|ran| ran.findings.len()).sum();
    let findings = findings.to_string();
    row("all", sum(|ran| ran.seconds), sum(|ran| ran.executions), "", sum(|ran| ran.kept), &findings);
    text
}

#[cfg(test)]
mod tests {
    use super::{Ran, share, table};

    const PRINTED: &str = "\
INFO: Seed: 1
#3\tINITED cov: 120 ft: 130 corp: 2/10b exec/s: 0 rss: 40Mb
#1024\tNEW    cov: 125 ft: 140 corp: 3/12b lim: 4 exec/s: 0 rss: 41Mb L: 2/4 MS: 1 ChangeByte-
#4096\tpulse  cov: 125 ft: 140 corp: 3/12b lim: 8 exec/s: 2048 rss: 41Mb
#5000\tDONE   cov: 127 ft: 141 corp: 4/20b lim: 8 exec/s: 1000 rss: 41Mb
Done 5000 runs in 5 second(s)
stat::number_of_executed_units: 5001
stat::average_exec_per_sec:     1000
stat::new_units_added:          2";

    fn read(text: &str) -> Ran {
        let mut ran = Ran { target: "tls".to_owned(), seconds: 5, succeeded: true, ..Ran::default() };
        text.lines().for_each(|line| ran.read(line));
        ran
    }

    #[test]
    fn what_a_fuzzer_prints_becomes_a_row() {
        let ran = read(PRINTED);
        assert_eq!((ran.executions, ran.covered, ran.kept), (5_001, Some((120, 127)), 2));
        let rows = table(&[ran]);
        let words: Vec<Vec<_>> = rows.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["tls", "5", "5001", "120", "->", "127", "2", "none"]);
        assert_eq!(words[2], ["all", "5", "5001", "2", "0"]);
    }

    #[test]
    fn a_finding_is_named_and_so_is_an_end_without_one() {
        let mut ran = read(
            "#7\tINITED cov: 1 ft: 1\nartifact_prefix='a/'; Test unit written to /somewhere/fuzz/artifacts/tls/crash-0a",
        );
        ran.succeeded = false;
        assert!(table(&[ran]).contains("crash-0a"));
        let mut ran = read("error: could not compile");
        ran.succeeded = false;
        assert!(table(&[ran]).contains("it ended with an error"));
    }

    #[test]
    fn a_total_is_divided_evenly() {
        assert_eq!(share(None, Some(3_600), 7).ok(), Some(514));
        assert_eq!(share(Some(20), None, 7).ok(), Some(20));
        assert_eq!(share(None, None, 7).ok(), Some(300));
        assert!(share(None, Some(6), 7).is_err(), "0 seconds would have no end");
    }
}
