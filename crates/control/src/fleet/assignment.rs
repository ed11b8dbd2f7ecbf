//! What an Application becomes for the devices that run it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use wasmbed_api::{ApplicationConfig, ReasonCode, RestartPolicy, TopicDirection};
use wasmbed_protocol::{
    ApplicationUid, CorrelationId, EnvVar, GpioGrant, I2cGrant, List, ModuleDigest, Spec, SpecHash, SpiGrant,
    Topic, UartGrant, encode_spec, limits::SPEC_BYTES_MAX,
};

use zeroize::Zeroizing;

use super::{
    module::{Footprint, ModuleFacts, ModuleRefusal},
    secret::SecretEnv,
    settings::SettingRules,
};
use crate::{Hidden, gateway_api::AssignmentEntry};

/// One generation of one Application, ready to be sent; the same for every device.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// SHA-256 of `spec`.
    pub spec_hash: SpecHash,
    /// The encoded `wasmbed_protocol::Spec`; it may have secrets.
    pub spec: Hidden<Box<[u8]>>,
    /// Of the module.
    pub digest: ModuleDigest,
    /// Size of the module.
    pub bytes: u32,
    /// What it takes of a device's arena; known also once the module is gone.
    pub footprint: Footprint,
    /// What the Application says of settings, if the module declares some. It is beside the spec: a change restarts nothing.
    pub settings: Option<Arc<SettingRules>>,
}

/// Encodes an assignment. `secret_env` is what it has from Secrets.
///
/// # Errors
/// The configuration is not one that devices take; says what is wrong with it.
pub fn plan_assignment(
    uid: ApplicationUid,
    name: &str,
    module: &ModuleFacts,
    config: &ApplicationConfig,
    secret_env: &SecretEnv,
) -> Result<Assigned, ModuleRefusal> {
    let restart_policy = match config.restart_policy {
        RestartPolicy::Always => wasmbed_protocol::RestartPolicy::Always,
        RestartPolicy::OnFailure => wasmbed_protocol::RestartPolicy::OnFailure,
        RestartPolicy::Never => wasmbed_protocol::RestartPolicy::Never,
        RestartPolicy::Unknown => {
            return Err(newer("spec.config.restart_policy"));
        }
    };
    let args: Vec<&str> = config.args.iter().map(String::as_str).collect();
    let own = config.env.iter().map(|(name, value)| EnvVar { name, value });
    let secret = secret_env.variables().map(|(name, value)| EnvVar { name, value });
    let mut env: Vec<EnvVar<'_>> = own.chain(secret).collect();
    env.sort_unstable_by_key(|variable| variable.name);
    let mut capabilities: Vec<&str> = config.capabilities.iter().map(String::as_str).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let addresses: Vec<Vec<u8>> = config.peripherals.i2c.iter().map(addresses_of).collect();
    let (i2c, uart, gpio) = (i2c_grants(config, &addresses), uart_grants(config), gpio_grants(config));
    let spi = spi_grants(config);
    let topics = topics(config)?;
    let spec = Spec {
        uid,
        name,
        digest: module.digest,
        module_bytes: module.size,
        memory_limit_bytes: u64::try_from(config.memory_limit).unwrap_or(0),
        cpu_limit_ms: u32::try_from(config.cpu_time_limit.max(0)).unwrap_or(u32::MAX),
        restart_policy,
        args: List::new(&args),
        env: List::new(&env),
        capabilities: List::new(&capabilities),
        values_mac: secret_env.mac(),
        i2c: List::new(&i2c),
        uart: List::new(&uart),
        gpio: List::new(&gpio),
        spi: List::new(&spi),
        topics: List::new(&topics),
    };
    let mut buffer = Zeroizing::new([0; SPEC_BYTES_MAX]);
    let length = encode_spec(&spec, &mut *buffer).map_err(|error| match secret_env.mac() {
        None => ModuleRefusal {
            reason: ReasonCode::Unsupported,
            message: format!(
                "spec.config does not fit an assignment of at most {SPEC_BYTES_MAX} bytes ({error}); shorten env, args, capabilities, peripherals or topics"
            ),
        },
        Some(_) => ModuleRefusal {
            reason: ReasonCode::AssignmentTooLarge,
            message: format!(
                "spec.config with the values of its Secrets does not fit an assignment of at most {SPEC_BYTES_MAX} bytes ({error}); shorten values, env, args, capabilities or peripherals, or name single keys with secret_key_ref"
            ),
        },
    })?;
    let spec = &buffer[..length];
    Ok(Assigned {
        spec_hash: SpecHash::of(spec),
        spec: Hidden::new(spec.into()),
        digest: module.digest,
        bytes: module.size,
        footprint: module.needs.as_ref().map(|needs| needs.footprint).unwrap_or_default(),
        settings: None,
    })
}

