//! spacewasm, the engine of earlier firmware, from the system's heap.

use core::{alloc::Layout, ptr::NonNull};

use ::spacewasm as sw;
use sw::InterpreterRunner;

use crate::common::{Engine, Step};

const STACK_WORDS: usize = 2_048;
const CODE_PAGES: usize = 128;
const BACKPATCH_MAX: u32 = 4_096;

struct Heap;

// SAFETY: the system's allocator keeps the contract.
unsafe impl sw::Allocator for Heap {
    unsafe fn alloc(&self, layout: Layout) -> Result<*mut u8, sw::AllocError> {
        // SAFETY: the caller keeps the contract of this very function.
        let block = unsafe { alloc::alloc::alloc(layout) };
        if block.is_null() { Err(sw::AllocError::OutOfMemory) } else { Ok(block) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !block.is_null() {
            // SAFETY: the caller keeps the contract of this very function.
            unsafe { alloc::alloc::dealloc(block, layout) }
        }
    }
}

mod global {
    use super::{Heap, sw};

    sw::global_allocator!(Heap, Heap);
}

struct Linear;

impl sw::WasmMemoryAllocator for Linear {
    fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, sw::AllocError> {
        // SAFETY: its callers ask for memories of at least one byte.
        NonNull::new(unsafe { alloc::alloc::alloc(layout) }).ok_or(sw::AllocError::OutOfMemory)
    }

    fn reallocate(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, sw::AllocError> {
        // SAFETY: the caller says that the block is one of this allocator with this layout.
        let block = unsafe { alloc::alloc::realloc(block.as_ptr(), old, new.size()) };
        NonNull::new(block).ok_or(sw::AllocError::OutOfMemory)
    }

    fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller says that the block is one of this allocator with this layout.
        unsafe { alloc::alloc::dealloc(block.as_ptr(), layout) }
    }
}

struct Whole<'a>(Option<&'a [u8]>);

impl sw::WasmStream for Whole<'_> {
    fn read(&mut self) -> Result<Option<sw::InnerVec<u8>>, u8> {
        let piece = self.0.take().map(|bytes| {
            // SAFETY: it is only read, and never freed: `return_` drops nothing.
            unsafe { sw::InnerVec::from_raw_parts(bytes.as_ptr().cast_mut(), bytes.len(), bytes.len()) }
        });
        Ok(piece)
    }

    fn return_(&mut self, _: sw::InnerVec<u8>) {}
}

pub(crate) struct Spacewasm {
    engine: sw::Engine,
    code: sw::CodeBuilder,
    module: sw::ModuleRef,
}

impl Spacewasm {
    pub(crate) fn load(module: &[u8]) -> Result<Self, &'static str> {
        let mut engine =
            sw::Engine::new(STACK_WORDS, 1, sw::Vec::zero()).map_err(|_| "no room for spacewasm")?;
        let mut code = sw::CodeBuilder::new(sw::CompilerOptions {
            allow_memory_grow: true,
            max_backpatch_iterations: Some(BACKPATCH_MAX),
            max_code_pages: CODE_PAGES,
        })
        .map_err(|_| "no room for spacewasm's code")?;
        let linear = sw::Rc::new(Linear).map_err(|_| "no room for spacewasm")?.into_wasm_memory_allocator();
        let mut stream = Whole(Some(module));
        let loaded = sw::Module::new::<128, 128>("", &mut stream, &mut engine.store, &mut code, linear)
            .map_err(|_| "spacewasm refuses the kernels")?;
        let module = engine.push_module(loaded).map_err(|_| "no room for spacewasm's module")?;
        Ok(Self { engine, code, module })
    }
}

impl Engine for Spacewasm {
    const NAME: &'static str = "spacewasm-0.7.1";

    fn start(&mut self, kernel: &str, amount: u32) -> Result<(), &'static str> {
        let missing = "spacewasm has no kernel";
        self.engine.reset();
        let module = self.engine.store.modules().first().ok_or(missing)?;
        let export = module.exports.iter().find(|export| export.name == kernel).ok_or(missing)?;
        let sw::ExportDesc::Func(function) = export.desc else { return Err(missing) };
        let Some(sw::Ref::Module(index)) = module.get_func_ref(function) else { return Err(missing) };
        let function = sw::WasmRef { module: self.module, index };
        self.engine.invoke(function, &[sw::Value::I32(amount as i32)]).map_err(|_| missing)
    }

    fn step(&mut self, fuel: u32) -> Result<Step, &'static str> {
        match sw::Interpreter.run(self.code.pages(), &mut self.engine, fuel as usize) {
            sw::InterpreterResult::OutOfFuel => Ok(Step::OutOfFuel),
            sw::InterpreterResult::Finished => {
                self.engine.result.map(|raw| Step::Done(raw.read_32())).ok_or("no result of spacewasm")
            }
            _ => Err("a kernel trapped on spacewasm"),
        }
    }
}
