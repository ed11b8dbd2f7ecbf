//! People at gateways: they log in as the user that the Kubernetes API knows, and do there what it allows them.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use wasmbed_api::OPERATOR_SIGNER;
use wasmbed_e2e::{ControlPlane, Machine, TIMEOUT, application, fixtures};
use wasmbed_pki::{CertificateFacts, parse_certificates};
use wasmbed_testbed::{User, wasmbed};

wasmbed_e2e::both!(
    a_person_logs_in_and_reads_what_the_api_allows,
    a_request_waits_for_a_person_where_no_controller_approves_it,
    the_user_in_a_certificate_is_the_one_that_the_api_server_recorded,
);

/// A machine with a signer, on which an application writes lines.
async fn with_lines(plane: ControlPlane) -> Result<Machine> {
    let mut machine = Machine::start(plane).await?;
    machine.start_signer()?;
    machine.add_device("board").await?;
    machine.create(&application("ticker", &fixtures::ticker("tick", 200), &["board"])).await?;
    Ok(machine)
}

/// The binary as a person runs it: its logins are kept in the test's own folder.
fn as_user(machine: &Machine, user: &User, arguments: &[&str]) -> Result<Command> {
    let mut command = wasmbed(arguments)?;
    command.arg("--kubeconfig").arg(machine.cluster().kubeconfig(user)?);
    command.env("XDG_CONFIG_HOME", config_home(machine));
    Ok(command)
}

fn config_home(machine: &Machine) -> PathBuf {
    machine.dir().join("config")
}

