//! One controller leads, another takes its place: after kill -9, at once after a clean stop, and without the help of a leader
//! that stood still and wakes up again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use wasmbed_api::Application;
use wasmbed_e2e::{
    CONTROLLERS, ControlPlane, GATEWAYS, Site, SiteOptions, fixtures, metric, metric_at_least,
};
use wasmbed_testbed::User;

use super::support::{put_sets, settled};

wasmbed_e2e::both!(
    a_leader_that_dies,
    a_leader_that_stops,
    a_leader_that_stands_still,
    a_gateway_that_lacks_nothing
);

/// Far above what a hand-over may take, so that a busy machine does not fail the test; how long it took is printed.
const HAND_OVER_MAX: Duration = Duration::from_secs(45);
/// How often a gateway is asked again.
const POLL: Duration = Duration::from_millis(50);

async fn two_controllers(plane: ControlPlane) -> Result<Site> {
    Site::start(plane, SiteOptions { controllers: 2, ..SiteOptions::default() }).await
}

/// Waits for another leader, and for what it deploys.
async fn handed_over(site: &Site, from: &str, term: i32, what: &str) -> Result<(String, i32)> {
    let begun = Instant::now();
    let (leader, next) = site.leader(|holder| holder != from).await?;
    let took = begun.elapsed();
    println!("{:?}: hand-over after {what}: {:.1} s", site.cluster().plane(), took.as_secs_f64());
    ensure!(took < HAND_OVER_MAX, "the hand-over took {took:?}");
    ensure!(next > term, "term {next} follows {term}");
    site.deploy("next", &fixtures::ticker("next", 1_000)).await?;
    site.complete("next", 4).await?;
    Ok((leader, next))
}

async fn a_leader_that_dies(plane: ControlPlane) -> Result<()> {
    let mut site = two_controllers(plane).await?;
    settled(&mut site, 4, "first", &fixtures::ticker("first", 1_000)).await?;
    let (leader, term) = site.leader(|_| true).await?;
    let follower = other(&leader)?;
    ensure!(
        metric(site.health(follower)?, "wasmbed_controller_leader").await? == 0.0,
        "there are two leaders"
    );
    site.kill(&leader)?;
    handed_over(&site, &leader, term, "kill -9").await?;
    Ok(())
}

async fn a_leader_that_stops(plane: ControlPlane) -> Result<()> {
    let mut site = two_controllers(plane).await?;
    settled(&mut site, 4, "first", &fixtures::ticker("first", 1_000)).await?;
    let (leader, term) = site.leader(|_| true).await?;
    site.stop(&leader)?;
    let (next, term) = handed_over(&site, &leader, term, "a clean stop").await?;
    // And back again, so that no name is preferred.
    site.start_controller(&leader)?;
    metric_at_least(site.health(&leader)?, "wasmbed_controller_devices", 4.0).await?;
    site.stop(&next)?;
    let (last, _) = site.leader(|holder| holder != next).await?;
    ensure!(last == leader && term > 0, "{last} leads");
    Ok(())
}

