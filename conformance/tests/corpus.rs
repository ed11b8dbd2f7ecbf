//! The corpus, and random writes, against both servers.
#![cfg(test)]

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Result, ensure};
use wasmbed_conformance::allowed::{self, Allowed};
use wasmbed_conformance::client::Server;
use wasmbed_conformance::corpus::{self, Case};
use wasmbed_conformance::servers::{Embedded, Forgetting, Real};
use wasmbed_conformance::{random, run};

/// Cases whose name contains this are run alone.
const ONLY: &str = "WASMBED_CONFORMANCE_CASE";
/// A seed that is run alone.
const SEED: &str = "WASMBED_CONFORMANCE_SEED";
/// Seeds that are always run, and how many fresh ones besides.
const FIXED_SEEDS: std::ops::Range<u64> = 0..24;
const FRESH_SEEDS: u64 = 8;

struct Tally {
    requests: usize,
    cases: usize,
    failures: Vec<String>,
    allowed: BTreeSet<String>,
}

async fn all(cases: &[Case], offset: usize, servers: (&Server, &Server), allowed: &[Allowed]) -> Tally {
    let mut tally = Tally { requests: 0, cases: 0, failures: Vec::new(), allowed: BTreeSet::new() };
    for (index, case) in cases.iter().enumerate() {
        match run::case(case, "t", offset + index, servers.0, servers.1, allowed).await {
            Ok(report) => {
                tally.requests += report.requests;
                tally.failures.extend(report.failures);
                tally.allowed.extend(report.allowed);
            }
            Err(error) => tally.failures.push(format!("{}: {error:#}", case.name)),
        }
        tally.cases += 1;
    }
    tally
}

fn random_cases() -> Result<Vec<Case>> {
    if let Ok(seed) = std::env::var(SEED) {
        return Ok(vec![random::case(seed.parse()?)]);
    }
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    Ok(FIXED_SEEDS.chain(fresh..fresh + FRESH_SEEDS).map(random::case).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_answer_alike() -> Result<()> {
    let (embedded, real) = tokio::try_join!(Embedded::start(), Real::start())?;
    let (real, embedded) = (Arc::new(real), Forgetting::new(embedded));
    let (theirs, ours) = (real.forgetting().await?, embedded.server().await?);
    let allowed = allowed::load()?;
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut cases = corpus::load()?;
    cases.retain(|case| case.name.contains(&only));
    // Those that restart a server come last: the others need not wait for its caches to fill again.
    cases.sort_by_key(Case::forgets);
    let corpus = all(&cases, 0, (&theirs, &ours), &allowed).await;
    let random = match only.is_empty() {
        true => all(&random_cases()?, cases.len(), (&theirs, &ours), &allowed).await,
        false => all(&[], 0, (&theirs, &ours), &allowed).await,
    };
    embedded.stop().await?;
    for failure in corpus.failures.iter().chain(&random.failures) {
        println!("{failure}\n");
    }
    let known: BTreeSet<String> = allowed.iter().map(|one| one.name.clone()).collect();
    let used: BTreeSet<String> = corpus.allowed.union(&random.allowed).cloned().collect();
    let unknown: Vec<&String> = used.difference(&known).collect();
    ensure!(unknown.is_empty(), "not in allowed.yaml: {unknown:?}");
    let differ = corpus.failures.len() + random.failures.len();
    let verdict = if differ == 0 { "all equal".to_owned() } else { format!("{differ} differ") };
    // Past the harness, which keeps what a passing test prints to itself.
    writeln!(
        std::io::stdout(),
        "{} requests in {} cases and {} random writes in {} cases, {verdict}; {} differences allowed by name",
        corpus.requests,
        corpus.cases,
        random.requests,
        random.cases,
        used.len()
    )?;
    ensure!(differ == 0, "{differ} answers differ: see above");
    let unused: Vec<&String> = known.difference(&used).collect();
    ensure!(!only.is_empty() || unused.is_empty(), "in allowed.yaml, but no case needs it: {unused:?}");
    Ok(())
}
