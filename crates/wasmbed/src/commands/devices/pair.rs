//! `wasmbed devices pair`.

use std::{
    fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rand::{TryRngCore as _, rngs::OsRng};
use serde_json::json;
use wasmbed_api::{PAIRING_EXPIRES, PAIRING_NAMESPACE, PAIRING_SECRET_KEY, kind, pairing_secret};
use wasmbed_identity::PairingToken;

use super::api::{Apply, FIELD_MANAGER, Failure, apply};
use crate::{
    cluster::{Cluster, ClusterArgs, Resource},
    output::{complain, print_line},
    values,
};

/// Make a pairing token, with which one device without a factory identity joins once.
///
/// Creates the Device unless it is there. The token is shown once: whoever has it can join as that Device until it was used or has
/// expired. A second token for a Device replaces the first.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the Device.
    name: String,
    /// How long the token can be used: a number with s, m or h.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::validity)]
    expires: Duration,
    /// Write the token to a new file that only you can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Namespace of the signer's Secrets.
    #[arg(long, value_name = "NAMESPACE", default_value = PAIRING_NAMESPACE)]
    pairing_namespace: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the command.
///
/// # Errors
/// What can't be made. What was made before is removed again, or named.
pub(super) async fn run(args: Args) -> Result<()> {
    let cluster = args.cluster.connect_without_retries().await?;
    let resource = Resource::ours(kind::DEVICE, "devices");
    let path = resource.object(Some(&cluster.namespace), &args.name)?;
    let before = cluster.read(&path).await?;
    if let Some(key) = before.as_ref().and_then(|device| device["spec"]["public_key"].as_str()) {
        bail!(
            "the Device {} pins a key (spec.public_key {key:.12}…), and a device that pairs makes a new one: remove the field first",
            args.name
        );
    }
    let token = new_token()?;
    let file = args.out.as_deref().map(|path| Out::create(path.to_owned(), &token)).transpose()?;
    let secrets =
        Secrets { api: Api::namespaced(cluster.client.clone(), &args.pairing_namespace), args: &args };
    secrets.create(&cluster, &token).await?;
    if let Err(failure) = apply_device(&cluster, &resource, &args.name, &token).await {
        secrets.remove(&token.id().to_string()).await;
        return Err(failure.into_error().context(format!("can't make the Device {}", args.name)));
    }
    // Another token is the Device's now: the key of the former one proves nothing any more.
    let former = before.as_ref().and_then(|device| device["spec"]["pairing_id"].as_str());
    if let Some(former) = former.filter(|id| PairingToken::is_id(id)) {
        secrets.remove(former).await;
    }
    match file {
        Some(file) => complain(&format!("the token of {} is in {}", args.name, file.keep().display())),
        None => print_line(&token.reveal().to_string()),
    }
    Ok(())
}

fn new_token() -> Result<PairingToken> {
    let (mut id, mut secret) = ([0; PairingToken::ID_BYTES], [0; PairingToken::SECRET_BYTES]);
    for bytes in [&mut id[..], &mut secret[..]] {
        OsRng.try_fill_bytes(bytes).context("this machine gives no random bytes")?;
    }
    Ok(PairingToken::new(id, secret))
}

async fn apply_device(
    cluster: &Cluster,
    resource: &Resource,
    name: &str,
    token: &PairingToken,
) -> Result<(), Failure> {
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": name, "namespace": cluster.namespace },
        "spec": { "pairing_id": token.id().to_string() },
    });
    apply(cluster, Apply { resource, namespace: &cluster.namespace, name, object: &object, dry_run: false })
        .await
}

/// The file with the token; it goes again unless it is kept.
struct Out {
    path: Option<PathBuf>,
}

impl Out {
    fn create(path: PathBuf, token: &PairingToken) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(|| format!("can't create {}", path.display()))?;
        let out = Self { path: Some(path) };
        writeln!(file, "{}", token.reveal())
            .and_then(|()| file.sync_all())
            .context("can't write the token")?;
        Ok(out)
    }

    fn keep(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            complain(&format!("warning: {} holds a token that is of no use: {error}", path.display()));
        }
    }
}

struct Secrets<'a> {
    api: Api<Secret>,
    args: &'a Args,
}

impl Secrets<'_> {
    async fn create(&self, cluster: &Cluster, token: &PairingToken) -> Result<()> {
        let namespace = &self.args.pairing_namespace;
        let expires = Timestamp::now()
            .checked_add(self.args.expires)
            .ok()
            .and_then(|time| Timestamp::from_second(time.as_second()).ok())
            .context("the token would expire too late")?;
        let device = format!("{}/{}", cluster.namespace, self.args.name);
        let annotations = [
            (PAIRING_EXPIRES.to_owned(), expires.to_string()),
            (wasmbed_api::request_annotation::DEVICE.to_owned(), device),
        ];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(pairing_secret(&token.id().to_string())),
                annotations: Some(annotations.into()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some([(PAIRING_SECRET_KEY.to_owned(), ByteString(token.key().reveal().to_vec()))].into()),
            ..Secret::default()
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api.create(&parameters, &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => bail!(
                "there is no namespace {namespace}: `wasmbed up` and the Helm chart make it for their signer; kubectl create namespace {namespace} does, too"
            ),
            Err(error) => {
                Err(cluster.explain(error)).context("can't make the Secret with the key of the token")
            }
        }
    }

    /// Removes a key that proves nothing any more; one that stays is named.
    async fn remove(&self, id: &str) {
        let name = pairing_secret(id);
        match self.api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => complain(&format!(
                "warning: the Secret {}/{name} of a token that is of no use stays: {error}",
                self.args.pairing_namespace
            )),
        }
    }
}
