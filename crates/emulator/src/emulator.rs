//! A running QEMU.
//!
//! ```text
//! start ──► running ──► ended: quit, cut_power, dropped, the board powers off, or this process dies however it does
//!             │  ▲
//!       pause └──┘ resume
//! ```

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wasmbed_board_data::Code;

use crate::{
    Debugger, EmulatorError, Kind,
    board::{Files, NETWORK, with_path},
    console::{Console, Next},
    firmware, flash,
    qmp::{ANSWER_SECONDS, Qmp},
};

/// Until QEMU connects to its control; a second on an idle machine, more on one that builds something.
const START_SECONDS_MAX: u64 = 60;
/// Between asking QEMU to end and killing it.
const QUIT_SECONDS_MAX: u64 = 5;
/// Names of the sockets in their folder.
const CONTROL: &str = "control";
const DEBUGGER: &str = "debugger";
/// Between two looks at what has no notification.
const LOOK: Duration = Duration::from_millis(5);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The board.
    pub board: Kind,
    /// ELF file; for a board whose code QEMU takes as an image of its flash a plain binary does as well.
    pub firmware: PathBuf,
    /// The data flash: kept between runs, made when missing. The code flash's image is made beside it.
    pub data_flash: PathBuf,
    /// Bytes of memory instead of the board's own, if QEMU lets it be chosen.
    pub memory: Option<u32>,
    /// Each instruction takes one nanosecond of the board's time, so that its clock counts instructions.
    pub icount: bool,
    /// With a debugger that can send the board off its way: [`Emulator::debugger`].
    pub debugger: bool,
    /// What hangs on the board's buses beside what the board has: QEMU's devices, as `-device` takes them.
    pub devices: Vec<String>,
    /// Serial lines beside the console, which is line 0, each with the Unix socket that QEMU connects to: the other end.
    pub serial_lines: Vec<(usize, PathBuf)>,
}

impl Options {
    /// A board as it comes.
    #[must_use]
    pub fn new(board: Kind, firmware: PathBuf, data_flash: PathBuf) -> Self {
        Self {
            board,
            firmware,
            data_flash,
            memory: None,
            icount: false,
            debugger: false,
            devices: Vec::new(),
            serial_lines: Vec::new(),
        }
    }
}

/// How QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// As the system tells it; none when that could not be learnt.
    pub status: Option<ExitStatus>,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => status.fmt(f),
            None => f.write_str("unknown status"),
        }
    }
}

/// A board in QEMU. It ends when this is dropped, and when this process ends, also by SIGKILL.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    qmp: Mutex<Qmp>,
    debugger: Option<Mutex<Debugger>>,
    keeper: Option<JoinHandle<()>>,
    /// Holds the lock on the flash until QEMU is gone.
    _flash: File,
}

#[derive(Debug, Default)]
struct Shared {
    console: Console,
    errors: Console,
    child: Mutex<Option<Child>>,
    ended: Mutex<Option<Ended>>,
}