/// By name; a number that is none becomes one that the encoding refuses.
fn i2c_grants<'a>(config: &'a ApplicationConfig, addresses: &'a [Vec<u8>]) -> Vec<I2cGrant<'a>> {
    let granted = config.peripherals.i2c.iter().zip(addresses).map(|(grant, addresses)| I2cGrant {
        name: &grant.name,
        addresses,
        bytes_per_second: u32::try_from(grant.bytes_per_second).unwrap_or(0),
    });
    let mut grants: Vec<I2cGrant<'_>> = granted.collect();
    grants.sort_unstable_by_key(|grant| grant.name);
    grants
}

/// As for I2C.
fn uart_grants(config: &ApplicationConfig) -> Vec<UartGrant<'_>> {
    let granted = config.peripherals.uart.iter().map(|grant| UartGrant {
        name: &grant.name,
        baud: u32::try_from(grant.baud).unwrap_or(0),
        bytes_per_second: u32::try_from(grant.bytes_per_second).unwrap_or(0),
    });
    let mut grants: Vec<UartGrant<'_>> = granted.collect();
    grants.sort_unstable_by_key(|grant| grant.name);
    grants
}

/// As for I2C.
fn spi_grants(config: &ApplicationConfig) -> Vec<SpiGrant<'_>> {
    let granted = config.peripherals.spi.iter().map(|grant| SpiGrant {
        name: &grant.name,
        // No mode: the encoding refuses it.
        mode: u8::try_from(grant.mode).unwrap_or(u8::MAX),
        clock_khz: u32::try_from(grant.clock_khz).unwrap_or(0),
        bytes_per_second: u32::try_from(grant.bytes_per_second).unwrap_or(0),
    });
    let mut grants: Vec<SpiGrant<'_>> = granted.collect();
    grants.sort_unstable_by_key(|grant| grant.name);
    grants
}

/// As for I2C.
fn gpio_grants(config: &ApplicationConfig) -> Vec<GpioGrant<'_>> {
    let granted = config.peripherals.gpio.iter().map(|grant| GpioGrant {
        name: &grant.name,
        edges_per_second: u32::try_from(grant.edges_per_second).unwrap_or(0),
    });
    let mut grants: Vec<GpioGrant<'_>> = granted.collect();
    grants.sort_unstable_by_key(|grant| grant.name);
    grants
}

