//! What must hold for any bytes as a module; shared by the fuzz target `module` and the replay of its corpus.
#![allow(clippy::panic, reason = "a finding is a panic")]

use wasmbed_runtime::engine::{Engine, EngineError, Quota};
use wasmbed_runtime::{
    Answer, AppId, Capabilities, Host, Interpreter, KeyValueError, Limits, Metering, NoPeripherals,
    Peripherals, Program, Published, Runtime, RuntimeConfig, ScanLimits, Wasmi, scan,
};

const LINEAR_BYTES: u64 = 256 * 1_024;

/// A device that answers everything and keeps nothing.
struct Void {
    now_us: u64,
    peripherals: NoPeripherals,
}

impl Host for Void {
    fn now_us(&mut self) -> u64 {
        self.now_us
    }
    fn unix_ms(&mut self) -> Option<u64> {
        Some(self.now_us / 1_000)
    }
    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
    fn log(&mut self, _: AppId, _: &[u8], _: u32) {}
    fn key_value_get(
        &mut self,
        _: AppId,
        key: &[u8],
        value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>> {
        value[..key.len()].copy_from_slice(key);
        Answer::Ready(Ok(Some(key.len())))
    }
    fn key_value_put(&mut self, _: AppId, _: &[u8], _: &[u8]) -> Answer<Result<(), KeyValueError>> {
        Answer::Ready(Ok(()))
    }
    fn key_value_delete(&mut self, _: AppId, _: &[u8]) -> Answer<Result<bool, KeyValueError>> {
        Answer::Ready(Ok(true))
    }
    fn publish(&mut self, _: AppId, _: &[u8], _: &[u8], _: bool) -> Published {
        Published::Taken
    }
    fn peripherals(&mut self) -> &mut dyn Peripherals {
        &mut self.peripherals
    }
}

fn load<E: Engine>(
    module: &[u8],
    linear_bytes: usize,
    info: &wasmbed_runtime::ModuleInfo,
) -> Result<E, EngineError> {
    let quota = Quota { heap_bytes: 2 * 1_024 * 1_024, linear_bytes, stack_words: 4_096 };
    E::load(&E::arena(8 * 1_024 * 1_024), module, info, quota)
}

/// The scan answers; what it lets pass, both engines accept or both refuse, unless it has a start function, which the
/// oracle would run at once; what loads runs and leaves nothing behind.
pub(crate) fn accept(module: &[u8]) {
    let Ok(info) = scan(module, &ScanLimits::default()) else { return };
    if info.memory_min_bytes > LINEAR_BYTES {
        return;
    }
    let linear_bytes = info.memory_wanted_bytes(LINEAR_BYTES) as usize;
    let ours = load::<Interpreter>(module, linear_bytes, &info);
    if Wasmi::FEATURES.contains(info.features) {
        let oracle = load::<Wasmi>(module, linear_bytes, &info);
        match (&ours, &oracle) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            (Err(EngineError::OutOfMemory { .. } | EngineError::Quota { .. }), Ok(_)) => {}
            (Err(EngineError::Module(error)), Ok(_)) if error.is_limit() => {}
            _ => panic!("{:?} here, {:?} there", ours.err(), oracle.err()),
        }
    }
    drop(ours);
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig {
        metering: Metering::Fixed { fuel_per_ms: 1_000 },
        ..RuntimeConfig::hosted()
    });
    let program = Program {
        name: "fuzz",
        module,
        limits: Limits { memory_bytes: LINEAR_BYTES as u32, cpu_ms: 50 },
        args: &["a"],
        env: &[("b", "c")],
        capabilities: Capabilities::ALL,
    };
    let id = AppId([1; 16]);
    if runtime.load(id, &program).is_ok() {
        let mut host = Void { now_us: 1, peripherals: NoPeripherals };
        for _ in 0..500 {
            if runtime.run_slice(&mut host).is_some() {
                break;
            }
            host.now_us += 1_000;
        }
        runtime.stop(id);
    }
    assert_eq!(runtime.memory_used_bytes(), 0, "nothing is left behind");
}
