//! The chart: what Helm renders for each values file, and what a real API server says to it.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wasmbed_deploy_tests::{Chart, Manifest, chart_dir, values_files};
use wasmbed_testbed::{Cluster, ControlPlane, Kubectl, User};

/// Where `cargo xtask tools` puts definitions of other projects.
const DEFINITIONS: &str = "wasmbed/tools/crds-cert-manager-v1.18.2-prometheus-operator-v0.83.0";

#[test]
fn helm_finds_nothing_to_complain_about() -> Result<()> {
    for file in values_files()? {
        Chart::new("wasmbed", "wasmbed-system")?.values(&file).lint()?;
    }
    Ok(())
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() -> Result<()> {
    for (value, named) in [
        ("gatway.replicas=2", "gatway"),
        ("gateway.replica=2", "replica"),
        ("gateway.replicas=0", "replicas"),
        ("gateway.enrollment=anyone", "enrollment"),
        ("gateway.namespaces={Lab}", "namespaces"),
        ("gateway.service.type=ExternalName", "type"),
        ("logging.level=infoo", "level"),
        ("logging.level=wasmbed_gateway=loud", "level"),
        ("gateway.persistence.size=much", "size"),
        ("gateway.terminationGracePeriodSeconds=1", "terminationGracePeriodSeconds"),
        ("gateway.config.heartbeat.intervall=60", "intervall"),
        ("gateway.config.heartbeat.interval=often", "interval"),
        ("gateway.config.enrollment.pending=5", "pending"),
        ("gateway.config.server.max_connections=0", "max_connections"),
        ("gateway.config.writes_per_second=-1", "writes_per_second"),
        ("controller.config.reconciliation.max_retries=1000", "max_retries"),
        ("controller.config.lease.durations=5", "durations"),
        ("controller.config.gateway.url=ftp://x", "url"),
        ("signer.config.lifetimes=1h", "lifetimes"),
        ("signer.config.lifetime=often", "lifetime"),
        ("signer.pairing.namespace=", "namespace"),
        ("signer.replicas=0", "replicas"),
        ("certificates.job.schedule=never", "schedule"),
        ("certificates.source=vault", "source"),
        ("image.digest=sha256:12", "digest"),
        ("trustDomain=Example.org", "trustDomain"),
        ("controller.watchNamespace=a_b", "watchNamespace"),
        ("networkPolicy.apiServerPorts={}", "apiServerPorts"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("fullnameOverride=a-name-that-leaves-no-room-for-the-number-of-a-pod", "fullnameOverride"),
    ] {
        let refused = Chart::new("wasmbed", "wasmbed-system")?.set(value).render();
        let said = refused.err().with_context(|| format!("{value} was taken"))?.to_string();
        ensure!(said.contains(named), "{value}: {said}");
    }
    // What a schema can't say.
    let secrets = Chart::new("wasmbed", "wasmbed-system")?.set("certificates.source=secrets");
    let said = secrets.render().err().context("no Secrets were named")?.to_string();
    ensure!(said.contains("certificates.secrets."), "{said}");
    let one = secrets
        .set("certificates.secrets.trust=t,certificates.secrets.controller=c,certificates.secrets.gateways={g}")
        .set("gateway.replicas=2");
    let said = one.render().err().context("one Secret for two gateways")?.to_string();
    ensure!(said.contains("names 1 Secrets, but gateway.replicas is 2"), "{said}");
    Ok(())
}

/// Below `gateway.config`, `controller.config` and `signer.config` the schema of values has the keys of docs/configuration.md and no others.
#[test]
fn values_below_config_are_the_documented_keys() -> Result<()> {
    let schema = std::fs::read_to_string(chart_dir().join("values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let documented = std::fs::read_to_string(chart_dir().join("../../docs/configuration.md"))?;
    for section in ["gateway", "controller", "signer"] {
        let start = format!("```yaml\n{section}:\n");
        let block = documented.split_once(&start).and_then(|(_, rest)| rest.split_once("```"));
        // Optional keys stand there as comments.
        let lines =
            block.context("no block of the section")?.0.lines().map(|line| match line.split_once("# ") {
                Some((indent, key)) if indent.trim().is_empty() => format!("{indent}{key}"),
                _ => line.to_owned(),
            });
        let yaml =
            lines.filter(|line| line.contains(": ") || line.ends_with(':')).collect::<Vec<_>>().join("\n");
        let example: Value = serde_saphyr::from_str(&yaml).with_context(|| yaml.clone())?;
        let config = &schema["properties"][section]["properties"]["config"];
        let mut known = Vec::new();
        keys(config, &|node| node["properties"].as_object().cloned(), String::new(), &mut known);
        let mut wanted = Vec::new();
        keys(&example, &|node| node.as_object().cloned(), String::new(), &mut wanted);
        // The documentation describes it in words.
        wanted.push(".kubernetes.kubeconfig".to_owned());
        wanted.sort();
        known.sort();
        ensure!(known == wanted, "{section}: the schema has {known:?}, docs/configuration.md {wanted:?}");
    }
    Ok(())
}

type Children<'a> = &'a dyn Fn(&Value) -> Option<serde_json::Map<String, Value>>;

fn keys(node: &Value, children: Children<'_>, path: String, found: &mut Vec<String>) {
    for (name, child) in children(node).into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.push(path.clone());
        keys(&child, children, path, found);
    }
}

#[test]
fn pods_reach_health_and_metrics_only_where_they_are_named() -> Result<()> {
    let reached = |settings: &str| -> Result<Vec<Value>> {
        let rendered = Chart::new("wasmbed", "wasmbed-system")?.set(settings).render()?;
        let policies = rendered.iter().filter(|manifest| manifest.kind() == "NetworkPolicy");
        let rules: Vec<Value> = policies
            .flat_map(|policy| policy.value["spec"]["ingress"].as_array().cloned().unwrap_or_default())
            .filter(|rule| rule["ports"][0]["port"] == "health")
            .collect();
        Ok(rules)
    };
    ensure!(reached("gateway.replicas=1")?.is_empty(), "anyone in the cluster reaches the health port");
    let scraped = reached("metrics.serviceMonitor.enabled=true")?;
    ensure!(scraped.len() == 3, "{scraped:?}");
    for rule in scraped {
        let labels = &rule["from"][0]["podSelector"]["matchLabels"];
        ensure!(labels["app.kubernetes.io/name"] == "prometheus", "{rule}");
    }
    Ok(())
}

/// The devices' issuing key lies where the signer reads it; with cert-manager nothing here has one, and no signer runs.
#[test]
fn the_signer_alone_mounts_the_issuing_key() -> Result<()> {
    let mounts = |settings: &[&str], secret: &str| -> Result<Vec<String>> {
        let chart = Chart::new("wasmbed", "wasmbed-system")?;
        let rendered = settings.iter().fold(chart, |chart, setting| chart.set(setting)).render()?;
        let workloads = rendered.iter().filter(|manifest| !manifest.value["spec"]["template"].is_null());
        let with = workloads.filter(|manifest| {
            manifest.value["spec"]["template"]["spec"]["volumes"]
                .to_string()
                .contains(&format!("\"{secret}\""))
        });
        Ok(with.map(|manifest| manifest.name().to_owned()).collect())
    };
    ensure!(mounts(&[], "wasmbed-signer-issuing")? == ["wasmbed-signer"]);
    ensure!(mounts(&[], "wasmbed-signer-operators")? == ["wasmbed-signer"]);
    ensure!(mounts(&["operators.enabled=false"], "wasmbed-signer-operators")?.is_empty());
    let half =
        ["certificates.source=cert-manager", "signer.issuerSecret=own", "operators.issuerSecret=people"];
    ensure!(mounts(&half, "people")?.is_empty(), "gateways would not know them");
    let both = [&half[..], &["operators.trustSecret=roots"]].concat();
    ensure!(mounts(&both, "people")? == ["wasmbed-signer"] && mounts(&both, "roots")? == ["wasmbed-gateway"]);
    let given = ["certificates.source=cert-manager", "signer.issuerSecret=own"];
    ensure!(mounts(&given, "own")? == ["wasmbed-signer"]);
    let off = Chart::new("wasmbed", "wasmbed-system")?.set("certificates.source=cert-manager").render()?;
    let accounts = |manifest: &&Manifest| matches!(manifest.kind(), "Deployment" | "ServiceAccount");
    ensure!(!off.iter().filter(accounts).any(|manifest| manifest.name() == "wasmbed-signer"));
    Ok(())
}

#[test]
fn every_pod_is_confined() -> Result<()> {
    for file in values_files()? {
        let rendered = Chart::new("wasmbed", "wasmbed-system")?.values(&file).render()?;
        let workloads: Vec<&Manifest> = rendered
            .iter()
            .filter(|manifest| matches!(manifest.kind(), "Deployment" | "StatefulSet" | "Job" | "CronJob"))
            .collect();
        ensure!(workloads.len() >= 2, "{}", file.display());
        for workload in workloads {
            confined(workload).with_context(|| format!("{} {}", file.display(), workload.name()))?;
        }
        let text: String = rendered.iter().map(|manifest| manifest.text.as_str()).collect();
        ensure!(!text.contains("<no value>") && !text.contains("%!"), "{}", file.display());
    }
    Ok(())
}

fn confined(workload: &Manifest) -> Result<()> {
    let spec = &workload.value["spec"];
    let template = if workload.kind() == "CronJob" { &spec["jobTemplate"]["spec"] } else { spec };
    let pod = &template["template"]["spec"];
    let container = &pod["containers"][0];
    ensure!(pod["securityContext"]["runAsNonRoot"] == true);
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault");
    ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true);
    ensure!(container["securityContext"]["allowPrivilegeEscalation"] == false);
    ensure!(container["securityContext"]["capabilities"]["drop"][0] == "ALL");
    ensure!(container["resources"]["limits"]["memory"].is_string());
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        // A kubelet never updates what is mounted so: renewed certificates would not arrive.
        ensure!(mount["subPath"].is_null() && mount["subPathExpr"].is_null(), "{mount}");
    }
    ensure!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        ensure!(volume["hostPath"].is_null(), "{volume}");
    }
    if !matches!(workload.kind(), "Job" | "CronJob") {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = if probe == "readinessProbe" { "/ready" } else { "/health" };
            ensure!(container[probe]["httpGet"]["path"] == path, "{probe}");
        }
        ensure!(pod["terminationGracePeriodSeconds"].as_u64().is_some_and(|seconds| seconds >= 15));
    }
    Ok(())
}

