//! Durable status patches against the embedded Kubernetes API.

use std::time::Instant;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use wasmbed_api::Device;
use wasmbed_e2e::Machine;

use crate::{process::cpu_ms, table::Table};

/// Objects that the writes go to, in turn.
const OBJECTS: usize = 64;

pub(crate) async fn measure(machine: &mut Machine, writes: usize, table: &mut Table) -> Result<()> {
    let key = machine.layout().authorities().issue_device("default", "writes")?.public_key_base64();
    for index in 0..OBJECTS {
        machine.create(&wasmbed_e2e::device(&name(index), &key)).await?;
    }
    for clients in [1, OBJECTS] {
        // One client waits for each write, so fewer of them take as long.
        let count = if clients == 1 { writes / 10 } else { writes };
        println!("status patches: {count} by {clients} clients");
        let pid = machine.process("apiserver")?.id();
        let (before, start) = (cpu_ms(pid)?, Instant::now());
        let api = machine.api::<Device>();
        stream::iter(0..count)
            .map(|number| {
                let api = api.clone();
                async move {
                    let change = json!({ "status": { "last_heartbeat": timestamp(number) } });
                    api.patch_status(&name(number % OBJECTS), &PatchParams::default(), &Patch::Merge(change))
                        .await
                }
            })
            .buffer_unordered(clients)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let per_second = count as f64 / start.elapsed().as_secs_f64();
        let cpu = (cpu_ms(pid)? - before) / count as f64;
        let what = format!("embedded API server, CPU per durable status patch, {clients} clients");
        table.row(&what, "–", "0.3 ms", format!("{cpu:.2} ms ({per_second:.0} writes/s)"));
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("writes-{index:02}")
}

/// A different time for each write, so that none is a write of nothing.
fn timestamp(number: usize) -> String {
    format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3_600 % 24, number / 60 % 60, number % 60)
}
