//! What an Application costs in the controller's index: the budget says 4 kB at 10,000 that share 100 Modules.

use std::sync::Arc;

use wasmbed_api::{Application, ApplicationSpec, TargetDevices};
use wasmbed_control::{
    Now, ObjectKey,
    fleet::{Fleet, FleetConfig, Kind, ModuleFacts, ModuleSource},
};

const APPLICATIONS: usize = 10_000;
const MODULES: usize = 100;
const BUDGET_BYTES: usize = 4_096;

#[test]
fn ten_thousand_applications_stay_within_their_budget() {
    let now = Now { ms: 1, unix_ms: 1_700_000_000_000 };
    let mut fleet = Fleet::new(FleetConfig::default());
    for kind in [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota] {
        fleet.handle_list_begin(kind);
    }
    let bytes = wat::parse_str(r#"(module (memory 1) (func (export "_start")))"#).unwrap();
    let before = resident_bytes();
    for n in 0..MODULES {
        let key = ObjectKey { namespace: "default".to_owned(), name: format!("module-{n}") };
        fleet.handle_module(now, &key, Arc::new(ModuleFacts::analyze(&bytes)));
    }
    for n in 0..APPLICATIONS {
        fleet.handle_application(
            now,
            &application(n),
            ModuleSource::Named(format!("module-{}", n % MODULES)),
        );
    }
    for kind in [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota] {
        fleet.handle_list_end(now, kind);
    }
    let each = resident_bytes().saturating_sub(before) / APPLICATIONS;
    println!("{each} bytes of memory per Application");
    assert_eq!(fleet.gauges().applications, APPLICATIONS);
    assert!(each > 0 && each < BUDGET_BYTES, "{each} bytes per Application, the budget is {BUDGET_BYTES}");
}

fn application(n: usize) -> Application {
    let name = format!("application-{n:05}");
    let mut object = Application::new(&name, ApplicationSpec::default());
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.uid = Some(format!("00000000-0000-0000-0000-{n:012}"));
    object.metadata.resource_version = Some(n.to_string());
    object.metadata.generation = Some(1);
    object.spec.module = Some(format!("module-{}", n % MODULES));
    object.spec.target_devices =
        Some(TargetDevices { device_names: vec![format!("device-{n:05}")], selector: None });
    object.spec.config.env = [("SITE".to_owned(), format!("site-{n}"))].into();
    object
}

/// Linux counts resident pages in the second field.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * PAGE_BYTES
}
