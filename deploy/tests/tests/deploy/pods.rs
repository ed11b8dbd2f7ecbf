//! The chart's pods without a kubelet: the statically linked binary in an empty root, with the arguments, the environment, the
//! files and the service account's token that the rendered pod asks for, against a real API server.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use wasmbed_api::{DEVICE_SIGNER, Device, DeviceSpec, request_annotation};
use wasmbed_deploy_tests::{Chart, Manifest, Root};
use wasmbed_testbed::{Cluster, ControlPlane, Kubectl, Port, Process, User};

use crate::roles::Asked;

const NAMESPACE: &str = "wasmbed-system";
/// Whom the chart's pods run as.
const USER: u32 = 65_532;
const TIMEOUT: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A release with its objects in the cluster, and what stands in for nodes.
struct Site {
    cluster: Cluster,
    kubectl: Kubectl,
    rendered: Vec<Manifest>,
    binary: PathBuf,
    /// Each pod has an address of its own on loopback.
    network: [u8; 2],
    /// Instead of the chart's, which other programs on this machine may have.
    devices: Port,
    health: Port,
    // Last, so that processes end first.
    folder: tempfile::TempDir,
}

#[test]
fn the_static_binary_runs_in_an_empty_root() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = Root::create(&folder.path().join("root"), &static_binary()?)?;
    let said = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let output = root.command(Some(USER), &[], &arguments).output().context("can't start it")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    ensure!(said(&["--version"])?.starts_with("wasmbed "));
    ensure!(said(&["crds"])?.contains("kind: CustomResourceDefinition"));
    root.volume("/data")?;
    ensure!(said(&["pki", "init", "--dir", "/data/pki"])?.contains("authorities"));
    Ok(())
}

#[tokio::test]
async fn a_release_runs_from_its_hook_to_a_clean_end() -> Result<()> {
    let site = Site::create().await?;
    certificates(&site)?;
    let mut gateways = vec![site.gateway(0)?, site.gateway(1)?];
    let controllers = vec![site.controller(0)?, site.controller(1)?];
    let signers = vec![site.signer(0)?, site.signer(1)?];
    for (number, host) in [0, 1].into_iter().zip([10, 11]) {
        site.ready(host).with_context(|| gateways[number].printed().unwrap_or_default())?;
    }
    for (controller, host) in controllers.iter().zip([20, 21]) {
        site.ready(host).with_context(|| controller.printed().unwrap_or_default())?;
    }
    for (signer, host) in signers.iter().zip([30, 31]) {
        site.ready(host).with_context(|| signer.printed().unwrap_or_default())?;
    }
    pods_keep_to_their_own(&site).await?;
    a_request_is_signed_once(&site).await?;
    site.guide().context("docs/k3d.md")?;

    for process in controllers.into_iter().chain(signers) {
        let said = process.printed()?;
        ensure!(!said.contains("\"level\":\"ERROR\""), "{said}");
        let ended = process.terminate()?;
        ensure!(ended.success(), "a controller or a signer ended with {ended}");
    }
    for process in gateways.drain(..) {
        let begun = Instant::now();
        let ended = process.terminate()?;
        ensure!(ended.success(), "a gateway ended with {ended}");
        ensure!(begun.elapsed() < Duration::from_secs(30), "longer than terminationGracePeriodSeconds");
    }
    for lease in ["gateway-wasmbed-gateway-0", "gateway-wasmbed-gateway-1", "wasmbed-controller"] {
        let holder = site.kubectl.run(&[
            "-n",
            NAMESPACE,
            "get",
            "lease",
            lease,
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])?;
        ensure!(holder.is_empty(), "{lease} is still held by {holder}");
    }
    Ok(())
}