async fn a_leader_that_stands_still(plane: ControlPlane) -> Result<()> {
    let mut site = two_controllers(plane).await?;
    settled(&mut site, 4, "first", &fixtures::ticker("first", 1_000)).await?;
    let (old, term) = site.leader(|_| true).await?;
    let before = site.api::<Application>().get("first").await?;
    site.process(&old)?.signal("STOP")?;
    let (new, next) = handed_over(&site, &old, term, "SIGSTOP").await?;
    // The old leader wakes up in the middle of a deployment that is not its own any more.
    site.deploy("later", &fixtures::large_ticker("later", 1_000, 60 * 1_024)).await?;
    site.process(&old)?.signal("CONT")?;
    site.process(&old)?.wait_for_line("that it no longer leads", |line| {
        line.contains("released leadership") || line.contains("\"leads\":false")
    })?;
    site.complete("later", 4).await?;
    let (holder, held) = site.leader(|_| true).await?;
    ensure!(holder == new && held == next, "{holder} leads in term {held}");
    ensure!(metric(site.health(&old)?, "wasmbed_controller_leader").await? == 0.0, "the old one leads, too");

    // What it might still have had under way: refused by the gateway for its term, by the API for the version that it knows.
    let refused = put_sets(&site, &old, GATEWAYS[0], term).await?;
    ensure!(refused == StatusCode::CONFLICT, "the gateway answered {refused} to term {term}");
    let allowed = put_sets(&site, &new, GATEWAYS[0], next).await?;
    ensure!(allowed == StatusCode::OK, "the gateway answered {allowed} to term {next}");
    let labels = Patch::Merge(json!({ "metadata": { "labels": { "changed": "since" } } }));
    site.api::<Application>().patch("first", &PatchParams::default(), &labels).await?;
    let stale = json!({
        "metadata": { "resourceVersion": before.metadata.resource_version },
        "status": { "phase": "Failed" },
    });
    let api: Api<Application> =
        Api::namespaced(site.cluster().client(&User::controller(&old)).await?, "default");
    let refused = api.patch_status("first", &PatchParams::default(), &Patch::Merge(stale)).await;
    let refused = refused.expect_err("an old resourceVersion");
    ensure!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
    Ok(())
}

async fn a_gateway_that_lacks_nothing(plane: ControlPlane) -> Result<()> {
    let options = SiteOptions { controllers: 2, gateways: GATEWAYS.len(), ..SiteOptions::default() };
    let mut site = Site::start(plane, options).await?;
    // No device, no application: nobody has a set to send.
    let (old, term) = site.leader(|_| true).await?;
    // There is no term before the first one.
    for gateway in GATEWAYS.into_iter().filter(|_| term > 0) {
        refused_in(&site, &old, gateway, term - 1).await?;
    }
    site.process(&old)?.signal("STOP")?;
    let (new, next) = site.leader(|holder| holder != old).await?;
    ensure!(next > term, "term {next} follows {term}");
    for gateway in GATEWAYS {
        // What the earlier leader may still have on its way.
        refused_in(&site, &old, gateway, term).await?;
    }
    // And the term outlives the gateway's process.
    site.kill(GATEWAYS[0])?;
    site.start_gateway(GATEWAYS[0])?;
    let begun = Instant::now();
    // Until it holds its Lease again it answers nobody but with 503.
    let refused = loop {
        match put_sets(&site, &old, GATEWAYS[0], term).await? {
            StatusCode::SERVICE_UNAVAILABLE if begun.elapsed() < HAND_OVER_MAX => {
                tokio::time::sleep(POLL).await
            }
            answer => break answer,
        }
    };
    ensure!(
        refused == StatusCode::CONFLICT,
        "after its restart the gateway answered {refused} to term {term}"
    );
    let allowed = put_sets(&site, &new, GATEWAYS[0], next).await?;
    ensure!(allowed == StatusCode::OK, "the gateway answered {allowed} to term {next}");
    site.process(&old)?.signal("CONT")?;
    Ok(())
}

/// Waits until a gateway refuses that term: nobody can see from outside when it was told a higher one.
async fn refused_in(site: &Site, controller: &str, gateway: &str, term: i32) -> Result<()> {
    let begun = Instant::now();
    let mut tries = tokio::time::interval(Duration::from_millis(100));
    loop {
        tries.tick().await;
        let answer = put_sets(site, controller, gateway, term).await?;
        if answer == StatusCode::CONFLICT {
            return Ok(());
        }
        ensure!(answer == StatusCode::OK, "{gateway} answered {answer} to term {term}");
        ensure!(begun.elapsed() < HAND_OVER_MAX, "{gateway} was not told of a term above {term}");
    }
}

fn other(name: &str) -> Result<&'static str> {
    CONTROLLERS.into_iter().find(|other| *other != name).context("there are two")
}