impl Emulator {
    /// Starts QEMU and returns as soon as it obeys; the board runs from then on.
    ///
    /// # Errors
    /// QEMU or a file is missing or not usable, or QEMU does not start; with its words.
    pub fn start(options: &Options) -> Result<Self, EmulatorError> {
        let program = options.board.check_installed()?;
        let flash = flash::open(options.board, &options.data_flash)?;
        let code = code_file(options)?;
        let board =
            options.board.arguments(&Files { code: &code, data: &options.data_flash }, options.memory)?;
        let (dir, listener) = control_socket()?;
        let mut command = command(program, options, board, &dir);
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        let (report, started) = mpsc::channel();
        let keeper = thread::spawn(move || keep(&mut command, &kept, &report));
        let connected = match started.recv() {
            Ok(Ok(())) => accept(&listener, &shared),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(EmulatorError::Missing { program: "setpriv", package: "util-linux" })
            }
            Ok(Err(source)) => Err(EmulatorError::Program { program, source }),
            Err(_) => Err(shared.ended_error()),
        };
        let opened = connected.and_then(Qmp::open).and_then(|qmp| {
            let debugger = options.debugger.then(|| debugger(&dir)).transpose()?;
            Ok((qmp, debugger))
        });
        // All ends are open by now, or will never be.
        let _ = std::fs::remove_dir_all(&dir);
        match opened {
            Ok((qmp, debugger)) => Ok(Self {
                shared,
                qmp: Mutex::new(qmp),
                debugger: debugger.map(Mutex::new),
                keeper: Some(keeper),
                _flash: flash,
            }),
            Err(error) => {
                // A QEMU that can't open its files connects first and says why when it ends.
                let lost = matches!(error, EmulatorError::Control { .. });
                let ends = lost && shared.wait(Duration::from_secs(QUIT_SECONDS_MAX)).is_some();
                shared.kill();
                let _ = keeper.join();
                Err(if ends { shared.ended_error() } else { error })
            }
        }
    }

    /// The console's next line that was not read yet; waits for it. None once QEMU has ended and all is read.
    pub fn next_line(&self) -> Option<String> {
        match self.shared.console.next(None) {
            Next::Line(line) => Some(line),
            Next::Closed | Next::Late => None,
        }
    }

    /// Reads lines up to the one that is looked for.
    ///
    /// # Errors
    /// It does not come in time, or QEMU ends; with the last lines.
    pub fn wait_for_line(
        &self,
        what: &str,
        timeout: Duration,
        mut is_it: impl FnMut(&str) -> bool,
    ) -> Result<String, EmulatorError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.shared.console.next(Some(deadline)) {
                Next::Line(line) if is_it(&line) => return Ok(line),
                Next::Line(_) => {}
                Next::Closed => return Err(self.shared.ended_error()),
                Next::Late => {
                    return Err(EmulatorError::Late {
                        what: what.to_owned(),
                        seconds: timeout.as_secs(),
                        said: self.shared.said(),
                    });
                }
            }
        }
    }

    /// The console's last lines, read or not, oldest first.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.shared.console.tail()
    }

    /// Lines that were left out because nobody read them in time.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.shared.console.dropped()
    }

    /// Process id of QEMU, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.shared.child().as_ref().map(Child::id)
    }

    /// What QEMU says of the board: `running`, `paused`, `shutdown` and others.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn status(&self) -> Result<String, EmulatorError> {
        let answer = self.execute("query-status", None)?;
        Ok(answer["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// Resets the board; its flash and its network stay.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub fn reset(&self) -> Result<(), EmulatorError> {
        self.execute("system_reset", None).map(drop)
    }

    /// Pulls the network cable, or plugs it in again.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub fn set_link(&self, up: bool) -> Result<(), EmulatorError> {
        self.execute("set_link", Some(json!({ "name": NETWORK, "up": up }))).map(drop)
    }

    /// Sets a property of one of the devices that the board was started with, by its `id`.
    ///
    /// # Errors
    /// There is no such device or property, or QEMU does not answer.
    pub fn set_property(&self, device: &str, property: &str, value: i64) -> Result<(), EmulatorError> {
        let path = format!("/machine/peripheral/{device}");
        let arguments = json!({ "path": path, "property": property, "value": value });
        self.execute("qom-set", Some(arguments)).map(drop)
    }

    /// Stops the board's time.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub fn pause(&self) -> Result<(), EmulatorError> {
        self.execute("stop", None).map(drop)
    }

    /// Lets the board's time go on.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub fn resume(&self) -> Result<(), EmulatorError> {
        self.execute("cont", None).map(drop)
    }

    /// The debugger, if the board was started with one.
    pub fn debugger(&self) -> Option<MutexGuard<'_, Debugger>> {
        self.debugger.as_ref().map(|debugger| debugger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks QEMU to end, and kills it when it does not.
    pub fn quit(&self) -> Option<Ended> {
        // QEMU may close the connection before it answers, and QEMU 7.2 now and then never answers while it writes flash.
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = qmp.execute("quit", None, QUIT_SECONDS_MAX);
        drop(qmp);
        let ended = self.wait(Duration::from_secs(QUIT_SECONDS_MAX));
        if ended.is_none() {
            self.shared.kill();
        }
        ended.or_else(|| self.wait(Duration::from_secs(QUIT_SECONDS_MAX)))
    }

    /// Ends QEMU in the middle of whatever it does, as a loss of power ends a board. The flash keeps what was written.
    pub fn cut_power(mut self) {
        self.end();
    }

    /// Waits until QEMU has ended.
    pub fn wait(&self, timeout: Duration) -> Option<Ended> {
        self.shared.wait(timeout)
    }

    fn execute(&self, command: &'static str, arguments: Option<Value>) -> Result<Value, EmulatorError> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute(command, arguments, ANSWER_SECONDS)
    }

    fn end(&mut self) {
        self.shared.kill();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Option<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id can't be another process's yet: the keeper reaps the child under the same lock, and takes it out.
    fn kill(&self) {
        if let Some(child) = self.child().as_mut() {
            let _ = child.kill();
        }
    }

    fn wait(&self, timeout: Duration) -> Option<Ended> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = *self.ended();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            thread::sleep(LOOK);
        }
    }

    fn reap(&self) {
        let mut child = self.child();
        let status = child.as_mut().and_then(|child| child.wait().ok());
        *child = None;
        drop(child);
        *self.ended() = Some(Ended { status });
    }

    fn said(&self) -> String {
        let lines = [self.errors.tail(), self.console.tail()].concat();
        lines.iter().map(|line| format!("\n  {line}")).collect()
    }

    fn ended_error(&self) -> EmulatorError {
        let ended = self.ended().unwrap_or(Ended { status: None });
        EmulatorError::Ended { status: ended.to_string(), said: self.said() }
    }
}

