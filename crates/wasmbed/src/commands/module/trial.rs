//! `wasmbed module run`: a module in the device's sandbox, on this machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::symbolize::TracePlace;
use anyhow::Context;
use rand::TryRngCore;
use wasmbed_protocol::{Schema, SettingResult, SettingValue};
use wasmbed_runtime::host::NoPeripherals;
use wasmbed_runtime::{
    Answer, AppId, Capabilities, Ending, Host, Interpreter, KeyValueError, Limits, Peripherals, Program,
    Published, Runtime, RuntimeConfig,
};

/// How a module is run.
#[derive(Clone, Debug)]
pub struct TrialOptions {
    /// `argv[0]`.
    pub name: String,
    /// The arguments after it.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Limits as in an Application.
    pub limits: Limits,
    /// Stop after so many lines and messages.
    pub lines_max: Option<u64>,
    /// Values of settings, as text.
    pub settings: Vec<(String, String)>,
    /// Let waits pass at once.
    pub skip_waits: bool,
}

/// How a run ended, or that it was stopped after its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// On its own.
    Ended(Ending),
    /// By us.
    Stopped,
}

/// Runs a module until it ends; each line of its log goes to `out` as it comes.
pub fn try_out(module: &[u8], options: &TrialOptions, out: &mut dyn Write) -> anyhow::Result<TrialEnd> {
    try_out_traced(module, options, out).map(|(end, _)| end)
}

/// The same, with the functions that were under way if it trapped, the innermost first.
pub fn try_out_traced(
    module: &[u8],
    options: &TrialOptions,
    out: &mut dyn Write,
) -> anyhow::Result<(TrialEnd, Vec<TracePlace>)> {
    const ID: AppId = AppId([0; 16]);
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::hosted());
    let args: Vec<&str> = options.args.iter().map(String::as_str).collect();
    let env: Vec<(&str, &str)> =
        options.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let program = Program {
        name: &options.name,
        module,
        limits: options.limits,
        args: &args,
        env: &env,
        capabilities: options.capabilities,
    };
    runtime.load(ID, &program).map_err(|error| anyhow::anyhow!("a device refuses it: {error}"))?;
    let schema = runtime.settings_section(ID).and_then(|section| module.get(section)).unwrap_or_default();
    let schema = Schema::parse(schema).context("the module's settings")?;
    let settings = options.settings.iter().map(|(name, value)| set(&schema, name, value));
    let mut host = Console {
        settings: settings.collect::<anyhow::Result<_>>()?,
        schema,
        out,
        started: Instant::now(),
        skipped: Duration::ZERO,
        lines: 0,
        failed: None,
        values: BTreeMap::new(),
        peripherals: NoPeripherals,
    };
    loop {
        if let Some(mut event) = runtime.run_slice(&mut host) {
            host.check()?;
            if event.ending.is_trap() {
                runtime.locate(module, &mut event.trace).context("the trap's places can't be found")?;
            }
            let places = event.trace.frames().iter();
            let places =
                places.map(|frame| TracePlace { function: Some(frame.function), offset: frame.offset });
            return Ok((TrialEnd::Ended(event.ending), places.collect()));
        }
        host.check()?;
        if options.lines_max.is_some_and(|max| host.lines >= max) {
            return Ok((TrialEnd::Stopped, Vec::new()));
        }
        let now_ms = host.now_us() / 1_000;
        // Every host call of `Console` is answered at once, so an application that sleeps has a time to wake at.
        let wake_ms = runtime.next_wake(now_ms).context("the application waits for nothing")?;
        let pause = Duration::from_millis(wake_ms.saturating_sub(now_ms));
        if options.skip_waits {
            host.skipped += pause;
        } else {
            std::thread::sleep(pause);
        }
    }
}

/// The value of a setting that the module allows.
fn set<'a>(schema: &Schema<'_>, name: &'a str, text: &'a str) -> anyhow::Result<(&'a str, SettingValue<'a>)> {
    let declared = schema.find(name).with_context(|| format!("the module declares no setting `{name}`"))?;
    let kind = declared.kind;
    let value = kind.read(text).filter(|value| kind.judge(*value) == SettingResult::Accepted);
    Ok((name, value.with_context(|| format!("setting `{name}` is {kind}, which '{text}' is not"))?))
}

/// A device whose log is a stream, whose key-value data lasts as long as the run, and that has no pins and sensors.
struct Console<'a> {
    out: &'a mut dyn Write,
    started: Instant,
    /// Time that passed without anybody waiting for it.
    skipped: Duration,
    lines: u64,
    failed: Option<std::io::Error>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    schema: Schema<'a>,
    settings: BTreeMap<&'a str, SettingValue<'a>>,
    peripherals: NoPeripherals,
}

impl Console<'_> {
    fn check(&mut self) -> anyhow::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error).context("can't write the application's log"),
            None => Ok(()),
        }
    }
}

impl Host for Console<'_> {
    fn now_us(&mut self) -> u64 {
        u64::try_from((self.started.elapsed() + self.skipped).as_micros()).unwrap_or(u64::MAX)
    }

    fn unix_ms(&mut self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()? + self.skipped;
        u64::try_from(now.as_millis()).ok()
    }

    fn random(&mut self, bytes: &mut [u8]) {
        if let Err(error) = rand::rngs::OsRng.try_fill_bytes(bytes) {
            self.failed = Some(std::io::Error::other(error));
        }
    }

    fn log(&mut self, _: AppId, text: &[u8], lines_lost: u32) {
        self.lines += 1;
        let mut line = Vec::with_capacity(text.len() + 1);
        if lines_lost > 0 {
            line.extend(format!("({lines_lost} lines lost)\n").bytes());
        }
        line.extend(text);
        line.push(b'\n');
        let written = self.out.write_all(&line).and_then(|()| self.out.flush());
        self.failed = self.failed.take().or(written.err());
    }

    fn key_value_get(
        &mut self,
        _: AppId,
        key: &[u8],
        value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>> {
        Answer::Ready(Ok(self.values.get(key).map(|stored| {
            for (to, from) in value.iter_mut().zip(stored) {
                *to = *from;
            }
            stored.len()
        })))
    }

    fn key_value_put(&mut self, _: AppId, key: &[u8], value: &[u8]) -> Answer<Result<(), KeyValueError>> {
        self.values.insert(key.to_vec(), value.to_vec());
        Answer::Ready(Ok(()))
    }

    fn key_value_delete(&mut self, _: AppId, key: &[u8]) -> Answer<Result<bool, KeyValueError>> {
        Answer::Ready(Ok(self.values.remove(key).is_some()))
    }

    fn publish(&mut self, _: AppId, topic: &[u8], payload: &[u8], _: bool) -> Published {
        self.lines += 1;
        let topic = topic.escape_ascii();
        let line = match str::from_utf8(payload) {
            Ok(text) if !text.contains(char::is_control) => format!("published to {topic}: {text}\n"),
            Ok(_) | Err(_) => format!("published to {topic}: {}\n", payload.escape_ascii()),
        };
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        self.failed = self.failed.take().or(written.err());
        Published::Taken
    }

    fn setting(&mut self, _: AppId, name: &[u8], value: &mut [u8]) -> Option<usize> {
        let declared = self.schema.find(str::from_utf8(name).ok()?)?;
        let set = self.settings.get(declared.name).copied().unwrap_or(declared.default);
        set.with_bytes(|bytes| {
            value.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        })
    }

    fn peripherals(&mut self) -> &mut dyn Peripherals {
        &mut self.peripherals
    }
}
