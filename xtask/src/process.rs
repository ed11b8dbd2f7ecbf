//! Running other programs, with what they do on screen.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// The checkout's top folder.
pub(crate) fn top() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A folder for tools and toolchains, outside the checkout and kept between runs.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    Ok(base.join("wasmbed"))
}

/// Prints a headline for a step, with the CPU time that earlier ones took.
pub(crate) fn step(text: &str) {
    match cpu_of_ended() {
        Some(spent) if spent >= Duration::from_secs(1) => {
            println!("\n==> {text} (after {:.1} CPU-minutes)", spent.as_secs_f64() / 60.0);
        }
        _ => println!("\n==> {text}"),
    }
}

/// CPU time of the programs that were started here and have ended, and of those that they started; where Linux tells.
pub(crate) fn cpu_of_ended() -> Option<Duration> {
    cpu_of_children(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// `cutime` and `cstime` of a line as proc_pid_stat(5) has it, in hundredths of a second on every architecture.
fn cpu_of_children(stat: &str) -> Option<Duration> {
    // The name before is in parentheses and may contain spaces: it ends at the last one.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = after_name.nth(13)?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(10)?))
}

/// Runs a command with its output on screen; an exit code other than 0 is an error that shows the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", display(command));
    let status = command.status().with_context(|| format!("can't start {}", display(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", display(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't start {}", display(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", display(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not print text", display(command)))
}

/// Whether a program is on the PATH.
pub(crate) fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The `cargo` that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = wasmbed_cargo::command();
    command.current_dir(top());
    command
}

/// The `cargo` of rustup with its nightly compiler.
pub(crate) fn nightly() -> Command {
    let mut command = wasmbed_cargo::without_package(Command::new("cargo"));
    command.arg("+nightly");
    command
}

/// Whether [`workspace`] lints what it compiles.
static LINTS: AtomicBool = AtomicBool::new(false);

/// From here on [`workspace`] lints.
pub(crate) fn lint_what_is_compiled() {
    LINTS.store(true, Ordering::Relaxed);
}

/// A wrapper of the compiler that links `wasmbed` as its image has it.
pub(crate) fn static_link() -> PathBuf {
    top().join("xtask/static-link")
}

/// [`cargo`] for what is compiled for tests: with lints where they are wanted. `wasmbed` is the one that is shipped, statically linked,
/// unless somebody has a wrapper of their own, or Cargo has linked the usual one already.
pub(crate) fn workspace() -> Command {
    let mut command = cargo();
    if std::env::var_os("RUSTC_WRAPPER").is_none() {
        command.env("RUSTC_WRAPPER", static_link());
    }
    if LINTS.load(Ordering::Relaxed) { with_lints(command) } else { command }
}

/// Clippy stands in for the compiler of the workspace's own crates: `cargo clippy` would read all that these depend on once more, which
/// takes as long as they do. A warning is an error then.
///
/// What Clippy compiled is optimised a little less and kept apart from the compiler's own: nothing that is shipped or weighed may
/// come from it.
pub(crate) fn with_lints(mut cargo: Command) -> Command {
    cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    // Between arguments stands what `cargo clippy` puts there.
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    cargo
}

/// Builds the binary `wasmbed` in the profile of the tests, with the features that all of them give to what it is linked with: a test of
/// its package brings it along. The package alone would be built with its own features, and most of what is below it twice.
pub(crate) fn build_binary() -> Command {
    let mut command = workspace();
    command.args(["test", "--quiet", "--workspace", "--no-run", "--test", "errors"]);
    command
}

/// Bytes free in a folder's file system, for whoever may write there.
pub(crate) fn free_bytes(folder: &Path) -> Result<u64> {
    // One line for people, one for the folder; the fourth column is what is free, in KiB.
    let table = output(Command::new("df").args(["-kP"]).arg(folder))?;
    let column = table.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    let free = column.and_then(|kib| kib.parse::<u64>().ok());
    Ok(free.with_context(|| format!("can't read what df says of {}: {table}", folder.display()))? * 1_024)
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::cpu_of_children;

    #[test]
    fn cpu_time_of_children_is_read_behind_any_name() {
        let stat = "7 (a (b) c) R 1 1 1 0 -1 0 101 0 0 0 5 6 1200 34 20 0 1 0 3966477 3133440";
        assert_eq!(cpu_of_children(stat), Some(Duration::from_millis(12_340)));
        assert_eq!(cpu_of_children("7 (cut) R 1"), None);
    }
}
