//! Clients of the Kubernetes API that nobody here wrote: client-go's informers and typed clients as small programs, and the Python
//! client in a virtual environment. Both are kept outside the checkout, for `conformance/tests/clients.rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{go, process, system};

/// Below the cache; `conformance/src/programs.rs` looks for it there.
const FOLDER: &str = "tools/conformance-clients";
/// Beside the environment: what it was made from.
const MADE_FROM: &str = "requirements.txt";

/// Makes sure that they are there and up to date.
pub(crate) fn ensure() -> Result<()> {
    let folder = process::cache()?.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    let sources = process::top().join("conformance/clients");
    process::step("clients of the Kubernetes API: client-go, Python");
    for (program, package) in [("informer", "."), ("typed", "./typed")] {
        process::run(
            go::command()?
                .current_dir(sources.join("go"))
                .args(["build", "-trimpath", "-o"])
                .arg(folder.join(program))
                .arg(package),
        )?;
    }
    python(&folder.join("python"), &sources.join("python/requirements.txt"))
}

fn python(environment: &Path, requirements: &Path) -> Result<()> {
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("can't read {}", requirements.display()))?;
    let made_from = environment.join(MADE_FROM);
    if std::fs::read_to_string(&made_from).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    system::ensure_programs(&[("python3", "python3")])?;
    // Debian leaves this out of python3.
    if process::run(Command::new("python3").args(["-c", "import ensurepip"])).is_err() {
        system::ensure_packages(&["python3-venv"])?;
    }
    process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
    process::run(
        Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--requirement"])
            .arg(requirements),
    )?;
    std::fs::write(&made_from, wanted).with_context(|| format!("can't write {}", made_from.display()))
}