/// The hook's job under its own service account, twice.
fn certificates(site: &Site) -> Result<()> {
    let hooks: Vec<&Manifest> = site.rendered.iter().filter(|manifest| manifest.is_hook()).collect();
    for manifest in hooks.iter().filter(|manifest| manifest.kind() != "Job") {
        site.kubectl.apply(&manifest.text)?;
    }
    let job = hooks.iter().find(|manifest| manifest.kind() == "Job").context("no job")?;
    let account = "wasmbed-certificates";
    let root = site.root("certificates")?;
    root.volume("/tmp")?;
    let token = site.kubectl.run(&["-n", NAMESPACE, "create", "token", account])?;
    site.give_account(&root, token.trim())?;
    let run = || {
        let container = &job.value["spec"]["template"]["spec"]["containers"][0];
        let output =
            root.command(Some(USER), &site.environment(&[]), &words(&container["args"])?).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let issued = [
        "wasmbed-gateway-0-tls",
        "wasmbed-gateway-1-tls",
        "wasmbed-controller-tls",
        "wasmbed-signer-issuing",
        "wasmbed-signer-operators",
    ];
    let said = run()?;
    ensure!(issued.iter().all(|name| said.contains(&format!("{name}: issued"))), "{said}");
    let said = run()?;
    ensure!(issued.iter().all(|name| said.contains(&format!("{name}: kept"))), "{said}");
    // As the version before left it: operators are added, and nothing else is made anew.
    let without = ["root.crt", "root.key", "issuing.crt", "issuing.key"]
        .map(|file| format!(r#"{{"op": "remove", "path": "/data/operators-{file}"}}"#));
    let patch = format!("[{}]", without.join(","));
    let authorities = "wasmbed-authorities";
    site.kubectl.run(&["-n", NAMESPACE, "patch", "secret", authorities, "--type=json", "-p", &patch])?;
    let said = run()?;
    let (kept, people) = issued.split_at(issued.len() - 1);
    ensure!(kept.iter().all(|name| said.contains(&format!("{name}: kept"))), "{said}");
    ensure!(people.iter().all(|name| said.contains(&format!("{name}: issued"))), "{said}");
    let said = run()?;
    ensure!(issued.iter().all(|name| said.contains(&format!("{name}: kept"))), "{said}");

    // It reads what it made and no other Secret.
    site.kubectl.run(&["-n", NAMESPACE, "create", "secret", "generic", "others"])?;
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let may = |verb: &str, what: &str| {
        let mut asked = site.kubectl.command(&["-n", NAMESPACE, "auth", "can-i", verb, what, &who]);
        anyhow::Ok(asked.output().context("can't start kubectl")?.stdout.starts_with(b"yes"))
    };
    ensure!(may("get", "secrets/wasmbed-trust")? && may("create", "secrets")?);
    for (verb, what) in [
        ("get", "secrets/others"),
        ("list", "secrets"),
        ("delete", "secrets/wasmbed-trust"),
        ("create", "pods"),
        ("get", "configmaps"),
    ] {
        ensure!(!may(verb, what)?, "the hook may {verb} {what}");
    }
    Ok(())
}

/// Two signers work on one request: the device gets one certificate, and the approved request does not fail.
async fn a_request_is_signed_once(site: &Site) -> Result<()> {
    let admin = site.cluster.client(&User::administrator()).await?;
    let request = crate::roles::REQUEST.trim();
    let spec = json!({"request": request, "signerName": DEVICE_SIGNER, "usages": ["client auth"]});
    let device = Device::new("signed", DeviceSpec { approved: true, ..DeviceSpec::default() });
    let devices: Api<Device> = Api::namespaced(admin.clone(), "default");
    let device = devices.create(&PostParams::default(), &device).await?;
    let uid = device.metadata.uid.context("a UID")?;
    let key = json!({"spec": {"confirmed_key": crate::roles::request_key()?}});
    devices.patch("signed", &PatchParams::default(), &Patch::Merge(key)).await?;
    let annotations = json!({
        request_annotation::DEVICE: "default/signed",
        request_annotation::DEVICE_UID: uid,
    });
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "signed", "annotations": annotations},
        "spec": spec,
    });
    site.kubectl.apply(&object.to_string())?;
    site.kubectl.run(&["certificate", "approve", "signed"])?;
    site.kubectl.run(&["wait", "csr/signed", "--for=jsonpath={.status.certificate}", "--timeout=60s"])?;
    let held: Value = serde_json::from_str(&site.kubectl.run(&["get", "csr", "signed", "-o", "json"])?)?;
    let failed = held["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Failed");
    ensure!(!failed, "{held}");
    site.kubectl.run(&["delete", "wdev/signed", "csr/signed"])?;
    Ok(())
}

