//! Whether a device can run an application, judged from the device's own facts before anything is sent.

use wasmbed_api::{ApplicationConfig, DeviceFacts, PeripheralKind, ReasonCode};
use wasmbed_scan::Capability;

use super::{
    config::NAMES_IN_MESSAGE_MAX,
    module::{Footprint, ModuleFacts, ModuleNeeds, ModuleRefusal},
};

/// Checks one application against one device, the cheapest and clearest reason first.
///
/// # Errors
/// The first reason why the device can't run it.
pub fn plan_fit(
    module: &ModuleFacts,
    config: &ApplicationConfig,
    device: &DeviceFacts,
) -> Result<(), ModuleRefusal> {
    let needs = module.needs.as_ref().map_err(Clone::clone)?;
    check_size(module, device)?;
    check_features(needs, device)?;
    check_imports(needs, device)?;
    check_capabilities(needs, config, device)?;
    check_peripherals(needs, config, device)?;
    check_memory(needs, config, device)
}

fn check_size(module: &ModuleFacts, device: &DeviceFacts) -> Result<(), ModuleRefusal> {
    if i64::from(module.size) <= device.module_bytes_max {
        return Ok(());
    }
    refuse(
        ReasonCode::ModuleTooLarge,
        format!("the module has {} bytes, the device accepts {}", module.size, device.module_bytes_max),
    )
}

fn check_features(needs: &ModuleNeeds, device: &DeviceFacts) -> Result<(), ModuleRefusal> {
    let missing = missing(&needs.features, &device.features);
    if missing.is_empty() {
        return Ok(());
    }
    refuse(
        ReasonCode::UnsupportedFeature,
        format!(
            "the module uses {}, which the device's engine ({}) does not run; update the device, or try `wasmbed module pack --lower`",
            missing.join(", "),
            device.engine
        ),
    )
}

fn check_imports(needs: &ModuleNeeds, device: &DeviceFacts) -> Result<(), ModuleRefusal> {
    let missing = missing(&needs.imports, &device.host_functions);
    if missing.is_empty() {
        return Ok(());
    }
    refuse(
        ReasonCode::UnknownImport,
        format!(
            "the module imports {}, which firmware {} does not offer",
            missing.join(", "),
            device.firmware
        ),
    )
}

fn check_capabilities(
    needs: &ModuleNeeds,
    config: &ApplicationConfig,
    device: &DeviceFacts,
) -> Result<(), ModuleRefusal> {
    let denied = missing(&needs.capabilities, &config.capabilities);
    if !denied.is_empty() {
        return refuse(
            ReasonCode::CapabilityDenied,
            format!("the module needs {}; add it to config.capabilities to allow it", denied.join(", ")),
        );
    }
    let absent = missing(&config.capabilities, &device.capabilities);
    if absent.is_empty() {
        return Ok(());
    }
    refuse(
        ReasonCode::Unsupported,
        format!("config.capabilities asks for {}, which the device does not have", absent.join(", ")),
    )
}

/// A capability for buses is nothing without a bus, and a bus that is granted has to be there.
fn check_peripherals(
    needs: &ModuleNeeds,
    config: &ApplicationConfig,
    device: &DeviceFacts,
) -> Result<(), ModuleRefusal> {
    let granted = &config.peripherals;
    let needs_capability = |capability: Capability| needs.capabilities.contains(&capability.name());
    let i2c: Vec<&str> = granted.i2c.iter().map(|grant| grant.name.as_str()).collect();
    check_named(needs_capability(Capability::I2c), "uses I2C buses", Capability::I2c, &i2c)?;
    check_there(device, PeripheralKind::I2c, Capability::I2c, "no I2C bus", &i2c)?;
    let uart: Vec<&str> = granted.uart.iter().map(|grant| grant.name.as_str()).collect();
    check_named(needs_capability(Capability::Uart), "uses UARTs", Capability::Uart, &uart)?;
    check_there(device, PeripheralKind::Uart, Capability::Uart, "no UART", &uart)?;
    let spi: Vec<&str> = granted.spi.iter().map(|grant| grant.name.as_str()).collect();
    check_named(needs_capability(Capability::Spi), "uses chips on SPI buses", Capability::Spi, &spi)?;
    check_there(device, PeripheralKind::Spi, Capability::Spi, "no SPI bus", &spi)?;
    // Pins can be used without being named, but not watched.
    let gpio: Vec<&str> = granted.gpio.iter().map(|grant| grant.name.as_str()).collect();
    let watches = needs.imports.iter().any(|import| import == "wasmbed.gpio_watch");
    check_named(watches, "watches pins", Capability::Gpio, &gpio)?;
    check_there(device, PeripheralKind::Gpio, Capability::Gpio, "no pin that can be named", &gpio)
}

