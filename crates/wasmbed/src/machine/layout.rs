//! Where one machine keeps its authorities, identities and state: the folder of `wasmbed up`.
//!
//! ```text
//! DIR/kubeconfig            the administrator's
//! DIR/pki/                  authorities, identities and kubeconfigs of the processes, mode 0600
//! DIR/apiserver/            the embedded Kubernetes API's store and its audit log
//! DIR/gateway/              desired sets and modules
//! DIR/devices/*/NAME/       one device's modules, state, applications' data, and the key and certificate that it joined for
//! DIR/data-keys/            keys for values of Secrets: of the gateway's disk, and of the controllers' hashes
//! ```

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use wasmbed_device::DeviceIdentity;
use wasmbed_files::DataKey;
use wasmbed_pki::{Authorities, ClusterAuthority, FactoryAuthority, Identity, OperatorAuthority};

use crate::cluster::kubeconfig;

/// The trust domain of everything on one machine.
pub const TRUST_DOMAIN: &str = "wasmbed";
/// Namespace of gateways, controllers and their Leases.
pub const SYSTEM_NAMESPACE: &str = "wasmbed-system";

/// Certificate and key files of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM: the leaf, then the issuing authority.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
}

/// The folder of one machine, with its authorities.
pub struct Layout {
    dir: PathBuf,
    authorities: Authorities,
    factory: FactoryAuthority,
    operators: OperatorAuthority,
    cluster: ClusterAuthority,
}

impl Layout {
    /// Opens the folder, creating what isn't there.
    ///
    /// # Errors
    /// When files can't be read or written, or don't belong together.
    pub fn create_or_open(dir: &Path) -> Result<Self> {
        wasmbed_files::private_folder(dir).with_context(|| format!("can't create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("can't resolve {}", dir.display()))?;
        let pki = dir.join("pki");
        // Those of older versions were open to all users of the machine.
        for folder in [&pki, &dir.join("apiserver"), &dir.join("gateway"), &dir.join("devices")] {
            wasmbed_files::private_folder(folder)
                .with_context(|| format!("can't create {}", folder.display()))?;
        }
        let devices = std::fs::read_dir(dir.join("devices")).context("can't read the devices' folder")?;
        for namespace in devices.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
            wasmbed_files::private_folder(&namespace.path()).context("can't close a device's folder")?;
        }
        let authorities = Authorities::create_or_open(&pki, TRUST_DOMAIN)?;
        let factory = FactoryAuthority::create_or_open(&pki, TRUST_DOMAIN)?;
        let operators = OperatorAuthority::create_or_open(&pki, TRUST_DOMAIN)?;
        let cluster = ClusterAuthority::create_or_open(&pki)?;
        let anew = authorities.begun_anew().chain(factory.begun_anew());
        for file in anew.chain(operators.begun_anew()).chain(cluster.begun_anew()) {
            let file = file.display();
            tracing::warn!(%file, "an authority's certificate lay in the future: the clock was ahead, or is behind now; it begins now");
        }
        let layout = Self { dir, authorities, factory, operators, cluster };
        layout.write("devices-root.crt", layout.authorities.devices_root_pem())?;
        layout.write("factory-root.crt", layout.factory.root_pem())?;
        layout.write("operators-root.crt", layout.operators.root_pem())?;
        layout.write("services-root.crt", layout.authorities.services_root_pem())?;
        layout.write("cluster-root.crt", layout.cluster.certificate_pem())?;
        Ok(layout)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The two roots and what is issued below them.
    #[must_use]
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Who issues factory identities.
    #[must_use]
    pub fn factory(&self) -> &FactoryAuthority {
        &self.factory
    }

    /// Who issues certificates of people.
    #[must_use]
    pub fn operators(&self) -> &OperatorAuthority {
        &self.operators
    }

    /// The authority of the embedded Kubernetes API.
    #[must_use]
    pub fn cluster(&self) -> &ClusterAuthority {
        &self.cluster
    }

    /// PEM of the root below which devices are trusted.
    #[must_use]
    pub fn devices_root(&self) -> PathBuf {
        self.pki("devices-root.crt")
    }

    /// PEM of the root below which factory certificates are.
    #[must_use]
    pub fn factory_root(&self) -> PathBuf {
        self.pki("factory-root.crt")
    }

    /// The authority that the signer issues devices' certificates with.
    #[must_use]
    pub fn devices_issuing(&self) -> IdentityFiles {
        self.files("devices-issuing")
    }

    /// PEM of the root below which people are trusted.
    #[must_use]
    pub fn operators_root(&self) -> PathBuf {
        self.pki("operators-root.crt")
    }

    /// The authority that the signer issues people's certificates with.
    #[must_use]
    pub fn operators_issuing(&self) -> IdentityFiles {
        self.files("operators-issuing")
    }

    /// Where the administrator's own login is kept.
    #[must_use]
    pub fn login_dir(&self) -> PathBuf {
        self.pki("login")
    }

    /// PEM of the root below which gateways and controllers are trusted.
    #[must_use]
    pub fn services_root(&self) -> PathBuf {
        self.pki("services-root.crt")
    }

    /// PEM of the authority of the embedded Kubernetes API and its clients.
    #[must_use]
    pub fn cluster_root(&self) -> PathBuf {
        self.pki("cluster-root.crt")
    }

    /// The embedded Kubernetes API's store.
    #[must_use]
    pub fn apiserver_dir(&self) -> PathBuf {
        self.dir.join("apiserver")
    }

    /// Who changed what by the embedded Kubernetes API.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.apiserver_dir().join("audit.log")
    }

    /// The key with which a role hides values of Secrets; made if there is none.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn data_key(&self, role: &str) -> Result<PathBuf> {
        let path = self.dir.join("data-keys").join(role);
        DataKey::provide(&path)?;
        Ok(path)
    }