/// Under the pods' own tokens: RBAC allows the replicas' names, the policies each pod its own.
async fn pods_keep_to_their_own(site: &Site) -> Result<()> {
    let admin = site.cluster.client(&User::administrator()).await?;
    let account = "wasmbed-gateway";
    let ask = async |token: String| {
        anyhow::Ok(Asked {
            client: site.client(&token).await?,
            admin: &admin,
            user: format!("system:serviceaccount:{NAMESPACE}:{account}"),
            system: NAMESPACE,
        })
    };
    let pod = ask(site.token(account, Some("wasmbed-gateway-0"))?).await?;
    let label = json!({"metadata": {"labels": {"asked": "yes"}}});
    pod.patch("devicegateways", "wasmbed-gateway-0", label.clone()).await.allowed()?;
    pod.patch("leases", "gateway-wasmbed-gateway-0", label.clone()).await.allowed()?;
    let own = "a gateway may write only the DeviceGateway of its own name";
    pod.patch("devicegateways", "wasmbed-gateway-1", label.clone()).await.refused_by_rule(own)?;
    pod.create("devicegateways", crate::roles::object("devicegateways", "other"))
        .await
        .refused_by_rule(own)?;
    let lease = "a gateway may write only its own Lease, gateway- and its name";
    pod.patch("leases", "gateway-wasmbed-gateway-1", label.clone()).await.refused_by_rule(lease)?;
    // The leader's Lease is there to be read, no other pod's, and nothing to be changed.
    pod.get("leases", "wasmbed-controller").await.allowed()?;
    pod.get("leases", "gateway-elsewhere").await.refused_by_role(&pod.user, "get", "leases")?;
    // Of a name that is no replica's the role knows nothing.
    for (resource, name) in [("devicegateways", "elsewhere"), ("leases", "wasmbed-controller")] {
        pod.patch(resource, name, label.clone()).await.refused_by_role(&pod.user, "patch", resource)?;
    }
    let mut device = crate::roles::object("devices", "new");
    pod.create("devices", device.clone()).await.allowed()?;
    device["spec"]["approved"] = json!(true);
    let approved = pod.create("devices", device).await;
    approved
        .refused_by_rule("a gateway may create a Device only with approved: false; a person approves it")?;
    // A token that no pod holds has no name, so nothing is its own.
    let stray = ask(site.token(account, None)?).await?;
    stray.patch("devicegateways", "wasmbed-gateway-0", label).await.refused_by_rule(own)
}

