//! Files that are made from others: `UPDATE_GENERATED=1 cargo test -p wasmbed-deploy-tests` writes them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wasmbed_deploy_tests::{Chart, chart_dir};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a generated file with what it should be, or writes it.
fn check(path: &Path, expected: &str) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(path, expected).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is out of date: UPDATE_GENERATED=1 cargo test -p wasmbed-deploy-tests generated",
        path.display()
    );
}

#[test]
fn the_chart_carries_the_generated_definitions() {
    let names = |folder: PathBuf| {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (source, copies) = (top().join("deploy/crds"), chart_dir().join("files/crds"));
    for name in names(source.clone()) {
        check(&copies.join(&name), &fs::read_to_string(source.join(&name)).unwrap());
    }
    assert_eq!(names(copies), names(source), "the chart carries a definition that is no longer generated");
}

#[test]
fn the_chart_and_the_embedded_server_read_the_same_roles() {
    let source = top().join("crates/apiserver/src/access/roles.yaml");
    check(&chart_dir().join("files/roles.yaml"), &fs::read_to_string(source).unwrap());
}

#[test]
fn roles_of_client_certificates_are_what_the_chart_renders() {
    let chart = Chart::new("wasmbed", "wasmbed-system").unwrap().set("rbac.create=false");
    let mut text = "\
# Rendered from crates/apiserver/src/access/roles.yaml by the Helm chart: roles and admission policies for gateways,
# controllers and signers that present client certificates (groups wasmbed:gateways, wasmbed:controllers, wasmbed:signers).
# The namespaces wasmbed-system and wasmbed-pairing have to exist.
"
    .to_owned();
    for manifest in chart.render_only(&["templates/rbac.yaml", "templates/policy.yaml"]).unwrap() {
        text.push_str("---\n");
        for line in manifest.text.lines().filter(|line| !is_of_helm(line)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    check(&top().join("deploy/rbac/clients.yaml"), &text);
}

fn is_of_helm(line: &str) -> bool {
    line.starts_with("# Source:")
        || ["helm.sh/chart:", "app.kubernetes.io/managed-by:", "app.kubernetes.io/instance:"]
            .iter()
            .any(|label| line.trim_start().starts_with(label))
}
