//! A WebAssembly file as an Application, with a Module of its own where it is too large to stand inline.

use std::{collections::BTreeMap, convert::Infallible, path::Path};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wasmbed_api::{
    Application, ApplicationConfig, ApplicationSettings, ApplicationSpec, EnvFrom, GpioGrant, I2cGrant,
    Module, ModuleSpec, PeripheralGrants, RestartPolicy, SecretRef, SettingScalar, SpiGrant, TargetDevices,
    Topic, TopicDirection, UartGrant,
};
use wasmbed_scan::{Features, ScanLimits, scan};

use super::manifest::{Manifest, read_bytes};
use super::selector;
use crate::{
    cluster::{Cluster, Resource, encode_query},
    commands::module,
    output, values,
};

/// Inline modules stop here, because every status write would rewrite them.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// The largest Module.
const MODULE_BYTES_MAX: usize = 1024 * 1024;
/// Names the Application that a Module was made for; its value is a label's, at most 63 characters.
const APPLIED_FOR: &str = "wasmbed.github.io/applied-for";
const LABEL_VALUE_MAX: usize = 63;

/// What becomes of a WebAssembly file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "For a WebAssembly file")]
pub(super) struct WasmArgs {
    /// Name of the Application [default: that of the file].
    #[arg(long)]
    name: Option<String>,
    /// A Device that it goes to; may be given several times.
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
    /// Devices by label, for example site=lab or 'zone in (a,b)'.
    #[arg(long, value_name = "LABELS")]
    selector: Option<String>,
    /// It goes to every Device of the namespace.
    #[arg(long, conflicts_with = "selector")]
    all_devices: bool,
    /// Linear memory at most, bytes or for example 64Ki [default: what the module starts with, at least 64Ki].
    #[arg(long, value_name = "BYTES", value_parser = values::bytes_of::<i64>)]
    memory_limit: Option<i64>,
    /// CPU time between two waits at most, milliseconds [default: 1000].
    #[arg(long, value_name = "MS")]
    cpu_time_limit: Option<i64>,
    /// An environment variable, NAME=VALUE; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::variable)]
    env: Vec<(String, String)>,
    /// Environment variables from all keys of a Secret, each with a prefix before its name if one is given; may be given several
    /// times.
    #[arg(long, value_name = "SECRET[:PREFIX]", value_parser = env_from)]
    env_from: Vec<EnvFrom>,
    /// An argument; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// What to grant beyond the baseline, for example key-value; a list, or given several times.
    #[arg(long, alias = "capabilities", value_name = "NAMES", value_delimiter = ',')]
    capability: Vec<String>,
    /// An I2C bus with the addresses of devices on it, and bytes per second at most, for example i2c0:0x48,0x76 or
    /// i2c0:0x48:2000; grants the capability i2c too. May be given several times.
    #[arg(long, value_name = "BUS:ADDRESSES[:RATE]", value_parser = values::i2c)]
    i2c: Vec<I2cGrant>,
    /// A UART with its bits per second, and bytes per second at most, for example uart0:9600 or uart0:115200:2000; grants the
    /// capability uart too. May be given several times.
    #[arg(long, value_name = "UART:BAUD[:RATE]", value_parser = values::uart)]
    uart: Vec<UartGrant>,
    /// A chip select of an SPI bus with the clock in kHz at most, and perhaps the mode and bytes per second at most, for example
    /// spi0.0:1000 or spi0.0:1000:3:2000; grants the capability spi too. May be given several times.
    #[arg(long, value_name = "CHIP:KHZ[:MODE[:RATE]]", value_parser = values::spi)]
    spi: Vec<SpiGrant>,
    /// A pin, and how often each second its edges may end a wait, for example gpio2 or gpio2:100; grants the capability gpio too.
    /// An application that names pins has these alone. May be given several times.
    #[arg(long, value_name = "PIN[:RATE]", value_parser = values::gpio)]
    gpio: Vec<GpioGrant>,
    /// A topic that it publishes to, with its messages each second if that is more than one: temperature or temperature:10. It
    /// needs --capability messages; may be given several times.
    #[arg(long, value_name = "NAME[:PER_SECOND]", value_parser = topic)]
    topic: Vec<Topic>,
    /// The value of a setting that the module declares, on all devices; several for several.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = values::variable)]
    settings: Vec<(String, String)>,
    /// A topic on which messages come in, as --topic.
    #[arg(long, value_name = "NAME[:PER_SECOND]", value_parser = topic)]
    topic_in: Vec<Topic>,
    /// Whether it is started again after it ended [default: always].
    #[arg(long, value_enum)]
    restart: Option<Restart>,
    /// A sentence for people.
    #[arg(long)]
    description: Option<String>,
    /// Send the file as it is.
    #[arg(long)]
    no_pack: bool,
    /// Rewrite operators in terms of WebAssembly 1.0 as far as possible, for devices that run nothing else [default: if a
    /// targeted Device reports that it does not run what the module uses].
    #[arg(long, conflicts_with = "no_pack")]
    lower: bool,
    /// Keep the names of functions when packing, so that devices name those that trap.
    #[arg(long, conflicts_with = "no_pack")]
    names: bool,
}