impl Site {
    async fn create() -> Result<Self> {
        let cluster = Cluster::start(ControlPlane::Kubernetes).await?;
        let kubectl = cluster.kubectl(&User::administrator())?;
        // The chart brings its own roles.
        kubectl.run(&["delete", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/../rbac/clients.yaml")])?;
        let chart = Chart::new("wasmbed", NAMESPACE)?
            .set("crds.install=false")
            .set("signer.pairing.createNamespace=false")
            .set("gateway.replicas=2");
        chart.release("install", &cluster.kubeconfig(&User::administrator())?, &["--no-hooks"])?;
        let rendered = chart.render()?;
        let own = std::process::id().to_le_bytes();
        let network = [64 + own[0] % 64, own[1]];
        let folder = tempfile::tempdir()?;
        let (devices, health) = (Port::reserve()?, Port::reserve()?);
        Ok(Self { cluster, kubectl, rendered, binary: static_binary()?, network, devices, health, folder })
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.network[0], self.network[1], host)
    }

    fn root(&self, name: &str) -> Result<Root> {
        let root = Root::create(&self.folder.path().join(name), &self.binary)?;
        // What the cluster's DNS would say.
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for number in 0..2 {
            let pod = format!("wasmbed-gateway-{number}");
            hosts += &format!("{} {pod}.wasmbed-gateway.{NAMESPACE}.svc\n", self.address(10 + number));
        }
        root.write("/etc/hosts", hosts.as_bytes())?;
        Ok(root)
    }

    fn token(&self, account: &str, pod: Option<&str>) -> Result<String> {
        let mut arguments = vec!["-n", NAMESPACE, "create", "token", account];
        if let Some(pod) = pod {
            arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
        }
        Ok(self.kubectl.run(&arguments)?.trim().to_owned())
    }

    async fn client(&self, token: &str) -> Result<kube::Client> {
        let cluster = json!({
            "server": format!("https://{}", self.cluster.address()),
            "certificate-authority": self.cluster.dir().join("cluster-ca.crt"),
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": { "token": token } }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        }))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// What a kubelet mounts for a service account.
    fn give_account(&self, root: &Root, token: &str) -> Result<()> {
        root.write(&format!("{ACCOUNT}/token"), token.as_bytes())?;
        root.write(&format!("{ACCOUNT}/namespace"), NAMESPACE.as_bytes())?;
        root.write(&format!("{ACCOUNT}/ca.crt"), &std::fs::read(self.cluster.dir().join("cluster-ca.crt"))?)
    }

    /// What a kubelet sets for every container, then the pod's own.
    fn environment(&self, own: &[(String, String)]) -> Vec<(String, String)> {
        let api = self.cluster.address();
        let mut all = vec![
            ("KUBERNETES_SERVICE_HOST".to_owned(), api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), api.port().to_string()),
        ];
        all.extend_from_slice(own);
        all
    }

    fn gateway(&self, number: u8) -> Result<Process> {
        let (address, name) = (self.address(10 + number), format!("wasmbed-gateway-{number}"));
        let (devices, health) = (self.devices.number(), self.health.number());
        let more = [
            format!("WASMBED_GATEWAY__SERVER__HOST={address}"),
            format!("WASMBED_GATEWAY__SERVER__PORT={devices}"),
            format!("WASMBED_GATEWAY__ADVERTISE={name}.wasmbed-gateway.{NAMESPACE}.svc:{devices}"),
            format!("WASMBED_GATEWAY__HEALTH__HOST={address}"),
            format!("WASMBED_GATEWAY__HEALTH__PORT={health}"),
        ];
        self.pod("StatefulSet", "gateway", &name, &more)
    }

    fn controller(&self, number: u8) -> Result<Process> {
        let more = [
            format!("WASMBED_CONTROLLER__HEALTH__HOST={}", self.address(20 + number)),
            format!("WASMBED_CONTROLLER__HEALTH__PORT={}", self.health.number()),
        ];
        self.pod("Deployment", "controller", &format!("wasmbed-controller-{number}"), &more)
    }

    fn signer(&self, number: u8) -> Result<Process> {
        let more = [
            format!("WASMBED_SIGNER__HEALTH__HOST={}", self.address(30 + number)),
            format!("WASMBED_SIGNER__HEALTH__PORT={}", self.health.number()),
        ];
        self.pod("Deployment", "signer", &format!("wasmbed-signer-{number}"), &more)
    }

    /// Makes the pod's object, then does what a kubelet would. `more` sets apart what a network namespace would.
    fn pod(&self, workload: &str, component: &str, name: &str, more: &[String]) -> Result<Process> {
        let is_it = |manifest: &&Manifest| {
            manifest.kind() == workload && manifest.name() == format!("wasmbed-{component}")
        };
        let workload = self.rendered.iter().find(is_it).context("no workload")?;
        let template = &workload.value["spec"]["template"];
        let mut spec = template["spec"].clone();
        if component == "gateway" {
            let claim =
                json!({"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}});
            spec["volumes"].as_array_mut().context("no volumes")?.push(claim);
        }
        let metadata =
            json!({"name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.kubectl.apply(&pod.to_string())?;

        let root = self.root(name)?;
        let account = spec["serviceAccountName"].as_str().context("no service account")?;
        self.give_account(&root, &self.token(account, Some(name))?)?;
        let container = &spec["containers"][0];
        for mount in container["volumeMounts"].as_array().context("no mounts")? {
            self.mount(&root, &spec["volumes"], mount)?;
        }
        let mut environment = Vec::new();
        for variable in container["env"].as_array().context("no environment")? {
            let key = variable["name"].as_str().context("a variable has a name")?;
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => name.to_owned(),
                Some(other) => bail!("nobody fills in {other}"),
                None => variable["value"].as_str().unwrap_or_default().replace("$(POD_NAME)", name),
            };
            environment.push((key.to_owned(), value));
        }
        for variable in more {
            let (key, value) = variable.split_once('=').context("KEY=VALUE")?;
            environment.push((key.to_owned(), value.to_owned()));
        }
        let command = root.command(Some(USER), &self.environment(&environment), &words(&container["args"])?);
        Process::start(command, name, self.cluster.dir())
    }

    fn mount(&self, root: &Root, volumes: &Value, mount: &Value) -> Result<()> {
        let path = mount["mountPath"].as_str().context("a mount has a path")?;
        let volumes = volumes.as_array().context("no volumes")?;
        let volume =
            volumes.iter().find(|volume| volume["name"] == mount["name"]).context("no such volume")?;
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let map = self.get("configmap", name)?;
            for (file, text) in map["data"].as_object().context("no data")? {
                root.write(&format!("{path}/{file}"), text.as_str().unwrap_or_default().as_bytes())?;
            }
        } else if let Some(sources) = volume["projected"]["sources"].as_array() {
            for secret in sources.iter().map(|source| &source["secret"]) {
                let held = self.get("secret", secret["name"].as_str().context("a Secret has a name")?)?;
                for item in secret["items"].as_array().context("no items")? {
                    let file = item["path"].as_str().context("an item has a path")?;
                    let text = &held["data"][item["key"].as_str().unwrap_or_default()];
                    let text = text.as_str().with_context(|| format!("the Secret lacks {item}"))?;
                    root.write(&format!("{path}/{file}"), &decode(text)?)?;
                }
            }
        } else {
            root.volume(path)?;
        }
        Ok(())
    }

    fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl.run(&["-n", NAMESPACE, "get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).context("kubectl prints JSON")
    }

    /// Waits until a pod's readiness probe would succeed.
    fn ready(&self, host: u8) -> Result<()> {
        let address = SocketAddr::from((self.address(host), self.health.number()));
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let said = probe(address);
            if said.as_ref().is_ok_and(|said| said.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{address} is not ready: {said:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The guide from a device to its application, word for word; only the gateway's address is another one.
    fn guide(&self) -> Result<()> {
        let dir = self.folder.path().join("person");
        std::fs::create_dir_all(dir.join("bin"))?;
        std::os::unix::fs::symlink(&self.binary, dir.join("bin/wasmbed"))?;
        std::os::unix::fs::symlink(wasmbed_testbed::kubernetes("kubectl")?, dir.join("bin/kubectl"))?;
        std::os::unix::fs::symlink(top().join("guests"), dir.join("guests"))?;
        let shell = |line: &str| -> Result<Command> {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("cd {} && exec {line}", dir.display())]).env("HOME", &dir);
            command.env("KUBECONFIG", self.cluster.kubeconfig(&User::administrator())?);
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", dir.join("bin").display()));
            Ok(command)
        };
        let commands = crate::guide::commands("k3d.md")?;
        let mut device: Option<Process> = None;
        for line in commands.iter().filter(|line| crate::guide::runs_here(line)) {
            if line.starts_with("wasmbed device ") {
                let line = line
                    .replace("127.0.0.1:8080", &format!("{}:{}", self.address(11), self.devices.number()));
                device = Some(Process::start(shell(&line)?, "device-001", self.cluster.dir())?);
                continue;
            }
            let output = shell(line)?.output()?;
            let said = || device.as_ref().and_then(|device| device.printed().ok()).unwrap_or_default();
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{line}: {error}; the device printed: {}", said());
        }
        let device = device.context("the guide starts a device")?;
        ensure!(device.printed()?.contains("hello from a WebAssembly module"), "{}", device.printed()?);
        ensure!(device.terminate()?.success());
        Ok(())
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary as the image has it, in the profile of the tests; `WASMBED_STATIC_BINARY` names another one.
fn static_binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("WASMBED_STATIC_BINARY") {
        return Ok(PathBuf::from(binary));
    }
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let mut cargo = wasmbed_cargo::command();
    cargo.args(["run", "--quiet", "--package", "xtask", "--", "container", "--dev"]);
    let output = cargo.current_dir(top()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(Path::new(said.lines().last().context("the image's folder is printed last")?).join("wasmbed"))
}

fn words(value: &Value) -> Result<Vec<String>> {
    serde_json::from_value(value.clone()).context("arguments are strings")
}

fn decode(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).context("no base64")
}

fn probe(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /ready HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
