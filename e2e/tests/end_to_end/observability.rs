//! What a person who runs it sees: health, metrics, one correlation id through all logs, and the binary's own commands.

use anyhow::{Context, Result, ensure};
use wasmbed_api::{Application, Device};
use wasmbed_e2e::{ControlPlane, Machine, application, fixtures, get, metric_at_least, wasmbed};

wasmbed_e2e::both!(
    health_metrics_and_one_correlation_id,
    a_module_is_applied_shown_and_heard_with_one_binary,
    every_line_is_shown_in_order_or_counted_as_lost,
);

fn run(arguments: &[&str], machine: &Machine) -> Result<String> {
    let mut command = wasmbed(arguments)?;
    let output = command
        .arg("--kubeconfig")
        .arg(machine.layout().kubeconfig())
        .env("WASMBED_PKI", machine.operator_pki()?)
        .output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value of a field in a JSON log line.
fn field(line: &str, name: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get(name)?.as_str().map(str::to_owned)
}

async fn health_metrics_and_one_correlation_id(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.create(&application("ticker", &fixtures::ticker("tick", 200), &["board"])).await?;
    machine
        .device("board", "running it", |device: &Device| {
            device.status.as_ref().is_some_and(|status| !status.applications.is_empty())
        })
        .await?;
    machine
        .application("ticker", "Running", |application: &Application| {
            application
                .status
                .as_ref()
                .is_some_and(|status| status.phase == wasmbed_api::ApplicationPhase::Running)
        })
        .await?;

    // A refusal, so that there is one to count.
    let stranger = tokio::net::TcpStream::connect(machine.gateway_address()).await?;
    drop(stranger);
    metric_at_least(
        machine.gateway_health(),
        "wasmbed_gateway_refusals_total{reason=\"ConnectionLost\"}",
        1.0,
    )
    .await?;

    let kubectl = machine.kubectl()?;
    let groups: [(_, &[&str]); 2] = [
        (
            machine.gateway_health(),
            &[
                "wasmbed_gateway_sessions 1",
                "wasmbed_gateway_heartbeat_seconds_count",
                "wasmbed_gateway_refusals",
                "wasmbed_gateway_application_reports_total{state=\"Running\"",
                "wasmbed_gateway_request_seconds_count",
                "wasmbed_gateway_connections 1",
            ],
        ),
        (
            machine.controller_health(),
            &["reconciliations", "errors", "application_deployments", "queue_depth"],
        ),
    ];
    for (address, series) in groups {
        for path in ["/health", "/ready"] {
            let (status, body) = get(address, path).await?;
            assert_eq!(status, 200, "{address}{path}: {body}");
        }
        let (_, metrics) = get(address, "/metrics").await?;
        for name in series {
            assert!(metrics.contains(name), "no {name} in:\n{metrics}");
        }
    }
    let (paths, series): (_, &[&str]) = match plane {
        ControlPlane::Embedded => (["/health", "/ready"], &["requests_total", "commit_writes"]),
        ControlPlane::Kubernetes => (["/livez", "/readyz"], &["apiserver_request_total"]),
    };
    for path in paths {
        kubectl.run(&["get", "--raw", path])?;
    }
    let metrics = kubectl.run(&["get", "--raw", "/metrics"])?;
    assert!(series.iter().all(|name| metrics.contains(name)), "{metrics}");

    let line = machine.process("gateway")?.wait_for_line("the assignment", |line| {
        line.contains("assignment sent") && line.contains("ticker")
    })?;
    let id = field(&line, "correlation_id").with_context(|| format!("no correlation id in {line}"))?;
    let same = |line: &str| field(line, "correlation_id").as_deref() == Some(id.as_str());
    for process in ["controller", "board"] {
        machine.process(process)?.wait_for_line(&format!("a line with the correlation id {id}"), same)?;
    }
    machine
        .process("gateway")?
        .wait_for_line("what the device reported", |line| line.contains("device reported") && same(line))?;
    Ok(())
}

async fn a_module_is_applied_shown_and_heard_with_one_binary(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    let file = machine.dir().join("app.wasm");
    // In the whole language that devices run, so that packing, the fit check and each board's engine are heard about it.
    std::fs::write(&file, fixtures::fluent_ticker("said by the module", 200))?;
    let path = file.to_str().context("a path in UTF-8")?;
    run(&["apply", path, "--name", "teller", "--device", "board", "--wait"], &machine)?;
    let table = run(&["get", "wapp"], &machine)?;
    assert!(table.contains("teller") && table.contains("Running"), "{table}");
    machine.process("board")?.wait_for_line("its text", |line| line.contains("said by the module"))?;
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    while !run(&["logs", "teller"], &machine)?.contains("said by the module") {
        ensure!(std::time::Instant::now() < deadline, "the gateway never had the module's lines");
    }
    Ok(())
}

/// `wasmbed logs -f` from before the first line on; it ends with the test.
struct Follower {
    child: std::process::Child,
    output: std::path::PathBuf,
}

impl Follower {
    fn start(machine: &Machine, device: &str) -> Result<Self> {
        let output = machine.dir().join("followed");
        let mut command = wasmbed(&["logs", "--follow", "--device", device, "--kubeconfig"])?;
        command.arg(machine.layout().kubeconfig()).env("WASMBED_PKI", machine.operator_pki()?);
        command.stdout(std::fs::File::create(&output)?);
        Ok(Self { child: command.spawn()?, output })
    }

    fn lines(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each line's number, and how many are said to be missing before it.
fn numbers(text: &str) -> Result<Vec<(u32, u32)>> {
    let line = |line: &str| -> Result<(u32, u32)> {
        let (_, said) = line.split_once(" | ").with_context(|| format!("not a line of a log: {line}"))?;
        let (lost, number) = match said.strip_prefix('(').and_then(|said| said.split_once(") ")) {
            Some((lost, number)) => (lost.split(' ').next().unwrap_or_default().parse()?, number),
            None => (0, said),
        };
        Ok((number.parse()?, lost))
    };
    text.lines().map(line).collect()
}

async fn every_line_is_shown_in_order_or_counted_as_lost(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    let follower = Follower::start(&machine, "board")?;
    machine.create(&application("numbers", &fixtures::numbers(), &["board"])).await?;
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    let (mut followed, mut read) = (String::new(), String::new());
    while ![&followed, &read].iter().all(|lines| lines.trim_end().ends_with(" 399")) {
        ensure!(std::time::Instant::now() < deadline, "the last line never came: {followed}\n\n{read}");
        followed = follower.lines()?;
        read = run(&["logs", "numbers"], &machine)?;
        tokio::task::yield_now().await;
    }
    for (name, lines) in [("logs -f", followed), ("logs", read)] {
        let mut before = 99;
        for (number, lost) in numbers(&lines)? {
            assert_eq!(
                number,
                before + 1 + lost,
                "{name}: {lost} lines are said to be lost after {before}\n{lines}"
            );
            before = number;
        }
    }
    Ok(())
}
