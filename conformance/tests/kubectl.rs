//! `kubectl certificate`, `kubectl create secret` and `kubectl create quota`, and what kubectl shows of what they make, the same on
//! both servers.
#![cfg(test)]

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmbed_conformance::corpus::User;
use wasmbed_conformance::servers::{Embedded, Real};
use wasmbed_testbed::Kubectl;

/// How long the real server may take to see a quota, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const REQUEST: &str = include_str!("../fixtures/request.pem");

fn manifest(name: &str, signer: &str) -> String {
    let request = STANDARD.encode(REQUEST);
    format!(
        "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec: {{request: {request}, signerName: {signer}, usages: [client auth], expirationSeconds: 86400}}
"
    )
}

/// What kubectl says, line by line, with one space between words and without ages.
fn told(text: &str) -> Vec<String> {
    let word = |word: &str| match word.strip_suffix('s') {
        Some(seconds) if seconds.parse::<u32>().is_ok() => "AGE".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    // The time at which it was created.
    text.lines().filter(|line| !line.starts_with("CreationTimestamp:")).map(line).collect()
}

/// The life of some requests, as an administrator and as two users with other rights sees it.
fn play(admin: &Kubectl, controller: &Kubectl, gateway: &Kubectl) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut say = |text: String| all.extend(told(&text));
    for (name, signer) in [
        ("one", "wasmbed.github.io/device"),
        ("two", "wasmbed.github.io/device"),
        ("three", "example.com/other"),
        ("four", "wasmbed.github.io/operator"),
    ] {
        say(admin.apply(&manifest(name, signer))?);
    }
    say(admin.run(&["get", "csr"])?);
    say(admin.run(&["certificate", "approve", "one"])?);
    say(admin.run(&["certificate", "approve", "one"])?);
    say(admin.run(&["certificate", "deny", "two"])?);
    say(admin.refused(&["certificate", "approve", "two"])?);
    say(admin.refused(&["certificate", "approve", "nobody"])?);
    say(controller.run(&["certificate", "approve", "four"])?);
    say(controller.refused(&["certificate", "approve", "three"])?);
    say(gateway.refused(&["certificate", "approve", "three"])?);
    say(admin.run(&["get", "csr", "--field-selector", "spec.signerName=wasmbed.github.io/device"])?);
    say(admin.run(&["describe", "csr", "one"])?);
    say(admin.run(&["get", "csr", "one", "-o", "jsonpath={.status.conditions[0].reason}"])?);
    say(admin.run(&["wait", "--for=condition=Approved", "csr/one", "--timeout=10s"])?);
    say(admin.run(&["delete", "csr", "one", "two", "three", "four"])?);
    Ok(all)
}

/// Secrets as kubectl makes and shows them.
fn play_secrets(admin: &Kubectl, _: &Kubectl, gateway: &Kubectl) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut say = |text: String| all.extend(told(&text));
    say(admin.run(&[
        "create",
        "secret",
        "generic",
        "one",
        "--from-literal=user=me",
        "--from-literal=word=s3cret",
    ])?);
    say(admin.refused(&["create", "secret", "generic", "one"])?);
    say(admin.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: two}\ntype: kubernetes.io/basic-auth\nstringData: {password: p}\n",
    )?);
    say(admin.refused(&["create", "secret", "tls", "three", "--cert=/dev/null", "--key=/dev/null"])?);
    say(admin.run(&["get", "secrets", "one", "two"])?);
    say(admin.run(&["describe", "secret", "one"])?);
    say(admin.run(&["get", "secret", "two", "-o", "jsonpath={.data.password}"])?);
    say(admin.run(&["patch", "secret", "one", "-p", "{\"immutable\":true}"])?);
    say(admin.refused(&["patch", "secret", "one", "-p", "{\"stringData\":{\"word\":\"other\"}}"])?);
    say(gateway.refused(&["get", "secret", "one"])?);
    say(admin.run(&["delete", "secret", "one", "two"])?);
    Ok(all)
}

/// Quotas as kubectl makes and shows them. The real server has no quota controller here, so that their status is written by hand.
fn play_quotas(admin: &Kubectl, _: &Kubectl, gateway: &Kubectl) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut say = |text: String| all.extend(told(&text));
    say(admin.run(&[
        "create",
        "quota",
        "one",
        "--hard=count/secrets=0,count/leases.coordination.k8s.io=5",
    ])?);
    say(admin.refused(&["create", "quota", "one", "--hard=secrets=1"])?);
    say(admin.refused(&["create", "quota", "two", "--hard=nothing=1"])?);
    let status = r#"{"status":{"hard":{"count/secrets":"0","count/leases.coordination.k8s.io":"5"},"used":{"count/secrets":"0","count/leases.coordination.k8s.io":"0"}}}"#;
    // The embedded server has written that already, which kubectl says.
    admin.run(&["patch", "quota", "one", "--subresource=status", "--type=merge", "-p", status])?;
    say(admin.run(&["get", "quota", "one"])?);
    say(admin.run(&["describe", "quota", "one"])?);
    let tried = ["create", "secret", "generic", "s", "--from-literal=a=b", "--dry-run=server"];
    // The real server reads quotas from a cache.
    let since = std::time::Instant::now();
    let refused = loop {
        match admin.refused(&tried) {
            Ok(refused) => break refused,
            Err(error) if since.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    say(refused);
    say(gateway.refused(&["get", "quota", "one"])?);
    say(admin.run(&["delete", "quota", "one"])?);
    Ok(all)
}

type Play = fn(&Kubectl, &Kubectl, &Kubectl) -> Result<Vec<String>>;

async fn on(play: Play, kubeconfig: impl Fn(User) -> Result<std::path::PathBuf>) -> Result<Vec<String>> {
    let home = tempfile::tempdir()?;
    let of = |user| Kubectl::new(&kubeconfig(user)?, home.path());
    let (admin, controller, gateway) = (of(User::Admin)?, of(User::Controller)?, of(User::Gateway)?);
    // kubectl blocks, and the embedded server runs in this process.
    let played = tokio::task::spawn_blocking(move || play(&admin, &controller, &gateway)).await?;
    played.context("kubectl")
}

async fn on_both(play: Play) -> Result<Vec<String>> {
    let (embedded, real) = tokio::try_join!(Embedded::start(), Real::start())?;
    let theirs = on(play, |user| real.kubeconfig(user)).await?;
    let ours = on(play, |user| Ok(embedded.kubeconfig(user))).await?;
    embedded.stop().await?;
    assert_eq!(ours, theirs);
    Ok(theirs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_made_and_shown_alike() -> Result<()> {
    let told = on_both(play_secrets).await?;
    assert!(told.iter().any(|line| line.contains("word: 6 bytes")), "{told:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_are_made_shown_and_kept_alike() -> Result<()> {
    let told = on_both(play_quotas).await?;
    assert!(
        told.iter().any(|line| line.contains("exceeded quota: one, requested: count/secrets=1")),
        "{told:#?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_approved_and_denied_alike() -> Result<()> {
    let theirs = on_both(play).await?;
    assert!(theirs.iter().any(|line| line.contains("86400") || line.contains("24h")), "{theirs:#?}");
    Ok(())
}