/// What is no address is none on a device either: it becomes one that the encoding refuses.
fn addresses_of(grant: &wasmbed_api::I2cGrant) -> Vec<u8> {
    let mut addresses: Vec<u8> =
        grant.addresses.iter().map(|address| u8::try_from(*address).unwrap_or(u8::MAX)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn newer(field: &str) -> ModuleRefusal {
    ModuleRefusal {
        reason: ReasonCode::Unsupported,
        message: format!(
            "{field} is one that this version of the controller does not know; upgrade the controller"
        ),
    }
}

/// What the application declares, in the protocol's order.
fn topics(config: &ApplicationConfig) -> Result<Vec<Topic<'_>>, ModuleRefusal> {
    let mut topics = Vec::with_capacity(config.topics.len());
    for topic in &config.topics {
        let direction = match topic.direction {
            TopicDirection::Out => wasmbed_protocol::TopicDirection::Out,
            TopicDirection::In => wasmbed_protocol::TopicDirection::In,
            TopicDirection::Unknown => return Err(newer("a direction in spec.config.topics")),
        };
        let per_second = u32::try_from(topic.per_second).unwrap_or(0);
        topics.push(Topic { name: &topic.name, direction, per_second });
    }
    topics.sort_unstable_by_key(|topic| topic.name);
    Ok(topics)
}

/// Names one change on its way through controller, gateway and device. It follows from what changed, so that a new
/// leader gives the same change the same name.
#[must_use]
pub fn correlation_id(uid: ApplicationUid, generation: i64) -> CorrelationId {
    let mut hash = Sha256::new();
    hash.update(uid.0);
    hash.update(generation.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; CorrelationId::LEN];
    id.copy_from_slice(&digest[..CorrelationId::LEN]);
    CorrelationId(id)
}

impl Assigned {
    /// As a gateway takes it.
    pub(super) fn entry(
        &self,
        uid: ApplicationUid,
        name: String,
        correlation: CorrelationId,
    ) -> AssignmentEntry {
        AssignmentEntry {
            application_uid: uid.to_string(),
            application: name,
            spec_hash: self.spec_hash.to_string(),
            spec: Hidden::new(STANDARD.encode(&**self.spec)),
            digest: self.digest.to_string(),
            correlation_id: correlation.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_api::PeripheralGrants;
    use wasmbed_protocol::decode_spec;

    use super::*;
    use crate::fleet::testing::module;

    const UID: ApplicationUid = ApplicationUid([1; 16]);

    #[test]
    fn the_encoded_assignment_says_what_the_application_says() {
        let config = ApplicationConfig {
            env: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
            args: vec!["--fast".to_owned()],
            capabilities: vec!["sensor".to_owned(), "gpio".to_owned()],
            restart_policy: RestartPolicy::OnFailure,
            ..ApplicationConfig::default()
        };
        let assigned =
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default()).unwrap();
        let spec = decode_spec(&assigned.spec).unwrap();
        assert_eq!(spec.name, "default/app");
        assert_eq!(spec.module_bytes, 100);
        assert_eq!(spec.capabilities.iter().collect::<Vec<_>>(), ["gpio", "sensor"]);
        assert_eq!(spec.env.iter().map(|var| var.name).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(spec.restart_policy, wasmbed_protocol::RestartPolicy::OnFailure);
        let again =
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default()).unwrap();
        assert_eq!(assigned.spec_hash, again.spec_hash);
        let other =
            plan_assignment(UID, "default/app", &module(8, 100), &config, &SecretEnv::default()).unwrap();
        assert_ne!(assigned.spec_hash, other.spec_hash);
    }

    #[test]
    fn buses_are_granted_in_order_and_without_them_the_spec_says_nothing_of_them() {
        let plan = |i2c| {
            let peripherals = PeripheralGrants { i2c, ..PeripheralGrants::default() };
            let config = ApplicationConfig { peripherals, ..ApplicationConfig::default() };
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default())
        };
        let grant = |name: &str, addresses: &[i32], bytes_per_second| wasmbed_api::I2cGrant {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            bytes_per_second,
        };
        let assigned =
            plan(vec![grant("i2c1", &[0x77, 0x48, 0x77], 10), grant("i2c0", &[8], 2_000)]).unwrap();
        let granted = decode_spec(&assigned.spec).unwrap().i2c;
        assert_eq!(
            granted.iter().collect::<Vec<_>>(),
            [
                I2cGrant { name: "i2c0", addresses: &[8], bytes_per_second: 2_000 },
                I2cGrant { name: "i2c1", addresses: &[0x48, 0x77], bytes_per_second: 10 },
            ]
        );
        assert_eq!(decode_spec(&plan(Vec::new()).unwrap().spec).unwrap().i2c.len(), 0);
        // What the schema refuses, in an object that no schema checked.
        for wrong in [
            grant("i2c0", &[0x78], 1),
            grant("i2c0", &[-1], 1),
            grant("i2c0", &[8], 0),
            grant("i2c0", &[], 1),
        ] {
            assert_eq!(plan(vec![wrong]).unwrap_err().reason, ReasonCode::Unsupported);
        }
        assert!(plan(vec![grant("i2c0", &[8], 1), grant("i2c0", &[9], 1)]).is_err(), "the same bus twice");
    }

    #[test]
    fn uarts_are_granted_in_order_and_within_bounds() {
        let plan = |uart| {
            let peripherals = PeripheralGrants { uart, ..PeripheralGrants::default() };
            let config = ApplicationConfig { peripherals, ..ApplicationConfig::default() };
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default())
        };
        let grant = |name: &str, baud, bytes_per_second| wasmbed_api::UartGrant {
            name: name.to_owned(),
            baud,
            bytes_per_second,
        };
        let assigned = plan(vec![grant("uart1", 300, 10), grant("uart0", 115_200, 11_520)]).unwrap();
        assert_eq!(
            decode_spec(&assigned.spec).unwrap().uart.iter().collect::<Vec<_>>(),
            [
                UartGrant { name: "uart0", baud: 115_200, bytes_per_second: 11_520 },
                UartGrant { name: "uart1", baud: 300, bytes_per_second: 10 },
            ]
        );
        for wrong in [grant("uart0", -1, 1), grant("uart0", 299, 1), grant("uart0", 9_600, 0)] {
            assert_eq!(plan(vec![wrong]).unwrap_err().reason, ReasonCode::Unsupported);
        }
        assert!(plan(vec![grant("uart0", 300, 1), grant("uart0", 300, 1)]).is_err(), "the same twice");
    }

    #[test]
    fn chips_are_granted_in_order_and_within_bounds() {
        let plan = |spi| {
            let peripherals = PeripheralGrants { spi, ..PeripheralGrants::default() };
            let config = ApplicationConfig { peripherals, ..ApplicationConfig::default() };
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default())
        };
        let grant = |name: &str, mode, clock_khz, bytes_per_second| wasmbed_api::SpiGrant {
            name: name.to_owned(),
            mode,
            clock_khz,
            bytes_per_second,
        };
        let assigned = plan(vec![grant("spi1.0", 3, 50_000, 100_000), grant("spi0.1", 0, 10, 1)]).unwrap();
        let granted: Vec<_> = decode_spec(&assigned.spec).unwrap().spi.iter().collect();
        assert_eq!(
            granted,
            [
                SpiGrant { name: "spi0.1", mode: 0, clock_khz: 10, bytes_per_second: 1 },
                SpiGrant { name: "spi1.0", mode: 3, clock_khz: 50_000, bytes_per_second: 100_000 },
            ]
        );
        for wrong in [
            grant("spi0.0", 4, 1_000, 1),
            grant("spi0.0", -1, 1_000, 1),
            grant("spi0.0", 0, -1, 1),
            grant("spi0.0", 0, 50_001, 1),
            grant("spi0.0", 0, 1_000, 0),
        ] {
            assert_eq!(plan(vec![wrong]).unwrap_err().reason, ReasonCode::Unsupported);
        }
        let twice = vec![grant("spi0.0", 0, 1_000, 1), grant("spi0.0", 1, 1_000, 1)];
        assert!(plan(twice).is_err(), "the same twice");
    }

    #[test]
    fn pins_are_granted_in_order_and_within_bounds() {
        let plan = |gpio| {
            let peripherals = PeripheralGrants { gpio, ..PeripheralGrants::default() };
            let config = ApplicationConfig { peripherals, ..ApplicationConfig::default() };
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default())
        };
        let grant =
            |name: &str, edges_per_second| wasmbed_api::GpioGrant { name: name.to_owned(), edges_per_second };
        let assigned = plan(vec![grant("gpio2", 1), grant("gpio10", 1_000)]).unwrap();
        let granted = decode_spec(&assigned.spec).unwrap().gpio;
        let granted: Vec<_> = granted.iter().map(|grant| (grant.name, grant.edges_per_second)).collect();
        assert_eq!(granted, [("gpio10", 1_000), ("gpio2", 1)]);
        for wrong in [grant("gpio0", -1), grant("gpio0", 0), grant("gpio0", 1_001)] {
            assert_eq!(plan(vec![wrong]).unwrap_err().reason, ReasonCode::Unsupported);
        }
        assert!(plan(vec![grant("gpio0", 1), grant("gpio0", 1)]).is_err(), "the same twice");
    }

    #[test]
    fn a_configuration_that_fits_no_frame_is_refused() {
        let config = ApplicationConfig { args: vec!["x".repeat(4_000)], ..ApplicationConfig::default() };
        let refusal =
            plan_assignment(UID, "default/app", &module(7, 100), &config, &SecretEnv::default()).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::Unsupported);
        assert!(refusal.message.contains("shorten"), "{}", refusal.message);
    }

    #[test]
    fn a_change_has_one_name_and_each_generation_its_own() {
        assert_eq!(correlation_id(UID, 1), correlation_id(UID, 1));
        assert_ne!(correlation_id(UID, 1), correlation_id(UID, 2));
        assert_ne!(correlation_id(UID, 1), correlation_id(ApplicationUid([2; 16]), 1));
    }
}
