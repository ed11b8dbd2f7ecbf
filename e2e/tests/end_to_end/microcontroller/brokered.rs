//! A board between its sensor and a broker that is not ours: what it measures goes out, commands come in, settings change it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wasmbed_api::{
    Application, BrokerCredentials, BrokerReceive, I2cGrant, MessageBroker, MessageBrokerSpec, Topic,
    TopicDirection,
};
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application,
    board::{NAME, prepare, read_to},
    mosquitto::{Mosquitto, certificates, credentials},
    until,
};
use wasmbed_emulator::{Emulator, Options};

/// `guests/thermometer`: the crate `lm75` on `i2c1`, as often as a setting says.
const THERMOMETER: &[u8] = include_bytes!("../../../../guests/prebuilt/thermometer.wasm");

/// `guests/relay`: switches a light as the topic `light` says, and publishes what it is.
const RELAY: &[u8] = include_bytes!("../../../../guests/prebuilt/relay.wasm");

/// `guests/beacon`: logs a line as often as a setting says.
const BEACON: &[u8] = include_bytes!("../../../../guests/prebuilt/beacon.wasm");

/// Logs each message, and publishes what it said to `light/state`: a light where there is no pin.
const ECHO: &str = r#"(module
    (import "wasmbed" "receive" (func $receive (param i32 i32) (result i32)))
    (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "light/state")
    (func (export "run") (local $length i32) (local $at i32)
        (loop $next
            (local.set $length (call $receive (i32.const 64) (i32.const 1090)))
            (if (i32.gt_s (local.get $length) (i32.const 0))
                (then
                    ;; After a byte for the source, one for the length of the topic, and the topic.
                    (local.set $at (i32.add (i32.const 66) (i32.load8_u (i32.const 65))))
                    (local.set $length
                        (i32.sub (local.get $length) (i32.sub (local.get $at) (i32.const 64))))
                    (call $log (local.get $at) (local.get $length))
                    (drop (call $publish
                        (i32.const 0) (i32.const 11) (local.get $at) (local.get $length) (i32.const 0))))
                (else (call $wait (i32.const 3600000))))
            (br $next))))"#;

/// The lights of the MPS2 board (Arm DAI 0385D, section 4.5).
const LIGHTS: u32 = 0x4002_8000;
const PASSWORD: &str = "right-and-secret";
const COMMAND: &str = "wasmbed-in/default/light/board/light";

fn topic(name: &str, direction: TopicDirection) -> Topic {
    Topic { name: name.to_owned(), direction, per_second: 10 }
}

/// An application that obeys the topic `light`.
fn light(module: &[u8], capabilities: &[&str]) -> Application {
    let mut light = application("light", module, &[NAME]);
    light.spec.config.capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
    light.spec.config.topics =
        vec![topic("light", TopicDirection::In), topic("light/state", TopicDirection::Out)];
    light
}

/// A broker that is not ours, and the MessageBroker by which `light` obeys it.
async fn broker(machine: &Machine) -> Result<Mosquitto> {
    let certificates = certificates()?;
    let mut mosquitto = Mosquitto::new(machine.dir(), PASSWORD, certificates.each_ref().map(String::as_str))?;
    mosquitto.start()?;
    mosquitto.subscribe()?;
    machine.create(&credentials(PASSWORD)).await?;
    let spec = MessageBrokerSpec {
        url: mosquitto.url(),
        ca: Some(certificates[0].clone()),
        credentials: Some(BrokerCredentials { secret: "broker".to_owned() }),
        receive: Some(BrokerReceive {
            topics: vec!["light".to_owned()],
            applications: vec!["light".to_owned()],
        }),
        ..MessageBrokerSpec::default()
    };
    machine.create(&MessageBroker::new("mosquitto", spec)).await?;
    until::<MessageBroker>(machine.client(), "default", "mosquitto", "subscribed", |broker| {
        let entries = broker.status.iter().flat_map(|status| &status.gateways);
        entries.filter_map(|entry| entry.receive.as_ref()).any(|receive| receive.subscribed)
    })
    .await?;
    Ok(mosquitto)
}

