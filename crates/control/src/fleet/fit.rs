//! Whether a device can run an application, judged from the device's own facts before anything is sent.

use wasmbed_api::{ApplicationConfig, DeviceFacts, ReasonCode};

use super::module::{ModuleFacts, ModuleNeeds, ModuleRefusal};

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
    check_memory(module, needs, config, device)
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
            "the module uses {}, which the device's engine ({}) does not run; `wasmbed module pack` lowers what can be lowered",
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

fn check_memory(
    module: &ModuleFacts,
    needs: &ModuleNeeds,
    config: &ApplicationConfig,
    device: &DeviceFacts,
) -> Result<(), ModuleRefusal> {
    let limit = u64::try_from(config.memory_limit).unwrap_or(0);
    if needs.memory_min_bytes > limit {
        return refuse(
            ReasonCode::MemoryLimit,
            format!(
                "the module starts with {} bytes of linear memory, config.memory_limit is {limit}",
                needs.memory_min_bytes
            ),
        );
    }
    let loaded = u64::from(module.size) * u64::try_from(device.load_permille).unwrap_or(0) / 1_000;
    let wanted = loaded.saturating_add(needs.memory_min_bytes);
    let arena = u64::try_from(device.memory_bytes).unwrap_or(0);
    if wanted <= arena {
        return Ok(());
    }
    refuse(
        ReasonCode::OutOfMemory,
        format!(
            "it takes about {wanted} bytes ({loaded} for the module, {} of linear memory), the device has {arena}",
            needs.memory_min_bytes
        ),
    )
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
    use super::*;
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
    fn a_module_that_the_scan_refused_keeps_its_reason() {
        let broken = ModuleFacts::analyze(b"not a module");
        assert_eq!(
            reason(&broken, &ApplicationConfig::default(), &device_facts()),
            ReasonCode::InvalidModule
        );
    }
}
