//! What a module's own toolchain can do where packing can't, in that toolchain's own words.

use super::{anatomy::Memory, feature::Feature, toolchain::Toolchain};
use crate::output::grouped;

/// Memory that a module may ask for without a word from us: one page of 64 KiB, the least that toolchains make.
const MEMORY_BYTES_UNREMARKABLE: u64 = 1 << 16;

/// How to get a smaller memory, if it is large.
pub(crate) fn for_memory(toolchain: Toolchain, memory: Option<Memory>) -> Option<String> {
    let memory = memory.filter(|memory| memory.bytes() > MEMORY_BYTES_UNREMARKABLE)?;
    let how = match toolchain {
        Toolchain::Rust => {
            "build with RUSTFLAGS=\"-C link-arg=-zstack-size=16384\" (the linker reserves 1 MiB of stack by default)"
        }
        Toolchain::Clang => {
            "link with -Wl,-z,stack-size=8192 (the linker reserves 64 KiB of stack by default)"
        }
        Toolchain::Zig => "build with --stack 16384 (zig reserves 16 MiB of stack by default)",
        Toolchain::AssemblyScript => "build with --initialMemory 1, or with a smaller --memoryBase",
        Toolchain::Go => {
            "Go's runtime needs this much; TinyGo (tinygo build -target=wasi) makes small modules"
        }
        Toolchain::TinyGo => "set a smaller \"stack-size\" in the ldflags of the target file",
        Toolchain::Unknown => {
            "ask its linker for a smaller stack: wasm-ld -z stack-size=16384, rustc -C link-arg=-zstack-size=16384, \
             zig --stack 16384, asc --initialMemory 1"
        }
    };
    Some(format!(
        "the memory starts with {} KiB, and a device sets all of it aside; packing can't shrink it: {how}",
        grouped(memory.bytes().div_ceil(1024))
    ))
}

/// How to build without the features.
pub(crate) fn for_features(toolchain: Toolchain, features: impl Iterator<Item = Feature>) -> Vec<String> {
    let mut lines = Vec::new();
    for feature in features {
        let line = match toolchain {
            Toolchain::Rust => rust_flag(feature),
            Toolchain::Clang => clang_flag(feature),
            Toolchain::Zig => Some("build with -mcpu=mvp".to_string()),
            Toolchain::AssemblyScript => asc_flag(feature),
            Toolchain::Go | Toolchain::TinyGo => None,
            Toolchain::Unknown => None,
        };
        lines.extend(line.filter(|line| !lines.contains(line)));
    }
    if lines.is_empty() {
        lines.push(
            "leave the feature out when you build (clang and zig: -mcpu=mvp; rustc: -C target-feature=-NAME; asc: \
             --disable NAME)"
                .to_string(),
        );
    }
    lines
}

fn rust_flag(feature: Feature) -> Option<String> {
    let name = match feature {
        Feature::Simd => "simd128",
        Feature::Threads => "atomics",
        Feature::TailCalls => "tail-call",
        Feature::MultiValue => "multivalue",
        Feature::ReferenceTypes | Feature::TableOperators | Feature::MultipleTables => "reference-types",
        Feature::ExtendedConst => "extended-const",
        Feature::WideArithmetic => "wide-arithmetic",
        Feature::PassiveSegments => "bulk-memory",
        Feature::Exceptions => return Some("build with -C panic=abort".to_string()),
        Feature::Memory64 => return Some("build for wasm32-wasip1 instead of wasm64".to_string()),
        _ => return None,
    };
    Some(format!("build with RUSTFLAGS=\"-C target-feature=-{name}\""))
}

fn clang_flag(feature: Feature) -> Option<String> {
    let flag = match feature {
        Feature::Simd => "-mno-simd128 -mno-relaxed-simd",
        Feature::Threads => "-mno-atomics, without -pthread",
        Feature::TailCalls => "-mno-tail-call",
        Feature::MultiValue => "-mno-multivalue",
        Feature::ReferenceTypes | Feature::TableOperators | Feature::MultipleTables => "-mno-reference-types",
        Feature::ExtendedConst => "-mno-extended-const",
        Feature::PassiveSegments => "-mno-bulk-memory",
        Feature::Exceptions => "-fno-exceptions",
        Feature::Memory64 => "--target=wasm32-wasi",
        _ => "-mcpu=mvp",
    };
    Some(format!("build with {flag}"))
}

fn asc_flag(feature: Feature) -> Option<String> {
    let name = match feature {
        Feature::Simd => "simd",
        Feature::Threads => "threads",
        Feature::MultiValue => "multi-value",
        Feature::ReferenceTypes | Feature::TableOperators => "reference-types",
        Feature::GarbageCollection => "gc",
        Feature::Memory64 => "memory64",
        Feature::Exceptions => "exception-handling",
        Feature::PassiveSegments => "bulk-memory",
        _ => return None,
    };
    Some(format!("build with --disable {name}"))
}