fn succeeds(mut command: Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn fails(mut command: Command) -> Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn operator(name: &str) -> User {
    User::new(name, "wasmbed:operators")
}

async fn a_person_logs_in_and_reads_what_the_api_allows(plane: ControlPlane) -> Result<()> {
    let machine = with_lines(plane).await?;
    let ada = operator("ada@example.org");
    let deadline = Instant::now() + TIMEOUT;
    // Logs in by itself.
    let logs = || as_user(&machine, &ada, &["logs", "ticker"]).and_then(succeeds);
    while !logs()?.contains("| tick") {
        ensure!(Instant::now() < deadline, "no line came");
    }
    let said = succeeds(as_user(&machine, &ada, &["login"])?)?;
    ensure!(said.starts_with("logged in already as \"ada@example.org\" ("), "{said}");
    let file = PathBuf::from(said.trim_end().rsplit_once(": ").context("where it is kept")?.1);
    ensure!(file.starts_with(config_home(&machine)), "{said}");
    ensure!(file.metadata()?.permissions().mode() & 0o777 == 0o600, "the key is private");
    let again = succeeds(as_user(&machine, &ada, &["login", "--force"])?)?;
    ensure!(again.starts_with("logged in as \"ada@example.org\" ("), "{again}");
    let out = succeeds(as_user(&machine, &ada, &["logout"])?)?;
    ensure!(out.starts_with("logged out \"ada@example.org\"") && !file.exists(), "{out}");

    // Who may not even ask is told what is missing.
    let stranger = User::new("stranger", "nobody");
    let error = fails(as_user(&machine, &stranger, &["login"])?)?;
    ensure!(error.contains("the ClusterRole wasmbed-login") && error.contains("stranger"), "{error}");

    // Who may ask for nothing has a certificate that opens nothing.
    let pki = machine.layout().dir().join("pki");
    let out = machine.dir().join("eve");
    let mut issue = wasmbed(&["pki", "issue", "operator", "--name", "eve", "--group", "nobody"])?;
    issue.arg("--dir").arg(&pki).arg("--out").arg(&out);
    succeeds(issue)?;
    let mut command = as_user(&machine, &User::administrator(), &["logs", "ticker"])?;
    command.arg("--pki").arg(&out);
    let error = fails(command)?;
    let denied = "user \"eve\" may not get applications/log \"ticker\" in the namespace \"default\"";
    ensure!(error.contains(denied) && error.contains("resources: [applications/log]"), "{error}");
    if plane == ControlPlane::Kubernetes {
        a_binding_in_a_namespace_counts_there_and_until_it_is_gone(&machine)?;
    }
    Ok(())
}

/// Roles of Kubernetes: logging in is a right of the cluster, reading one of namespaces.
fn a_binding_in_a_namespace_counts_there_and_until_it_is_gone(machine: &Machine) -> Result<()> {
    let bob = User::new("bob", "nobody");
    let kubectl = machine.kubectl()?;
    let bind = ["create", "clusterrolebinding", "bob", "--clusterrole=wasmbed-login", "--user=bob"];
    kubectl.run(&bind)?;
    let bind = ["create", "rolebinding", "bob", "--clusterrole=wasmbed-operator", "--user=bob"];
    kubectl.run(&bind)?;
    ensure!(succeeds(as_user(machine, &bob, &["logs", "ticker"])?)?.contains("| tick"));
    let error = fails(as_user(machine, &bob, &["logs", "-A"])?)?;
    ensure!(error.contains("user \"bob\" may not get applications/log in all namespaces"), "{error}");
    let mut follower = Follower::start(as_user(machine, &bob, &["logs", "--follow", "ticker"])?)?;
    follower.wait_for("| tick")?;
    kubectl.run(&["delete", "rolebinding", "bob"])?;
    // Nothing of the person asks again: the gateway does.
    let error = follower.ended()?;
    ensure!(error.contains("user \"bob\" may not get applications/log \"ticker\""), "{error}");
    kubectl.run(&["delete", "clusterrolebinding", "bob"])?;
    Ok(())
}

/// A command whose output is read while it runs.
struct Follower(Child);

impl Follower {
    fn start(mut command: Command) -> Result<Self> {
        Ok(Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    fn wait_for(&mut self, text: &str) -> Result<()> {
        let output = self.0.stdout.as_mut().context("its output")?;
        for line in BufReader::new(output).lines() {
            if line?.contains(text) {
                return Ok(());
            }
        }
        bail!("it ended before it said {text:?}")
    }

    /// What it complains of when it ends by itself.
    fn ended(mut self) -> Result<String> {
        let mut output = self.0.stdout.take().context("its output")?;
        // So that it is not held up.
        let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let complaints = self.0.stderr.take().context("its complaints")?;
        let deadline = Instant::now() + TIMEOUT;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        drop(reader.join());
        std::io::read_to_string(complaints).context("its complaints")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn a_request_waits_for_a_person_where_no_controller_approves_it(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.start_signer()?;
    machine.stop("controller")?;
    let grace = operator("grace");
    // A command that gives up leaves its request behind, and the next one finds it.
    let error = fails(as_user(&machine, &grace, &["login", "--timeout", "1"])?)?;
    let request = error.split_once("the request ").and_then(|(_, rest)| rest.split(' ').next());
    let request = request.with_context(|| error.clone())?.to_owned();
    ensure!(error.contains("nobody has decided about the request") && error.contains("\"grace\""), "{error}");
    let mut child =
        as_user(&machine, &grace, &["login"])?.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut complaints = BufReader::new(child.stderr.take().context("its complaints")?);
    let mut told = String::new();
    complaints.read_line(&mut told)?;
    let by_hand = format!("kubectl certificate approve {request}");
    ensure!(told.contains("waits for a controller that approves it") && told.contains(&by_hand), "{told}");
    machine.kubectl()?.run(&["certificate", "approve", &request])?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.starts_with("logged in as \"grace\""), "{said}");

    // A person may also say no.
    let error = fails(as_user(&machine, &operator("mallory"), &["login", "--timeout", "1"])?)?;
    let request = error.split_once("the request ").and_then(|(_, rest)| rest.split(' ').next());
    machine.kubectl()?.run(&["certificate", "deny", request.with_context(|| error.clone())?])?;
    let error = fails(as_user(&machine, &operator("mallory"), &["login", "--timeout", "1"])?)?;
    ensure!(error.contains("nobody has decided about the request"), "it asks again: {error}");
    Ok(())
}

async fn the_user_in_a_certificate_is_the_one_that_the_api_server_recorded(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.start_signer()?;
    let mut asked = CertificateParams::default();
    asked.distinguished_name.push(DnType::CommonName, "admin");
    asked.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let other = "spiffe://wasmbed/operator/admin/system_3Amasters";
    asked.subject_alt_names.push(SanType::URI(other.try_into()?));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = asked.serialize_request(&key)?.pem()?;
    let object = |name: &str, usages: &[&str]| CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.clone().into_bytes()),
            signer_name: OPERATOR_SIGNER.to_owned(),
            usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
            // What the API server writes, whatever is here.
            username: Some("admin".to_owned()),
            groups: Some(vec!["system:masters".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let requests = async |user: &User| {
        anyhow::Ok(Api::<CertificateSigningRequest>::all(machine.cluster().client(user).await?))
    };
    let ada = requests(&operator("ada")).await?;
    ada.create(&PostParams::default(), &object("forged", &["client auth"])).await?;
    let pem = decided(&ada, "forged").await?.map_err(|reason| anyhow::anyhow!(reason))?;
    let leaf = parse_certificates(&pem)?.remove(0);
    let facts = CertificateFacts::parse(&leaf)?;
    let own = "spiffe://wasmbed/operator/ada/wasmbed_3Aoperators/system_3Aauthenticated";
    ensure!(facts.uris == [own], "{facts:?}");
    ensure!(facts.common_name.as_deref() == Some("operator ada"), "{facts:?}");

    // A server's certificate is none of a person's.
    ada.create(&PostParams::default(), &object("server", &["server auth", "digital signature"])).await?;
    let refused = decided(&ada, "server").await?.err().context("it was issued")?;
    ensure!(refused == "WrongUsages", "{refused}");

    // Our own processes are no people: a gateway may not ask, and nobody could approve it.
    for process in [User::gateway("e2e"), User::controller("e2e")] {
        let refused = requests(&process)
            .await?
            .create(&PostParams::default(), &object("gateway", &["client auth"]))
            .await;
        ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    }
    Ok(())
}

/// The certificate of a request, or the reason for which it failed.
async fn decided(requests: &Api<CertificateSigningRequest>, name: &str) -> Result<Result<Vec<u8>, String>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let status = requests.get(name).await?.status.unwrap_or_default();
        if let Some(certificate) = status.certificate {
            return Ok(Ok(certificate.0));
        }
        let failed = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Failed");
        if let Some(failed) = failed {
            return Ok(Err(failed.reason.unwrap_or_default()));
        }
        ensure!(Instant::now() < deadline, "nothing was decided about {name}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