/// `restart_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Restart {
    /// After every end.
    Always,
    /// After a trap, a limit or an exit code other than 0.
    OnFailure,
    /// Never.
    Never,
}

impl WasmArgs {
    /// The first flag that was given, for a message.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--name", self.name.is_some()),
            ("--device", !self.device.is_empty()),
            ("--selector", self.selector.is_some()),
            ("--all-devices", self.all_devices),
            ("--memory-limit", self.memory_limit.is_some()),
            ("--cpu-time-limit", self.cpu_time_limit.is_some()),
            ("--env", !self.env.is_empty()),
            ("--env-from", !self.env_from.is_empty()),
            ("--arg", !self.arg.is_empty()),
            ("--capability", !self.capability.is_empty()),
            ("--i2c", !self.i2c.is_empty()),
            ("--uart", !self.uart.is_empty()),
            ("--spi", !self.spi.is_empty()),
            ("--gpio", !self.gpio.is_empty()),
            ("--topic", !self.topic.is_empty()),
            ("--setting", !self.settings.is_empty()),
            ("--restart", self.restart.is_some()),
            ("--description", self.description.is_some()),
            ("--no-pack", self.no_pack),
            ("--lower", self.lower),
            ("--names", self.names),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// What the module is packed for, as far as the command line says.
    pub(super) fn devices(&self) -> Features {
        if self.lower { Features::FIRST_DEVICES } else { Features::DEVICES }
    }

    fn targets(&self) -> Result<TargetDevices> {
        let selector = match (&self.selector, self.all_devices) {
            (Some(text), _) => Some(selector::parse(text)?),
            (None, true) => Some(Default::default()),
            (None, false) => None,
        };
        ensure!(
            selector.is_some() || !self.device.is_empty(),
            "say where it goes: --device NAME, --selector LABELS or --all-devices"
        );
        Ok(TargetDevices { device_names: self.device.clone(), selector })
    }

    fn capabilities(&self) -> Vec<String> {
        let mut capabilities = self.capability.clone();
        let granted = [
            ("i2c", !self.i2c.is_empty()),
            ("spi", !self.spi.is_empty()),
            ("uart", !self.uart.is_empty()),
            ("gpio", !self.gpio.is_empty()),
        ];
        for (name, is_granted) in granted {
            if is_granted && !capabilities.iter().any(|known| known == name) {
                capabilities.push(name.to_owned());
            }
        }
        capabilities
    }

