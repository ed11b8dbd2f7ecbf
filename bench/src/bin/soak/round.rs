//! One round: a site of its own, the honest, the attackers, and what came of it.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wasmbed_api::DevicePhase;
use wasmbed_bench::peer;
use wasmbed_e2e::{ControlPlane, GATEWAYS, Part, Process, Site, SiteOptions, fixtures};
use wasmbed_testbed::User;

use crate::{
    attack::Attack,
    honest::{Beats, NewClient, Newcomer, Probe, ROLLING, Requests, Rollout},
    processes::Server,
    waits::{IdleTimer, Waits},
};

/// Devices that measure heartbeats, beside the fleet.
const BEATING: usize = 4;
/// Pauses of the honest between an answer and the next question.
const BEAT_PAUSE: Duration = Duration::from_millis(100);
const REQUEST_PAUSE: Duration = Duration::from_millis(100);
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const NEW_CLIENT_PAUSE: Duration = Duration::from_millis(500);
/// A device that began three sessions in a minute, each while the one before stands, would look like two with one identity.
const NEWCOMER_PAUSE: Duration = Duration::from_secs(2);
const ROLLOUT_PAUSE: Duration = Duration::from_secs(3);
/// How often processes are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The attackers begin this long after the honest: what they do to those shows beside what was before.
const HEAD_START: Duration = Duration::from_secs(3);

/// What the waits of the rolling deployment are called.
const CHANGES: &str = "rolling changes";

