//! The corpus against both servers.
#![cfg(test)]

use std::collections::BTreeSet;

use wasmbed_conformance::client::Server;
use wasmbed_conformance::servers::Embedded;
use wasmbed_conformance::{allowed, corpus, run};

/// Cases whose name contains this are run alone.
const ONLY: &str = "WASMBED_CONFORMANCE_CASE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_answer_alike() {
    let embedded = Embedded::start().await.unwrap();
    let ours = embedded.server().await.unwrap();
    let real = Server::new("kube-apiserver", |user| {
        format!("/tmp/conf-real/d/{}.kubeconfig", format!("{user:?}").to_lowercase()).into()
    })
    .await
    .unwrap();
    let id = format!("{:x}", std::process::id());
    let only = std::env::var(ONLY).unwrap_or_default();
    let allowed = allowed::load().unwrap();
    let known: BTreeSet<String> = allowed.iter().map(|one| one.name.clone()).collect();
    let (mut requests, mut cases, mut failures) = (0, 0, Vec::new());
    let mut used = BTreeSet::new();
    for (index, case) in corpus::load().unwrap().iter().enumerate() {
        if !case.name.contains(&only) {
            continue;
        }
        match run::case(case, &id, index, &real, &ours).await {
            Ok(report) => {
                requests += report.requests;
                failures.extend(report.failures);
                used.extend(report.allowed);
            }
            Err(error) => failures.push(format!("{}: {error:#}", case.name)),
        }
        cases += 1;
    }
    embedded.stop().await.unwrap();
    for failure in &failures {
        println!("{failure}\n");
    }
    let unknown: Vec<&String> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "not in allowed.yaml: {unknown:?}");
    if only.is_empty() {
        let unused: Vec<&String> = known.difference(&used).collect();
        assert!(unused.is_empty(), "in allowed.yaml, but no case needs it: {unused:?}");
    }
    println!(
        "{requests} requests in {cases} cases, {} differ; {} differences allowed by name",
        failures.len(),
        used.len()
    );
    assert!(failures.is_empty(), "{} answers differ", failures.len());
}
