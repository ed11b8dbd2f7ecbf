use std::io::Write;

use super::*;

/// The two files of the system's architecture overview, as they stand there.
const GATEWAY: &str = r#"
gateway:
  tls:
    cert_file: "/etc/wasmbed/gateway.crt"
    key_file: "/etc/wasmbed/gateway.key"
    ca_file: "/etc/wasmbed/ca.crt"

  server:
    host: "0.0.0.0"
    port: 8080
    max_connections: 1000

  heartbeat:
    interval: 30
    timeout: 90
"#;
const CONTROLLER: &str = r#"
controller:
  reconciliation:
    interval: 30
    max_retries: 3
    backoff_multiplier: 2.0

  gateway:
    url: "http://wasmbed-gateway:8080"
    timeout: 30

  health:
    port: 8080
    path: "/health"
"#;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn gateway(text: &str, flags: &[(&str, &str)]) -> Result<GatewaySection, String> {
    let flags: Vec<_> = flags.iter().map(|&(path, value)| (path.to_owned(), value.to_owned())).collect();
    let file = file(text);
    let loaded = load::<GatewayFile>("gateway", Some(file.path()), &flags).map_err(|error| error.to_string());
    let name = file.path().display().to_string();
    loaded.map(|file| file.gateway).map_err(|error| error.replace(&name, "FILE"))
}

#[test]
fn the_overviews_files_load_as_they_stand_and_equal_the_defaults() {
    assert_eq!(gateway(GATEWAY, &[]).expect("loads"), GatewaySection::default());
    let file = file(CONTROLLER);
    let loaded = load::<ControllerFile>("controller", Some(file.path()), &[]).expect("loads").controller;
    assert_eq!(loaded.gateway.url.as_deref(), Some("http://wasmbed-gateway:8080"));
    let with_url = ControllerGateway { url: loaded.gateway.url.clone(), ..ControllerGateway::default() };
    assert_eq!(loaded, ControllerSection { gateway: with_url, ..ControllerSection::default() });
}

#[test]
fn flags_win_over_the_file() {
    let loaded =
        gateway(GATEWAY, &[("server.port", "0"), ("heartbeat.interval", "5s"), ("enrollment", "open")]);
    let loaded = loaded.expect("loads");
    assert_eq!((loaded.server.port, loaded.heartbeat.interval), (0, Seconds::new(5)));
    let open = Enrollment { policy: EnrollmentPolicy::Open, ..Enrollment::default() };
    assert_eq!(loaded.enrollment, open);
    assert_eq!(loaded.server.max_connections, 1_000);
}

#[test]
fn enrollment_is_a_policy_or_a_section() {
    let text =
        "gateway: { enrollment: { policy: closed, namespace: plant, pending_max: 10, tokens: false } }";
    let section = Enrollment {
        policy: EnrollmentPolicy::Closed,
        namespace: "plant".to_owned(),
        pending_max: 10,
        tokens: false,
    };
    assert_eq!(gateway(text, &[]).expect("loads").enrollment, section);
    let flagged = gateway(text, &[("enrollment.policy", "open")]).expect("loads").enrollment;
    assert_eq!(flagged, Enrollment { policy: EnrollmentPolicy::Open, ..section });
    let alone = gateway("gateway: { enrollment: open }", &[("enrollment.policy", "closed")]).expect("loads");
    assert_eq!(alone.enrollment.policy, EnrollmentPolicy::Closed);
    assert_eq!(
        gateway("gateway: { enrollment: { pending: 3 } }", &[]).expect_err("refused"),
        "gateway.enrollment.pending: unknown key; expected one of policy, namespace, pending_max, tokens (in FILE)"
    );
    assert_eq!(
        gateway("gateway: { enrollment: { pending_max: 0 } }", &[]).expect_err("refused"),
        "gateway.enrollment.pending_max: found 0, expected at least 1 (in FILE)"
    );
}

#[test]
fn errors_name_the_path_the_value_what_was_expected_and_where() {
    let refused = |text: &str| gateway(text, &[]).expect_err("refused");
    assert_eq!(
        refused("gateway: { server: { prot: 8080 } }"),
        "gateway.server.prot: unknown key; expected one of host, port, max_connections, handshake_timeout (in FILE)"
    );
    assert_eq!(
        refused("gateway: { server: { port: many } }"),
        "gateway.server.port: found string \"many\", expected a number from 0 to 65535 (in FILE)"
    );
    assert_eq!(
        refused("gateway: { heartbeat: { interval: soon } }"),
        "gateway.heartbeat.interval: found string \"soon\", expected a number of seconds, or a number with ms, s, m or h \
         such as 30s (in FILE)"
    );
    assert_eq!(
        refused("gateway: { heartbeat: { interval: 2m } }"),
        "gateway.heartbeat.timeout: found 90s, expected more than the interval of 120s and at most 24h (in the defaults)"
    );
    assert_eq!(
        refused("gateway: { heartbeat: { timeout: 5 } }"),
        "gateway.heartbeat.timeout: found 5s, expected more than the interval of 30s and at most 24h (in FILE)"
    );
    assert_eq!(
        gateway("gateway: {}", &[("enrollment", "maybe")]).expect_err("refused"),
        "gateway.enrollment: found \"maybe\", expected one of closed, approval, open (in the command line)"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load::<GatewayFile>("gateway", Some(std::path::Path::new("/nowhere/gateway.yaml")), &[]);
    let message = error.expect_err("not there").to_string();
    assert!(message.starts_with("can't read the configuration /nowhere/gateway.yaml: "), "{message}");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let document = include_str!("../../../../docs/configuration.md");
    let blocks: Vec<&str> =
        document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [gateway_block, controller_block, signer_block] = blocks[..] else { panic!("three blocks of YAML") };
    assert_eq!(gateway(gateway_block, &[]).expect("loads"), GatewaySection::default());
    let file = file(controller_block);
    let loaded = load::<ControllerFile>("controller", Some(file.path()), &[]).expect("loads").controller;
    assert_eq!(loaded, ControllerSection::default());
    let file = self::file(signer_block);
    let loaded = load::<SignerFile>("signer", Some(file.path()), &[]).expect("loads").signer;
    assert_eq!(loaded, SignerSection::default());
}
