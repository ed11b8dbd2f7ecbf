//! Certificate files that change while the gateway runs.

use std::time::Duration;

use wasmbed_pki::{CertificateFacts, Identity, tls::Profile};

use crate::support::*;

/// The certificate that a new connection is shown.
async fn shown(world: &World, device: &Identity) -> CertificateFacts {
    let stream = world.tls(world.client_config(Profile::Device, device)).await.unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap().first().unwrap();
    CertificateFacts::parse(leaf).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_serves_new_connections_and_a_bad_one_changes_nothing() {
    let world = World::start_with(|config| {
        config.limits.certificates_interval = Duration::from_millis(50);
    })
    .await;
    let device = world.enroll("board").await;
    let mut standing = world.connect_device(&device).await;
    let visitor = world.authorities.issue_device("default", "visitor").unwrap();
    let first = shown(&world, &visitor).await;
    let expiry = |facts: &CertificateFacts| {
        format!("wasmbed_gateway_certificate_expiry_timestamp_seconds {}", facts.not_after)
    };
    world.metric(&expiry(&first)).await;
    let pki = world.folder.path().join("gateway-pki");

    std::fs::write(pki.join("gw.crt"), "no certificate").unwrap();
    world.metric("wasmbed_gateway_certificate_reload_failures_total 1").await;
    assert_eq!(shown(&world, &visitor).await, first);

    // Of another gateway: it would be of no use to any device.
    let other = world.authorities.issue_gateway("wasmbed-system", "other", &[]).unwrap();
    std::fs::write(pki.join("gw.crt"), first_pem(&world)).unwrap();
    other.write(&pki, "gw").unwrap();
    assert_eq!(shown(&world, &visitor).await, first);

    let renewed = world.authorities.issue_gateway("wasmbed-system", "gw", &["127.0.0.1".to_owned()]).unwrap();
    renewed.write(&pki, "gw").unwrap();
    world.metric("wasmbed_gateway_certificate_reloads_total 1").await;
    assert_eq!(shown(&world, &visitor).await, *renewed.facts());
    world.metric(&expiry(renewed.facts())).await;
    standing.beat(1).await;
}

/// PEM that is in order and belongs to no key here.
fn first_pem(world: &World) -> String {
    world.authorities.issue_gateway("wasmbed-system", "gw", &[]).unwrap().chain_pem
}