/// What kube-score may say of a values file that asks for it; docs/install.md says which checks the chart leaves out.
const ASKED_FOR: [(&str, &[&str]); 1] = [("small", &["few replicas", "type NodePort"])];

#[test]
fn kube_score_finds_nothing_that_was_not_asked_for() -> Result<()> {
    for file in values_files()? {
        let rendered = Chart::new("wasmbed", "wasmbed-system")?.values(&file).render()?;
        let text: Vec<&str> = rendered.iter().map(|manifest| manifest.text.as_str()).collect();
        let mut score = Command::new(wasmbed_testbed::kube_score()?)
            .args(["score", "--kubernetes-version", "v1.30", "--output-format", "ci", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start kube-score")?;
        let mut input = score.stdin.take().context("a pipe")?;
        input.write_all(text.join("\n---\n").as_bytes()).context("kube-score reads no more")?;
        drop(input);
        let output = score.wait_with_output().context("can't wait for kube-score")?;
        let said = String::from_utf8(output.stdout).context("kube-score prints UTF-8")?;
        ensure!(said.contains("[OK]"), "kube-score looked at nothing: {said}");
        let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let asked_for = ASKED_FOR.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, words)| words);
        let found: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("[CRITICAL]") || line.starts_with("[WARNING]"))
            .filter(|line| !asked_for.iter().any(|words| line.ends_with(words)))
            .collect();
        ensure!(found.is_empty(), "{name}:\n{}", found.join("\n"));
    }
    Ok(())
}

