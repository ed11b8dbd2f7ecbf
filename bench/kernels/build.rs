//! With the feature `coremark`: the algorithms of CoreMark, from the package of that name, as source that needs no standard library.

use std::{env, error::Error, fs, path::PathBuf};

/// The version that `Cargo.toml` asks for.
const PACKAGE: &str = "coremark-1.0.0";
/// What of it is needed; the rest is its command line and its clock.
const FILES: [&str; 5] = ["list", "matrix", "state", "types", "util"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_COREMARK").is_none() {
        return Ok(());
    }
    let source = source()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut all = String::new();
    for file in FILES {
        let text = fs::read_to_string(source.join("src").join(file).with_extension("rs"))?;
        let text = text.replace("crate::", "super::");
        let lines = text.lines().filter(|line| !line.starts_with("//!"));
        let text = lines.collect::<Vec<_>>().join("\n");
        all += &format!(
            "pub(crate) mod {file} {{\n#[allow(unused_imports)]\nuse alloc::{{vec, vec::Vec}};\n{text}\n}}\n"
        );
    }
    fs::write(out.join("coremark.rs"), all)?;
    Ok(())
}

/// Where Cargo has unpacked it, to build it for this script.
fn source() -> Result<PathBuf, Box<dyn Error>> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).ok_or("no HOME")?;
    let registries = home.join("registry/src");
    for registry in fs::read_dir(&registries)? {
        let package = registry?.path().join(PACKAGE);
        if package.is_dir() {
            return Ok(package);
        }
    }
    Err(format!("no {PACKAGE} below {}", registries.display()).into())
}
