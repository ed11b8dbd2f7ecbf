//! wasm3, by the Python package that contains it, in a process of its own.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use wasmbed_bench_kernels::{Kernel, host};

/// Calls kernels as often as it is told, and answers with their CPU time and result. A call from Python takes a microsecond at most,
/// kernels take a hundred and more.
const SCRIPT: &str = r#"
import subprocess, sys, sysconfig, time, wasm3
environment = wasm3.Environment()
runtime = environment.new_runtime(65536)
with open(sys.argv[1], "rb") as file:
    runtime.load(environment.parse_module(file.read()))
compiler = sysconfig.get_config_var("CC").split()[0]
version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
print("wasm3", wasm3.M3_VERSION, "of pywasm3, built by", version, flush=True)
for line in sys.stdin:
    name, amount, calls = line.split()
    function = runtime.find_function(name)
    amount, calls = int(amount), range(int(calls))
    begun = time.process_time_ns()
    for _ in calls:
        result = function(amount)
    print(time.process_time_ns() - begun, result & 0xffffffff, flush=True)
"#;

pub(crate) struct Wasm3 {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
}

impl Wasm3 {
    /// Starts a Python that has the package.
    pub(crate) fn start(python: &Path) -> Result<Self> {
        let module = host::top().join("target/bench/kernels-64k.wasm");
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .arg(module)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {}", python.display()))?;
        let input = process.stdin.take().context("it was started with an input")?;
        let output = BufReader::new(process.stdout.take().context("it was started with an output")?);
        let mut wasm3 = Self { process, input, output, version: String::new() };
        wasm3.version = format!("{}; it has no fuel", wasm3.line().context("does it have pywasm3?")?);
        Ok(wasm3)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// CPU time of so many calls.
    pub(crate) fn turn(&mut self, kernel: &Kernel, calls: u32) -> Result<Duration> {
        writeln!(self.input, "{} {} {calls}", kernel.name, kernel.amount).context("wasm3 is gone")?;
        let line = self.line()?;
        let (nanoseconds, sum) = line.split_once(' ').context("wasm3 said something else")?;
        let expected = (kernel.native)(kernel.amount);
        ensure!(sum.parse() == Ok(expected), "{} on wasm3 made {sum}", kernel.name);
        Ok(Duration::from_nanos(nanoseconds.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "wasm3 ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Wasm3 {
    fn drop(&mut self) {
        // It ends by itself when its input does; nothing depends on how.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
