//! `docs/metrics.md` lists every metric of every process. `UPDATE_GENERATED=1` writes it.

use std::{fmt::Write as _, path::Path};

const INTRODUCTION: &str = "# Metrics

Each process serves its metrics in the Prometheus text format at `/metrics` of its health port; the embedded Kubernetes API serves
them at `/metrics` of its own port. This page is generated from the code. Labels are bounded: none names a device or an
application.
";

#[test]
fn every_metric_is_documented() {
    let mut wanted = INTRODUCTION.to_owned();
    for (process, metrics) in [
        ("Gateway", wasmbed_gateway::describe_metrics()),
        ("Controller", wasmbed_controller::describe_metrics()),
        ("Signer", wasmbed_signer::describe_metrics()),
        ("Embedded Kubernetes API", wasmbed_apiserver::describe_metrics()),
    ] {
        write!(wanted, "\n## {process}\n\n| metric | type | meaning |\n|---|---|---|\n").unwrap();
        for metric in metrics {
            writeln!(wanted, "{metric}").unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/metrics.md is out of date: run this test with UPDATE_GENERATED=1");
}
