//! Starts a board's image in QEMU with blank flash and waits until it says that it was not provisioned: drivers and the data
//! flash work then, and that is all an image without an identity can be asked for.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{process, system};

/// It takes a tenth of a second; a machine that is busy with other things may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the PSRAM that plays the data flash.
const DATA_FLASH_BYTES: u64 = 16 << 20;
/// What the console says of blank flash.
const SIGN: &str = "ERROR this board can't work: the flash holds no identity";

/// Ends QEMU whatever becomes of the check.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots `mps2-an385` from its ELF file; files that it needs go into `folder`.
pub(crate) fn mps2_an385(elf: &Path, folder: &Path) -> Result<()> {
    process::step("mps2-an385 boots in QEMU and reads its flash");
    system::ensure_programs(&[("qemu-system-arm", "qemu-system-arm")])?;
    let flash = folder.join("mps2-an385.data");
    let file = std::fs::File::create(&flash).with_context(|| format!("can't create {}", flash.display()))?;
    file.set_len(DATA_FLASH_BYTES).with_context(|| format!("can't extend {}", flash.display()))?;
    let mut command = Command::new("qemu-system-arm");
    command
        .args(["-machine", "mps2-an385,memory-backend=flash", "-object"])
        .arg(format!("memory-backend-file,id=flash,mem-path={},share=on,size=16M", flash.display()))
        .arg("-kernel")
        .arg(elf)
        .args(["-nic", "user,model=lan9118", "-display", "none", "-monitor", "none", "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let started = Instant::now();
    let mut qemu = Qemu(command.spawn().context("can't start qemu-system-arm")?);
    let console = qemu.0.stdout.take().context("QEMU has a standard output")?;
    let (lines, console_lines) = mpsc::channel();
    // Ends with the console, which ends with QEMU.
    std::thread::spawn(move || {
        BufReader::new(console).lines().map_while(Result::ok).all(|line| lines.send(line).is_ok())
    });
    loop {
        match console_lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
            Ok(line) => {
                println!("    | {line}");
                if line.starts_with(SIGN) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("the board did not say so after {} s", PATIENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended: see above"),
        }
    }
}
