//! A few instructions of machine code on QEMU's `virt`, started, reset, cut off and left behind by a killed process.
#![cfg(test)]

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use wasmbed_emulator::{Emulator, EmulatorError, Kind, Options};

type Outcome = Result<(), Box<dyn Error>>;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Tells this test's program, started again, to hold a board and be killed.
const HOLD: &str = "WASMBED_EMULATOR_TEST_HOLDS";

/// Prints "up X\n", where X is the byte at 1 MiB of the data flash, then writes 'B' there, says so and sleeps.
fn machine_code() -> Vec<u8> {
    let lui = |register: u32, upper: u32| upper << 12 | register << 7 | 0x37;
    let addi = |register: u32, from: u32, value: u32| value << 20 | from << 15 | register << 7 | 0x13;
    let sb = |value: u32, at: u32| value << 20 | at << 15 | 0x23;
    let lbu = |register: u32, at: u32| at << 15 | 4 << 12 | register << 7 | 0x03;
    let sw = |value: u32, at: u32| value << 20 | at << 15 | 2 << 12 | 0x23;
    let (uart, data, value) = (5, 6, 7);
    let mut code = vec![lui(uart, 0x10000), lui(data, 0x22100)];
    for byte in b"up " {
        code.extend([addi(value, 0, u32::from(*byte)), sb(value, uart)]);
    }
    code.extend([lbu(value, data), sb(value, uart), addi(value, 0, 10), sb(value, uart)]);
    // CFI command set: 0x40 programs a word, 0xFF goes back to reading.
    for word in [0x40, 0x42, 0xFF] {
        code.extend([addi(value, 0, word), sw(value, data)]);
    }
    for byte in b"written\n" {
        code.extend([addi(value, 0, u32::from(*byte)), sb(value, uart)]);
    }
    // wfi, and a jump back to it: an interrupt may wake it.
    code.extend([0x1050_0073, 0xFFDF_F06F]);
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn board(folder: &Path) -> Result<Options, Box<dyn Error>> {
    let board: Kind = "riscv32-virt".parse()?;
    let firmware = folder.join("firmware.bin");
    std::fs::write(&firmware, machine_code())?;
    let flash = folder.join("flash, with a comma.img");
    if !flash.exists() {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(&flash)?;
        file.set_len(32 * 1_024 * 1_024)?;
        file.write_all_at(b"\xFF\xFF\xFF\xFF", 1_024 * 1_024)?;
    }
    Ok(Options::new(board, firmware, flash))
}

fn wait_for(emulator: &Emulator, line: &str) -> Result<String, EmulatorError> {
    emulator.wait_for_line(line, TIMEOUT, |found| found == line)
}

fn is_running(pid: u32) -> bool {
    // A process that nobody has waited for yet is there, but does not run.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

#[test]
fn a_board_prints_resets_pauses_and_keeps_its_flash_over_a_loss_of_power() -> Outcome {
    let folder = tempfile::tempdir()?;
    let options = board(folder.path())?;
    let emulator = Emulator::start(&options)?;
    emulator.wait_for_line("the first start", TIMEOUT, |line| line == "up \u{fffd}")?;
    wait_for(&emulator, "written")?;
    assert_eq!(emulator.status()?, "running");
    emulator.set_link(false)?;
    emulator.set_link(true)?;
    emulator.pause()?;
    assert_eq!(emulator.status()?, "paused");
    emulator.resume()?;
    emulator.reset()?;
    wait_for(&emulator, "up B")?;
    wait_for(&emulator, "written")?;
    let error = Emulator::start(&options).expect_err("its flash is in use");
    assert!(matches!(error, EmulatorError::Locked { .. }), "{error}");
    let pid = emulator.pid().ok_or("it runs")?;
    emulator.cut_power();
    assert!(!is_running(pid));

    let emulator = Emulator::start(&options)?;
    wait_for(&emulator, "up B")?;
    wait_for(&emulator, "written")?;
    let ended = emulator.quit().ok_or("it ends")?;
    assert!(ended.status.is_some_and(|status| status.success()), "{ended}");
    assert_eq!(emulator.next_line(), None);
    assert_eq!(emulator.pid(), None);
    Ok(())
}

#[test]
fn memory_and_counted_instructions_are_options() -> Outcome {
    let folder = tempfile::tempdir()?;
    let options = Options { memory: Some(256 * 1_024), icount: true, ..board(folder.path())? };
    let emulator = Emulator::start(&options)?;
    emulator.wait_for_line("the start", TIMEOUT, |line| line.starts_with("up "))?;
    Ok(())
}

#[test]
fn what_the_emulator_refuses_is_told_in_its_words() -> Outcome {
    let folder = tempfile::tempdir()?;
    let options = board(folder.path())?;
    std::fs::OpenOptions::new().write(true).open(&options.data_flash)?.set_len(64 * 1_024 * 1_024)?;
    let error = Emulator::start(&options).expect_err("the file is larger than the bank");
    assert!(matches!(&error, EmulatorError::Ended { said, .. } if said.contains("bytes")), "{error}");
    let options = Options { board: "mps2-an385".parse()?, memory: Some(1), ..options };
    let error = Emulator::start(&options).expect_err("its memory is fixed");
    assert!(matches!(error, EmulatorError::Memory { .. }), "{error}");
    let options = Options { firmware: PathBuf::from("/nowhere"), memory: None, ..options };
    let error = Emulator::start(&options).expect_err("no firmware");
    assert!(error.to_string().contains("/nowhere"), "{error}");
    Ok(())
}

#[test]
fn a_killed_process_leaves_no_board_behind() -> Outcome {
    if let Some(folder) = std::env::var_os(HOLD) {
        let emulator = Emulator::start(&board(Path::new(&folder))?)?;
        println!("\nboard {}", emulator.pid().ok_or("it runs")?);
        while emulator.next_line().is_some() {}
        return Err("the board ended by itself".into());
    }
    let folder = tempfile::tempdir()?;
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["--exact", "--nocapture", "a_killed_process_leaves_no_board_behind"])
        .env(HOLD, folder.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(holder.stdout.take().ok_or("piped")?).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("board ").and_then(|pid| pid.parse::<u32>().ok()));
    holder.kill()?;
    holder.wait()?;
    let pid = pid.ok_or("the holder started no board")?;
    let deadline = Instant::now() + TIMEOUT;
    while is_running(pid) {
        assert!(Instant::now() < deadline, "QEMU {pid} outlives its parent");
        std::thread::yield_now();
    }
    // The flash is free again.
    let emulator = Emulator::start(&board(folder.path())?)?;
    emulator.wait_for_line("a start", TIMEOUT, |line| line.starts_with("up "))?;
    Ok(())
}
