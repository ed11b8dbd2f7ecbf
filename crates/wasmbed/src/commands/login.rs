//! `wasmbed login` and `wasmbed logout`: who a person is at gateways.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    cluster::ClusterArgs,
    login::{Login, Operator, Place, Store, all},
    output::{self, harmless},
};

/// Get a certificate with which gateways know you, as the user that the Kubernetes API knows you as.
///
/// The certificate counts for some hours, for the cluster of the kubeconfig. Commands that need one log in by themselves if that
/// takes no person who approves it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// How many seconds to wait for somebody to approve it.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Get another one even if there is one of which more than a third of its life is left.
    #[arg(long)]
    force: bool,
}

/// Forget the certificate with which gateways know you, and its key.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// Those of all clusters.
    #[arg(long, conflicts_with = "kubeconfig")]
    all: bool,
}

/// Logs in.
///
/// # Errors
/// The request is refused, nobody decided about it in time, or the certificate can't be kept.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster_args = ClusterArgs { kubeconfig: args.kubeconfig, namespace: None };
    let cluster = cluster_args.connect_without_retries().await?;
    let login = Login::of(&cluster, &cluster_args)?;
    let kept = login.store().read().filter(|kept| !kept.is_over() && !kept.should_renew() && !args.force);
    if let Some(kept) = kept {
        return show("logged in already", &kept, login.store());
    }
    let got = login.obtain(Duration::from_secs(args.timeout), &output::complain).await?;
    show("logged in", &got, login.store())
}

/// Logs out.
///
/// # Errors
/// Files can't be removed.
pub(crate) async fn logout(args: LogoutArgs) -> Result<()> {
    let stores = match args.all {
        true => all()?,
        false => {
            let cluster_args = ClusterArgs { kubeconfig: args.kubeconfig, namespace: None };
            let cluster = cluster_args.connect_without_retries().await?;
            vec![Store::of(&Place::of(&cluster, &cluster_args)?)?]
        }
    };
    let mut was = false;
    for store in stores {
        let kept = store.read();
        was |= store.clear()?;
        if let Some(kept) = kept.filter(|kept| !kept.is_over()) {
            let (user, until) = (user_of(&kept)?, until(&kept)?);
            output::print_line(&format!(
                "logged out {user:?}; a copy of the certificate would count until {until}"
            ));
        }
    }
    if !was {
        output::print_line("not logged in");
    }
    Ok(())
}

fn show(what: &str, operator: &Operator, store: &Store) -> Result<()> {
    let groups = operator.id()?.groups().len();
    output::print_line(&format!(
        "{what} as {:?} ({groups} groups) until {}: {}",
        user_of(operator)?,
        until(operator)?,
        store.file().display()
    ));
    Ok(())
}

fn user_of(operator: &Operator) -> Result<String> {
    Ok(harmless(operator.id()?.user()).into_owned())
}

fn until(operator: &Operator) -> Result<jiff::Timestamp> {
    jiff::Timestamp::from_second(operator.not_after()).context("the certificate's end is out of range")
}
