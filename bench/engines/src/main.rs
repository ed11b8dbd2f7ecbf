//! The engine on this machine, beside native code from the same source, other engines and the goals of the project: CPU time of the
//! kernels, engines in turns, the median of the rounds. It may not judge: no row is an assertion.

mod wasm3;

use std::{hint::black_box, path::PathBuf, time::Duration};

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use wasmbed_bench_kernels::{
    KERNELS, Kernel,
    host::{self, TIMES_NATIVE_GOAL, geometric_mean},
};
use wasmbed_runtime::engine::{
    Engine, Quota, Step, interpreter::Interpreter, spacewasm::Spacewasm, wasmi::Wasmi,
};
use wasmbed_scan::{ModuleInfo, ScanLimits, Value, scan};

use crate::wasm3::Wasm3;

/// Measures engines.
#[derive(Parser)]
struct Arguments {
    /// Rounds, of which each engine has a turn in each.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Python with the package pywasm3, to measure wasm3 as well; see bench/README.md.
    #[arg(long)]
    wasm3: Option<PathBuf>,
}

/// CPU time of one turn that is aimed at; shorter ones are more noise than figure.
const TURN: Duration = Duration::from_millis(40);
/// Fuel of a slice that no kernel uses up.
const WHOLE: u32 = i32::MAX as u32;
/// Fuel of a quantum: what boards settle at, what hosts may have at most, and more.
const QUANTA: [u32; 5] = [1_000, 10_000, 200_000, 2_000_000, 20_000_000];
const QUOTA: Quota = Quota { heap_bytes: 1 << 20, linear_bytes: 1 << 16, stack_words: 2_048 };
const ARENA_BYTES: usize = 4 << 20;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let module = host::kernels()?;
    let limits = ScanLimits { entry_required: false, ..ScanLimits::default() };
    let info = scan(&module, &limits).map_err(|error| anyhow!("the scan refuses the kernels: {error}"))?;
    println!("engines: commit {}, {}, release profile, fuel on", host::commit()?, host::version("rustc")?);
    let mut wasm3 = arguments.wasm3.map(|python| Wasm3::start(&python)).transpose()?;
    if let Some(wasm3) = &wasm3 {
        println!("{}", wasm3.version());
    }
    let mut rows = Rows::default();
    for kernel in wasmbed_bench_kernels::all() {
        let mut subject = Subject::new(&module, &info, kernel)?;
        for _ in 0..arguments.rounds {
            subject.round(&mut rows, wasm3.as_mut())?;
        }
    }
    rows.print(wasm3.is_some());
    Ok(())
}

/// One kernel on all engines.
struct Subject<'k> {
    kernel: &'k Kernel,
    interpreter: Interpreter,
    spacewasm: Spacewasm,
    wasmi: Wasmi,
    /// Calls of a turn.
    calls: u32,
}

impl<'k> Subject<'k> {
    fn new(module: &[u8], info: &ModuleInfo, kernel: &'k Kernel) -> Result<Self> {
        let mut subject = Self {
            kernel,
            interpreter: load(module, info)?,
            spacewasm: load(module, info)?,
            wasmi: load(module, info)?,
            calls: 1,
        };
        let once = turn(&mut subject.interpreter, kernel, 1, WHOLE)?;
        let calls = TURN.as_nanos() / once.as_nanos().max(1);
        subject.calls = u32::try_from(calls).unwrap_or(1).max(1);
        Ok(subject)
    }

    fn round(&mut self, rows: &mut Rows, wasm3: Option<&mut Wasm3>) -> Result<()> {
        let Self { kernel, calls, .. } = *self;
        let mut add = |what: &str, took: Duration, calls: u32| {
            rows.add(kernel.name, what, took.as_secs_f64() / f64::from(calls));
        };
        // Native code is done sooner; with as many calls its turn would be noise.
        let more = calls * 8;
        let begun = cpu();
        for _ in 0..more {
            black_box((black_box(kernel.native))(black_box(kernel.amount)));
        }
        add(NATIVE, cpu() - begun, more);
        add(OURS, turn(&mut self.interpreter, kernel, calls, WHOLE)?, calls);
        add(Wasmi::NAME, turn(&mut self.wasmi, kernel, calls, WHOLE)?, calls);
        add(Spacewasm::NAME, turn(&mut self.spacewasm, kernel, calls.div_ceil(8), WHOLE)?, calls.div_ceil(8));
        if let Some(wasm3) = wasm3 {
            add(WASM3, wasm3.turn(kernel, calls)?, calls);
        }
        for quantum in QUANTA {
            let took = turn(&mut self.interpreter, kernel, calls, quantum)?;
            add(&quantum.to_string(), took, calls);
        }
        Ok(())
    }
}

