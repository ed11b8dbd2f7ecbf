//! `wasmbed pki secrets` and `fetch`: authorities and identities as Secrets of a Kubernetes cluster.
//!
//! ```text
//! PREFIX-authorities       the roots and their issuing authorities, with keys
//! PREFIX-trust             services-ca.crt, devices-ca.crt and operators-ca.crt, the roots
//! PREFIX-gateway-N-tls     tls.crt and tls.key of the gateway PREFIX-gateway-N
//! PREFIX-controller-tls    tls.crt and tls.key of all controllers
//! PREFIX-signer-issuing    tls.crt and tls.key of the devices' issuing authority
//! PREFIX-signer-operators  tls.crt and tls.key of the operators' issuing authority
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use wasmbed_pki::{Authorities, Identity, OperatorAuthority, Role};

use crate::{
    cluster::explain,
    cluster::kubeconfig,
    machine::layout::{SYSTEM_NAMESPACE, TRUST_DOMAIN},
    output,
};

/// Files of the authorities, as [`Authorities`] names them.
const AUTHORITIES: [&str; 4] = ["services-root", "services-issuing", "devices-root", "devices-issuing"];
/// The same of people's, as [`OperatorAuthority`] names them. They are added to what was made before there were any.
const OPERATORS: [&str; 2] = ["operators-root", "operators-issuing"];
/// Tries to add them while others change the Secret.
const ADDITIONS_MAX: u32 = 5;
const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";

/// Which Secrets.
#[derive(clap::Args)]
pub(crate) struct Cluster {
    /// Names begin with it, as those of the Helm release do.
    #[arg(long, default_value = "wasmbed")]
    prefix: String,
    /// Namespace of the Secrets.
    #[arg(short, long, default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// How to reach the Kubernetes API [default: KUBECONFIG, ~/.kube/config, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What there should be.
#[derive(clap::Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    cluster: Cluster,
    /// First part of all SPIFFE ids.
    #[arg(long, default_value = TRUST_DOMAIN)]
    trust_domain: String,
    /// How many gateways: PREFIX-gateway-0 and so on.
    #[arg(long, default_value_t = 1)]
    gateways: u32,
    /// Host name or address in the gateways' certificates, besides the one within the cluster; may be given again.
    #[arg(long = "host")]
    hosts: Vec<String>,
    /// Also PREFIX-signer-issuing, with the devices' issuing CA and its key.
    #[arg(long)]
    signer: bool,
    /// Also CAs of people who use gateways: operators-ca.crt in PREFIX-trust, and PREFIX-signer-operators with the issuing CA and its
    /// key.
    #[arg(long)]
    operators: bool,
}

/// Where to put the authorities.
#[derive(clap::Args)]
pub(crate) struct Destination {
    #[command(flatten)]
    cluster: Cluster,
    /// Folder to write into; `wasmbed pki issue --dir` takes the same.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
}

/// Makes the Secrets that don't exist, and renews identities that are near their end.
///
/// # Errors
/// When the Kubernetes API refuses, or a Secret holds something else than expected: nothing is replaced then.
pub(crate) async fn ensure(wanted: Wanted) -> Result<()> {
    let secrets = Secrets::connect(&wanted.cluster).await?;
    let temporary = tempfile::tempdir().context("can't make a temporary folder")?;
    let Kept { authorities, folder, fresh } =
        secrets.authorities(temporary.path(), &wanted.trust_domain).await?;
    let operators = match wanted.operators {
        true => Some(secrets.operators(&folder, &wanted.trust_domain).await?),
        false => None,
    };
    let mut trust = BTreeMap::from([
        ("services-ca.crt".to_owned(), authorities.services_root_pem().to_owned()),
        ("devices-ca.crt".to_owned(), authorities.devices_root_pem().to_owned()),
    ]);
    if let Some(operators) = &operators {
        trust.insert("operators-ca.crt".to_owned(), operators.root_pem().to_owned());
    }
    secrets.put("trust", OPAQUE, &trust).await?;
    let Cluster { prefix, namespace, .. } = &wanted.cluster;
    for number in 0..wanted.gateways {
        let name = format!("{prefix}-gateway-{number}");
        let mut hosts = vec![format!("{name}.{prefix}-gateway.{namespace}.svc")];
        hosts.extend(wanted.hosts.iter().cloned());
        let issue = || Ok(authorities.issue_gateway(namespace, &name, &hosts)?);
        secrets.identity(&format!("gateway-{number}-tls"), (Role::Gateway, &name), fresh, issue).await?;
    }
    let name = format!("{prefix}-controller");
    let issue = || Ok(authorities.issue_controller(namespace, &name)?);
    secrets.identity("controller-tls", (Role::Controller, &name), fresh, issue).await?;
    if wanted.signer {
        let (certificate, key) = Identity::files(&folder, "devices-issuing");
        let issuing = Identity::read(&certificate, &key).context("a signer needs the devices' issuing CA")?;
        secrets.issuing("signer-issuing", &issuing).await?;
    }
    if operators.is_some() {
        let (certificate, key) = Identity::files(&folder, "operators-issuing");
        let issuing =
            Identity::read(&certificate, &key).context("a signer needs the operators' issuing CA")?;
        secrets.issuing("signer-operators", &issuing).await?;
    }
    Ok(())
}

