//! The boards that QEMU has, and how it is told to be one.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
};

use wasmbed_flash::{Geometry, boards};

use crate::EmulatorError;

/// The oldest QEMU that was tried: major and minor number.
const VERSION_MIN: (u32, u32) = (7, 2);
/// Name of the network device, for its link.
pub(crate) const NETWORK: &str = "net0";

/// An emulated board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// QEMU's RISC-V machine `virt`, 32 bit, executing from its first bank of flash.
    Riscv32Virt,
    /// Arm's MPS2 with the image AN385, a Cortex-M3.
    Mps2An385,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Riscv32Virt, Self::Mps2An385];

    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Riscv32Virt => "riscv32-virt",
            Self::Mps2An385 => "mps2-an385",
        }
    }

    /// How its data flash is divided.
    #[must_use]
    pub const fn geometry(self) -> Geometry {
        match self {
            Self::Riscv32Virt => boards::RISCV32_VIRT,
            Self::Mps2An385 => boards::MPS2_AN385,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Riscv32Virt => "qemu-system-riscv32",
            Self::Mps2An385 => "qemu-system-arm",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Riscv32Virt => "qemu-system-misc",
            Self::Mps2An385 => "qemu-system-arm",
        }
    }

    /// QEMU's own arguments for this board; `code` is its code flash's image or its ELF file.
    pub(crate) fn arguments(
        self,
        code: &Path,
        data: &Path,
        memory: Option<u32>,
    ) -> Result<Vec<OsString>, EmulatorError> {
        match self {
            Self::Riscv32Virt => Ok(riscv32_virt(code, data, memory.unwrap_or(512 * 1_024))),
            Self::Mps2An385 if memory.is_some() => Err(EmulatorError::Memory { board: self.name() }),
            Self::Mps2An385 => Ok(mps2_an385(code, data)),
        }
    }

    /// Name of the QEMU program that runs it, which is there and new enough.
    ///
    /// # Errors
    /// It is missing or too old, or can't be run.
    pub fn check_installed(self) -> Result<&'static str, EmulatorError> {
        let program = self.program();
        let output = match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EmulatorError::Missing { program, package: self.package() });
            }
            Err(source) => return Err(EmulatorError::Program { program, source }),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        match version(&text) {
            Some(found) if found >= VERSION_MIN => Ok(program),
            _ => Err(EmulatorError::Version {
                program,
                found: text.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(" or ");
            format!("{text:?} is no emulated board; use {names}")
        })
    }
}

fn riscv32_virt(code: &Path, data: &Path, memory: u32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["-machine", "virt", "-cpu", "rv32", "-bios", "none", "-m"].map(OsString::from).into();
    // `B` is a unit too: without one the number means MiB.
    arguments.push(format!("{memory}B").into());
    for (bank, image, mode) in [(0, code, ",readonly=on"), (1, data, "")] {
        arguments.push("-drive".into());
        arguments.push(with_path(&format!("if=pflash,unit={bank},format=raw{mode},file="), image, ""));
    }
    let devices = [
        "-netdev".to_owned(),
        format!("user,id={NETWORK},ipv6=off"),
        "-global".to_owned(),
        "virtio-mmio.force-legacy=false".to_owned(),
        "-device".to_owned(),
        format!("virtio-net-device,netdev={NETWORK}"),
        "-device".to_owned(),
        "virtio-rng-device".to_owned(),
    ];
    arguments.extend(devices.map(OsString::from));
    arguments
}

fn mps2_an385(elf: &Path, data: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["-machine", "mps2-an385,memory-backend=flash", "-object"].map(OsString::from).into();
    // A file shared with the board: what it writes is there after a loss of power.
    let flash = with_path("memory-backend-file,id=flash,share=on,size=16M,mem-path=", data, "");
    arguments.extend([flash, "-kernel".into(), elf.into(), "-nic".into()]);
    arguments.push(format!("user,id={NETWORK},model=lan9118,ipv6=off").into());
    arguments
}

/// An option with a path in it; a comma would end the path, two stand for one.
pub(crate) fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut option = before.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        option.push(*byte);
        if *byte == b',' {
            option.push(b',');
        }
    }
    option.extend_from_slice(OsStr::new(after).as_bytes());
    OsString::from_vec(option)
}

/// Of `QEMU emulator version 7.2.22 (Debian …)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_numbers() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), Some((7, 2)));
        assert!(version("QEMU emulator version 10.0.2") > Some(VERSION_MIN));
        assert!(version("QEMU emulator version 6.10.0") < Some(VERSION_MIN));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_name_that_is_wrong_is_answered_with_those_that_are_right() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let error = "esp32".parse::<Kind>().expect_err("no such board");
        assert!(error.contains("riscv32-virt or mps2-an385"), "{error}");
    }

    #[test]
    fn a_comma_in_a_path_stays_in_it() {
        assert_eq!(with_path("file=", Path::new("/a,b"), ",x=y"), OsString::from("file=/a,,b,x=y"));
    }
}
