//! The manifest of the kubectl plugin, as the step of a release makes it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn a_release_makes_the_manifest_of_the_plugin_and_what_it_names() -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let template = fs::read_to_string(top.join("deploy/krew/wasmbed.yaml"))?;
    serde_saphyr::from_str::<Value>(&template).context("the template is YAML itself")?;
    let folder = tempfile::tempdir()?;
    let binary = folder.path().join("wasmbed");
    fs::write(&binary, "#!/bin/sh\necho packed\n")?;
    let mut command = Command::new("chmod");
    ensure!(command.arg("755").arg(&binary).status()?.success());
    let pack = || -> Result<Vec<u8>> {
        let mut cargo = wasmbed_cargo::command();
        cargo.args(["run", "--quiet", "--package", "xtask", "--", "krew", "--out"]).arg(folder.path());
        let output = cargo.arg("--binary").arg(&binary).current_dir(&top).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(fs::read(folder.path().join("kubectl-wasmbed-linux-amd64.tar.gz"))?)
    };
    let archive = pack()?;
    ensure!(pack()? == archive, "the same binary makes the same archive");

    let text = fs::read_to_string(folder.path().join("wasmbed.yaml"))?;
    let manifest: Value = serde_saphyr::from_str(&text)?;
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    ensure!(manifest["kind"] == "Plugin" && manifest["metadata"]["name"] == "wasmbed", "{text}");
    ensure!(manifest["spec"]["version"] == version && !text.contains('@'), "{text}");
    ensure!(
        manifest["spec"]["shortDescription"].as_str().is_some_and(|text| text.len() <= 50),
        "krew's bound"
    );
    let platform = &manifest["spec"]["platforms"][0];
    let uri = platform["uri"].as_str().unwrap_or_default();
    let named = format!(
        "https://github.com/wasmbed/wasmbed/releases/download/{version}/kubectl-wasmbed-linux-amd64.tar.gz"
    );
    ensure!(uri == named, "{uri}");
    let sum =
        Command::new("sha256sum").arg(folder.path().join("kubectl-wasmbed-linux-amd64.tar.gz")).output()?;
    let sum = String::from_utf8(sum.stdout)?;
    ensure!(platform["sha256"].as_str().is_some_and(|sha| sha.len() == 64 && sum.starts_with(sha)), "{text}");

    // What krew would do with it.
    let installed = folder.path().join("installed");
    fs::create_dir(&installed)?;
    let mut tar = Command::new("tar");
    tar.args(["xzf", "kubectl-wasmbed-linux-amd64.tar.gz", "-C", "installed"]).current_dir(folder.path());
    ensure!(tar.status()?.success());
    for file in platform["files"].as_array().context("files")? {
        let from = file["from"].as_str().context("from")?;
        ensure!(installed.join(from).is_file(), "{from} is not in the archive");
    }
    let bin = platform["bin"].as_str().context("bin")?;
    let said = Command::new(installed.join(bin)).output()?;
    ensure!(said.stdout == b"packed\n", "it is the binary, and can be run");
    Ok(())
}