/// The capability's name is also that of the field.
fn check_named(
    is_used: bool,
    what: &str,
    capability: Capability,
    named: &[&str],
) -> Result<(), ModuleRefusal> {
    if !is_used || !named.is_empty() {
        return Ok(());
    }
    refuse(
        ReasonCode::CapabilityDenied,
        format!("the module {what}; name them in config.peripherals.{} to allow it", capability.name()),
    )
}

fn check_there(
    device: &DeviceFacts,
    kind: PeripheralKind,
    capability: Capability,
    none: &str,
    wanted: &[&str],
) -> Result<(), ModuleRefusal> {
    let of_kind = device.peripherals.iter().filter(|peripheral| peripheral.kind == kind);
    let offered: Vec<&str> = of_kind.map(|peripheral| peripheral.name.as_str()).collect();
    let absent = missing(wanted, &offered);
    if absent.is_empty() {
        return Ok(());
    }
    let has = if offered.is_empty() { none.to_owned() } else { offered.join(", ") };
    refuse(
        ReasonCode::Unsupported,
        format!("config.peripherals.{} names {}; the device has {has}", capability.name(), absent.join(", ")),
    )
}

fn check_memory(
    needs: &ModuleNeeds,
    config: &ApplicationConfig,
    device: &DeviceFacts,
) -> Result<(), ModuleRefusal> {
    let footprint = &needs.footprint;
    let limit = u64::try_from(config.memory_limit).unwrap_or(0);
    if footprint.linear_bytes > limit {
        return refuse(
            ReasonCode::MemoryLimit,
            format!(
                "the module starts with {} bytes of linear memory, config.memory_limit is {limit}",
                footprint.linear_bytes
            ),
        );
    }
    plan_room(footprint, device, &[])
}

/// What an application has of a device's arena.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes that it keeps.
    pub bytes: u64,
    /// Bytes that the device needs beside all that is kept, while it loads it.
    pub loading_bytes: u64,
}

/// Checks whether there is room beside what others already hold. All of them are loaded anew after a reset, in any order.
///
/// # Errors
/// It does not fit; says what it needs, what is left and who holds the rest.
pub fn plan_room(
    footprint: &Footprint,
    device: &DeviceFacts,
    holders: &[Holder<'_>],
) -> Result<(), ModuleRefusal> {
    let wanted = footprint.bytes(device);
    let arena = u64::try_from(device.memory_bytes).unwrap_or(0);
    let held = holders.iter().fold(0, |sum: u64, holder| sum.saturating_add(holder.bytes));
    let left = arena.saturating_sub(held);
    let loading = holders.iter().map(|holder| holder.loading_bytes).max().unwrap_or(0);
    let loading = loading.max(footprint.loading_bytes(device));
    if wanted.saturating_add(loading) <= left {
        return Ok(());
    }
    let fixed = footprint.fixed_bytes(device);
    let (about, what_for) = match footprint.is_exact(device) {
        true => ("", "for its call stack"),
        false => ("about ", "whatever its size"),
    };
    let mut message = format!(
        "it takes {about}{wanted} bytes ({fixed} {what_for}, {} for its code, {} of linear memory), ",
        footprint.module_bytes(device).saturating_sub(fixed),
        footprint.linear_bytes
    );
    if loading > 0 {
        message += &format!("and {loading} more while it is loaded; ");
    }
    message += &match held {
        0 => format!("the device has {arena}"),
        _ => format!("the device has {left} of {arena} left beside {}", listed(holders)),
    };
    refuse(ReasonCode::OutOfMemory, message)
}

/// `a (70000) and b (20000)`, the largest first, as many as a message takes.
fn listed(holders: &[Holder<'_>]) -> String {
    let mut largest = holders.to_vec();
    largest.sort_by_key(|holder| (std::cmp::Reverse(holder.bytes), holder.name));
    let shown = largest.len().min(NAMES_IN_MESSAGE_MAX);
    let (shown, others) = largest.split_at(shown);
    let mut parts: Vec<String> =
        shown.iter().map(|Holder { name, bytes, .. }| format!("{name} ({bytes})")).collect();
    if !others.is_empty() {
        let bytes: u64 = others.iter().map(|holder| holder.bytes).sum();
        parts.push(format!("{} more ({bytes})", others.len()));
    }
    match parts.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        parts => parts.join(", "),
    }
}

fn missing<'a, A: AsRef<str>, B: AsRef<str>>(wanted: &'a [A], offered: &[B]) -> Vec<&'a str> {
    wanted
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| !offered.iter().any(|other| other.as_ref() == *name))
        .collect()
}

