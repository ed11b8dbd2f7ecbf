//! Instructions that a board spends on a handshake, on each MiB of a download and on a million operators of a module; and what its
//! engine takes beside native code and other engines.
//!
//! QEMU counts: with `-icount` each instruction takes a nanosecond of the board's time, so time awake is instructions. The
//! gateway, the controller and the Kubernetes API are real ones on this machine. It may not judge: no row is an assertion.

mod dense;
mod engine;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use wasmbed_api::{Application, ApplicationConfig};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, prepare, read_to},
    fixtures,
};
use wasmbed_emulator::{Emulator, Kind, Options};

/// Measures boards in QEMU.
#[derive(Parser)]
struct Arguments {
    /// Boards to measure; all if none is named.
    #[arg(long = "board")]
    boards: Vec<Kind>,
    /// Starts to average the handshake over.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    handshakes: u32,
    /// Measure only this.
    #[arg(long)]
    only: Option<Part>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The firmware: handshakes, downloads, operators.
    Firmware,
    /// The engine, by the programs that `cargo xtask firmware --measure` builds.
    Engine,
}

/// Bytes of the small module and of the large one; what they differ by is counted.
const SMALL_BYTES: usize = 4 * 1_024;
const LARGE_BYTES: usize = 120 * 1_024;
/// Rounds of the loop that [`work`] times, and the operators in each round.
const ROUNDS: u32 = 200_000;
const OPERATORS_PER_ROUND: u32 = 22;
/// Instructions in a microsecond, and microseconds in a millisecond.
const PER_US: f64 = 1_000.0;

type Rows = Vec<[String; 3]>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.boards.is_empty() {
        arguments.boards = Kind::all().collect();
    }
    if arguments.only != Some(Part::Engine) {
        let mut rows = Rows::new();
        for board in &arguments.boards {
            measure(*board, arguments.handshakes, &mut rows).await?;
        }
        println!("\n| what | board | instructions |\n|---|---|---|");
        for [what, board, instructions] in rows {
            println!("| {what} | {board} | {instructions} |");
        }
    }
    if arguments.only != Some(Part::Firmware) {
        engine::measure(&arguments.boards)?;
    }
    Ok(())
}

async fn measure(kind: Kind, handshakes: u32, rows: &mut Rows) -> Result<()> {
    println!("{kind}");
    let mut row = |what: &str, instructions: f64| {
        let shown = format!("{:.1} million", instructions / 1e6);
        println!("  {what}: {shown}");
        rows.push([what.to_owned(), kind.to_string(), shown]);
    };
    let machine = Machine::start(ControlPlane::Embedded).await?;
    machine.create_device(NAME).await?;
    let options = prepare(kind, &machine, &machine.gateway_address().to_string())?;
    let board = Emulator::start(&Options { icount: true, ..options })?;

    let mut sum_us = 0.0;
    for started in 0..handshakes {
        if started > 0 {
            board.reset()?;
        }
        sum_us += number(&read_to(&board, "connected gateway=")?, "handshake_us=")?;
    }
    row("a full handshake by mutual TLS 1.3, network apart", sum_us / f64::from(handshakes) * PER_US);

    read_to(&board, "session established")?;
    let mut awake_us = Vec::new();
    for (number, bytes) in [SMALL_BYTES, SMALL_BYTES, LARGE_BYTES].into_iter().enumerate() {
        let name = format!("filler-{number}");
        deploy(&machine, &name, &fixtures::large_ticker(&name, 3_600_000, bytes)).await?;
        awake_us.push(self::number(
            &read_to(&board, &format!("memory applications={} ", number + 1))?,
            "awake_us=",
        )?);
    }
    let [first, second, third] = awake_us[..] else { unreachable!("three were deployed") };
    let per_byte = ((third - second) - (second - first)) / (LARGE_BYTES - SMALL_BYTES) as f64 * PER_US;
    row("a MiB downloaded, verified and written to flash", per_byte * 1_048_576.0);

    deploy(&machine, "work", &work()?).await?;
    let took_ms = number(&read_to(&board, "APP default/work: ms=")?, "ms=")?;
    let operators = f64::from(ROUNDS) * f64::from(OPERATORS_PER_ROUND);
    row("a million operators of a module, limits and other duties included", took_ms * 1e6 / operators * 1e6);
    Ok(())
}

async fn deploy(machine: &Machine, name: &str, wasm: &[u8]) -> Result<()> {
    let mut wanted: Application = application(name, wasm, &[NAME]);
    wanted.spec.config = ApplicationConfig { cpu_time_limit: 600_000, ..ApplicationConfig::default() };
    machine.create(&wanted).await?;
    Ok(())
}

/// The number behind `name` in the last line.
fn number(lines: &[String], name: &str) -> Result<f64> {
    let line = lines.last().context("the console said nothing")?;
    let (_, rest) = line.split_once(name).with_context(|| format!("no {name} in {line:?}"))?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number behind {name} in {line:?}"))
}

/// Mixes arithmetic, memory and branches, [`OPERATORS_PER_ROUND`] operators in each of [`ROUNDS`] rounds, and logs the
/// milliseconds that all of them took.
fn work() -> Result<Vec<u8>> {
    Ok(wat::parse_str(format!(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (import "wasmbed" "uptime" (func $uptime (result i64)))
            (memory (export "memory") 1)
            (data (i32.const 2048) "ms=00000000")
            (func $work (local $left i32) (local $a i32)
                (local.set $left (i32.const {ROUNDS}))
                (loop
                    local.get $a i32.const 1103515245 i32.mul i32.const 12345 i32.add local.tee $a
                    i32.const 1020 i32.and i32.load local.get $a i32.xor local.set $a
                    local.get $a i32.const 1020 i32.and local.get $a i32.store
                    local.get $left i32.const 1 i32.sub local.tee $left br_if 0))
            (func (export "run") (local $at i32) (local $took i32) (local $begun i64)
                (local.set $begun (call $uptime))
                (call $work)
                (local.set $took (i32.wrap_i64 (i64.sub (call $uptime) (local.get $begun))))
                (local.set $at (i32.const 2058))
                (loop
                    (i32.store8 (local.get $at)
                        (i32.add (i32.const 48) (i32.rem_u (local.get $took) (i32.const 10))))
                    (local.set $took (i32.div_u (local.get $took) (i32.const 10)))
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (br_if 0 (local.get $took)))
                (call $log (i32.const 2048) (i32.const 11))
                (loop (call $wait (i32.const 60000)) (br 0))))"#
    ))?)
}