    fn config(&self, memory_at_start: u64) -> Result<ApplicationConfig> {
        let defaults = ApplicationConfig::default();
        let at_start = i64::try_from(memory_at_start).unwrap_or(i64::MAX);
        let mut env = defaults.env.clone();
        for (name, value) in &self.env {
            if let Some(before) = env.insert(name.clone(), value.clone())
                && before != *value
            {
                bail!("--env gives {name} two values, {before:?} and {value:?}");
            }
        }
        Ok(ApplicationConfig {
            memory_limit: self.memory_limit.unwrap_or(defaults.memory_limit.max(at_start)),
            cpu_time_limit: self.cpu_time_limit.unwrap_or(defaults.cpu_time_limit),
            env,
            env_from: self.env_from.clone(),
            args: self.arg.clone(),
            restart_policy: match self.restart {
                Some(Restart::Always) => RestartPolicy::Always,
                Some(Restart::OnFailure) => RestartPolicy::OnFailure,
                Some(Restart::Never) => RestartPolicy::Never,
                None => defaults.restart_policy,
            },
            capabilities: self.capabilities(),
            peripherals: PeripheralGrants {
                i2c: self.i2c.clone(),
                uart: self.uart.clone(),
                spi: self.spi.clone(),
                gpio: self.gpio.clone(),
            },
            topics: self.topics(),
        })
    }

    /// The labels of the devices that it goes to, beyond those that are named.
    fn selected(&self) -> Option<&str> {
        self.selector.as_deref().or(self.all_devices.then_some(""))
    }

    fn settings(&self) -> Option<ApplicationSettings> {
        let values = self.settings.iter().cloned();
        let values: BTreeMap<_, _> = values.map(|(name, text)| (name, SettingScalar::Text(text))).collect();
        (!values.is_empty()).then(|| ApplicationSettings { values, ..ApplicationSettings::default() })
    }

    fn topics(&self) -> Vec<Topic> {
        let comes_in = |topic: &Topic| Topic { direction: TopicDirection::In, ..topic.clone() };
        self.topic.iter().cloned().chain(self.topic_in.iter().map(comes_in)).collect()
    }
}

/// `SECRET` or `SECRET:PREFIX`; the API checks both.
fn env_from(text: &str) -> Result<EnvFrom, Infallible> {
    let (name, prefix) = text.split_once(':').map_or((text, None), |(name, prefix)| (name, Some(prefix)));
    let secret = SecretRef { name: name.to_owned(), optional: None };
    Ok(EnvFrom { secret_ref: Some(secret), prefix: prefix.map(str::to_owned), ..EnvFrom::default() })
}

/// `NAME` or `NAME:PER_SECOND`; the API checks both.
fn topic(text: &str) -> Result<Topic, &'static str> {
    let (name, per_second) = text.split_once(':').unwrap_or((text, "1"));
    let per_second =
        per_second.parse().map_err(|_| "expected NAME or NAME:PER_SECOND, for example temperature:10")?;
    Ok(Topic { name: name.to_owned(), direction: TopicDirection::Out, per_second })
}

