//! Where firmware is, and a code flash's image from it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wasmbed_board_data::Region;

use crate::{EmulatorError, Kind};

/// Finds a board's firmware, `BOARD.elf`, in the folder that was said, in `WASMBED_FIRMWARE`, or around this program's own file.
///
/// # Errors
/// It is nowhere; the message says where it was looked for.
pub fn find_firmware(board: Kind, said: Option<&Path>) -> Result<PathBuf, EmulatorError> {
    let folders = match said {
        Some(folder) => vec![folder.to_owned()],
        None => match std::env::var_os("WASMBED_FIRMWARE").filter(|folder| !folder.is_empty()) {
            Some(folder) => vec![PathBuf::from(folder)],
            None => std::env::current_exe().map(|program| around(&program)).unwrap_or_default(),
        },
    };
    let name = format!("{board}.elf");
    let found = folders.iter().map(|folder| folder.join(&name)).find(|file| file.is_file());
    found.ok_or_else(|| EmulatorError::NoFirmware {
        board: board.name(),
        looked: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

fn around(program: &Path) -> Vec<PathBuf> {
    let Some(folder) = program.parent() else { return Vec::new() };
    let mut folders = vec![folder.join("firmware")];
    if let Some(above) = folder.parent() {
        folders.extend([above.join("firmware"), above.join("share/wasmbed/firmware")]);
    }
    folders
}

/// Writes the image of the code flash, as long as the bank, from an ELF file or from a plain binary.
pub(crate) fn write_code_image(flash: Region, firmware: &Path, image: &Path) -> Result<(), EmulatorError> {
    let file = |path: &Path, source| EmulatorError::File { path: path.to_owned(), source };
    let bytes = fs::read(firmware).map_err(|source| file(firmware, source))?;
    let code = flatten(flash, bytes)
        .map_err(|problem| EmulatorError::Firmware { path: firmware.to_owned(), problem })?;
    fs::write(image, code).map_err(|source| file(image, source))?;
    let written = fs::OpenOptions::new().write(true).open(image);
    written.and_then(|written| written.set_len(flash.bytes.into())).map_err(|source| file(image, source))
}

/// The bytes from the code flash's first address on.
fn flatten(flash: Region, bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    const TOO_LARGE: &str = "it is larger than the code flash";
    let capacity = usize::try_from(flash.bytes).map_err(|_| TOO_LARGE)?;
    if !bytes.starts_with(b"\x7fELF") {
        return if bytes.len() <= capacity { Ok(bytes) } else { Err(TOO_LARGE) };
    }
    const CUT: &str = "the ELF file is cut off";
    let half = |at: usize| {
        let half = bytes.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_le_bytes(*half)))
    };
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*word)).ok()
    };
    if bytes.get(4..6) != Some(&[1, 1]) {
        return Err("the ELF file is not of a 32-bit little-endian machine");
    }
    // Offsets of the ELF specification: header's e_phoff, e_phentsize and e_phnum; segment's type, offset, p_paddr, p_filesz.
    let (table, size, count) = (word(28).ok_or(CUT)?, half(42).ok_or(CUT)?, half(44).ok_or(CUT)?);
    let mut image = Vec::new();
    for index in 0..count {
        let at = table.checked_add(index * size).ok_or(CUT)?;
        let [kind, from, address, length] =
            [0, 4, 12, 16].map(|offset| at.checked_add(offset).and_then(word).unwrap_or(usize::MAX));
        if kind != 1 || length == 0 {
            continue;
        }
        let start = usize::try_from(flash.start).ok().and_then(|first| address.checked_sub(first));
        let start = start.ok_or("it has code or data outside of the code flash")?;
        let end = start.checked_add(length).filter(|end| *end <= capacity);
        let end = end.ok_or("it has code or data outside of the code flash")?;
        let segment = from.checked_add(length).and_then(|last| bytes.get(from..last)).ok_or(CUT)?;
        if image.len() < end {
            image.resize(end, 0xFF);
        }
        image[start..end].copy_from_slice(segment);
    }
    if image.is_empty() { Err("the ELF file has nothing to load") } else { Ok(image) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Region = Region { name: "flash", start: 0x2000_0000, bytes: 0x200_0000 };

    fn elf(address: u32, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; 52];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x01");
        bytes[28..32].copy_from_slice(&52_u32.to_le_bytes());
        bytes[42..44].copy_from_slice(&32_u16.to_le_bytes());
        bytes[44..46].copy_from_slice(&1_u16.to_le_bytes());
        for word in [1, 84, 0x8000_0000, address, length, length, 0, 0] {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        bytes.extend_from_slice(b"code");
        bytes
    }

    #[test]
    fn an_elf_file_becomes_what_lies_in_flash() {
        assert_eq!(flatten(CODE, elf(0x2000_0002, 4)).as_deref(), Ok(&b"\xff\xffcode"[..]));
        assert_eq!(flatten(CODE, b"plain".to_vec()).as_deref(), Ok(&b"plain"[..]));
    }

    #[test]
    fn a_broken_elf_file_is_refused_and_never_panics() {
        assert!(flatten(CODE, elf(0x1000_0000, 4)).is_err());
        assert!(flatten(CODE, elf(0x21FF_FFFE, 4)).is_err());
        assert!(flatten(CODE, elf(0x2000_0000, 5)).is_err());
        assert!(flatten(CODE, elf(0x2000_0000, u32::MAX)).is_err());
        let whole = elf(0x2000_0000, 4);
        for length in 4..whole.len() {
            assert!(flatten(CODE, whole[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn firmware_that_is_nowhere_is_answered_with_how_to_make_it() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let board: Kind = "mps2-an385".parse().expect("a board");
        let error = find_firmware(board, Some(folder.path())).expect_err("an empty folder");
        assert!(error.to_string().contains("cargo xtask firmware"), "{error}");
        fs::write(folder.path().join("mps2-an385.elf"), b"x")?;
        assert!(find_firmware(board, Some(folder.path())).is_ok());
        let folders = around(Path::new("/target/release/wasmbed"));
        assert!(folders.contains(&PathBuf::from("/target/firmware")), "{folders:?}");
        Ok(())
    }
}
