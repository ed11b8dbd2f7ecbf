//! An oracle of the differential tests: spacewasm, an interpreter of WebAssembly 1.0 that validates in full and answers an allocation
//! failure with an error.

mod arena;
mod link;
mod owner;
mod stream;

use alloc::rc::Rc;
use core::cell::Cell;

use spacewasm as sw;
use sw::InterpreterRunner;

pub use arena::Arena;
use arena::{Instance, Linear, Refused, Space, charge_to};
use link::{Slot, from_engine, to_engine};
use stream::Sections;

use super::{Engine, EngineError, OutOfBounds, ProgramTrap, Quota, Step, Stepped, Trap};
use crate::scan::{CONTROL_FRAMES, Features, ModuleInfo, OPERANDS, Value};

/// Instructions between two looks at how much fuel is left.
const CHUNK: u32 = 256;
/// Branches to the end of one block. Each is patched once, so this bounds nothing but a cycle that can't be.
const BACKPATCH_MAX: u32 = 65_536;
/// Bytes of a page of the engine's own code.
const CODE_PAGE_BYTES: usize = 512;
/// The most that one byte of WebAssembly becomes: a label of `br_table`.
const CODE_EXPANSION: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Running,
    /// A host call waits for its answer.
    Paused,
}

/// One module, loaded into spacewasm.
pub struct Spacewasm {
    instance: Instance<Slot>,
    state: State,
    result_type: Option<sw::ValType>,
}

impl Engine for Spacewasm {
    type Arena = Arena;
    type Loader = Option<Self>;

    const NAME: &'static str = "spacewasm 0.7.1";
    const FEATURES: Features = Features::FIRST_DEVICES;

    fn arena(bytes: usize) -> Arena {
        Arena::new(bytes)
    }

    fn arena_used_bytes(arena: &Arena) -> usize {
        arena.used_bytes()
    }

    fn begin(
        arena: &Arena,
        module: &[u8],
        info: &ModuleInfo,
        quota: Quota,
    ) -> Result<Option<Self>, EngineError> {
        let space = Space::new(arena, quota.heap_bytes);
        let built = charge_to(&space, || build(&space, module, info, quota));
        let (engine, code, module, slot) = built.map_err(|error| match (space.refused(), error) {
            (Some(Refused::Quota), _) => EngineError::Quota { heap_bytes: quota.heap_bytes },
            (Some(Refused::Arena { needed_bytes, free_bytes }), _) => {
                EngineError::OutOfMemory { needed_bytes, free_bytes }
            }
            (None, error) => EngineError::Invalid(describe(&error)),
        })?;
        let instance = Instance { engine, code, module, slot, space };
        Ok(Some(Spacewasm { instance, state: State::Idle, result_type: None }))
    }

    fn load_on(
        loaded: &mut Option<Self>,
        _: &[u8],
        _: &ModuleInfo,
        _: u32,
    ) -> Result<Option<Self>, EngineError> {
        Ok(loaded.take())
    }

    fn exported_global(&self, name: &str) -> Option<Value> {
        let module = self.module()?;
        let export = module.exports.iter().find(|export| export.name == name)?;
        let sw::ExportDesc::Global(index) = export.desc else { return None };
        let sw::Ref::Module(index) = module.get_global_ref(index)? else { return None };
        module.globals.get(usize::from(index)).map(|global| from_engine(global.value()))
    }

    fn start(&mut self, export: &str, arguments: &[Value]) -> Result<(), Trap> {
        let index = self.own_function(export).ok_or(Trap::Engine("no such export"))?;
        let types = self.module().and_then(|module| module.functions.get(usize::from(index)));
        let result_type = types.ok_or(Trap::Engine("a function that isn't there"))?.return_ty;
        if arguments.len() > super::ARGUMENTS_MAX {
            return Err(Trap::Engine("too many arguments"));
        }
        let mut values = [sw::Value::I32(0); super::ARGUMENTS_MAX];
        for (slot, value) in values.iter_mut().zip(arguments) {
            *slot = to_engine(*value);
        }
        let values = values.get(..arguments.len()).unwrap_or(&[]);
        let Instance { engine, module, slot, .. } = &mut self.instance;
        engine.reset();
        slot.set(None);
        self.state = State::Idle;
        engine.invoke(sw::WasmRef { module: *module, index }, values).map_err(|error| match error {
            sw::InvokeError::StackOverflow => Trap::Program(ProgramTrap::StackOverflow),
            sw::InvokeError::ParamLenMismatch | sw::InvokeError::ParamTypeMismatch => {
                Trap::Engine("arguments of other types")
            }
            sw::InvokeError::Busy => Trap::Engine("a call within a call"),
        })?;
        self.result_type = result_type;
        self.state = State::Running;
        Ok(())
    }