#[tokio::test]
async fn kubernetes_accepts_every_manifest() -> Result<()> {
    let cluster = Cluster::start(ControlPlane::Kubernetes).await?;
    let kubectl = cluster.kubectl(&User::administrator())?;
    let path = cluster.dir().join("definitions.yaml");
    std::fs::write(&path, definitions()?)?;
    kubectl.run(&["apply", "--server-side", "-f", &path.display().to_string()])?;
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    // A dry run makes no namespace for what lies in it; that of the defaults is there.
    kubectl.run(&["create", "namespace", "edge-pairing"])?;
    for file in values_files()? {
        let rendered = Chart::new("wasmbed", "wasmbed-system")?.values(&file).render()?;
        let path = cluster.dir().join("rendered.yaml");
        let text: Vec<&str> = rendered.iter().map(|manifest| manifest.text.as_str()).collect();
        std::fs::write(&path, text.join("\n---\n"))?;
        let accepted = kubectl
            .run(
                &[
                    "apply",
                    "--server-side",
                    "--force-conflicts",
                    "--dry-run=server",
                    "--validate=strict",
                    "-f",
                ]
                .into_iter()
                .chain([path.display().to_string().as_str()])
                .collect::<Vec<_>>(),
            )
            .with_context(|| format!("with {}", file.display()))?;
        let count = accepted.lines().filter(|line| line.ends_with("(server dry run)")).count();
        ensure!(count == rendered.len(), "{count} of {} for {}", rendered.len(), file.display());
    }
    Ok(())
}