/// Writes the authorities of a cluster into a folder.
///
/// # Errors
/// When there are none, or the folder holds others.
pub(crate) async fn fetch(destination: Destination) -> Result<()> {
    let secrets = Secrets::connect(&destination.cluster).await?;
    let name = secrets.name("authorities");
    let Some(held) = secrets.get("authorities").await? else {
        bail!("no Secret {name} in the namespace {}", destination.cluster.namespace);
    };
    for (file, bytes) in held {
        if !authority_files().any(|known| known == file) {
            continue;
        }
        let path = destination.dir.join(&file);
        match std::fs::read(&path) {
            Ok(other) if other != bytes => {
                bail!("{} is there and differs; choose another folder", path.display())
            }
            _ => wasmbed_pki::write_private(&path, &bytes)
                .with_context(|| format!("can't write {}", path.display()))?,
        }
    }
    output::print_line(&format!("authorities of Secret {name} in {}", destination.dir.display()));
    Ok(())
}

fn authority_files() -> impl Iterator<Item = String> {
    files_of(&AUTHORITIES).chain(files_of(&OPERATORS))
}

fn files_of(stems: &[&str]) -> impl Iterator<Item = String> {
    stems.iter().flat_map(|stem| ["crt", "key"].map(|suffix| format!("{stem}.{suffix}")))
}

fn write_files(folder: &Path, held: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (file, bytes) in held {
        if authority_files().any(|known| known == *file) {
            wasmbed_pki::write_private(&folder.join(file), bytes)
                .with_context(|| format!("can't write {file}"))?;
        }
    }
    Ok(())
}

fn read_files(folder: &Path, stems: &[&str]) -> Result<BTreeMap<String, String>> {
    let read = |file: String| {
        let text = std::fs::read_to_string(folder.join(&file));
        Ok((file.clone(), text.with_context(|| format!("can't read the new {file}"))?))
    };
    files_of(stems).map(read).collect()
}

/// A cluster's authorities, as files.
struct Kept {
    authorities: Authorities,
    folder: PathBuf,
    /// Whether they were made just now.
    fresh: bool,
}

struct Secrets {
    api: Api<Secret>,
    prefix: String,
    /// Of the Kubernetes API, for messages.
    server: String,
}

impl Secrets {
    async fn connect(cluster: &Cluster) -> Result<Self> {
        let config = kubeconfig::client_config(cluster.kubeconfig.as_ref()).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("can't make a Kubernetes client")?;
        Ok(Self { api: Api::namespaced(client, &cluster.namespace), prefix: cluster.prefix.clone(), server })
    }