/// Runs QEMU to its end. `setpriv` binds its life to this thread's, so the thread that starts it stays until it is gone.
fn keep(command: &mut Command, shared: &Arc<Shared>, report: &mpsc::Sender<io::Result<()>>) {
    let (console, errors) = match command.spawn() {
        Ok(mut child) => {
            let streams = (child.stdout.take(), child.stderr.take());
            *shared.child() = Some(child);
            let _ = report.send(Ok(()));
            streams
        }
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    thread::scope(|scope| {
        let errors = errors.map(|errors| scope.spawn(|| shared.errors.drain(errors, || {})));
        let Some(console) = console else { return };
        // The console ends with QEMU, which alone holds its other end. Who waits for lines hears of the end when its
        // reason is known.
        shared.console.drain(console, || {
            let _ = errors.map(thread::ScopedJoinHandle::join);
            shared.reap();
        });
    });
}

/// QEMU listens there from its start on.
fn debugger(dir: &Path) -> Result<Debugger, EmulatorError> {
    let stream = UnixStream::connect(dir.join(DEBUGGER));
    Debugger::open(stream.map_err(|source| EmulatorError::Control { command: "debugger", source })?)
}

fn code_file(options: &Options) -> Result<PathBuf, EmulatorError> {
    match options.board.code() {
        Code::FlashImage => {
            let image = options.data_flash.with_extension("code");
            firmware::write_code_image(options.board.board().code(), &options.firmware, &image)?;
            Ok(image)
        }
        Code::Elf => match std::fs::metadata(&options.firmware) {
            Ok(_) => Ok(options.firmware.clone()),
            Err(source) => Err(EmulatorError::File { path: options.firmware.clone(), source }),
        },
    }
}

fn command(program: &'static str, options: &Options, board: Vec<OsString>, dir: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "stdio"]);
    let last = options.serial_lines.iter().map(|(line, _)| *line).max().unwrap_or(0);
    for line in 1..=last {
        match options.serial_lines.iter().find(|(known, _)| *known == line) {
            Some((_, path)) => {
                let socket = with_path(&format!("socket,id=serial{line},path="), path, "");
                command.args(["-chardev".as_ref(), socket.as_os_str()]);
                command.arg("-serial").arg(format!("chardev:serial{line}"));
            }
            None => {
                command.args(["-serial", "null"]);
            }
        }
    }
    command.args(board);
    command.args([
        "-chardev".as_ref(),
        with_path("socket,id=control,path=", &dir.join(CONTROL), "").as_os_str(),
    ]);
    command.args(["-mon", "chardev=control,mode=control"]);
    if options.debugger {
        let socket = with_path("socket,id=debugger,path=", &dir.join(DEBUGGER), ",server=on,wait=off");
        command.args(["-chardev".as_ref(), socket.as_os_str()]);
        command.args(["-gdb", "chardev:debugger"]);
    }
    for device in &options.devices {
        command.args(["-device", device]);
    }
    if options.icount {
        command.args(["-icount", "shift=0"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C in a terminal is for this program, which then ends QEMU in its own order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// A socket that QEMU will connect to, in a folder of its own that only this user can enter.
fn control_socket() -> Result<(PathBuf, UnixListener), EmulatorError> {
    /// Sockets' paths have at most 107 bytes.
    const DIR_BYTES_MAX: usize = 70;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut dir = std::env::temp_dir();
    if dir.as_os_str().len() > DIR_BYTES_MAX {
        dir = PathBuf::from("/tmp");
    }
    let base = dir.join(format!("wasmbed-{}", std::process::id()));
    loop {
        let dir = base.with_extension(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let failed = |source| EmulatorError::File { path: dir.clone(), source };
        match builder.create(&dir) {
            Ok(()) => {
                let listener = UnixListener::bind(dir.join(CONTROL)).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                return Ok((dir, listener));
            }
            // Left behind by a killed process that had this id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(source)),
        }
    }
}

fn accept(listener: &UnixListener, shared: &Shared) -> Result<UnixStream, EmulatorError> {
    let failed = |source| EmulatorError::Control { command: "connect", source };
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(source) => return Err(failed(source)),
        }
        if shared.ended().is_some() {
            return Err(shared.ended_error());
        }
        if Instant::now() >= deadline {
            let what = "the emulator's control connection".to_owned();
            return Err(EmulatorError::Late { what, seconds: START_SECONDS_MAX, said: shared.said() });
        }
        thread::sleep(LOOK);
    }
}