    /// A gateway's desired sets and modules.
    #[must_use]
    pub fn gateway_dir(&self) -> PathBuf {
        self.dir.join("gateway")
    }

    /// All devices' modules, state and data.
    #[must_use]
    pub fn devices_dir(&self) -> PathBuf {
        self.dir.join("devices")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The embedded Kubernetes API's own certificate, for loopback.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn apiserver_identity(&self) -> Result<IdentityFiles> {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.service("apiserver", || self.cluster.issue_server(&hosts))
    }

    /// A gateway's identity.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn gateway_identity(&self, name: &str) -> Result<IdentityFiles> {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.service(&format!("gateway-{name}"), || {
            self.authorities.issue_gateway(SYSTEM_NAMESPACE, name, &hosts)
        })
    }

    /// A controller's identity.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn controller_identity(&self, name: &str) -> Result<IdentityFiles> {
        self.service(&format!("controller-{name}"), || {
            self.authorities.issue_controller(SYSTEM_NAMESPACE, name)
        })
    }

    /// The administrator's identity at gateways, without a login.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn operator_identity(&self) -> Result<IdentityFiles> {
        let user = KubeUser::Administrator;
        let groups = [user.group().to_owned()];
        self.service("operator", || self.operators.issue(&user.name(), &groups))
    }

    /// What a device of this machine comes with: an operational identity if an earlier version gave it one, and otherwise the identity
    /// of a factory, whose serial is the device's name.
    ///
    /// # Errors
    /// When it can't be read, issued or written.
    pub fn given_identity(&self, namespace: &str, name: &str) -> Result<DeviceIdentity> {
        if self.files(&device_stem(namespace, name)).key.exists() {
            let files = self.device_identity(namespace, name)?;
            return Ok(DeviceIdentity::Operational(Identity::read(&files.certificate, &files.key)?));
        }
        let stem = format!("factory-{name}");
        let files = self.files(&stem);
        if files.key.exists() {
            let held = Identity::read(&files.certificate, &files.key)?;
            if !held.is_early(unix_now()?) {
                return Ok(DeviceIdentity::Factory(held));
            }
            tracing::warn!(device = name, "its factory certificate lay in the future; it is issued again");
        }
        let issued = self.factory.issue(name)?;
        issued.write(&self.dir.join("pki"), &stem)?;
        Ok(DeviceIdentity::Factory(issued))
    }

    /// A device's operational identity, issued offline. Its key is pinned in the Device, so it is never made anew; a certificate that
    /// lies in the future is.
    ///
    /// # Errors
    /// When it can't be issued or written.
    pub fn device_identity(&self, namespace: &str, name: &str) -> Result<IdentityFiles> {
        let stem = device_stem(namespace, name);
        let files = self.files(&stem);
        if !files.key.exists() {
            self.authorities.issue_device(namespace, name)?.write(&self.dir.join("pki"), &stem)?;
            return Ok(files);
        }
        let held = Identity::read(&files.certificate, &files.key)?;
        if held.is_early(unix_now()?) {
            tracing::warn!(namespace, device = name, "its certificate lay in the future; it begins now");
            let again = self.authorities.issue_device_again(namespace, name, &held)?;
            again.write(&self.dir.join("pki"), &stem)?;
        }
        Ok(files)
    }

    /// Writes a kubeconfig of mode 0600 for a user of the embedded Kubernetes API; `None` is the administrator's at
    /// [`Layout::kubeconfig`].
    ///
    /// # Errors
    /// When the client's certificate can't be issued or the file can't be written.
    pub fn write_kubeconfig(&self, server: SocketAddr, user: KubeUser<'_>) -> Result<PathBuf> {
        let (name, stem) = (user.name(), user.stem());
        let path = match user {
            KubeUser::Administrator => self.kubeconfig(),
            _ => self.pki(&format!("{stem}.kubeconfig")),
        };
        let files = self.service(&stem, || self.cluster.issue_client(&name, user.group()))?;
        let identity = Identity::read(&files.certificate, &files.key)?;
        let text = kubeconfig::render(
            &format!("https://{server}"),
            self.cluster.certificate_pem(),
            &name,
            &identity,
        )?;
        wasmbed_pki::write_private(&path, text.as_bytes())
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// Issues an identity unless a fresh one is there.
    fn service<E>(&self, stem: &str, issue: impl FnOnce() -> Result<Identity, E>) -> Result<IdentityFiles>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let files = self.files(stem);
        let now = unix_now()?;
        let held = Identity::read(&files.certificate, &files.key);
        if held.is_err() || held.is_ok_and(|identity| identity.should_renew(now)) {
            issue()?.write(&self.dir.join("pki"), stem)?;
        }
        Ok(files)
    }

    fn files(&self, stem: &str) -> IdentityFiles {
        let (certificate, key) = Identity::files(&self.dir.join("pki"), stem);
        IdentityFiles { certificate, key }
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.dir.join("pki").join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.pki(name);
        wasmbed_pki::write_private(&path, text.as_bytes())
            .with_context(|| format!("can't write {}", path.display()))
    }
}

