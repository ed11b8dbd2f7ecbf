//! The boards that QEMU has, and how it is told to be one.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
};

use wasmbed_board_data::{Board, Code, Emulation, Geometry};

use crate::EmulatorError;

/// The oldest QEMU that was tried: major and minor number.
const VERSION_MIN: (u32, u32) = (7, 2);
/// Name of the network device, for its link.
pub(crate) const NETWORK: &str = "net0";

/// An emulated board: one whose file in `boards/` says how.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    board: &'static Board,
    emulation: &'static Emulation,
}

/// The files that QEMU's arguments name.
pub(crate) struct Files<'a> {
    pub(crate) code: &'a Path,
    pub(crate) data: &'a Path,
}

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let boards = wasmbed_board_data::ALL.into_iter();
        boards.filter_map(|board| Some(Self { board, emulation: board.emulation.as_ref()? }))
    }

    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.board.name
    }

    /// What its file says.
    #[must_use]
    pub const fn board(self) -> &'static Board {
        self.board
    }

    /// How its data flash is divided.
    #[must_use]
    pub const fn geometry(self) -> Geometry {
        self.board.geometry
    }

    pub(crate) const fn code(self) -> Code {
        self.emulation.code
    }

    /// QEMU's own arguments for this board.
    pub(crate) fn arguments(
        self,
        files: &Files<'_>,
        memory: Option<u32>,
    ) -> Result<Vec<OsString>, EmulatorError> {
        if memory.is_some() && !self.emulation.takes_memory() {
            return Err(EmulatorError::Memory { board: self.name() });
        }
        let memory = memory.unwrap_or(self.board.ram().bytes).to_string();
        Ok(self.emulation.arguments.iter().map(|argument| fill_in(argument, files, &memory)).collect())
    }

    /// Name of the QEMU program that runs it, which is there and new enough.
    ///
    /// # Errors
    /// It is missing or too old, or can't be run.
    pub fn check_installed(self) -> Result<&'static str, EmulatorError> {
        let program = self.emulation.program;
        let output = match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EmulatorError::Missing { program, package: self.emulation.package });
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

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kind {}

impl FromStr for Kind {
    type Err = NotEmulated;

    fn from_str(text: &str) -> Result<Self, NotEmulated> {
        Self::all().find(|kind| kind.name() == text).ok_or_else(|| NotEmulated(text.to_owned()))
    }
}

/// A name that is no emulated board's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEmulated(String);

impl fmt::Display for NotEmulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Kind::all().map(Kind::name).collect::<Vec<_>>().join(", ");
        write!(f, "{:?} is not an emulated board; these are: {names}", self.0)
    }
}

impl std::error::Error for NotEmulated {}

/// An argument with everything that stands in braces filled in.
fn fill_in(argument: &str, files: &Files<'_>, memory: &str) -> OsString {
    // In an option with commas a path's commas are doubled; an argument that is nothing but a path is taken as it is.
    let path = |path: &Path, before: &str, after: &str| match (before, after) {
        ("", "") => path.into(),
        _ => with_path(before, path, after),
    };
    let argument = argument.replace("{network}", NETWORK).replace("{memory}", memory);
    if let Some((before, after)) = argument.split_once("{code}") {
        return path(files.code, before, after);
    }
    match argument.split_once("{data}") {
        Some((before, after)) => path(files.data, before, after),
        None => argument.into(),
    }
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
        for kind in Kind::all() {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let error = "nucleo-h743zi2".parse::<Kind>().expect_err("QEMU has no such board").to_string();
        assert!(Kind::all().all(|kind| error.contains(kind.name())), "{error}");
    }

    #[test]
    fn arguments_are_those_of_the_file_with_paths_memory_and_network_filled_in() -> Result<(), EmulatorError>
    {
        let files = Files { code: Path::new("/c,ode"), data: Path::new("/d,ata") };
        let virt: Kind = "riscv32-virt".parse().expect("a board");
        let arguments = virt.arguments(&files, None)?;
        for wanted in ["524288B", "if=pflash,unit=1,format=raw,file=/d,,ata", "user,id=net0,ipv6=off"] {
            assert!(arguments.contains(&wanted.into()), "{wanted} in {arguments:?}");
        }
        assert!(virt.arguments(&files, Some(1))?.contains(&"1B".into()));
        let mps2: Kind = "mps2-an385".parse().expect("a board");
        assert!(mps2.arguments(&files, None)?.contains(&"/c,ode".into()), "a path of its own is as it is");
        assert!(matches!(mps2.arguments(&files, Some(1)), Err(EmulatorError::Memory { .. })));
        Ok(())
    }

    #[test]
    fn a_comma_in_a_path_stays_in_it() {
        assert_eq!(with_path("file=", Path::new("/a,b"), ",x=y"), OsString::from("file=/a,,b,x=y"));
    }
}