/// Real schemas of cert-manager and the Prometheus operator, without the few labels that their own chart fills in.
fn definitions() -> Result<String> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let folder = cache.join(DEFINITIONS);
    let files = std::fs::read_dir(&folder)
        .with_context(|| format!("no {}; run `cargo xtask tools`", folder.display()))?;
    let mut text = String::new();
    for file in files {
        let file = std::fs::read_to_string(file?.path())?;
        text.push_str("---\n");
        text.extend(file.lines().filter(|line| !line.contains("{{")).flat_map(|line| [line, "\n"]));
    }
    Ok(text)
}

#[tokio::test]
async fn a_release_is_installed_upgraded_and_uninstalled() -> Result<()> {
    let cluster = Cluster::start(ControlPlane::Kubernetes).await?;
    let kubectl = cluster.kubectl(&User::administrator())?;
    // The chart brings its own definitions and roles.
    kubectl.run(&["delete", "crd", "-l", "!app", "--wait=true"])?;
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/../rbac/clients.yaml");
    kubectl.run(&["delete", "-f", clients])?;
    let kubeconfig = cluster.kubeconfig(&User::administrator())?;
    // The namespace of the defaults is there, and not the chart's.
    let chart = Chart::new("wasmbed", "wasmbed-system")?.set("signer.pairing.namespace=wasmbed-tokens");
    // Nobody runs pods here, so the hook's job would never be done.
    let said = chart.release("install", &kubeconfig, &["--no-hooks"])?;
    ensure!(said.contains("wasmbed pki issue device"), "the notes say how to go on: {said}");
    everything_is_there(&kubectl, &chart)?;
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    kubectl.apply(
        "{apiVersion: wasmbed.github.io/v1alpha1, kind: Device, metadata: {name: kept}, spec: {device_type: t}}",
    )?;

    let more = chart.clone().set("gateway.replicas=3").set("gateway.enrollment=closed");
    more.release("upgrade", &kubeconfig, &["--no-hooks"])?;
    everything_is_there(&kubectl, &more)?;
    let read = |path: &[&str]| kubectl.run(&[&["-n", "wasmbed-system", "get"], path].concat());
    let replicas = read(&["statefulset", "wasmbed-gateway", "-o", "jsonpath={.spec.replicas}"])?;
    let names = read(&["role", "wasmbed-gateway-own", "-o", "jsonpath={.rules[3].resourceNames}"])?;
    let own = r#"["gateway-wasmbed-gateway-0","gateway-wasmbed-gateway-1","gateway-wasmbed-gateway-2"]"#;
    ensure!(replicas == "3" && names == own, "{replicas} {names}");
    let config = read(&["configmap", "wasmbed-gateway", "-o", "jsonpath={.data.gateway\\.yaml}"])?;
    ensure!(config.contains("policy: closed"), "{config}");

    // With namespaces it has rights in these alone.
    let may = |namespace: &str, what: &[&str]| {
        let gateway = "--as=system:serviceaccount:wasmbed-system:wasmbed-gateway";
        kubectl.run(&[&["auth", "can-i", "-n", namespace, gateway], what].concat()).is_ok()
    };
    let devices: &[&str] = &["list", "devices.wasmbed.github.io"];
    ensure!(may("default", devices) && may("kube-public", devices), "all namespaces are its own");
    let few = more.set("gateway.namespaces={kube-public,kube-node-lease}");
    few.release("upgrade", &kubeconfig, &["--no-hooks"])?;
    everything_is_there(&kubectl, &few)?;
    ensure!(may("kube-public", devices) && may("kube-node-lease", devices), "these are its own");
    for (namespace, what) in [
        ("default", devices),
        ("default", &["patch", "devices.wasmbed.github.io", "--subresource=status"]),
        ("wasmbed-system", devices),
    ] {
        ensure!(!may(namespace, what), "it may {what:?} in {namespace}");
    }
    let everywhere: &[&str] = &["create", "certificatesigningrequests"];
    ensure!(may("default", everywhere), "requests are in no namespace");
    let config = read(&["configmap", "wasmbed-gateway", "-o", "jsonpath={.data.gateway\\.yaml}"])?;
    ensure!(config.contains("namespace: kube-public"), "devices that join belong to the first: {config}");

    chart.release("uninstall", &kubeconfig, &["--no-hooks"])?;
    let left = kubectl.run(&[
        "get",
        "deployments,statefulsets,services,configmaps,roles,clusterroles,validatingadmissionpolicies,networkpolicies",
        "--all-namespaces",
        "-l",
        "app.kubernetes.io/instance=wasmbed",
        "-o",
        "name",
    ])?;
    ensure!(left.is_empty(), "left: {left}");
    let kept = kubectl.run(&["get", "wdev", "kept", "-o", "name"])?;
    ensure!(kept.trim() == "device.wasmbed.github.io/kept", "{kept}");
    // What a namespace and a cluster kept from before does not stand in the way of.
    chart.set("crds.install=false").release("install", &kubeconfig, &["--no-hooks"])?;
    Ok(())
}

/// Hooks aside.
fn everything_is_there(kubectl: &Kubectl, chart: &Chart) -> Result<()> {
    let rendered: Vec<Manifest> =
        chart.render()?.into_iter().filter(|manifest| !manifest.is_hook()).collect();
    let wanted = Value::from(rendered.iter().map(|manifest| manifest.value.clone()).collect::<Vec<_>>());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("wanted.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": wanted}).to_string())?;
    // One that is not there is an error.
    let held = kubectl.run(&["get", "-o", "json", "-f", &file.display().to_string()])?;
    let held: Value = serde_json::from_str(&held).context("kubectl prints JSON")?;
    let held = held["items"].as_array().context("kubectl prints a list")?;
    ensure!(held.len() == rendered.len(), "{} of {} are there", held.len(), rendered.len());
    for manifest in held {
        let metadata = &manifest["metadata"];
        ensure!(metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm", "{metadata}");
    }
    Ok(())
}