/// Names the files of a device's operational identity.
fn device_stem(namespace: &str, name: &str) -> String {
    format!("device-{namespace}-{name}")
}

/// Seconds since 1970-01-01T00:00:00Z.
fn unix_now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the system clock is before 1970")?;
    Ok(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// A user of the embedded Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeUser<'a> {
    /// May do everything.
    Administrator,
    /// The gateway of that name.
    Gateway(&'a str),
    /// The controller of that name.
    Controller(&'a str),
    /// The signer of that name.
    Signer(&'a str),
}

impl KubeUser<'_> {
    /// The name that the API knows it by.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Administrator => "admin".to_owned(),
            Self::Gateway(name) => format!("gateway:{name}"),
            Self::Controller(name) => format!("controller:{name}"),
            Self::Signer(name) => format!("signer:{name}"),
        }
    }

    /// The group that its rights are given to.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Administrator => "system:masters",
            Self::Gateway(_) => "wasmbed:gateways",
            Self::Controller(_) => "wasmbed:controllers",
            Self::Signer(_) => "wasmbed:signers",
        }
    }

    /// Names its files.
    fn stem(self) -> String {
        match self {
            Self::Administrator => "admin".to_owned(),
            Self::Gateway(name) => format!("kube-gateway-{name}"),
            Self::Controller(name) => format!("kube-controller-{name}"),
            Self::Signer(name) => format!("kube-signer-{name}"),
        }
    }
}