/// The file's bytes if it is a WebAssembly module by its name or its first bytes.
pub(super) fn read_if_module(path: &Path) -> Result<Option<Vec<u8>>> {
    let named = path.extension().is_some_and(|extension| extension == "wasm");
    if path.as_os_str() == "-" || path.is_dir() {
        return Ok(None);
    }
    let bytes = read_bytes(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok((named || bytes.starts_with(b"\0asm")).then_some(bytes))
}

/// A module as it is sent.
pub(super) struct Ready {
    bytes: Vec<u8>,
    memory: Option<u64>,
    /// What packing did.
    report: Option<String>,
}

impl Ready {
    /// Packs a file for devices that run these groups, unless it is to be sent as it is.
    pub(super) fn new(args: &WasmArgs, path: &Path, bytes: &[u8], devices: Features) -> Result<Self> {
        if args.no_pack {
            let anatomy = module::Anatomy::read(bytes).ok();
            let memory = anatomy.and_then(|anatomy| anatomy.memory.map(|memory| memory.bytes()));
            return Ok(Self { bytes: bytes.to_vec(), memory, report: None });
        }
        let packed = module::pack_for(bytes, devices);
        let packed = if args.names { packed.and_then(|packed| packed.with_names(bytes)) } else { packed };
        let packed = packed.with_context(|| format!("can't pack {}", path.display()))?;
        let report = format!("packed     {}\n{}", path.display(), packed.report());
        let memory = packed.memory.map(|memory| memory.bytes());
        Ok(Self { bytes: packed.bytes, memory, report: Some(report) })
    }

    /// Packs it again, where Devices that it goes to report that they don't run all that it uses.
    pub(super) async fn lowered_if_needed(
        self,
        cluster: &Cluster,
        args: &WasmArgs,
        path: &Path,
        original: &[u8],
    ) -> Result<Self> {
        if args.no_pack || args.lower {
            return Ok(self);
        }
        let limits = ScanLimits::default();
        // What the scan refuses, the fit check does as well, and says why.
        let Ok(info) = scan(&self.bytes, &limits) else { return Ok(self) };
        let all = Features::DEVICES.union(info.features);
        let (mut runs, mut behind) = (all, Vec::new());
        for device in cluster.devices(&args.device, args.selected()).await? {
            let Some(device) = Engine::of(&device) else { continue };
            if !device.runs.contains(info.features) {
                runs = runs.intersection(device.runs);
                behind.push(device);
            }
        }
        let Some(first) = behind.first() else { return Ok(self) };
        let missing = info.features.without(first.runs);
        let more = behind.len() - 1;
        let others = if more > 0 { format!(" (and so do {more} more)") } else { String::new() };
        let reason = format!("{} ({}) does not run {missing}{others}", first.name, first.engine);
        match Self::new(args, path, original, runs.union(Features::FIRST_DEVICES)) {
            Ok(lowered) => {
                output::complain(&format!("lowered    {reason}"));
                Ok(lowered)
            }
            Err(error) => {
                output::complain(&format!("not lowered, though {reason}: {error:#}"));
                Ok(self)
            }
        }
    }

    /// What was done, for a person.
    pub(super) fn report(&self) {
        if let Some(report) = &self.report {
            output::complain(report.trim_end());
        }
    }
}

/// What a Device says of its engine.
struct Engine {
    name: String,
    engine: String,
    runs: Features,
}

impl Engine {
    /// `None` for a Device that never connected: nothing is known of it.
    fn of(device: &Value) -> Option<Self> {
        let facts = device["status"]["facts"].as_object()?;
        let named = facts.get("features").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let runs = Features::NAMES.iter().filter(|(_, name)| named.iter().any(|named| named == name));
        Some(Self {
            name: device["metadata"]["name"].as_str()?.to_owned(),
            engine: facts.get("engine").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
            runs: runs.fold(Features::NONE, |all, (feature, _)| all.union(*feature)),
        })
    }
}

/// The Application, after the Module that it names if it needs one.
pub(super) fn manifests(
    args: &WasmArgs,
    min_ready_seconds: Option<i32>,
    path: &Path,
    ready: &Ready,
) -> Result<Vec<Manifest>> {
    let targets = args.targets()?;
    let name = args.name.clone().map_or_else(|| name_of(path), Ok)?;
    ensure!(
        name.len() <= LABEL_VALUE_MAX,
        "the name {name:?} is longer than {LABEL_VALUE_MAX} characters; give a shorter one with --name"
    );
    let (bytes, memory) = (&ready.bytes, ready.memory);
    ensure!(
        bytes.len() <= MODULE_BYTES_MAX,
        "the module has {} bytes; a Module holds at most {MODULE_BYTES_MAX}",
        bytes.len()
    );
    let mut spec = ApplicationSpec {
        description: args.description.clone(),
        target_devices: Some(targets),
        min_ready_seconds: min_ready_seconds.filter(|seconds| *seconds > 0),
        config: args.config(memory.unwrap_or(0))?,
        settings: args.settings(),
        ..ApplicationSpec::default()
    };
    let mut objects = Vec::new();
    if bytes.len() <= INLINE_BYTES_MAX {
        spec.wasm_bytes = Some(STANDARD.encode(bytes));
    } else {
        let digest = hex::encode(Sha256::digest(bytes));
        let module_name = format!("{name}-{}", &digest[..12]);
        let module = Module::new(
            &module_name,
            ModuleSpec {
                wasm_bytes: STANDARD.encode(bytes),
                digest: Some(format!("sha256:{digest}")),
                description: Some(format!("made for the Application {name}")),
            },
        );
        let mut module = serde_json::to_value(module)?;
        module["metadata"]["labels"] = json!({ APPLIED_FOR: name });
        objects.push(module);
        spec.module = Some(module_name);
    }
    objects.push(serde_json::to_value(Application::new(&name, spec))?);
    let origin = path.display().to_string();
    objects.into_iter().map(|object| Manifest::new(origin.clone(), object)).collect()
}

/// Deletes the Modules that were made for these Applications before and that no Application names any more.
pub(super) async fn drop_unused_modules(cluster: &Cluster, application: &str) -> Result<()> {
    let modules = Resource::ours("Module", "modules");
    let collection = modules.collection(Some(&cluster.namespace));
    let selector = encode_query(&format!("{APPLIED_FOR}={application}"));
    let made = cluster.read(&format!("{collection}?labelSelector={selector}")).await?.unwrap_or_default();
    let applications = Resource::ours("Application", "applications").collection(Some(&cluster.namespace));
    for module in made["items"].as_array().into_iter().flatten() {
        let Some(name) = module["metadata"]["name"].as_str() else { continue };
        let users = encode_query(&format!("spec.module={name}"));
        let users =
            cluster.read(&format!("{applications}?fieldSelector={users}&limit=1")).await?.unwrap_or_default();
        if users["items"].as_array().is_none_or(Vec::is_empty) {
            cluster
                .send(Method::DELETE, &format!("{collection}/{name}"), "application/json", &json!({}))
                .await?;
            output::print_line(&format!("{} deleted, nothing uses it any more", modules.object_name(name)));
        }
    }
    Ok(())
}

/// A Kubernetes name from a file's: `My App.wasm` becomes `my-app`. Nothing but separators is replaced, so that no two words
/// become one.
fn name_of(path: &Path) -> Result<String> {
    let file = path.file_stem().unwrap_or_default().to_string_lossy();
    let stem = file.as_ref();
    let stem = stem.strip_suffix(".packed").unwrap_or(stem).to_lowercase();
    let words: Vec<&str> = stem.split([' ', '_', '.', '-']).filter(|word| !word.is_empty()).collect();
    let plain = words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let name = words.join("-");
    if name.is_empty() || !plain || name.len() > LABEL_VALUE_MAX {
        bail!(
            "the name of the file {file:?} makes no name of an Application, up to {LABEL_VALUE_MAX} letters and digits of ASCII with dashes; give one with --name"
        );
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_device() -> WasmArgs {
        WasmArgs { device: vec!["device-001".to_owned()], ..WasmArgs::default() }
    }

    fn objects(args: &WasmArgs, path: &str, wat: &str) -> Result<Vec<Value>> {
        let path = Path::new(path);
        let ready = Ready::new(args, path, &wat::parse_str(wat)?, args.devices())?;
        Ok(manifests(args, Some(7), path, &ready)?.into_iter().map(|manifest| manifest.object).collect())
    }

    #[test]
    fn a_small_module_stands_inline_with_its_own_memory_as_the_limit() {
        let wat = r#"(module (memory (export "memory") 3) (func (export "run")))"#;
        let args = WasmArgs {
            env: vec![("A".to_owned(), "b=c".to_owned())],
            arg: vec!["-v".to_owned()],
            ..with_device()
        };
        let objects = objects(&args, "dir/Blink LED.wasm", wat).unwrap();
        let [application] = objects.as_slice() else { panic!("one object") };
        assert_eq!(application["kind"], "Application");
        assert_eq!(application["metadata"]["name"], "blink-led");
        let spec = &application["spec"];
        assert_eq!(spec["target_devices"]["device_names"], json!(["device-001"]));
        assert_eq!(spec["min_ready_seconds"], json!(7));
        assert_eq!(spec["config"]["memory_limit"], json!(3 * 65_536));
        assert_eq!(spec["config"]["env"], json!({"A": "b=c"}));
        assert_eq!(spec["config"]["args"], json!(["-v"]));
        let bytes = STANDARD.decode(spec["wasm_bytes"].as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\0asm"));
    }

    #[test]
    fn a_large_module_becomes_a_module_that_the_application_names() {
        let wat = format!(
            r#"(module (memory 4) (data (i32.const 0) "{}") (func (export "run")))"#,
            "x".repeat(200_000)
        );
        let args = WasmArgs { name: Some("large".to_owned()), no_pack: true, ..with_device() };
        let objects = objects(&args, "a.wasm", &wat).unwrap();
        let [module, application] = objects.as_slice() else { panic!("two objects") };
        assert_eq!(module["metadata"]["name"], application["spec"]["module"]);
        assert_eq!(module["metadata"]["labels"][APPLIED_FOR], "large");
        let bytes = STANDARD.decode(module["spec"]["wasm_bytes"].as_str().unwrap()).unwrap();
        assert_eq!(module["spec"]["digest"], format!("sha256:{}", hex::encode(Sha256::digest(bytes))));
        assert!(application["spec"].get("wasm_bytes").is_none());
    }

    #[test]
    fn targets_must_be_said_and_all_devices_is_an_empty_selector() {
        let wat = r#"(module (func (export "run")))"#;
        let error = objects(&WasmArgs::default(), "a.wasm", wat).unwrap_err().to_string();
        assert!(error.contains("--device") && error.contains("--all-devices"), "{error}");
        let all = objects(&WasmArgs { all_devices: true, ..WasmArgs::default() }, "a.wasm", wat).unwrap();
        assert_eq!(all[0]["spec"]["target_devices"], json!({"selector": {}}));
    }

    #[test]
    fn a_variable_with_two_values_is_refused() {
        let env = ["1", "2"].map(|value| ("A".to_owned(), value.to_owned())).to_vec();
        let error = WasmArgs { env, ..with_device() }.config(0).unwrap_err().to_string();
        assert!(error.contains(r#"--env gives A two values, "1" and "2""#), "{error}");
    }

    #[test]
    fn a_device_runs_what_it_reports_and_nothing_is_known_of_one_that_never_did() {
        let facts =
            json!({"engine": "an old one", "features": ["multi-value", "tail calls", "what comes later"]});
        let device = json!({"metadata": {"name": "a"}, "status": {"facts": facts}});
        let engine = Engine::of(&device).unwrap();
        assert_eq!((engine.name.as_str(), engine.engine.as_str()), ("a", "an old one"));
        assert_eq!(engine.runs, Features::MULTI_VALUE.union(Features::TAIL_CALL));
        let first = json!({"metadata": {"name": "b"}, "status": {"facts": {"engine": "the first"}}});
        assert_eq!(Engine::of(&first).unwrap().runs, Features::NONE);
        assert!(Engine::of(&json!({"metadata": {"name": "c"}, "status": {"phase": "Unknown"}})).is_none());
    }

    #[test]
    fn what_is_not_a_module_is_refused_by_the_packer() {
        let args = with_device();
        let error = Ready::new(&args, Path::new("a.wasm"), b"\0asm", args.devices()).err().unwrap();
        assert!(format!("{error:#}").contains("can't pack a.wasm"), "{error:#}");
    }
}
