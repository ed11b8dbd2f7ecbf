//! Random writes against both servers. `WASMBED_CONFORMANCE_SEEDS=100..200` chooses the seeds.
#![cfg(test)]

use wasmbed_conformance::client::Server;
use wasmbed_conformance::servers::Embedded;
use wasmbed_conformance::{random, run};

/// Seeds that are run, and the range that is run otherwise.
const SEEDS: (&str, std::ops::Range<u64>) = ("WASMBED_CONFORMANCE_SEEDS", 0..40);

fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var(SEEDS.0).unwrap_or_default();
    let chosen = chosen.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    chosen.unwrap_or(SEEDS.1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_have_the_same_owners_on_both_servers() {
    let embedded = Embedded::start().await.unwrap();
    let ours = embedded.server().await.unwrap();
    let real = Server::new("kube-apiserver", |user| {
        format!("/tmp/conf-real/d/{}.kubeconfig", format!("{user:?}").to_lowercase()).into()
    })
    .await
    .unwrap();
    let id = format!("r{:x}", std::process::id());
    let (mut requests, mut failures) = (0, Vec::new());
    for seed in seeds() {
        let index = usize::try_from(seed).unwrap();
        match run::case(&random::case(seed), &id, index, &real, &ours).await {
            Ok(report) => {
                requests += report.requests;
                // What follows the first difference differs because of it.
                failures.extend(report.failures.into_iter().take(1));
            }
            Err(error) => failures.push(format!("seed {seed}: {error:#}")),
        }
    }
    embedded.stop().await.unwrap();
    for failure in &failures {
        println!("{failure}\n");
    }
    println!(
        "{requests} requests of {} seeds to each server, {} seeds differ",
        seeds().count(),
        failures.len()
    );
    assert!(failures.is_empty(), "{} seeds differ", failures.len());
}