/// Holds a folder for one process; the lock ends with the process, however it ends.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the open file holds the lock")] File);

impl DirLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another process holds it, or the file can't be made.
    pub fn take(dir: &Path) -> Result<Self> {
        wasmbed_files::private_folder(dir).with_context(|| format!("can't create {}", dir.display()))?;
        let path = dir.join("lock");
        let file = wasmbed_files::create_private_file(&path)
            .with_context(|| format!("can't create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another `wasmbed up` uses {}; stop it, or choose another folder with --data-dir",
                    dir.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opening_keeps_every_identity() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let read = |layout: &Layout| -> Result<Vec<String>> {
            let gateway = layout.gateway_identity("main")?;
            let device = layout.device_identity("default", "device-001")?;
            let kubeconfig =
                layout.write_kubeconfig(SocketAddr::from(([127, 0, 0, 1], 6443)), KubeUser::Administrator)?;
            [gateway.certificate, device.key, kubeconfig]
                .iter()
                .map(|path| Ok(std::fs::read_to_string(path)?))
                .collect()
        };
        let first = read(&Layout::create_or_open(dir.path())?)?;
        assert_eq!(first, read(&Layout::create_or_open(dir.path())?)?);
        Ok(())
    }

    #[test]
    fn what_was_made_while_the_clock_was_ahead_is_valid_now() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let pki = dir.path().join("pki");
        let (now, ahead) = (unix_now()?, unix_now()? + 3 * 24 * 3_600);
        let authorities = Authorities::create_or_open_at(&pki, TRUST_DOMAIN, ahead)?;
        ClusterAuthority::create_or_open_at(&pki, ahead)?;
        authorities.issue_device("default", "device-001")?.write(&pki, "device-default-device-001")?;
        authorities
            .issue_gateway(SYSTEM_NAMESPACE, "main", &["localhost".to_owned()])?
            .write(&pki, "gateway-main")?;
        let key = std::fs::read_to_string(pki.join("device-default-device-001.key"))?;

        let layout = Layout::create_or_open(dir.path())?;
        let begins = |path: &Path| -> Result<i64> {
            let certificates = wasmbed_pki::read_certificates(path)?;
            let begins = certificates
                .iter()
                .map(|certificate| Ok(wasmbed_pki::CertificateFacts::parse(certificate)?.not_before));
            begins.collect::<Result<Vec<_>>>().map(|begins| begins.into_iter().max().unwrap_or(i64::MAX))
        };
        let device = layout.device_identity("default", "device-001")?;
        let gateway = layout.gateway_identity("main")?;
        let kubeconfig =
            layout.write_kubeconfig(SocketAddr::from(([127, 0, 0, 1], 6443)), KubeUser::Administrator)?;
        for path in [
            device.certificate,
            gateway.certificate,
            layout.devices_root(),
            layout.services_root(),
            layout.cluster_root(),
        ] {
            assert!(begins(&path)? <= now, "{}", path.display());
        }
        assert_eq!(key, std::fs::read_to_string(&device.key)?, "the key is pinned in the Device");
        assert!(kubeconfig.exists());
        // It stays as it is from now on.
        assert_eq!(Layout::create_or_open(dir.path())?.authorities().begun_anew().count(), 0);
        Ok(())
    }

    #[test]
    fn folders_of_older_versions_are_closed_to_others() -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("state");
        let folders =
            ["", "pki", "apiserver", "gateway", "devices", "devices/default"].map(|name| root.join(name));
        for folder in &folders {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        let layout = Layout::create_or_open(&root)?;
        layout.device_identity("default", "device-001")?;
        for folder in &folders {
            let mode = std::fs::metadata(folder)?.permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
        for entry in std::fs::read_dir(root.join("pki"))? {
            let entry = entry?;
            assert_eq!(entry.metadata()?.permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
        }
        Ok(())
    }

    #[test]
    fn one_process_holds_the_folder() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let held = DirLock::take(dir.path())?;
        let error = DirLock::take(dir.path()).expect_err("held");
        assert!(error.to_string().contains("another `wasmbed up`"), "{error}");
        drop(held);
        DirLock::take(dir.path()).map(|_| ())
    }
}
