//! The toolchain that made a module.

use serde::Serialize;

use super::anatomy::Anatomy;

/// Where Zig puts the top of the stack unless it is told otherwise; no other toolchain reserves as much.
const ZIG_STACK_TOP: i32 = 16 << 20;

/// The toolchain that made a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Toolchain {
    /// rustc.
    Rust,
    /// clang, for C and C++.
    Clang,
    /// zig.
    Zig,
    /// asc.
    AssemblyScript,
    /// go.
    Go,
    /// TinyGo.
    TinyGo,
    /// It doesn't say, or we don't know it.
    Unknown,
}

impl Toolchain {
    /// Reads it from the `producers` section, or, for tools that write none, from marks that they leave.
    pub fn detect(anatomy: &Anatomy) -> Self {
        let made = |word: &str| anatomy.producers.iter().any(|line| line.contains(word));
        let imports = |module: &str, name: &str, ty: &str| {
            let mut imports = anatomy.imports.iter();
            imports.any(|import| import.module == module && import.name == name && import.ty == ty)
        };
        if made("language: Rust") || made("processed-by: rustc") {
            Self::Rust
        } else if made("TinyGo") {
            Self::TinyGo
        } else if made("language: Go") {
            Self::Go
        } else if made("processed-by: clang") || made("language: C") {
            Self::Clang
        } else if !anatomy.producers.is_empty() {
            Self::Unknown
        } else if anatomy.stack_top == Some(ZIG_STACK_TOP) {
            Self::Zig
        } else if imports("env", "abort", "func (i32, i32, i32, i32)") {
            Self::AssemblyScript
        } else {
            Self::Unknown
        }
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Clang => "C or C++ (clang)",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
            Self::Go => "Go",
            Self::TinyGo => "TinyGo",
            Self::Unknown => "unknown",
        }
    }
}
