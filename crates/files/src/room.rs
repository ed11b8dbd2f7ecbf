//! Whether a disk takes bytes again.

use std::{fs, io, io::Write as _, path::Path};

/// Bytes that a disk must take before it counts as having room again: some commits.
const ROOM_BYTES: usize = 1024 * 1024;
/// The file that is written for it, and removed.
const PROBE: &str = "room.tmp";

/// Writes a file in the folder, makes it durable and removes it: whether there is room is known only by using it (quotas,
/// reserved blocks and other users of the disk are not seen in its statistics).
///
/// # Errors
/// There is none, or the disk fails in another way.
pub fn check_room(folder: &Path) -> io::Result<()> {
    let path = folder.join(PROBE);
    let written = crate::create_private_file(&path).and_then(|mut file| {
        // Not zeros, which some file systems don't store.
        let block = [0xa5; 64 * 1024];
        for _ in 0..ROOM_BYTES / block.len() {
            file.write_all(&block)?;
        }
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_has_room_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(check_room(&folder.path().join("none")).is_err());
    }
}