    fn step(&mut self, fuel: u32) -> Stepped {
        let mut fuel_used = 0;
        let step = match self.state {
            State::Idle => Step::Trap(Trap::Engine("nothing to run")),
            State::Paused => Step::Trap(Trap::Engine("a host call was not answered")),
            State::Running => loop {
                if fuel_used >= fuel {
                    break Step::OutOfFuel;
                }
                let chunk = CHUNK.min(fuel - fuel_used);
                fuel_used += chunk;
                let Instance { engine, code, slot, .. } = &mut self.instance;
                match sw::Interpreter.run(code.pages(), engine, chunk as usize) {
                    sw::InterpreterResult::OutOfFuel => {}
                    sw::InterpreterResult::Finished => {
                        self.state = State::Idle;
                        let result = self.result_type.and_then(|value_type| {
                            engine.result.map(|raw| from_engine(raw.to_value(value_type)))
                        });
                        break Step::Done(result);
                    }
                    sw::InterpreterResult::Pause => match slot.take() {
                        Some(call) => {
                            self.state = State::Paused;
                            break Step::HostCall(call);
                        }
                        None => {
                            self.state = State::Idle;
                            break Step::Trap(Trap::Engine("a pause without a host call"));
                        }
                    },
                    sw::InterpreterResult::Trap(reason) => {
                        self.state = State::Idle;
                        break Step::Trap(trap(reason));
                    }
                }
            },
        };
        Stepped { step, fuel_used }
    }

    fn resume(&mut self, value: Option<Value>) -> Result<(), Trap> {
        if self.state != State::Paused {
            return Err(Trap::Engine("an answer without a host call"));
        }
        match self.instance.engine.resume(value.map(to_engine)) {
            Ok(()) => {
                self.state = State::Running;
                Ok(())
            }
            Err(sw::ResumeError::NotPaused | sw::ResumeError::ResultTypeMismatch) => {
                Err(Trap::Engine("an answer of another type"))
            }
        }
    }

    fn read_memory(&self, address: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let found =
            self.instance.engine.memory.load(address as usize, bytes.len()).map_err(|_| OutOfBounds)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn write_memory(&mut self, address: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        self.instance.engine.memory.store(address as usize, bytes).map_err(|_| OutOfBounds)
    }

    fn linear_memory_bytes(&self) -> usize {
        let memory = self.instance.engine.store.get_memory(self.instance.module);
        memory.get_slice().len()
    }

    fn memory_used_bytes(&self) -> usize {
        self.instance.space.used_bytes()
    }

    fn grows_refused(&self) -> u32 {
        self.instance.space.grows_refused()
    }
}

impl Spacewasm {
    fn module(&self) -> Option<&sw::Module> {
        self.instance.engine.store.modules().first()
    }

