//! Makes constants of `boards/*.toml`.

mod definition;
mod generate;

use std::{error::Error, fs, path::Path, path::PathBuf};

fn main() {
    if let Err(error) = run() {
        // On lines of its own: it may show the line of the file.
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut boards = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| format!("can't read {}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            println!("cargo::rerun-if-changed={}", path.display());
            let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a file's name is not UTF-8")?;
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("can't read {}: {error}", path.display()))?;
            boards.push(definition::read(name, &text)?);
        }
    }
    if boards.is_empty() {
        return Err(format!("{} holds no board", folder.display()).into());
    }
    // Boards of one architecture side by side, in an order that no file system decides.
    boards.sort_by(|a, b| (&a.target, &a.name).cmp(&(&b.target, &b.name)));
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(PathBuf::from(out).join("boards.rs"), generate::source(&boards))?;
    Ok(())
}