/// What the broker's client received on a topic of the board, once there is as much as `wanted` says.
fn received(mosquitto: &Mosquitto, topic: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let all = mosquitto.received()?.into_iter().filter(|message| message.topic == topic);
        let payloads: Vec<String> = all.map(|message| message.payload).collect();
        if wanted(&payloads) {
            return Ok(payloads);
        }
        ensure!(Instant::now() < deadline, "on {topic}: {payloads:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn set_interval(machine: &Machine, application: &str, ms: u32) -> Result<()> {
    let patch = json!({ "spec": { "settings": { "values": { "interval_ms": ms } } } }).to_string();
    machine.kubectl()?.run(&["patch", "wapp", application, "--type=merge", "-p", &patch]).map(drop)
}

#[test]
fn a_measurement_goes_out_a_command_comes_in_and_a_setting_changes_both_on_mps2_an385() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let devices = vec!["tmp105,id=sensor,address=0x48".to_owned()];
        let board = Emulator::start(&Options { devices, debugger: true, ..options })?;
        board.set_property("sensor", "temperature", 21_500)?;
        let mosquitto = broker(&machine).await?;
        let mut thermometer = application("thermometer", THERMOMETER, &[NAME]);
        let config = &mut thermometer.spec.config;
        config.capabilities = vec!["i2c".to_owned(), "messages".to_owned()];
        config.topics = vec![topic("temperature", TopicDirection::Out)];
        config.peripherals.i2c =
            vec![I2cGrant { name: "i2c1".to_owned(), addresses: vec![0x48], ..I2cGrant::default() }];
        thermometer.spec.settings =
            serde_json::from_value(json!({ "values": { "interval_ms": 3_600_000 } }))?;
        machine.create(&thermometer).await?;
        const TEMPERATURE: &str = "wasmbed/default/thermometer/board/temperature";
        received(&mosquitto, TEMPERATURE, |payloads| !payloads.is_empty())?;

        machine.create(&light(RELAY, &["gpio", "messages"])).await?;
        read_to(&board, "APP default/light: waits for on and off")?;
        let lights =
            || -> Result<u32> { Ok(board.debugger().context("it was started with one")?.peek(LIGHTS)?) };
        ensure!(lights()? == 0, "it is dark");
        mosquitto.publish(COMMAND, "on")?;
        read_to(&board, "APP default/light: light on")?;
        ensure!(lights()? == 1, "it is lit");
        received(&mosquitto, "wasmbed/default/light/board/light/state", |states| states == ["on"])?;

        // The next measurement would come in an hour.
        let before = received(&mosquitto, TEMPERATURE, |_| true)?;
        ensure!(before.len() <= 2 && before.iter().all(|payload| payload == "21500"), "{before:?}");
        set_interval(&machine, "thermometer", 200)?;
        received(&mosquitto, TEMPERATURE, |payloads| payloads.len() >= before.len() + 3)?;
        board.set_property("sensor", "temperature", -7_000)?;
        let last = received(&mosquitto, TEMPERATURE, |payloads| {
            payloads.last().is_some_and(|payload| payload == "-7000")
        })?;
        let turn = last.iter().position(|payload| payload == "-7000").unwrap_or_default();
        ensure!(last[..turn].iter().all(|payload| payload == "21500"), "{last:?}");
        mosquitto.publish(COMMAND, "off")?;
        received(&mosquitto, "wasmbed/default/light/board/light/state", |states| states == ["on", "off"])?;
        ensure!(lights()? == 0, "it is dark again");
        Ok(())
    })
}

#[test]
fn a_command_comes_in_and_a_setting_changes_an_interval_on_riscv32_virt() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("riscv32-virt".parse()?, &machine, &machine.gateway_address().to_string())?;
        let board = Emulator::start(&options)?;
        let mosquitto = broker(&machine).await?;
        machine.create(&light(&wat::parse_str(ECHO)?, &["messages"])).await?;
        let mut beacon = application("beacon", BEACON, &[NAME]);
        beacon.spec.settings = serde_json::from_value(json!({ "values": { "interval_ms": 3_600_000 } }))?;
        machine.create(&beacon).await?;
        read_to(&board, "APP default/beacon: beacon 1, every 3600000 ms")?;
        // The older application runs already.
        mosquitto.publish(COMMAND, "on")?;
        read_to(&board, "APP default/light: on")?;
        received(&mosquitto, "wasmbed/default/light/board/light/state", |states| states == ["on"])?;
        set_interval(&machine, "beacon", 200)?;
        read_to(&board, "APP default/beacon: beacon 4, every 200 ms").map(drop)
    })
}
