//! Attackers: each a process of its own, so that all of them together can be bound to one core. Each is bounded in what it opens
//! and ends by itself.

mod api;
mod device;
mod health;
mod stage;

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use stage::Stage;
pub(crate) use stage::{Attack, Target};

/// Plays one attack and prints what was sent.
pub(crate) fn run(target: Target) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs(target.seconds);
    let attack = target.attack;
    let stage = Stage { target: Arc::new(target), end, tally: Arc::default() };
    runtime.block_on(play(attack, stage.clone())).with_context(|| format!("{attack:?}"))?;
    let tally = stage.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = |number: u64| number as f64 / seconds;
    let told: Vec<String> =
        tally.iter().map(|(what, number)| format!("{number} {what} ({:.1}/s)", rate(*number))).collect();
    println!("attackers: {}", if told.is_empty() { "nothing was sent".to_owned() } else { told.join(", ") });
    Ok(())
}

async fn play(attack: Attack, stage: Stage) -> Result<()> {
    match attack {
        Attack::Logs => device::logs(stage).await,
        Attack::Errors => device::errors(stage).await,
        Attack::States => device::states(stage).await,
        Attack::Failures => device::failures(stage).await,
        Attack::IdleClients => api::idle_clients(stage).await,
        Attack::Watches => api::watches(stage).await,
        Attack::Patches => api::patches(stage).await,
        Attack::HalfRequests => health::half_requests(stage).await,
    }
}
