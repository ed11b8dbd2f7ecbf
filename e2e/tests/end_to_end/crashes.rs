//! kill -9 of every process under load: everything converges again and nothing acknowledged is lost.

use anyhow::Result;
use wasmbed_api::{Application, Device, DeviceApplicationState, DevicePhase};
use wasmbed_e2e::{ControlPlane, Machine, Part, application, digest, fixtures};

wasmbed_e2e::both!(
    the_gateway,
    the_controller,
    the_kubernetes_api,
    its_store,
    the_devices,
    a_gateway_that_comes_back_with_an_empty_disk_empties_no_device,
    everything_at_once,
    a_counter_goes_on_where_it_was_when_its_device_died,
);

const DEVICES: [&str; 4] = ["device-1", "device-2", "device-3", "device-4"];

async fn fleet(plane: ControlPlane) -> Result<Machine> {
    let mut machine = Machine::start(plane).await?;
    for name in DEVICES {
        machine.add_device(name).await?;
    }
    for name in DEVICES {
        machine.connected(name).await?;
    }
    Ok(machine)
}

fn runs(device: &Device, digest: &str) -> bool {
    let applications = device.status.iter().flat_map(|status| &status.applications);
    applications.into_iter().any(|application| {
        application.state == DeviceApplicationState::Running && application.digest.as_deref() == Some(digest)
    })
}

/// Waits until every device runs every one of the modules and each Application is complete.
async fn converged(machine: &Machine, modules: &[(String, Vec<u8>)]) -> Result<()> {
    for (name, wasm) in modules {
        for device in DEVICES {
            machine.device(device, &format!("running {name}"), |device| runs(device, &digest(wasm))).await?;
        }
        machine.application(name, "Complete", complete).await?;
    }
    Ok(())
}

fn complete(application: &Application) -> bool {
    let conditions = application.status.iter().flat_map(|status| &status.conditions);
    let generation = application.metadata.generation;
    application.status.as_ref().is_some_and(|status| status.observed_generation == generation)
        && conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}

/// Applies a few Applications, without waiting for anything.
async fn deploy(machine: &Machine, round: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut modules = Vec::new();
    for number in 0..4 {
        let name = format!("{round}-{number}");
        // Large enough that downloads are under way when something is killed.
        let wasm = fixtures::large_ticker(&name, 1_000, 60 * 1_024);
        machine.create(&application(&name, &wasm, &DEVICES)).await?;
        modules.push((name, wasm));
    }
    Ok(modules)
}

async fn the_gateway(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    machine.kill("gateway")?;
    machine.start_gateway()?;
    converged(&machine, &modules).await
}

async fn the_controller(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    machine.kill("controller")?;
    machine.start_controller()?;
    converged(&machine, &modules).await
}

async fn the_kubernetes_api(plane: ControlPlane) -> Result<()> {
    let machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    machine.cluster().kill(Part::ApiServer)?;
    machine.cluster().start_part(Part::ApiServer).await?;
    // What was acknowledged is there.
    for (name, _) in &modules {
        machine.api::<Application>().get(name).await?;
    }
    converged(&machine, &modules).await
}

async fn its_store(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    let store = match plane {
        // It writes for itself, to a file that it opens again.
        ControlPlane::Embedded => Part::ApiServer,
        ControlPlane::Kubernetes => Part::Etcd,
    };
    machine.cluster().kill(store)?;
    // While nothing can be written or read, devices go on and one of them comes back.
    machine.kill(DEVICES[0])?;
    machine.start_device(DEVICES[0])?;
    machine.process(DEVICES[0])?.wait_for_line("its session", |line| line.contains("session established"))?;
    machine.cluster().start_part(store).await?;
    converged(&machine, &modules).await
}

async fn the_devices(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    for name in DEVICES {
        machine.kill(name)?;
        machine.start_device(name)?;
    }
    converged(&machine, &modules).await?;
    // Once more with everything in place: it starts from what the device holds.
    machine.kill(DEVICES[0])?;
    machine.start_device(DEVICES[0])?;
    machine.process(DEVICES[0])?.wait_for_line("a log line", |line| line.contains("load-0"))?;
    converged(&machine, &modules).await
}

async fn a_gateway_that_comes_back_with_an_empty_disk_empties_no_device(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "kept").await?;
    converged(&machine, &modules).await?;
    // Nobody who could tell the gateway what is desired.
    machine.stop("controller")?;
    machine.kill("gateway")?;
    std::fs::remove_dir_all(machine.layout().gateway_dir())?;
    machine.start_gateway()?;
    for name in DEVICES {
        let device = machine
            .device(name, "Connected and reporting", |device| {
                device.status.as_ref().is_some_and(|status| {
                    status.phase == DevicePhase::Connected && status.applications.len() == modules.len()
                })
            })
            .await?;
        for (application, wasm) in &modules {
            assert!(runs(&device, &digest(wasm)), "{name} still runs {application}");
        }
    }
    machine.start_controller()?;
    converged(&machine, &modules).await
}

async fn everything_at_once(plane: ControlPlane) -> Result<()> {
    let mut machine = fleet(plane).await?;
    let modules = deploy(&machine, "load").await?;
    for role in ["gateway", "controller"].into_iter().chain(DEVICES) {
        machine.kill(role)?;
    }
    machine.kill_control_plane()?;
    machine.start_control_plane().await?;
    machine.start_gateway()?;
    machine.start_controller()?;
    for name in DEVICES {
        machine.start_device(name)?;
    }
    converged(&machine, &modules).await
}

async fn a_counter_goes_on_where_it_was_when_its_device_died(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let mut counter = application("counter", &fixtures::counter(), &["board"]);
    counter.spec.config.capabilities = vec!["key-value".to_owned()];
    machine.create(&counter).await?;
    machine.process("board")?.wait_for_line("a count", |line| line.contains("count 2"))?;
    machine.kill("board")?;
    machine.start_device("board")?;
    let going_on =
        machine.process("board")?.wait_for_line("the count it had", |line| line.contains("going on at "))?;
    let digits = going_on.split("going on at ").nth(1).unwrap_or_default();
    let count: String = digits.chars().take_while(char::is_ascii_digit).collect();
    // What was logged was stored before; the write under way may have made it, too.
    assert!(count.parse::<u32>()? >= 2, "{going_on}");
    Ok(())
}
