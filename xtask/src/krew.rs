//! `cargo xtask krew`: the plugin of kubectl as krew installs it: an archive, and the manifest with its checksum.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{container, process};

/// The name of the archive in the manifest's address.
const ARCHIVE: &str = "kubectl-wasmbed-linux-amd64.tar.gz";

/// What to pack, and where to.
#[derive(Args)]
pub(crate) struct Options {
    /// Pack this binary instead of building the statically linked one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Folder of the archive and the manifest [default: target/krew].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Packs the plugin and writes the manifest.
pub(crate) fn pack(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| container::target().join("krew"));
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => container::binary(false)?,
    };
    let contents = out.join("contents");
    std::fs::create_dir_all(&contents).with_context(|| format!("can't create {}", contents.display()))?;
    let license = process::top().join("LICENSE");
    for (from, name) in [(binary.as_path(), "kubectl-wasmbed"), (license.as_path(), "LICENSE")] {
        std::fs::copy(from, contents.join(name)).with_context(|| format!("can't copy {}", from.display()))?;
    }
    let archive = out.join(ARCHIVE);
    // The same bytes for the same binary.
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=u=rwX,go=rX", "--use-compress-program=gzip --no-name --best", "--file"]).arg(&archive);
    process::run(tar.arg("--directory").arg(&contents).args(["LICENSE", "kubectl-wasmbed"]))?;
    let manifest = out.join("wasmbed.yaml");
    std::fs::write(&manifest, filled(&sha256(&archive)?)?)
        .with_context(|| format!("can't write {}", manifest.display()))?;
    println!("{}\n{}", archive.display(), manifest.display());
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let said = process::output(Command::new("sha256sum").arg(file))?;
    said.split_whitespace().next().map(str::to_owned).context("sha256sum prints nothing")
}

fn filled(sha256: &str) -> Result<String> {
    let template = process::top().join("deploy/krew/wasmbed.yaml");
    let template =
        std::fs::read_to_string(&template).with_context(|| format!("can't read {}", template.display()))?;
    // What stands before is about the template.
    let from = template.find("apiVersion:").context("the manifest has no apiVersion")?;
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let text = template[from..].replace("@VERSION@", version).replace("@SHA256@", sha256);
    ensure!(!text.contains('@'), "the manifest has something else to fill in: {text}");
    Ok(text)
}
