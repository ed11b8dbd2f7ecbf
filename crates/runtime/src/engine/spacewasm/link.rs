//! Host functions as the engine wants them. None of them does anything: each notes its call and pauses the engine.

use alloc::rc::Rc;
use core::cell::Cell;
use core::ops::ControlFlow;

use spacewasm as sw;

use crate::engine::{Arguments, HostCall};
use crate::scan::{HostFunction, ModuleInfo, Value, ValueType};

/// Where a paused engine's host call is left. All clones of it are in the one instance that it belongs to.
pub(super) type Slot = Rc<Cell<Option<HostCall>>>;

/// The host functions that a module imports, grouped by import module.
pub(super) fn host_modules(
    info: &ModuleInfo,
    slot: &Slot,
) -> Result<sw::Vec<sw::HostModule>, sw::AllocError> {
    let first = |at: usize| {
        let name = info.imports.get(at).map(|import| import.function.module());
        !info.imports.iter().take(at).any(|import| Some(import.function.module()) == name)
    };
    let count = (0..info.imports.len()).filter(|at| first(*at)).count();
    let mut modules = sw::Vec::new(count)?;
    for (at, import) in info.imports.iter().enumerate() {
        if first(at) {
            modules.try_push(host_module(info, import.function.module(), slot)?)?;
        }
    }
    Ok(modules)
}

fn host_module(info: &ModuleInfo, name: &'static str, slot: &Slot) -> Result<sw::HostModule, sw::AllocError> {
    let members =
        || info.imports.iter().map(|import| import.function).filter(|function| function.module() == name);
    let mut functions = sw::Vec::new(members().count())?;
    for function in members() {
        functions.try_push(host_function(function, slot)?)?;
    }
    Ok(sw::HostModule {
        name: sw::HostName::try_from_str(name).map_err(|_| sw::AllocError::AllocationFailed)?,
        globals: sw::Vec::zero(),
        functions,
        memory: sw::Vec::zero(),
        table: sw::Vec::zero(),
    })
}

fn host_function(function: &'static HostFunction, slot: &Slot) -> Result<sw::HostFunction, sw::AllocError> {
    let slot = slot.clone();
    let pause = move |_: &mut sw::Engine, values: &[sw::Value]| {
        let arguments = Arguments::new(values.iter().copied().map(from_engine));
        slot.set(Some(HostCall { function, arguments }));
        ControlFlow::Break(sw::HostFunctionBreak::Pause)
    };
    // Names and types come from our own table, whose test holds them within the engine's bounds.
    let name = sw::HostName::try_from_str(function.name()).map_err(|_| sw::AllocError::AllocationFailed)?;
    let (params, results) = (value_list(function.params())?, value_list(function.results())?);
    sw::HostFunction::try_new(name, params, results, pause).map_err(|error| match error {
        sw::HostFunctionError::AllocError(error) => error,
        sw::HostFunctionError::ValListInvalidItem
        | sw::HostFunctionError::ParameterListTooLong
        | sw::HostFunctionError::MultiReturnNotAllowed => sw::AllocError::AllocationFailed,
    })
}

fn value_list(types: &[ValueType]) -> Result<sw::HostValList, sw::AllocError> {
    let mut letters = [b'i'; sw::MAX_HOST_FUNCTION_PARAMS];
    let letters = letters.get_mut(..types.len()).ok_or(sw::AllocError::AllocationFailed)?;
    for (letter, value_type) in letters.iter_mut().zip(types) {
        *letter = match value_type {
            ValueType::I32 => b'i',
            ValueType::I64 => b'I',
            ValueType::F32 => b'f',
            ValueType::F64 => b'd',
        };
    }
    let letters = core::str::from_utf8(letters).map_err(|_| sw::AllocError::AllocationFailed)?;
    sw::HostValList::try_new(letters).map_err(|_| sw::AllocError::AllocationFailed)
}

pub(super) fn from_engine(value: sw::Value) -> Value {
    match value {
        sw::Value::I32(value) => Value::I32(value),
        sw::Value::I64(value) => Value::I64(value),
        sw::Value::F32(value) => Value::F32(value.to_bits()),
        sw::Value::F64(value) => Value::F64(value.to_bits()),
    }
}

pub(super) fn to_engine(value: Value) -> sw::Value {
    match value {
        Value::I32(value) => sw::Value::I32(value),
        Value::I64(value) => sw::Value::I64(value),
        Value::F32(bits) => sw::Value::F32(f32::from_bits(bits)),
        Value::F64(bits) => sw::Value::F64(f64::from_bits(bits)),
    }
}
