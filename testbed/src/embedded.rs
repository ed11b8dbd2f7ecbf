//! The embedded control plane: one process.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{ports::Port, process::wasmbed};

pub(crate) fn apiserver(dir: &Path, api: &Port) -> Result<Command> {
    let mut command = wasmbed(&["apiserver", "--listen", &api.address().to_string()])?;
    command.arg("--data-dir").arg(dir.join("apiserver"));
    command.arg("--cert-file").arg(dir.join("apiserver.crt"));
    command.arg("--key-file").arg(dir.join("apiserver.key"));
    command.arg("--client-ca-file").arg(dir.join("cluster-ca.crt"));
    // What a RoleBinding is in a cluster.
    command.args(["--secret-namespace", crate::SECRETS_NAMESPACE]);
    Ok(command)
}
