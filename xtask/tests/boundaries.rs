//! What a crate may not depend on, as Cargo sees it.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

/// Every package in a crate's tree that its own code is built with, one `name vVERSION` each.
fn tree(package: &str) -> Vec<String> {
    let output = wasmbed_cargo::command()
        .args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
        ])
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn names(tree: &[String]) -> Vec<&str> {
    tree.iter().filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn crates_without_input_and_output_have_no_asynchronous_runtime() {
    for package in [
        "wasmbed-protocol",
        "wasmbed-engine",
        "wasmbed-scan",
        "wasmbed-runtime",
        "wasmbed-agent",
        "wasmbed-supervisor",
        "wasmbed-control",
    ] {
        let tree = tree(package);
        for runtime in ["tokio", "mio", "async-std", "smol", "hyper"] {
            assert!(!names(&tree).contains(&runtime), "{package} depends on {runtime}");
        }
    }
}

#[test]
fn arrows_between_crates_point_one_way() {
    // Each crate, and those of ours above it in the list that it may build on, with what those may.
    let rows: &[(&str, &[&str])] = &[
        ("protocol", &[]),
        ("statement", &["protocol"]),
        ("engine", &[]),
        ("scan", &[]),
        ("api", &[]),
        ("files", &[]),
        ("identity", &["statement"]),
        ("telemetry", &[]),
        ("structured-merge", &[]),
        ("quantity", &[]),
        ("peripherals", &[]),
        ("runtime", &["engine", "scan", "peripherals"]),
        ("agent", &["statement"]),
        ("supervisor", &["agent", "runtime"]),
        ("tls", &["identity"]),
        ("pki", &["files", "identity"]),
        ("apiserver", &["files", "quantity", "structured-merge", "telemetry"]),
        ("control", &["protocol", "api", "engine", "quantity", "scan"]),
        ("kubernetes", &["control", "telemetry"]),
        ("gateway", &["kubernetes", "pki"]),
        ("controller", &["kubernetes", "pki"]),
        ("signer", &["kubernetes", "pki"]),
    ];
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &(name, below) in rows {
        let further = below.iter().flat_map(|below| allowed[below].iter().copied());
        let all: BTreeSet<&str> = below.iter().copied().chain(further).collect();
        let tree = tree(&format!("wasmbed-{name}"));
        let ours = names(&tree).into_iter().filter_map(|package| package.strip_prefix("wasmbed-"));
        for package in ours.filter(|package| *package != name) {
            assert!(all.contains(package), "{name} may not depend on {package}");
        }
        allowed.insert(name, all);
    }
}

#[test]
fn the_scan_depends_on_nothing() {
    assert_eq!(names(&tree("wasmbed-scan")), ["wasmbed-scan"]);
}

#[test]
fn the_engine_depends_on_mathematics_alone() {
    assert_eq!(names(&tree("wasmbed-engine")), ["wasmbed-engine", "libm"]);
}

#[test]
fn the_fit_check_brings_no_sandbox_into_the_control_crate() {
    let tree = tree("wasmbed-control");
    for banned in ["wasmbed-runtime", "spacewasm", "wasmi"] {
        assert!(!names(&tree).contains(&banned), "control depends on {banned}");
    }
}
