//! A case against two servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::allowed::Allowed;
use crate::client::{Answer, Server};
use crate::compare::{self, Difference};
use crate::corpus::{self, Case, FORGET, Step, User};
use crate::normal::Normaliser;
use crate::scope;

/// How long a step is repeated until it gets the expected code.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between those requests.
const PAUSE: Duration = Duration::from_millis(100);
/// A value beyond any server's limit: 4 MiB.
const HUGE: usize = 4 * 1024 * 1024;

/// Result of a case.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests sent to each server.
    pub requests: usize,
    /// Differences that aren't allowed, for people.
    pub failures: Vec<String>,
    /// Names of the allowed differences that occurred.
    pub allowed: BTreeSet<String>,
}

/// Sends a case to both servers and compares the answers. `run` distinguishes its namespace from those of earlier runs.
///
/// # Errors
/// When a server doesn't answer.
pub async fn case(
    case: &Case,
    run: &str,
    index: usize,
    real: &Server,
    embedded: &Server,
    allowed: &[Allowed],
) -> Result<Report> {
    let (real, embedded) = tokio::try_join!(play(case, run, index, real), play(case, run, index, embedded))?;
    let (real, embedded) = (real.normal(), embedded.normal());
    let mut report = Report { requests: real.len(), ..Report::default() };
    for (place, ((step, real), (_, embedded))) in real.iter().zip(&embedded).enumerate() {
        let found = compare::differences(real, embedded);
        evaluate(&format!("{}: {} ({place})", case.name, step.send), step, &found, allowed, &mut report);
    }
    Ok(report)
}

/// Sends a case to one server. Returns its answers in the form that is compared.
///
/// # Errors
/// When it doesn't answer.
pub async fn alone(case: &Case, run: &str, index: usize, server: &Server) -> Result<Vec<Value>> {
    Ok(play(case, run, index, server).await?.normal().into_iter().map(|(_, answer)| answer).collect())
}

fn evaluate(place: &str, step: &Step, found: &[Difference], allowed: &[Allowed], report: &mut Report) {
    let mut left: Vec<&Difference> = found.iter().collect();
    for one in allowed {
        let before = left.len();
        left.retain(|difference| !one.is_at(&difference.at));
        if left.len() < before {
            report.allowed.insert(one.name.clone());
        }
    }
    for (name, places) in &step.allow {
        let before = left.len();
        left.retain(|difference| !places.iter().any(|place| compare::covers(place, &difference.at)));
        if left.len() == before {
            report.failures.push(format!("{place}: the difference {name:?} is gone"));
        }
        report.allowed.insert(name.clone());
    }
    if !left.is_empty() {
        let differences: Vec<String> = left.iter().map(ToString::to_string).collect();
        report.failures.push(format!("{place}\n{}", differences.join("\n")));
    }
}

/// The answers of one server.
struct Played<'a> {
    steps: Vec<&'a Step>,
    answers: Vec<Answer>,
}

impl<'a> Played<'a> {
    fn normal(self) -> Vec<(&'a Step, Value)> {
        let mut answers = self.answers;
        for (step, answer) in self.steps.iter().zip(&mut answers) {
            scope::narrow(&step.send, &mut answer.body);
        }
        let normal = Normaliser::default().normalise(&answers);
        self.steps.into_iter().zip(normal).collect()
    }
}

async fn play<'a>(case: &'a Case, run: &str, index: usize, server: &Server) -> Result<Played<'a>> {
    let namespace = format!("c{index:03}-{run}");
    let group = "/apis/wasmbed.github.io/v1alpha1/namespaces";
    let mut variables: BTreeMap<String, String> = [
        ("samples", format!("/apis/conformance.wasmbed.github.io/v1/namespaces/{namespace}/samples")),
        ("devices", format!("{group}/{namespace}/devices")),
        ("modules", format!("{group}/{namespace}/modules")),
        ("applications", format!("{group}/{namespace}/applications")),
        ("gateways", format!("{group}/{namespace}/devicegateways")),
        ("leases", format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")),
        ("events", format!("/api/v1/namespaces/{namespace}/events")),
        ("newevents", format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")),
        ("secrets", format!("/api/v1/namespaces/{namespace}/secrets")),
        ("quotas", format!("/api/v1/namespaces/{namespace}/resourcequotas")),
        ("csrs", "/apis/certificates.k8s.io/v1/certificatesigningrequests".to_owned()),
        ("reviews", "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned()),
        ("request", STANDARD.encode(include_str!("../fixtures/request.pem"))),
        ("forged", STANDARD.encode(include_str!("../fixtures/forged.pem"))),
        ("certificate", STANDARD.encode(include_str!("../fixtures/certificate.pem"))),
        ("other", STANDARD.encode(include_str!("../fixtures/other.pem"))),
        ("huge", "x".repeat(HUGE)),
        ("ns", namespace.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
    let made = server
        .send(User::Admin, "POST", "/api/v1/namespaces", &json_headers(), body.into_bytes(), None)
        .await?;
    if made.code != 201 {
        bail!("{}: no namespace {namespace}: {}", server.name, made.body);
    }
    let mut played = Played { steps: Vec::new(), answers: Vec::new() };
    for step in &case.steps {
        if step.send == FORGET {
            server.forget().await?;
            continue;
        }
        for round in 0..step.times.unwrap_or(1) {
            variables.insert("i".into(), round.to_string());
            let answer = send(server, step, &variables).await?;
            for (name, pointer) in &step.save {
                let value = match answer.body.pointer(pointer) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => bail!("{}: {}: nothing at {pointer}: {}", server.name, step.send, answer.body),
                };
                variables.insert(name.clone(), value);
            }
            played.steps.push(step);
            played.answers.push(answer);
        }
    }
    Ok(played)
}

fn json_headers() -> BTreeMap<String, String> {
    BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())])
}

async fn send(server: &Server, step: &Step, variables: &BTreeMap<String, String>) -> Result<Answer> {
    let line = corpus::fill(&step.send, variables);
    let Some((method, path)) = line.split_once(' ') else { bail!("{line:?} is not METHOD path") };
    let mut headers: BTreeMap<String, String> =
        step.headers.iter().map(|(name, value)| (name.clone(), corpus::fill(value, variables))).collect();
    let body = match (&step.body, &step.text) {
        (Some(body), _) => corpus::fill_all(body, variables).to_string(),
        (None, Some(text)) => corpus::fill(text, variables),
        (None, None) => String::new(),
    };
    if !body.is_empty() && !headers.contains_key("content-type") {
        headers.extend(json_headers());
    }
    let since = Instant::now();
    loop {
        let answer =
            server.send(step.user, method, path, &headers, body.clone().into_bytes(), step.watch).await?;
        if step.until.is_none_or(|code| code == answer.code) {
            return Ok(answer);
        }
        if since.elapsed() > PATIENCE {
            bail!("{}: {line}: still {} after {PATIENCE:?}", server.name, answer.code);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