/// Who asks for what, and how long that takes.
type Asked = Vec<(&'static str, Arc<Waits>)>;

/// How a round is to be.
pub(crate) struct Round {
    pub(crate) title: String,
    pub(crate) attacks: Vec<Attack>,
    pub(crate) seconds: u64,
    pub(crate) devices: usize,
    pub(crate) core: usize,
}

impl Round {
    /// Plays it and prints what came of it; answers whether the goals were met.
    pub(crate) async fn play(&self) -> Result<bool> {
        println!("\n== {}", self.title);
        let gateway_set = vec![format!("server.max_connections={}", self.devices.max(1_000))];
        let options = SiteOptions { gateway_set, ..SiteOptions::default() };
        let mut site = Site::start(ControlPlane::Embedded, options).await?;
        site.start_fleet(self.devices)?;
        let connected = |found: &[wasmbed_api::Device]| {
            let phase = |device: &wasmbed_api::Device| device.status.as_ref().map(|status| status.phase);
            found.iter().filter(|device| phase(device) == Some(DevicePhase::Connected)).count()
        };
        site.all_devices("Connected", |found| connected(found) >= self.devices).await?;
        // Of the fleet: its devices are the ones that were not created by hand.
        let mut rolling = wasmbed_e2e::application(ROLLING, &fixtures::ticker("change 0", 20_000), &[]);
        let names = site.devices().await?.into_iter().filter_map(|device| device.metadata.name).collect();
        rolling.spec.target_devices =
            Some(wasmbed_api::TargetDevices { device_names: names, ..wasmbed_api::TargetDevices::default() });
        site.create(&rolling).await?;
        site.complete(ROLLING, self.devices).await?;
        for attack in &self.attacks {
            attack.prepare(&site).await?;
        }
        let timer = IdleTimer::start();
        let end = Instant::now() + HEAD_START + Duration::from_secs(self.seconds);
        let (asked, asking) = self.ask(&site, end).await?;
        let mut servers = self.servers(&mut site)?;
        let writes = site.writes().await?;
        tokio::time::sleep(HEAD_START).await;
        let mut attackers = self.attackers(&site)?;
        let mut ended = Vec::new();
        while Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            servers.retain_mut(|server| match server.look() {
                Ok(()) => true,
                Err(_) => {
                    ended.push(format!("MISSED: {} ended after {}", server.name, server.line()));
                    false
                }
            });
        }
        for task in asking {
            task.await.context("somebody honest panicked")?;
        }
        let mut met = ended.is_empty();
        ended.iter().for_each(|line| println!("{line}"));
        for (what, waits) in asked {
            let outcome = waits.outcome(what, &timer);
            // A change of a fleet takes as long as it takes, and the last one is cut off by the end.
            let good = if what == CHANGES { outcome.answered } else { outcome.met };
            met &= good;
            println!("{}{}", if good { "" } else { "MISSED: " }, outcome.line);
        }
        for server in &servers {
            met &= server.is_flat();
            println!("{}{}", if server.is_flat() { "" } else { "MISSED, still growing: " }, server.line());
            println!("{}", server.series());
        }
        match tokio::time::timeout(LOOK * 10, site.writes()).await {
            Ok(Ok(after)) => println!("{}", self.writes(&writes, &after)),
            _ => println!("the API does not say what was written"),
        }
        for attackers in &mut attackers {
            println!("{}", attackers.wait_for_line("what was sent", |line| line.starts_with("attackers: "))?);
        }
        Ok(met)
    }

    /// Sets the honest to work.
    async fn ask(&self, site: &Site, end: Instant) -> Result<(Asked, Vec<tokio::task::JoinHandle<()>>)> {
        let gateway = site.gateway_address(GATEWAYS[0])?;
        let mut devices = Vec::new();
        for index in 0..=BEATING {
            let name = format!("honest-{index}");
            let files = site.layout().device_identity("default", &name)?;
            let identity = wasmbed_pki::Identity::read(&files.certificate, &files.key)?;
            site.create(&wasmbed_e2e::device(&name, &identity.public_key_base64())).await?;
            devices.push(peer::tls(site.layout().authorities(), &identity)?);
        }
        let newcomer = devices.pop().context("there is one more")?;
        let user = User::new("honest", "system:masters");
        let requests =
            Requests { client: site.cluster().client(&user).await?, device: "honest-0".to_owned(), turn: 0 };
        let addresses = vec![site.health(GATEWAYS[0])?, site.health(wasmbed_e2e::CONTROLLERS[0])?];
        let waits: [Arc<Waits>; 6] = Default::default();
        let [beats, newcomers, api, clients, probes, rollouts] = waits.clone();
        let mut tasks = Vec::new();
        for tls in devices {
            let asker = Beats { gateway, tls, peer: None };
            tasks.push(tokio::spawn(beats.clone().measure(asker, BEAT_PAUSE, end)));
        }
        let asker = Newcomer { gateway, tls: newcomer };
        tasks.push(tokio::spawn(newcomers.measure(asker, NEWCOMER_PAUSE, end)));
        tasks.push(tokio::spawn(api.measure(requests, REQUEST_PAUSE, end)));
        let asker = NewClient(site.cluster().config(&user).await?);
        tasks.push(tokio::spawn(clients.measure(asker, NEW_CLIENT_PAUSE, end)));
        tasks.push(tokio::spawn(probes.measure(Probe { addresses, turn: 0 }, PROBE_PAUSE, end)));
        let asker = Rollout { client: site.cluster().client(&user).await?, turn: 0 };
        tasks.push(tokio::spawn(rollouts.measure(asker, ROLLOUT_PAUSE, end)));
        let names = ["heartbeats", "new devices", "API requests", "new API clients", "probes", CHANGES];
        Ok((names.into_iter().zip(waits).collect(), tasks))
    }

    fn servers(&self, site: &mut Site) -> Result<Vec<Server>> {
        let dir = site.cluster().dir().to_owned();
        let api = site.cluster().with_process(Part::ApiServer, |process| Ok(process.id()))?;
        let mut servers = vec![Server::new("apiserver", api, &dir)];
        for name in [GATEWAYS[0], wasmbed_e2e::CONTROLLERS[0]] {
            servers.push(Server::new(name, site.process(name)?.id(), &dir));
        }
        for server in &mut servers {
            server.look()?;
        }
        Ok(servers)
    }

    /// Starts the attackers, each a process, all bound to one core.
    fn attackers(&self, site: &Site) -> Result<Vec<Process>> {
        let mut processes = Vec::new();
        for attack in self.attacks.iter().filter_map(clap::ValueEnum::to_possible_value) {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(self.core.to_string()).arg(std::env::current_exe()?).arg("attack");
            command.arg("--gateway").arg(site.gateway_address(GATEWAYS[0])?.to_string());
            command.arg("--health").arg(site.health(GATEWAYS[0])?.to_string());
            command.arg("--api").arg(site.cluster().address().to_string());
            command.arg("--site").arg(site.layout().dir()).arg("--cluster").arg(site.cluster().dir());
            command.arg("--seconds").arg(self.seconds.to_string()).arg(attack.get_name());
            let name = format!("attackers-{}", attack.get_name());
            processes.push(Process::start(command, &name, site.cluster().dir())?);
        }
        Ok(processes)
    }

    fn writes(&self, before: &[(String, f64)], after: &[(String, f64)]) -> String {
        let sum = |writes: &[(String, f64)], wanted: &dyn Fn(&str) -> bool| -> f64 {
            writes.iter().filter(|(what, _)| wanted(what)).map(|(_, count)| count).sum()
        };
        let grown = |wanted: &dyn Fn(&str) -> bool| sum(after, wanted) - sum(before, wanted);
        let seconds = (self.seconds + HEAD_START.as_secs()) as f64;
        format!(
            "API: {:.1} writes a second, of these {:.2} of Events and {:.1} of Devices",
            grown(&|_| true) / seconds,
            grown(&|what| what.starts_with("events")) / seconds,
            grown(&|what| what.starts_with("devices")) / seconds
        )
    }
}
