//! The real control plane: etcd, kube-apiserver and kube-controller-manager, with the fewest flags that give TLS, RBAC and
//! admission.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{ports::Port, tools};

/// Folder of etcd's data.
pub(crate) const ETCD_DATA: &str = "etcd";

/// What the commands have in common.
pub(crate) struct Files<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) api: &'a Port,
    pub(crate) etcd: &'a Port,
    pub(crate) etcd_peers: &'a Port,
}

impl Files<'_> {
    pub(crate) fn etcd(&self, durable: bool) -> Result<Command> {
        let mut command = command("etcd")?;
        let (clients, peers) = (self.etcd_url(), format!("http://{}", self.etcd_peers.address()));
        command.arg("--name=default").arg(self.at("--data-dir", ETCD_DATA));
        command.arg(format!("--listen-client-urls={clients}"));
        command.arg(format!("--advertise-client-urls={clients}"));
        command.arg(format!("--listen-peer-urls={peers}"));
        command.arg(format!("--initial-advertise-peer-urls={peers}"));
        command.arg(format!("--initial-cluster=default={peers}"));
        if !durable {
            command.arg("--unsafe-no-fsync");
        }
        Ok(command)
    }

    pub(crate) fn apiserver(&self) -> Result<Command> {
        let mut command = command("kube-apiserver")?;
        command.arg(format!("--etcd-servers={}", self.etcd_url()));
        command.arg(format!("--secure-port={}", self.api.number()));
        command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]);
        command.arg("--endpoint-reconciler-type=none");
        // It lets open connections finish for as long as a request may take: a stop while somebody watches takes this long.
        command.arg("--request-timeout=15s");
        command.arg(self.at("--cert-dir", "apiserver"));
        command.arg(self.at("--tls-cert-file", "apiserver.crt"));
        command.arg(self.at("--tls-private-key-file", "apiserver.key"));
        command.arg(self.at("--client-ca-file", "cluster-ca.crt"));
        command.args(["--authorization-mode=RBAC", "--anonymous-auth=false"]);
        // Tokens that nobody asks for, but without a key for them it doesn't start.
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        command.arg(self.at("--service-account-key-file", "apiserver.crt"));
        command.arg(self.at("--service-account-signing-key-file", "apiserver.key"));
        command.arg("--service-cluster-ip-range=10.0.0.0/24");
        // Nobody makes the accounts that it would demand.
        command.arg("--disable-admission-plugins=ServiceAccount");
        Ok(command)
    }

    pub(crate) fn controller_manager(&self, kubeconfig: &Path) -> Result<Command> {
        let mut command = command("kube-controller-manager")?;
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg("--controllers=garbage-collector-controller,namespace-controller");
        command.args(["--leader-elect=false", "--secure-port=0"]);
        Ok(command)
    }

    fn etcd_url(&self) -> String {
        format!("http://{}", self.etcd.address())
    }

    fn at(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.dir.join(name).display())
    }
}

fn command(program: &str) -> Result<Command> {
    let mut command = Command::new(tools::kubernetes(program)?);
    tools::collect_seldom(&mut command);
    Ok(command)
}
