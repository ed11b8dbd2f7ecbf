//! How long slices are, on engines of every speed: the engine here burns fuel by moving the clock.

#![cfg(test)]

mod support;

use std::cell::Cell;

use support::{TestHost, id, program, wasm};
use wasmbed_runtime::engine::{Engine, EngineError, OutOfBounds, Quota, Step, Stepped, Trap};
use wasmbed_runtime::{
    Answer, AppId, Ending, Exceeded, Features, Host, KeyValueError, ModuleInfo, Peripherals, Published,
    Runtime, RuntimeConfig, Value,
};

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds that a unit of fuel takes.
    static FUEL_NS: Cell<u64> = const { Cell::new(0) };
}

struct Burner;

impl Engine for Burner {
    type Arena = ();
    type Loader = ();
    const NAME: &'static str = "burner";
    const FEATURES: Features = Features::NONE;

    fn arena(_: usize) {}
    fn arena_used_bytes((): &()) -> usize {
        0
    }
    fn begin((): &(), _: &[u8], _: &ModuleInfo, _: Quota) -> Result<(), EngineError> {
        Ok(())
    }
    fn load_on((): &mut (), _: &[u8], _: &ModuleInfo, _: u32) -> Result<Option<Self>, EngineError> {
        Ok(Some(Burner))
    }
    fn exported_global(&self, _: &str) -> Option<Value> {
        None
    }
    fn start(&mut self, _: &str, _: &[Value]) -> Result<(), Trap> {
        Ok(())
    }
    fn step(&mut self, fuel: u32) -> Stepped {
        NOW_NS.set(NOW_NS.get() + u64::from(fuel) * FUEL_NS.get());
        Stepped { step: Step::OutOfFuel, fuel_used: fuel }
    }
    fn resume(&mut self, _: Option<Value>) -> Result<(), Trap> {
        Ok(())
    }
    fn read_memory(&self, _: u32, _: &mut [u8]) -> Result<(), OutOfBounds> {
        Err(OutOfBounds)
    }
    fn write_memory(&mut self, _: u32, _: &[u8]) -> Result<(), OutOfBounds> {
        Err(OutOfBounds)
    }
    fn linear_memory_bytes(&self) -> usize {
        0
    }
    fn memory_used_bytes(&self) -> usize {
        0
    }
    fn grows_refused(&self) -> u32 {
        0
    }
}

/// A device whose clock is the engine's.
struct BurnerHost(TestHost);

impl Host for BurnerHost {
    fn now_us(&mut self) -> u64 {
        NOW_NS.get() / 1_000
    }
    fn unix_ms(&mut self) -> Option<u64> {
        None
    }
    fn random(&mut self, bytes: &mut [u8]) {
        self.0.random(bytes);
    }
    fn log(&mut self, application: AppId, text: &[u8], lines_lost: u32) {
        self.0.log(application, text, lines_lost);
    }
    fn key_value_get(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>> {
        self.0.key_value_get(application, key, value)
    }
    fn key_value_put(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &[u8],
    ) -> Answer<Result<(), KeyValueError>> {
        self.0.key_value_put(application, key, value)
    }
    fn key_value_delete(&mut self, application: AppId, key: &[u8]) -> Answer<Result<bool, KeyValueError>> {
        self.0.key_value_delete(application, key)
    }
    fn publish(&mut self, application: AppId, topic: &[u8], payload: &[u8], drop_oldest: bool) -> Published {
        self.0.publish(application, topic, payload, drop_oldest)
    }
    fn peripherals(&mut self) -> &mut dyn Peripherals {
        self.0.peripherals()
    }
}

fn loaded(applications: u8) -> Runtime<Burner> {
    let mut runtime = Runtime::new(RuntimeConfig::default());
    let module = wasm(r#"(module (func (export "run")))"#);
    for number in 0..applications {
        runtime.load(id(number), &program(&module)).unwrap();
    }
    runtime
}

fn slice_us(runtime: &mut Runtime<Burner>) -> (u64, Option<wasmbed_runtime::Event>) {
    let before = NOW_NS.get();
    let event = runtime.run_slice(&mut BurnerHost(TestHost::new()));
    ((NOW_NS.get() - before) / 1_000, event)
}

#[test]
fn at_most_5_ms_from_the_first_slice_on_at_every_speed() {
    // From a core of a few MHz to the fastest host: 7 µs to 2 ns for an instruction.
    for fuel_ns in [7_000, 1_000, 300, 100, 20, 5, 2] {
        FUEL_NS.set(fuel_ns);
        let mut runtime = loaded(1);
        for slice in 0..15 {
            let (us, event) = slice_us(&mut runtime);
            assert!(us <= 5_000, "slice {slice} at {fuel_ns} ns: {us} us");
            assert!(slice < 5 || us >= 4_000, "slice {slice} at {fuel_ns} ns: only {us} us");
            assert_eq!(event, None);
        }
    }
}

#[test]
fn a_program_that_turns_expensive_overruns_once_and_by_little() {
    FUEL_NS.set(5);
    let mut runtime = loaded(1);
    for _ in 0..5 {
        slice_us(&mut runtime);
    }
    // Calls that clear a thousand locals: two hundred times as slow, from one instruction to the next.
    FUEL_NS.set(1_000);
    let (first_us, _) = slice_us(&mut runtime);
    assert!(first_us <= 60_000, "one quantum of 250 us, two hundred times as long: {first_us} us");
    let (second_us, _) = slice_us(&mut runtime);
    assert!(second_us <= 5_000, "{second_us} us");
}

#[test]
fn ten_get_equal_parts_and_the_limit_is_measured() {
    FUEL_NS.set(10);
    let mut runtime = loaded(10);
    let mut ends = Vec::new();
    while ends.len() < 10 {
        let (_, event) = slice_us(&mut runtime);
        ends.extend(event);
        let used: Vec<u64> =
            (0..10).filter_map(|number| runtime.usage(id(number))).map(|usage| usage.cpu_ms).collect();
        let (least, most) =
            (used.iter().min().copied().unwrap_or(0), used.iter().max().copied().unwrap_or(0));
        assert!(most - least <= 6, "{used:?}");
    }
    for event in ends {
        assert_eq!(event.ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
        assert!((100..=105).contains(&event.usage.cpu_ms), "{}", event.usage.cpu_ms);
    }
}
