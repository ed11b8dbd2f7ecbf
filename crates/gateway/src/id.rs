//! Who this gateway is, kept beside what it holds: the holder of its Lease, so that its next process takes the Lease over
//! at once and a process with another data directory does not.

use std::{fs, io, path::Path};

/// Name of the file in the data directory.
const FILE: &str = "id";

/// Reads the id, 32 hex digits, or makes one. The folder exists.
pub(crate) fn open(folder: &Path) -> io::Result<String> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => match std::str::from_utf8(&bytes).map(str::trim) {
            Ok(id) if is_id(id) => return Ok(id.to_owned()),
            // A new one costs no more than the wait for the old one's Lease to expire.
            _ => {
                tracing::warn!(reason = "BadId", path = %path.display(), "not an id of 32 hex digits; creating a new one")
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    wasmbed_files::write_private(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_and_a_spoilt_one_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let id = open(folder.path()).unwrap();
        assert!(is_id(&id));
        assert_eq!(open(folder.path()).unwrap(), id);
        for spoilt in [&b""[..], &b"\xff\xfe"[..]] {
            fs::write(folder.path().join(FILE), spoilt).unwrap();
            let other = open(folder.path()).unwrap();
            assert!(is_id(&other) && other != id);
            assert_eq!(open(folder.path()).unwrap(), other);
        }
    }
}