fn load<E: Engine>(module: &[u8], info: &ModuleInfo) -> Result<E> {
    E::load(&E::arena(ARENA_BYTES), module, info, QUOTA)
        .map_err(|error| anyhow!("{} refuses: {error}", E::NAME))
}

/// CPU time of so many calls of a kernel, in slices of so much fuel.
fn turn<E: Engine>(engine: &mut E, kernel: &Kernel, calls: u32, fuel: u32) -> Result<Duration> {
    let failed = |what: &dyn std::fmt::Debug| anyhow!("{} on {}: {what:?}", kernel.name, E::NAME);
    let mut sum = None;
    let begun = cpu();
    for _ in 0..calls {
        let amount = Value::I32(kernel.amount as i32);
        engine.start(kernel.name, &[amount]).map_err(|trap| failed(&trap))?;
        sum = loop {
            match engine.step(fuel).step {
                Step::OutOfFuel => {}
                Step::Done(value) => break value,
                other => return Err(failed(&other)),
            }
        };
    }
    let took = cpu() - begun;
    let expected = (kernel.native)(kernel.amount);
    ensure!(sum == Some(Value::I32(expected as i32)), "{} on {} made {sum:?}", kernel.name, E::NAME);
    Ok(took)
}

const NATIVE: &str = "native";
const OURS: &str = Interpreter::NAME;
const WASM3: &str = "wasm3";

/// Seconds of a call: kernel, engine, and one figure for each round.
#[derive(Default)]
struct Rows(Vec<(&'static str, String, Vec<f64>)>);

impl Rows {
    fn add(&mut self, kernel: &'static str, what: &str, seconds: f64) {
        match self.0.iter_mut().find(|(of, on, _)| *of == kernel && on == what) {
            Some((.., rounds)) => rounds.push(seconds),
            None => self.0.push((kernel, what.to_owned(), vec![seconds])),
        }
    }

    fn median(&self, kernel: &str, what: &str) -> f64 {
        let found = self.0.iter().find(|(of, on, _)| *of == kernel && on == what);
        let mut rounds = found.map(|(.., rounds)| rounds.clone()).unwrap_or_default();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// How many times as long as on the other, kernel by kernel.
    fn times(&self, what: &str, of: &str) -> Vec<f64> {
        KERNELS.iter().map(|kernel| self.median(kernel.name, what) / self.median(kernel.name, of)).collect()
    }

    #[cfg(not(feature = "coremark"))]
    fn print_coremark(&self, _: bool) {}

    #[cfg(feature = "coremark")]
    fn print_coremark(&self, with_wasm3: bool) {
        let name = wasmbed_bench_kernels::COREMARK.name;
        let times = |engine: &str| self.median(name, engine) / self.median(name, NATIVE);
        let mut engines = vec![OURS, Wasmi::NAME, Spacewasm::NAME];
        if with_wasm3 {
            engines.push(WASM3);
        }
        let each: Vec<String> =
            engines.iter().map(|engine| format!("{engine} {:.1}", times(engine))).collect();
        println!(
            "CoreMark (Rust port, package coremark 1.0.0), CPU time, times native (goal {}): {}",
            host::COREMARK_TIMES_NATIVE_GOAL,
            each.join(", ")
        );
    }

    fn print(&self, with_wasm3: bool) {
        let names: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
        println!("\n| CPU time, times native | {} | geometric mean | goal |", names.join(" | "));
        println!("|---{}|", "|---".repeat(names.len() + 2));
        let mut engines = vec![OURS, Wasmi::NAME, Spacewasm::NAME];
        if with_wasm3 {
            engines.push(WASM3);
        }
        let row = |what: &str, times: &[f64], goal: String| {
            let cells: Vec<String> = times.iter().map(|times| format!("{times:.2}")).collect();
            println!("| {what} | {} | {:.2} | {goal} |", cells.join(" | "), geometric_mean(times));
        };
        for engine in engines {
            let goal = if engine == OURS { TIMES_NATIVE_GOAL.to_string() } else { "–".to_owned() };
            row(engine, &self.times(engine, NATIVE), goal);
        }
        if with_wasm3 {
            row(&format!("{OURS} for each of wasm3's"), &self.times(OURS, WASM3), "1.0".to_owned());
        }
        for quantum in QUANTA {
            let times = self.times(&quantum.to_string(), OURS);
            row(&format!("{OURS} in quanta of {quantum}, for each in one"), &times, "–".to_owned());
        }
        let each: Vec<String> =
            names.iter().map(|name| format!("{name} {:.1}", self.median(name, NATIVE) * 1e6)).collect();
        println!("\nnative code, µs of a call: {}", each.join(", "));
        self.print_coremark(with_wasm3);
    }
}
