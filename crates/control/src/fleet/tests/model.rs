//! Random histories: whatever happens, sets say what the resources say, revisions grow, and it converges.

use proptest::prelude::*;

use super::world::{Report, World, all, names};

#[derive(Clone, Debug)]
enum Step {
    Apply {
        application: u8,
        module: u8,
        devices: u8,
    },
    Delete {
        application: u8,
    },
    /// An application that is not started again.
    Once {
        application: u8,
    },
    /// It ends on a device.
    End {
        device: u8,
        application: u8,
    },
    Connect {
        device: u8,
        gateway: u8,
    },
    Disconnect {
        device: u8,
    },
    StreamDown {
        gateway: u8,
    },
    StreamUp {
        gateway: u8,
    },
    Restart {
        gateway: u8,
        empty_disk: bool,
    },
    GatewayFails(bool),
    AnswersLost(bool),
    Label {
        application: u8,
    },
    DeleteDevice {
        device: u8,
    },
    CreateDevice {
        device: u8,
    },
    Relist,
    NewLeader,
    Advance {
        ms: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 1..4u8, 0..8u8)
            .prop_map(|(application, module, devices)| Step::Apply { application, module, devices }),
        2 => (0..6u8).prop_map(|application| Step::Delete { application }),
        3 => (0..12u8).prop_map(|application| Step::Once { application }),
        6 => (0..3u8, 0..12u8).prop_map(|(device, application)| Step::End { device, application }),
        4 => (0..3u8, 0..2u8).prop_map(|(device, gateway)| Step::Connect { device, gateway }),
        2 => (0..3u8).prop_map(|device| Step::Disconnect { device }),
        1 => (0..2u8).prop_map(|gateway| Step::StreamDown { gateway }),
        2 => (0..2u8).prop_map(|gateway| Step::StreamUp { gateway }),
        1 => (0..2u8, any::<bool>()).prop_map(|(gateway, empty_disk)| Step::Restart { gateway, empty_disk }),
        1 => any::<bool>().prop_map(Step::GatewayFails),
        1 => any::<bool>().prop_map(Step::AnswersLost),
        1 => (0..6u8).prop_map(|application| Step::Label { application }),
        2 => (0..3u8).prop_map(|device| Step::DeleteDevice { device }),
        2 => (0..3u8).prop_map(|device| Step::CreateDevice { device }),
        1 => Just(Step::Relist),
        1 => Just(Step::NewLeader),
        4 => (0..20_000u16).prop_map(|ms| Step::Advance { ms }),
    ]
}

fn take(world: &mut World, step: &Step) {
    let device = |n: u8| format!("device-{n:03}");
    let gateway = |n: u8| format!("gateway-{n}");
    match step {
        Step::Apply { application, module, devices } => {
            let listed: Vec<String> = (0..3).filter(|n| devices & (1 << n) != 0).map(device).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            let targets = if listed.len() == 3 { all() } else { names(&listed) };
            world.apply_application(&format!("app{application}"), *module, targets);
        }
        Step::Once { application } => {
            let name = format!("once{application}");
            if !world.applications.contains_key(&name) {
                world.apply_once(&name, 1, all());
            }
        }
        Step::End { device: n, application } => {
            let name = format!("once{application}");
            let exists = world.devices.contains_key(&device(*n));
            if exists && world.runs(&device(*n)).contains(&format!("default/{name}")) {
                world.report(&device(*n), &name, Report::EXITED);
            }
        }
        Step::Delete { application } => world.delete_application(&format!("app{application}")),
        Step::Connect { device: n, gateway: g } => world.connect(&device(*n), &gateway(*g)),
        Step::Disconnect { device: n } => world.disconnect(&device(*n)),
        Step::StreamDown { gateway: g } => world.close_stream(&gateway(*g)),
        Step::StreamUp { gateway: g } => world.open_stream(&gateway(*g)),
        Step::Restart { gateway: g, empty_disk } => world.restart_gateway(&gateway(*g), *empty_disk),
        Step::GatewayFails(fails) => {
            world.gateway_fails = *fails;
            world.troubled = true;
        }
        Step::AnswersLost(lost) => {
            world.answers_lost = *lost;
            world.troubled = true;
        }
        Step::Label { application } => world.label_application_unseen(&format!("app{application}")),
        Step::DeleteDevice { device: n } => world.delete_device(&device(*n)),
        Step::CreateDevice { device: n } => {
            if !world.devices.contains_key(&device(*n)) {
                world.create_device(&device(*n));
            }
        }
        Step::Relist => world.list(),
        Step::NewLeader => world.lead(),
        Step::Advance { ms } => world.advance(u64::from(*ms)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_history_converges_once_faults_stop(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new(3, 2);
        world.lead();
        for step in &steps {
            take(&mut world, step);
        }
        world.gateway_fails = false;
        world.answers_lost = false;
        for gateway in world.gateway_names() {
            world.open_stream(&gateway);
        }
        // Whatever is being deleted goes, and what was deleted is created anew.
        world.advance(90_000);
        for device in ["device-000", "device-001", "device-002"] {
            if !world.devices.contains_key(device) {
                world.create_device(device);
            }
        }
        let devices: Vec<String> = world.devices.keys().cloned().collect();
        for device in &devices {
            prop_assert!(world.devices[device].0.metadata.deletion_timestamp.is_none(), "{} hangs", device);
            world.connect(device, "gateway-0");
        }
        world.advance(180_000);
        for device in &devices {
            let held = world.devices[device].0.metadata.finalizers.iter().flatten().count() == 1;
            prop_assert_eq!(held, !world.runs(device).is_empty(), "finalizer of {}", device);
        }
        for device in &devices {
            prop_assert_eq!(world.runs(device), world.wanted(device), "on {}", device);
        }
        for (name, (object, _)) in &world.applications {
            prop_assert!(object.metadata.deletion_timestamp.is_none(), "{} is still there", name);
            let status = world.status(name);
            let full = format!("{}/{}", super::world::NAMESPACE, name);
            let running = devices.iter().filter(|device| world.runs(device).contains(&full)).count();
            let done = usize::try_from(status.counts.running + status.counts.succeeded).unwrap();
            let ended = devices.iter().filter(|device| world.has_ended(device, name)).count();
            let left = devices.iter().filter(|device| world.has_left(device, name)).count();
            prop_assert_eq!(done, running + left, "status of {}", name);
            prop_assert_eq!(usize::try_from(status.counts.succeeded).unwrap(), ended, "status of {}", name);
            prop_assert_eq!(status.observed_generation, object.metadata.generation);
        }
    }
}