fn refuse(reason: ReasonCode, message: String) -> Result<(), ModuleRefusal> {
    Err(ModuleRefusal { reason, message })
}

#[cfg(test)]
mod tests {
    use wasmbed_api::{DevicePeripheral, GpioGrant, I2cGrant, SpiGrant, UartGrant};
    use wasmbed_scan::Features;

    use super::*;
    use crate::fleet::Translated;
    use crate::fleet::testing::{device_facts, module};

    fn reason(module: &ModuleFacts, config: &ApplicationConfig, device: &DeviceFacts) -> ReasonCode {
        let refusal = plan_fit(module, config, device).unwrap_err();
        assert!(!refusal.message.is_empty());
        refusal.reason
    }

    #[test]
    fn what_fits_is_not_refused() {
        assert_eq!(plan_fit(&module(1, 10_000), &ApplicationConfig::default(), &device_facts()), Ok(()));
    }

    #[test]
    fn a_module_larger_than_the_device_accepts() {
        let facts = DeviceFacts { module_bytes_max: 9_999, ..device_facts() };
        assert_eq!(
            reason(&module(1, 10_000), &ApplicationConfig::default(), &facts),
            ReasonCode::ModuleTooLarge
        );
    }

    #[test]
    fn loaded_module_and_linear_memory_together_against_the_arena() {
        let config = ApplicationConfig::default();
        // 10,000 bytes at 1.6 and 65,536 of linear memory: 81,536.
        let enough = DeviceFacts { memory_bytes: 81_536, ..device_facts() };
        assert_eq!(plan_fit(&module(1, 10_000), &config, &enough), Ok(()));
        let short = DeviceFacts { memory_bytes: 81_535, ..device_facts() };
        assert_eq!(reason(&module(1, 10_000), &config, &short), ReasonCode::OutOfMemory);
    }

