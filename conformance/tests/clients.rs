//! Clients that nobody here wrote, against both servers: what passes on the real one and not on the embedded one is the
//! embedded one's fault.
#![cfg(test)]

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wasmbed_api::{Device, DeviceSpec};
use wasmbed_conformance::corpus::User;
use wasmbed_conformance::programs;
use wasmbed_conformance::servers::{Embedded, Real};

/// Longest wait for what a client is to see.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that a test may restart.
enum Plane {
    Embedded(Box<Embedded>),
    Real(Box<Real>),
}

impl Plane {
    fn kubeconfig(&self) -> Result<std::path::PathBuf> {
        match self {
            Plane::Embedded(server) => Ok(server.kubeconfig(User::Admin)),
            Plane::Real(server) => server.kubeconfig(User::Admin),
        }
    }

    async fn devices(&self) -> Result<Api<Device>> {
        let client = match self {
            Plane::Embedded(server) => server.server().await?.client(User::Admin)?.clone(),
            Plane::Real(server) => server.server().await?.client(User::Admin)?.clone(),
        };
        Ok(Api::namespaced(client, "default"))
    }

    async fn restart(self) -> Result<Plane> {
        match self {
            Plane::Embedded(server) => Ok(Plane::Embedded(Box::new(server.restart().await?))),
            Plane::Real(server) => {
                server.restart().await?;
                Ok(Plane::Real(server))
            }
        }
    }
}

fn device(name: &str, ty: &str) -> Device {
    Device::new(name, DeviceSpec { device_type: ty.to_owned(), ..DeviceSpec::default() })
}

async fn change(api: &Api<Device>, name: &str, ty: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"device_type": ty}}));
    api.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// client-go's informer, and what it says.
struct Informer {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Informer {
    fn start(plane: &Plane) -> Result<Informer> {
        let mut command = Command::new(programs::find("informer")?);
        command.arg("-kubeconfig").arg(plane.kubeconfig()?).args(["-namespace", "default"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = process.stdin.take().context("it has an input")?;
        let output = BufReader::new(process.stdout.take().context("it has an output")?).lines();
        Ok(Informer { process, input, output })
    }

    /// Reads until it says this; what it said before is passed over.
    async fn says(&mut self, wanted: &str) -> Result<()> {
        let reading = async {
            while let Some(line) = self.output.next_line().await? {
                if line == wanted {
                    return Ok(());
                }
            }
            bail!("the informer ended before it said {wanted:?}")
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(done) => done,
            Err(_) => bail!("the informer didn't say {wanted:?} within {PATIENCE:?}"),
        }
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        ensure!(self.process.wait().await?.success(), "the informer failed");
        Ok(())
    }
}

async fn informer(plane: Plane) -> Result<()> {
    let api = plane.devices().await?;
    api.create(&PostParams::default(), &device("before", "one")).await?;
    let mut informer = Informer::start(&plane)?;
    informer.says("added before one").await?;
    informer.says("synced").await?;
    api.create(&PostParams::default(), &device("after", "one")).await?;
    informer.says("added after one").await?;
    change(&api, "after", "two").await?;
    informer.says("updated after two").await?;
    informer.says("resynced after two").await?;
    api.delete("before", &DeleteParams::default()).await?;
    informer.says("deleted before one").await?;
    let plane = plane.restart().await?;
    let api = plane.devices().await?;
    change(&api, "after", "three").await?;
    informer.says("updated after three").await?;
    informer.input.write_all(b"how many\n").await?;
    informer.says("cached 1").await?;
    informer.end().await
}

async fn reflector(plane: Plane) -> Result<()> {
    let api = plane.devices().await?;
    api.create(&PostParams::default(), &device("before", "one")).await?;
    let (store, writer) = reflector::store::<Device>();
    let watching = watcher(api.clone(), watcher::Config::default().streaming_lists());
    let stream = reflector::reflector(writer, watching).default_backoff().applied_objects();
    let task = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await??;
    let shows = |name: &'static str, wanted: Option<&'static str>| {
        let store = store.clone();
        async move {
            let since = std::time::Instant::now();
            loop {
                let found = store.get(&ObjectRef::new(name).within("default"));
                if found.map(|device| device.spec.device_type.clone()).as_deref() == wanted {
                    return Ok(());
                }
                ensure!(since.elapsed() < PATIENCE, "the reflector never showed {name} as {wanted:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    shows("before", Some("one")).await?;
    api.create(&PostParams::default(), &device("after", "one")).await?;
    change(&api, "after", "two").await?;
    shows("after", Some("two")).await?;
    api.delete("before", &DeleteParams::default()).await?;
    shows("before", None).await?;
    let plane = plane.restart().await?;
    change(&plane.devices().await?, "after", "three").await?;
    shows("after", Some("three")).await?;
    task.abort();
    Ok(())
}

async fn python(plane: Plane) -> Result<()> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/client.py");
    let mut command = Command::new(programs::find("python/bin/python")?);
    let output = command.arg(program).arg(plane.kubeconfig()?).arg("python").output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.ends_with("ok\n"), "{out}\n{err}");
    Ok(())
}

/// Typed clients of client-go, whose bodies are protobuf.
async fn typed(plane: Plane) -> Result<()> {
    let mut command = Command::new(programs::find("typed")?);
    command.arg("-kubeconfig").arg(plane.kubeconfig()?).args(["-namespace", "default"]);
    let output = command.output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.ends_with("ok\n"), "{out}\n{err}");
    Ok(())
}

async fn embedded() -> Result<Plane> {
    Ok(Plane::Embedded(Box::new(Embedded::start().await?)))
}

async fn real() -> Result<Plane> {
    Ok(Plane::Real(Box::new(Real::start().await?)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_go_informers_follow_the_embedded_server() -> Result<()> {
    informer(embedded().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_reflectors_follow_the_embedded_server() -> Result<()> {
    reflector(embedded().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_works_with_the_embedded_server() -> Result<()> {
    python(embedded().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_clients_of_client_go_work_with_the_embedded_server() -> Result<()> {
    typed(embedded().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_clients_pass_on_the_real_server() -> Result<()> {
    python(real().await?).await?;
    typed(real().await?).await?;
    informer(real().await?).await?;
    reflector(real().await?).await
}
