//! Where certificates are kept: one folder for each cluster and user, in the user's configuration folder.
//!
//! ```text
//! $XDG_CONFIG_HOME/wasmbed/logins/CONTEXT-HASH/operator.pem   key, certificate, its authority, roots of the services
//!                                             /pending.pem    the key of a request that is waited for
//! ```

use std::{
    fs,
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use wasmbed_pki::{DeviceKey, pem_of, write_private};

use super::Operator;
use crate::cluster::{Cluster, ClusterArgs};

const OPERATOR: &str = "operator.pem";
const PENDING: &str = "pending.pem";
/// Characters of a context's name in a folder's name.
const CONTEXT_SHOWN_MAX: usize = 40;
/// A file that is larger is none of ours.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What tells one login from another.
pub(crate) struct Place {
    /// Name of the kubeconfig's context.
    pub(crate) context: String,
    hash: String,
}

impl Place {
    /// By the server, its authority, the context and the user in it: a cluster that was made anew at the same address is another.
    pub(crate) fn of(cluster: &Cluster, arguments: &ClusterArgs) -> Result<Self> {
        let (context, user) = arguments.context()?.unwrap_or_else(|| ("pod".to_owned(), String::new()));
        let mut hash = Sha256::new();
        for part in [cluster.server().as_bytes(), context.as_bytes(), user.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        for authority in cluster.authorities() {
            hash.update(authority);
        }
        let hash = hex::encode(&hash.finalize()[..8]);
        Ok(Self { context, hash })
    }

    fn folder(&self) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = self.context.chars().map(plain).take(CONTEXT_SHOWN_MAX).collect();
        format!("{name}-{}", self.hash)
    }
}

/// One login's folder.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(crate) fn of(place: &Place) -> Result<Self> {
        Ok(Self::at(logins()?.join(place.folder())))
    }

    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is kept; none if there is none or it can't be used: then another one is got.
    pub(crate) fn read(&self) -> Option<Operator> {
        let pem = read(&self.file()).ok()??;
        Operator::from_pem(&pem, &pem).ok()
    }

    /// Keeps a certificate. The request that it was got with is over.
    pub(super) fn write(&self, operator: &Operator) -> Result<()> {
        let file = self.file();
        write_private(&file, operator.to_pem().as_bytes())
            .with_context(|| format!("can't write {}", file.display()))?;
        self.forget_pending()
    }

    /// The key of the request that was waited for when a command ended.
    pub(super) fn pending(&self) -> Option<DeviceKey> {
        let pem = read(&self.folder.join(PENDING)).ok()??;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        DeviceKey::from_pkcs8(key.secret_pkcs8_der()).ok()
    }

    /// Keeps the key of a request before the request is made.
    pub(super) fn begin(&self) -> Result<DeviceKey> {
        let key = DeviceKey::generate()?;
        let file = self.folder.join(PENDING);
        write_private(&file, pem_of("PRIVATE KEY", [key.pkcs8()]).as_bytes())
            .with_context(|| format!("can't write {}", file.display()))?;
        Ok(key)
    }

    pub(super) fn forget_pending(&self) -> Result<()> {
        remove(&self.folder.join(PENDING))
    }

    /// Forgets everything; whether there was something.
    pub(crate) fn clear(&self) -> Result<bool> {
        let was = self.folder.is_dir();
        for name in [OPERATOR, PENDING] {
            remove(&self.folder.join(name))?;
        }
        // Whatever else lies there is somebody's.
        let _ = fs::remove_dir(&self.folder);
        Ok(was)
    }

    /// Where the certificate and its key are.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(OPERATOR)
    }
}

/// All logins of this user.
pub(crate) fn all() -> Result<Vec<Store>> {
    let entries = match fs::read_dir(logins()?) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("can't read the folder of logins"),
    };
    let folders = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir());
    Ok(folders.map(Store::at).collect())
}

fn logins() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let folder = folder.context("neither XDG_CONFIG_HOME nor HOME is set: there is no place for a login")?;
    Ok(folder.join("wasmbed/logins"))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_of_a_request_is_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("a/b"));
        assert!(store.pending().is_none() && store.read().is_none() && !store.clear().unwrap());
        let key = store.begin().unwrap();
        assert_eq!(store.pending().unwrap().public_key_info(), key.public_key_info());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.folder.join(PENDING)), 0o600);
        assert_eq!(mode(&store.folder), 0o700);
        assert!(store.clear().unwrap() && !store.folder.exists());
    }

    #[test]
    fn a_folder_s_name_is_a_name() {
        let place = Place { context: "../arn:aws/x".to_owned() + &"y".repeat(99), hash: "0a1b".to_owned() };
        let name = place.folder();
        assert!(name.starts_with("---arn-aws-xyy") && name.ends_with("y-0a1b"), "{name}");
        assert_eq!(name.len(), CONTEXT_SHOWN_MAX + 5);
    }
}