    /// The index, among the module's own functions, of an exported one.
    fn own_function(&self, name: &str) -> Option<u16> {
        let module = self.module()?;
        module.exports.iter().find(|export| export.name == name).and_then(|export| match export.desc {
            sw::ExportDesc::Func(index) => match module.get_func_ref(index)? {
                sw::Ref::Module(index) => Some(index),
                sw::Ref::Host { .. } | sw::Ref::Extern { .. } => None,
            },
            sw::ExportDesc::Table(_) | sw::ExportDesc::Mem(_) | sw::ExportDesc::Global(_) => None,
        })
    }
}

type Built = (sw::Engine, sw::CodeBuilder, sw::ModuleRef, Slot);

/// Loads; every allocation on the way is the engine's own and charged to the space.
fn build(
    space: &alloc::sync::Arc<Space>,
    module: &[u8],
    info: &ModuleInfo,
    quota: Quota,
) -> Result<Built, sw::ValidationError> {
    let slot: Slot = Rc::new(Cell::new(None));
    let linear = Linear::reserve(space, quota.linear_bytes).ok_or(sw::AllocError::OutOfMemory)?;
    let linear = sw::Rc::new(linear)?.into_wasm_memory_allocator();
    let mut engine = sw::Engine::new(quota.stack_words, 1, link::host_modules(info, &slot)?)?;
    let mut code = sw::CodeBuilder::new(sw::CompilerOptions {
        allow_memory_grow: true,
        max_backpatch_iterations: Some(BACKPATCH_MAX),
        max_code_pages: (info.code_bytes as usize).saturating_mul(CODE_EXPANSION) / CODE_PAGE_BYTES + 2,
    })?;
    let mut stream = Sections::new(module);
    let loaded =
        sw::Module::new::<CONTROL_FRAMES, OPERANDS>("", &mut stream, &mut engine.store, &mut code, linear)
            .map_err(|error| error.err.err)?;
    let module = engine.push_module(loaded)?;
    Ok((engine, code, module, slot))
}

fn trap(reason: sw::TrapReason) -> Trap {
    match reason {
        sw::TrapReason::Unreachable => Trap::Program(ProgramTrap::Unreachable),
        sw::TrapReason::DivideByZero => Trap::Program(ProgramTrap::DivisionByZero),
        sw::TrapReason::InvalidTableIndex => Trap::Program(ProgramTrap::UndefinedElement),
        sw::TrapReason::InvalidTableFunctionType => Trap::Program(ProgramTrap::IndirectCallType),
        sw::TrapReason::UninitializedTableElement => Trap::Program(ProgramTrap::UninitializedElement),
        sw::TrapReason::MemoryOutOfBounds | sw::TrapReason::OutOfMemory => {
            Trap::Program(ProgramTrap::MemoryOutOfBounds)
        }
        sw::TrapReason::StackOverflow => Trap::Program(ProgramTrap::StackOverflow),
        sw::TrapReason::UnrepresentableResult | sw::TrapReason::IntegerOverflow => {
            Trap::Program(ProgramTrap::IntegerOverflow)
        }
        sw::TrapReason::BadConversionToInteger => Trap::Program(ProgramTrap::ConversionToInteger),
        sw::TrapReason::Host => Trap::Engine("a host function that traps"),
        sw::TrapReason::GlobalGetFailed | sw::TrapReason::GlobalSetFailed => {
            Trap::Engine("an imported global")
        }
        sw::TrapReason::MemoryRefNotUnique => Trap::Engine("memory in use while it grows"),
        sw::TrapReason::MalformedIr => Trap::Engine("damaged code"),
    }
}

/// What is wrong with a module that the scan let pass: mostly types, which only the engine follows.
fn describe(error: &sw::ValidationError) -> &'static str {
    use sw::ValidationError as E;
    match error {
        E::TypeMismatch
        | E::BlockResultTypeMismatch
        | E::BrTableResultTypeMismatch
        | E::FunctionResultTypeMismatch
        | E::GlobalTypeMismatch => "types do not match",
        E::StackUnderflow => "an operator takes more operands than there are",
        E::ControlFlowTooDeep => "blocks nested too deep",
        E::StackTooLarge | E::LabelStackJumpTooDeep => "a function with too large a stack frame",
        E::LabelJumpTooLarge | E::PossibleBackpatchCycle => "a function too long",
        E::FunctionParametersTooLarge | E::FunctionReturnsTooLarge => {
            "a function with too many parameters or results"
        }
        E::TooManyLocals => "too many locals",
        E::LocalIdxOutOfRange => "a local that isn't there",
        E::FunctionIdxOutOfRange => "a function that isn't there",
        E::TypeIdxOutOfRange => "a type that isn't there",
        E::GlobalIdxOutOfRange => "a global that isn't there",
        E::GlobalNotMutable => "a constant global is set",
        E::InvalidLabelIndex => "a branch to a block that isn't there",
        E::AlignmentLargerThanType | E::MemAlignTooLarge => "an alignment larger than the access",
        E::MemoryNotDefined | E::InvalidMemIndex => "a memory access without a memory",
        E::TableNotDefined | E::InvalidTableIndex => "a table access without a table",
        E::InvalidElementOffset | E::InvalidElementOutOfBounds => "an element segment outside the table",
        E::InvalidMemOffset | E::InvalidMemOffsetType | E::InvalidNegativeMemOffset => {
            "a data segment's offset"
        }
        E::MemoryError(_) => "a data segment outside the memory",
        E::InvalidConstantExpr(_) | E::InvalidConstInstruction => "a constant expression",
        E::DuplicateExportName => "two exports of one name",
        E::MalformedUtf8 => "a name that is not UTF-8",
        E::GuestMemoryAllocationFailure => "more linear memory than was set aside",
        E::AllocError(_) => "a function with too many blocks or operands",
        _ => "malformed",
    }
}
