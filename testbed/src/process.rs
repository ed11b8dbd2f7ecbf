//! Processes that a test starts, and that end with it.

use std::{
    cell::RefCell,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long a process may take to print what is waited for, or to end after it was asked to.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which files and processes are polled.
const POLL: Duration = Duration::from_millis(20);
/// Lines that are kept of what an ended process printed last.
const LAST_LINES: usize = 40;

/// A command of the host binary, built first so that a test never runs an old one; `WASMBED_BINARY` names another one, which is
/// run as it is.
///
/// # Errors
/// When it can't be built.
pub fn wasmbed(arguments: &[&str]) -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf>> = OnceLock::new();
    let binary = BUILT.get_or_init(build);
    let binary = binary.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("KUBECONFIG").env_remove("WASMBED_DATA_DIR").stdin(Stdio::null());
    Ok(command)
}

/// Where Cargo puts what it builds in the profile of this program.
pub(crate) fn profile_dir() -> Result<PathBuf> {
    let test = std::env::current_exe().context("can't tell where this test program is")?;
    let folder = test.parent().context("this program lies in no folder")?;
    // Tests lie one folder deeper than other programs.
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(folder.context("this test program lies in no target folder")?.to_owned())
}

/// Builds the binary in the profile of this program.
fn build() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("WASMBED_BINARY") {
        return Ok(PathBuf::from(binary));
    }
    let profile_dir = profile_dir()?;
    let mut cargo = wasmbed_cargo::command();
    cargo.args(["build", "--quiet", "--package", "wasmbed"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // With the package that runs now, features of what they share are the same, and nothing is built twice.
    if let Some(package) = std::env::var_os("CARGO_PKG_NAME") {
        cargo.arg("--package").arg(package);
    }
    if profile_dir.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    ensure!(cargo.status().context("can't start cargo")?.success(), "wasmbed could not be built");
    Ok(profile_dir.join("wasmbed"))
}

/// A running process, its output in a file. Dropping it kills it, and so does the end of this program, however that comes.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    /// Where this process began in the file that processes of its name share, bytes.
    begin: u64,
    child: Child,
}

impl Process {
    /// Starts a command; what it prints is appended to `DIR/NAME.log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(command: Command, name: &str, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("can't open {}", log.display()))?;
        let begin = file.metadata().context("can't look at a file")?.len();
        let mut command = bound(&command);
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().context("can't share a file")?).stderr(file);
        let child = spawn(command).with_context(|| format!("can't start {name}"))?;
        Ok(Self { name: name.to_owned(), log, begin, child })
    }

    /// Its output.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn printed(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("can't read {}", self.log.display()))?;
        let begin = usize::try_from(self.begin).unwrap_or(usize::MAX).min(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[begin..]).into_owned())
    }

    /// Waits until it has printed a line that `wanted` accepts, and returns that line.
    ///
    /// # Errors
    /// With what it printed, when it ended or the time is over.
    pub fn wait_for_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PROCESS_TIMEOUT;
        loop {
            let ended = self.child.try_wait().context("can't look at a process")?;
            if let Some(line) = self.printed()?.lines().find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended with {status} before {what}; it printed:\n{}", self.name, self.printed()?);
            }
            if Instant::now() > deadline {
                bail!("{} did not print {what}; it printed:\n{}", self.name, self.printed()?);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// With what it printed last, when it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("can't look at a process")? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; it printed last:\n{}", self.name, self.tail()),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// When /proc has no value.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("can't read /proc")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        let kilobytes: u64 =
            line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is not a number")?;
        Ok(kilobytes * 1_024)
    }

    /// Kills it, as a crash would: SIGKILL.
    ///
    /// # Errors
    /// When it can't be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("can't kill {}", self.name))?;
        self.child.wait().with_context(|| format!("can't wait for {}", self.name))?;
        Ok(())
    }

    /// Sends a signal by name, for example `INT`.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status()
            .context("can't run kill")?;
        ensure!(sent.success(), "{} did not take SIG{signal}", self.name);
        Ok(())
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time, with what it printed.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, with what it printed.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PROCESS_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().context("can't look at a process")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end; it printed:\n{}", self.name, self.printed()?);
            }
            std::thread::sleep(POLL);
        }
    }

    fn tail(&self) -> String {
        let printed = self.printed().unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = format!("--- the last lines of {}:\n{}", self.name, self.tail());
        if std::thread::panicking() {
            eprintln!("{said}");
        } else {
            // A thread that is ending has no use for them any more.
            let _ = LAST_WORDS.try_with(|words| words.borrow_mut().push(said));
        }
    }
}

thread_local! {
    static LAST_WORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Takes what the processes that ended on this thread printed last: for a test that failed without a panic and has dropped
/// everything on its way out.
#[must_use]
pub fn last_words() -> Vec<String> {
    LAST_WORDS.with(RefCell::take)
}

/// The command, to be killed by the kernel when the thread that starts it ends. It becomes the command's own process: its number and
/// its signals stay as they are.
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound
}

/// Starts a command on a thread that lives as long as this program: a test's own thread may end before what it started.
fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // Who ordered it waits for the answer.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    starter.send((command, answer)).ok().context("the thread that starts processes has ended")?;
    let child = answered.recv().context("the thread that starts processes has ended")?;
    child.context("can't start setpriv, a part of util-linux")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() -> Result<()> {
        let folder = Folder::create("process-test")?;
        let dir = folder.path().to_owned();
        let started = std::thread::spawn(move || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo up; exec cat /dev/zero > /dev/null"]);
            Process::start(command, "busy", &dir)
        });
        let mut process = started.join().expect("no panic")?;
        process.wait_for_line("up", |line| line == "up")?;
        process.check()?;
        let before = process.id();
        process.kill()?;
        assert!(!Path::new(&format!("/proc/{before}")).exists());
        assert!(last_words().iter().any(|words| words.ends_with("busy:\nup")));
        Ok(())
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() -> Result<()> {
        let folder = Folder::create("process-test")?;
        let mut process = Process::start(Command::new("/no/such/program"), "missing", folder.path())?;
        let said = process.wait_for_line("anything", |_| false).expect_err("it ended");
        assert!(format!("{said:#}").contains("/no/such/program"), "{said:#}");
        Ok(())
    }
}
