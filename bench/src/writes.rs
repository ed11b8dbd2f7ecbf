//! Durable status writes: the embedded Kubernetes API beside kube-apiserver with etcd, in one run.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use wasmbed_api::{Device, DeviceSpec};
use wasmbed_bench::process::cpu_ms;
use wasmbed_testbed::{Cluster, ControlPlane, Options, User};

use crate::table::Table;

/// Objects that the writes go to, in turn.
const OBJECTS: usize = 64;
/// Writes of one client are this many times fewer: each waits for the one before.
const ALONE_FEWER: usize = 10;

/// Writes before those that count: a server that has just started still sets up, which is no part of a write.
const WARM_UP: usize = 300;

/// How a status is written.
#[derive(Clone, Copy)]
enum Way {
    Merge,
    Apply,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge patch",
            Self::Apply => "server-side apply",
        }
    }

    fn object(self, index: usize) -> String {
        match self {
            Self::Merge => format!("merged-{index:02}"),
            Self::Apply => format!("applied-{index:02}"),
        }
    }

    /// The parameters and the patch of one write.
    fn patch(self, name: &str, number: usize) -> (PatchParams, Patch<Value>) {
        let status = json!({ "last_heartbeat": timestamp(number) });
        match self {
            Self::Merge => (PatchParams::default(), Patch::Merge(json!({ "status": status }))),
            Self::Apply => {
                let applied = json!({
                    "apiVersion": "wasmbed.github.io/v1alpha1",
                    "kind": "Device",
                    "metadata": { "name": name },
                    "status": status,
                });
                (PatchParams::apply("bench"), Patch::Apply(applied))
            }
        }
    }
}

/// What one kind of write cost.
struct Cost {
    what: String,
    cpu_ms: f64,
    per_second: f64,
}

pub(crate) async fn measure(writes: usize, table: &mut Table) -> Result<()> {
    let (embedded, embedded_bytes) = measure_plane(ControlPlane::Embedded, writes).await?;
    let (kubernetes, kubernetes_bytes) = measure_plane(ControlPlane::Kubernetes, writes).await?;
    for (ours, theirs) in embedded.iter().zip(&kubernetes) {
        let row = |cost: &Cost| format!("{:.2} ms ({:.0} writes/s)", cost.cpu_ms, cost.per_second);
        table.row(&format!("embedded API server, CPU per {}", ours.what), "–", "0.3 ms", row(ours));
        table.row(&format!("kube-apiserver and etcd, CPU per {}", theirs.what), "–", "–", row(theirs));
        let times = format!("{:.1} times", theirs.cpu_ms / ours.cpu_ms);
        table.row(&format!("less CPU in the embedded one, {}", ours.what), "–", "5 times", times);
    }
    table.row("embedded API server, memory after these writes", "–", "–", megabytes(embedded_bytes));
    table.row("kube-apiserver and etcd, memory after these writes", "–", "–", megabytes(kubernetes_bytes));
    Ok(())
}

/// Costs of each way with one client and with many, and the memory of all processes after them.
async fn measure_plane(plane: ControlPlane, writes: usize) -> Result<(Vec<Cost>, u64)> {
    let cluster = Cluster::start_with(plane, Options { durable: true, ..Options::default() }).await?;
    let api: Api<Device> = Api::namespaced(cluster.client(&User::administrator()).await?, "default");
    let mut costs = Vec::new();
    for way in [Way::Merge, Way::Apply] {
        // Each way has objects of its own: what one manager wrote is another's conflict.
        for index in 0..OBJECTS {
            let device = Device::new(&way.object(index), DeviceSpec::default());
            api.create(&PostParams::default(), &device).await?;
        }
        for clients in [1, OBJECTS] {
            let count = if clients == 1 { writes / ALONE_FEWER } else { writes };
            let what = format!("{} of a status, {clients} clients", way.name());
            println!("{plane:?}: {count} times {what}");
            write(&api, way, WARM_UP, clients).await?;
            let (before, start) = (cpu_of(&cluster)?, Instant::now());
            write(&api, way, count, clients).await.with_context(|| what.clone())?;
            let per_second = count as f64 / start.elapsed().as_secs_f64();
            costs.push(Cost { what, cpu_ms: (cpu_of(&cluster)? - before) / count as f64, per_second });
        }
    }
    let memory: Result<Vec<u64>> = cluster
        .parts()
        .into_iter()
        .map(|part| cluster.with_process(part, |process| process.resident_bytes()))
        .collect();
    Ok((costs, memory?.into_iter().sum()))
}

/// Writes statuses, `clients` at a time.
async fn write(api: &Api<Device>, way: Way, count: usize, clients: usize) -> Result<()> {
    stream::iter(0..count)
        .map(|number| {
            let (api, name) = (api.clone(), way.object(number % OBJECTS));
            async move {
                let (params, patch) = way.patch(&name, number);
                api.patch_status(&name, &params, &patch).await
            }
        })
        .buffer_unordered(clients)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

/// CPU time of all processes of a control plane so far, milliseconds.
pub(crate) fn cpu_of(cluster: &Cluster) -> Result<f64> {
    cluster.parts().into_iter().map(|part| cluster.with_process(part, |process| cpu_ms(process.id()))).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// A different time for each write, so that none is a write of nothing.
fn timestamp(number: usize) -> String {
    format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3_600 % 24, number / 60 % 60, number % 60)
}