    fn explain(&self, error: kube::Error) -> anyhow::Error {
        explain(&error, &self.server)
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    async fn get(&self, suffix: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        let name = self.name(suffix);
        Ok(self.read(&name).await?.map(data_of))
    }

    async fn read(&self, name: &str) -> Result<Option<Secret>> {
        let held = self.api.get_opt(name).await.map_err(|error| self.explain(error));
        held.with_context(|| format!("can't read the Secret {name}"))
    }

    /// The cluster's authorities. Of two who make them at once one finds the other's.
    async fn authorities(&self, folder: &Path, trust_domain: &str) -> Result<Kept> {
        let kept = |authorities, folder: &Path, fresh| Kept { authorities, folder: folder.to_owned(), fresh };
        if let Some(held) = self.get("authorities").await? {
            return Ok(kept(open(folder, trust_domain, &held)?, folder, false));
        }
        let made = Authorities::create_or_open(folder, trust_domain)?;
        let data = read_files(folder, &AUTHORITIES)?;
        if self.create("authorities", OPAQUE, &data).await? {
            return Ok(kept(made, folder, true));
        }
        let held = self.get("authorities").await?.context("the authorities appeared and vanished")?;
        let folder = folder.join("theirs");
        Ok(kept(open(&folder, trust_domain, &held)?, &folder, false))
    }

    /// The operators' authority of the cluster; of two who add it at once one finds the other's. Nothing else in the Secret changes.
    async fn operators(&self, folder: &Path, trust_domain: &str) -> Result<OperatorAuthority> {
        let name = self.name("authorities");
        for _ in 0..ADDITIONS_MAX {
            let held = self.read(&name).await?.context("the authorities vanished")?;
            let version = held.metadata.resource_version.clone();
            let held = data_of(held);
            if files_of(&OPERATORS).any(|file| held.contains_key(&file)) {
                if let Some(missing) =
                    OPERATORS.iter().find(|stem| !held.contains_key(&format!("{stem}.crt")))
                {
                    bail!(
                        "the Secret {name} holds no {missing}.crt; restore it, or remove all that begins with operators-"
                    );
                }
                write_files(folder, &held)?;
                return Ok(OperatorAuthority::create_or_open(folder, trust_domain)?);
            }
            let made = OperatorAuthority::create_or_open(folder, trust_domain)?;
            let data = encoded(&read_files(folder, &OPERATORS)?);
            let patch = serde_json::json!({ "metadata": { "resourceVersion": version }, "data": data });
            match self.api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(made),
                // Somebody changed it meanwhile.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    return Err(self.explain(error).context(format!("can't change the Secret {name}")));
                }
            }
        }
        bail!("the Secret {name} is changed all the time")
    }

    async fn identity(
        &self,
        suffix: &str,
        (role, name): (Role, &str),
        fresh: bool,
        issue: impl FnOnce() -> Result<Identity>,
    ) -> Result<()> {
        let held = self.get(suffix).await?.unwrap_or_default();
        let text = |key: &str| held.get(key).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let identity = text("tls.crt").zip(text("tls.key"));
        let identity = identity.and_then(|(chain, key)| Identity::from_pem(chain, key).ok());
        let good = identity.is_some_and(|identity| {
            let own = identity.spiffe_id().is_ok_and(|id| id.role() == role && id.name() == name);
            own && !identity.should_renew(unix_now())
        });
        if good && !fresh {
            output::print_line(&format!("{}: kept", self.name(suffix)));
            return Ok(());
        }
        self.put_identity(suffix, &issue()?).await
    }

    /// An authority that someone else signs with.
    async fn issuing(&self, suffix: &str, issuing: &Identity) -> Result<()> {
        let held = self.get(suffix).await?.unwrap_or_default();
        let is = |key: &str, text: &str| held.get(key).is_some_and(|bytes| bytes == text.as_bytes());
        if is("tls.crt", &issuing.chain_pem) && is("tls.key", &issuing.key_pem) {
            output::print_line(&format!("{}: kept", self.name(suffix)));
            return Ok(());
        }
        self.put_identity(suffix, issuing).await
    }

    async fn put_identity(&self, suffix: &str, identity: &Identity) -> Result<()> {
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), identity.chain_pem.clone()),
            ("tls.key".to_owned(), identity.key_pem.clone()),
        ]);
        self.put(suffix, TLS, &data).await?;
        output::print_line(&format!("{}: issued", self.name(suffix)));
        Ok(())
    }

    async fn put(&self, suffix: &str, kind: &str, data: &BTreeMap<String, String>) -> Result<()> {
        if self.create(suffix, kind, data).await? {
            return Ok(());
        }
        let name = self.name(suffix);
        let patch = Patch::Merge(serde_json::json!({ "data": encoded(data) }));
        let patched = self.api.patch(&name, &PatchParams::default(), &patch).await;
        let patched = patched.map(drop).map_err(|error| self.explain(error));
        patched.with_context(|| format!("can't change the Secret {name}"))
    }

    /// Whether it was made: false if there is one.
    async fn create(&self, suffix: &str, kind: &str, data: &BTreeMap<String, String>) -> Result<bool> {
        let name = self.name(suffix);
        let labels =
            [("app.kubernetes.io/part-of", "wasmbed"), ("app.kubernetes.io/managed-by", "wasmbed-pki")];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            data: Some(encoded(data)),
            ..Secret::default()
        };
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(self.explain(error).context(format!("can't create the Secret {name}"))),
        }
    }
}

fn open(folder: &Path, trust_domain: &str, held: &BTreeMap<String, Vec<u8>>) -> Result<Authorities> {
    for stem in AUTHORITIES {
        let certificate = format!("{stem}.crt");
        // Without this a new authority would be made in place of one that is lost.
        if !held.contains_key(&certificate) {
            bail!(
                "the Secret of the authorities holds no {certificate}; restore it, or delete the Secret and all that trusts it"
            );
        }
    }
    write_files(folder, held)?;
    Ok(Authorities::create_or_open(folder, trust_domain)?)
}

fn data_of(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

fn encoded(data: &BTreeMap<String, String>) -> BTreeMap<String, ByteString> {
    data.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into_bytes()))).collect()
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