    #[test]
    fn what_others_hold_is_not_there_and_they_are_named() {
        let mut needs = module(1, 10_000).needs.unwrap();
        needs.footprint.fixed_bytes = 288;
        let device = DeviceFacts { memory_bytes: 524_288, ..device_facts() };
        let holder = |(name, bytes)| Holder { name, bytes, loading_bytes: 0 };
        let holders = [("camera", 300_000), ("door", 100_000), ("blink", 42_464)].map(holder);
        assert_eq!(plan_room(&needs.footprint, &device, &holders), Ok(()), "81,824 are left");
        let one_more = [holders[0], holders[1], holders[2], holder(("extra", 1))];
        let refusal = plan_room(&needs.footprint, &device, &one_more).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::OutOfMemory);
        assert_eq!(
            refusal.message,
            "it takes about 81824 bytes (288 whatever its size, 16000 for its code, 65536 of linear memory), the device has \
             81823 of 524288 left beside camera (300000), door (100000), blink (42464) and 1 more (1)"
        );
        let alone = plan_room(&needs.footprint, &device, &[holder(("camera", 500_000))]).unwrap_err();
        assert!(alone.message.ends_with("the device has 24288 of 524288 left beside camera (500000)"));
    }

    #[test]
    fn a_device_of_this_engine_needs_exactly_that_and_room_to_load_each() {
        let translated = Translated { module_bytes: 9_000, stack_bytes: 8_192, loading_bytes: 13_000 };
        let mut footprint = module(1, 10_000).needs.unwrap().footprint;
        footprint.translated = Some(translated);
        let device = |memory_bytes| DeviceFacts {
            memory_bytes,
            engine: wasmbed_engine::NAME.to_owned(),
            ..device_facts()
        };
        assert_eq!(plan_room(&footprint, &device(9_000 + 65_536 + 13_000), &[]), Ok(()));
        let refusal = plan_room(&footprint, &device(9_000 + 65_536 + 12_999), &[]).unwrap_err();
        assert_eq!(
            refusal.message,
            "it takes 74536 bytes (8192 for its call stack, 808 for its code, 65536 of linear memory), and 13000 more while it \
             is loaded; the device has 87535"
        );
        // The other may be the one that is loaded last.
        let other = Holder { name: "other", bytes: 1_000, loading_bytes: 14_000 };
        assert_eq!(plan_room(&footprint, &device(75_536 + 14_000), &[other]), Ok(()));
        assert!(plan_room(&footprint, &device(75_536 + 13_999), &[other]).is_err());
    }

    #[test]
    fn linear_memory_against_the_limit() {
        let config = ApplicationConfig { memory_limit: 65_535, ..ApplicationConfig::default() };
        assert_eq!(reason(&module(1, 100), &config, &device_facts()), ReasonCode::MemoryLimit);
    }

    #[test]
    fn imports_features_and_capabilities() {
        let mut module = module(1, 100);
        let with =
            |module: &mut ModuleFacts, change: fn(&mut ModuleNeeds)| change(module.needs.as_mut().unwrap());
        with(&mut module, |needs| needs.capabilities = vec!["gpio"]);
        let mut config = ApplicationConfig::default();
        assert_eq!(reason(&module, &config, &device_facts()), ReasonCode::CapabilityDenied);
        config.capabilities = vec!["gpio".to_owned()];
        assert_eq!(reason(&module, &config, &device_facts()), ReasonCode::Unsupported);
        let board = DeviceFacts { capabilities: vec!["gpio".to_owned()], ..device_facts() };
        assert_eq!(plan_fit(&module, &config, &board), Ok(()));
        with(&mut module, |needs| needs.imports = vec!["wasmbed.later".to_owned()]);
        assert_eq!(reason(&module, &config, &board), ReasonCode::UnknownImport);
        with(&mut module, |needs| needs.features = vec!["SIMD"]);
        assert_eq!(reason(&module, &config, &board), ReasonCode::UnsupportedFeature);
    }

    #[test]
    fn buses_that_are_granted_and_that_the_device_has() {
        let mut module = module(1, 100);
        let board = |names: &[&str]| DeviceFacts {
            capabilities: vec!["i2c".to_owned()],
            peripherals: names
                .iter()
                .map(|name| DevicePeripheral {
                    name: (*name).to_owned(),
                    kind: if name.starts_with("i2c") { PeripheralKind::I2c } else { PeripheralKind::Unknown },
                    simulated: false,
                })
                .collect(),
            ..device_facts()
        };
        let mut config =
            ApplicationConfig { capabilities: vec!["i2c".to_owned()], ..ApplicationConfig::default() };
        assert_eq!(plan_fit(&module, &config, &board(&[])), Ok(()), "it uses none");
        module.needs.as_mut().unwrap().capabilities = vec!["i2c"];
        let refusal = plan_fit(&module, &config, &board(&["i2c0"])).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::CapabilityDenied);
        let grant =
            |name: &str| I2cGrant { name: name.to_owned(), addresses: vec![0x48], bytes_per_second: 1 };
        config.peripherals.i2c = vec![grant("i2c1"), grant("spi2")];
        let refusal = plan_fit(&module, &config, &board(&["i2c0", "i2c1", "spi2"])).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::Unsupported);
        assert_eq!(refusal.message, "config.peripherals.i2c names spi2; the device has i2c0, i2c1");
        let refusal = plan_fit(&module, &config, &board(&[])).unwrap_err();
        assert_eq!(refusal.message, "config.peripherals.i2c names i2c1, spi2; the device has no I2C bus");
        config.peripherals.i2c.pop();
        assert_eq!(plan_fit(&module, &config, &board(&["i2c0", "i2c1"])), Ok(()));
        // The same of UARTs.
        let mut board = board(&["i2c1"]);
        board.capabilities.push("uart".to_owned());
        config.capabilities.push("uart".to_owned());
        module.needs.as_mut().unwrap().capabilities = vec!["i2c", "uart"];
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(
            refusal.message,
            "the module uses UARTs; name them in config.peripherals.uart to allow it"
        );
        config.peripherals.uart = vec![UartGrant { name: "uart0".to_owned(), ..UartGrant::default() }];
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(refusal.message, "config.peripherals.uart names uart0; the device has no UART");
        let uart =
            DevicePeripheral { name: "uart0".to_owned(), kind: PeripheralKind::Uart, simulated: false };
        board.peripherals.push(uart);
        assert_eq!(plan_fit(&module, &config, &board), Ok(()));
        // And of chips.
        board.capabilities.push("spi".to_owned());
        config.capabilities.push("spi".to_owned());
        module.needs.as_mut().unwrap().capabilities.push("spi");
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.message.as_str()),
            (
                ReasonCode::CapabilityDenied,
                "the module uses chips on SPI buses; name them in config.peripherals.spi to allow it"
            )
        );
        config.peripherals.spi = vec![SpiGrant { name: "spi0.1".to_owned(), ..SpiGrant::default() }];
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(refusal.message, "config.peripherals.spi names spi0.1; the device has no SPI bus");
        for chip in ["spi0.0", "spi0.1"] {
            assert!(plan_fit(&module, &config, &board).is_err(), "the other chip select");
            let chip =
                DevicePeripheral { name: chip.to_owned(), kind: PeripheralKind::Spi, simulated: false };
            board.peripherals.push(chip);
        }
        assert_eq!(plan_fit(&module, &config, &board), Ok(()));
        // And of pins, which need no name to be used.
        board.capabilities.push("gpio".to_owned());
        config.capabilities.push("gpio".to_owned());
        module.needs.as_mut().unwrap().capabilities.push("gpio");
        assert_eq!(plan_fit(&module, &config, &board), Ok(()));
        // Those that are watched do.
        board.host_functions.push("wasmbed.gpio_watch".to_owned());
        module.needs.as_mut().unwrap().imports.push("wasmbed.gpio_watch".to_owned());
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.message.as_str()),
            (
                ReasonCode::CapabilityDenied,
                "the module watches pins; name them in config.peripherals.gpio to allow it"
            )
        );
        config.peripherals.gpio = vec![GpioGrant { name: "gpio2".to_owned(), ..GpioGrant::default() }];
        let refusal = plan_fit(&module, &config, &board).unwrap_err();
        assert_eq!(
            refusal.message,
            "config.peripherals.gpio names gpio2; the device has no pin that can be named"
        );
        let pin = DevicePeripheral { name: "gpio2".to_owned(), kind: PeripheralKind::Gpio, simulated: false };
        board.peripherals.push(pin);
        assert_eq!(plan_fit(&module, &config, &board), Ok(()));
    }

    /// A device reports what its engine runs; the module is read by the scan that all share.
    #[test]
    fn what_an_older_device_does_not_run_is_named_with_a_remedy() {
        let bytes = wat::parse_str(
            r#"(module (memory (export "memory") 1) (data $d "abc") (table 1 externref) (table 1 funcref)
               (global i32 (i32.add (i32.const 1) (i32.const 2)))
               (func $start (memory.init $d (i32.const 0) (i32.const 0) (i32.const 3))) (start $start)
               (func $pair (result i32 i32) (i32.const 1) (i32.extend8_s (i32.const 2)))
               (func $run (export "run") (drop (i32.trunc_sat_f32_s (f32.const 1))) (return_call $run)))"#,
        )
        .unwrap();
        let module = ModuleFacts::analyze(&bytes);
        let config = ApplicationConfig::default();
        let of = |features: Features| {
            let known = Features::NAMES.iter().filter(|(feature, _)| features.contains(*feature));
            DeviceFacts { features: known.map(|(_, name)| (*name).to_owned()).collect(), ..device_facts() }
        };
        assert_eq!(plan_fit(&module, &config, &of(Features::DEVICES)), Ok(()));
        let refusal = plan_fit(&module, &config, &of(Features::FIRST_DEVICES)).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::UnsupportedFeature);
        assert_eq!(
            refusal.message,
            "the module uses sign-extension operators, saturating float-to-int operators, bulk memory operators, \
             multi-value, reference types, extended constant expressions, tail calls, start functions, which the device's \
             engine (spacewasm 0.7.1) does not run; update the device, or try `wasmbed module pack --lower`"
        );
        let one = Features::DEVICES.without(Features::TAIL_CALL);
        let refusal = plan_fit(&module, &config, &of(one)).unwrap_err();
        assert!(refusal.message.starts_with("the module uses tail calls, which"), "{}", refusal.message);
    }

    #[test]
    fn a_module_that_the_scan_refused_keeps_its_reason() {
        let broken = ModuleFacts::analyze(b"not a module");
        assert_eq!(
            reason(&broken, &ApplicationConfig::default(), &device_facts()),
            ReasonCode::InvalidModule
        );
    }
}
