//! wasmi, with fuel, from the system's heap.

use ::wasmi::{
    CompilationMode, Config, Engine as Wasm, Instance, Linker, Module, Store, TypedFunc, TypedResumableCall,
    TypedResumableCallOutOfFuel,
};

use crate::common::{Engine, Step};

enum State {
    Idle,
    Started(TypedFunc<u32, u32>, u32),
    OutOfFuel(TypedResumableCallOutOfFuel<u32>),
}

pub(crate) struct Wasmi {
    store: Store<()>,
    instance: Instance,
    state: State,
}

impl Wasmi {
    pub(crate) fn load(module: &[u8]) -> Result<Self, &'static str> {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .wasm_custom_page_sizes(true)
            .compilation_mode(CompilationMode::Eager)
            .ignore_custom_sections(true)
            .set_min_stack_height(256)
            .set_max_stack_height(8_192)
            .set_max_recursion_depth(256)
            .set_max_cached_stacks(0);
        let wasm = Wasm::new(&config);
        let module = Module::new(&wasm, module).map_err(|_| "wasmi refuses the kernels")?;
        let mut store = Store::new(&wasm, ());
        let linker = Linker::new(&wasm);
        let instance =
            linker.instantiate_and_start(&mut store, &module).map_err(|_| "wasmi can't instantiate them")?;
        Ok(Self { store, instance, state: State::Idle })
    }
}

impl Engine for Wasmi {
    const NAME: &'static str = "wasmi-1.1.0";

    fn start(&mut self, kernel: &str, amount: u32) -> Result<(), &'static str> {
        let function =
            self.instance.get_typed_func(&self.store, kernel).map_err(|_| "wasmi has no kernel")?;
        self.state = State::Started(function, amount);
        Ok(())
    }

    fn step(&mut self, fuel: u32) -> Result<Step, &'static str> {
        let fueled = |store: &mut Store<()>, fuel| store.set_fuel(fuel).map_err(|_| "wasmi meters no fuel");
        let called = match core::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return Err("no call of wasmi"),
            State::Started(function, amount) => {
                fueled(&mut self.store, fuel.into())?;
                function.call_resumable(&mut self.store, amount)
            }
            State::OutOfFuel(call) => {
                fueled(&mut self.store, u64::from(fuel).max(call.required_fuel()))?;
                call.resume(&mut self.store)
            }
        };
        match called {
            Ok(TypedResumableCall::Finished(sum)) => Ok(Step::Done(sum)),
            Ok(TypedResumableCall::OutOfFuel(call)) => {
                self.state = State::OutOfFuel(call);
                Ok(Step::OutOfFuel)
            }
            Ok(TypedResumableCall::HostTrap(_)) | Err(_) => Err("a kernel trapped on wasmi"),
        }
    }
}
