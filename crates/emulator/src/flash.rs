//! A board's data flash: a file that one process uses at a time.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use wasmbed_flash::provision::{Provision, decode, encode};

use crate::{EmulatorError, Kind};

/// The machine that QEMU runs on, as an emulated board sees it.
pub const HOST_ADDRESS: &str = "10.0.2.2";

/// Opens the file for one process, creating it or making it as long as the board's flash, all of it on the disk: QEMU reports no write
/// that fails to the board, and dies of one to a flash that it maps.
pub(crate) fn open(board: Kind, path: &Path) -> Result<File, EmulatorError> {
    let failed = |source| EmulatorError::File { path: path.to_owned(), source };
    let mut options = wasmbed_files::private_options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    wasmbed_files::tighten(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(EmulatorError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Never shorter: it may be the larger flash of another board, which `provision` refuses.
    let length = u64::from(board.geometry().flash_bytes);
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) => {}
        // A file system that can't promise room: then it is as good as its disk.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            if file.metadata().map_err(failed)?.len() < length {
                file.set_len(length).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error.into())),
    }
    Ok(file)
}

/// Writes an identity to a board's flash, which is made if there is none. What the board stored stays, and so does the seed
/// of its random numbers; writing the same again changes nothing.
///
/// # Errors
/// The file can't be used or is in use, it is another board's, or the identity breaks a bound.
pub fn provision(board: Kind, path: &Path, mut wanted: Provision) -> Result<(), EmulatorError> {
    let failed = |source| EmulatorError::File { path: path.to_owned(), source };
    let mut file = open(board, path)?;
    let mut region = vec![0; board.geometry().identity_bytes() as usize];
    file.read_exact(&mut region).map_err(failed)?;
    if let Ok(present) = decode(&region) {
        if present.board != board.name() {
            let found = present.board;
            return Err(EmulatorError::OtherBoard { path: path.to_owned(), found, board: board.name() });
        }
        wanted.seed = present.seed;
        if wanted == present {
            return Ok(());
        }
    }
    let image = encode(&wanted, &board.geometry())?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.write_all(&image).map_err(failed)?;
    file.sync_data().map_err(failed)
}

/// A gateway on this machine's loopback, as an emulated board reaches it; any other as it is.
#[must_use]
pub fn reach_host(gateway: &str) -> String {
    let Some((host, port)) = gateway.rsplit_once(':') else { return gateway.to_owned() };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if loopback { format!("{HOST_ADDRESS}:{port}") } else { gateway.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use wasmbed_flash::provision::{Identity, Issued, Network};

    use super::*;

    fn kind(name: &str) -> Kind {
        name.parse().expect("a board")
    }

    fn identity(seed: u8) -> Provision {
        Provision {
            identity: Identity::Operational(Issued {
                chain: vec![vec![1; 700].into()],
                key: vec![3; 138].into(),
            }),
            services_roots: vec![vec![4; 500].into()],
            gateways: vec![reach_host("localhost:8080")],
            seed: [seed; 32].into(),
            board: "riscv32-virt".into(),
            network: Network::Dhcp,
        }
    }

    fn written(path: &Path) -> Result<Provision, Box<dyn std::error::Error>> {
        Ok(decode(&std::fs::read(path)?[..kind("riscv32-virt").geometry().identity_bytes() as usize])?)
    }

    #[test]
    fn an_identity_is_written_once_and_keeps_its_seed() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("flash.img");
        provision(kind("riscv32-virt"), &path, identity(1))?;
        provision(kind("riscv32-virt"), &path, identity(2))?;
        assert_eq!(written(&path)?, identity(1));
        let mut other = identity(3);
        other.gateways.push("gateway.example:443".into());
        provision(kind("riscv32-virt"), &path, other.clone())?;
        other.seed = [1; 32].into();
        assert_eq!(written(&path)?, other);
        let facts = std::fs::metadata(&path)?;
        assert_eq!(facts.len(), 32 * 1_024 * 1_024);
        assert!(
            facts.blocks() * 512 >= facts.len(),
            "a full disk can't take it back: {} blocks",
            facts.blocks()
        );
        assert_eq!(facts.mode() & 0o777, 0o600, "a key is in it");
        Ok(())
    }

    #[test]
    fn a_flash_in_use_or_of_another_board_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("flash.img");
        let held = open(kind("riscv32-virt"), &path)?;
        let error = provision(kind("riscv32-virt"), &path, identity(1)).expect_err("in use");
        assert!(matches!(error, EmulatorError::Locked { .. }), "{error}");
        drop(held);
        provision(kind("riscv32-virt"), &path, identity(1))?;
        let error = provision(kind("mps2-an385"), &path, identity(1)).expect_err("another board's");
        assert!(error.to_string().contains("riscv32-virt"), "{error}");
        Ok(())
    }

    #[test]
    fn only_loopback_is_rewritten() {
        for gateway in ["localhost:1", "127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            assert_eq!(reach_host(gateway), "10.0.2.2:1");
        }
        for gateway in ["gateway.example:1", "192.0.2.1:1", "[2001:db8::1]:1", "nonsense"] {
            assert_eq!(reach_host(gateway), gateway);
        }
    }
}
