//! A loaded module: started, run in slices, asked and answered.
#![allow(unsafe_code)]

use core::fmt;

use crate::execute;
use crate::frames::Frames;
use crate::load::Loader;
use crate::load::exports::{Exports, read_global, read_type};
use crate::machine::{Machine, POINTERS_FIT, exit, header};
use crate::region::{Place, Region};
use crate::trace::Trace;
use crate::types::{FunctionType, Value, ValueType};

/// Why a program was stopped. The wording is for the person who reads an application's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trap {
    /// `unreachable` was executed.
    Unreachable,
    /// Integer division by zero.
    DivisionByZero,
    /// Integer overflow.
    IntegerOverflow,
    /// A float that is no number was converted to an integer.
    ConversionToInteger,
    /// Access outside the linear memory.
    MemoryOutOfBounds,
    /// A call of an element outside the table.
    UndefinedElement,
    /// Another access outside the table.
    TableOutOfBounds,
    /// A call of an empty element of a table.
    UninitializedElement,
    /// A call, by a table, of a function with another type.
    IndirectCallType,
    /// Calls nested deeper than the call stack holds.
    StackOverflow,
    /// The executor was about to access what is not the module's: a fault of the engine.
    Internal,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trap::Unreachable => "unreachable executed (a panic or an abort)",
            Trap::DivisionByZero => "integer division by zero",
            Trap::IntegerOverflow => "integer overflow",
            Trap::ConversionToInteger => "conversion of a float that fits no integer",
            Trap::MemoryOutOfBounds => "memory access out of bounds",
            Trap::UndefinedElement => "indirect call out of the table's bounds",
            Trap::TableOutOfBounds => "table access out of bounds",
            Trap::UninitializedElement => "indirect call of an empty table element",
            Trap::IndirectCallType => "indirect call of a function with another type",
            Trap::StackOverflow => "call stack exhausted",
            Trap::Internal => "fault of the sandbox: an access that the translator did not promise",
        })
    }
}

/// Why a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The function returned; see [`Instance::results`].
    Done,
    /// The fuel is used up; step again to go on.
    OutOfFuel,
    /// The host's function with this number was called: see [`Instance::argument`] and [`Instance::answer`].
    HostCall(u16),
    /// The program is over.
    Trap(Trap),
}

/// A call can't be begun or answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There is no such exported function.
    NoSuchFunction,
    /// Arguments or results of other types, or references that are none: to a function that the module doesn't have or
    /// never refers to, or to the host's thing with the number 2^32 - 1.
    Types,
    /// No call is under way that could be answered.
    NotWaiting,
    /// The call stack has no room even for this function.
    StackOverflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to run.
    Idle,
    Running,
    /// The host has to answer the call of this function.
    Waiting(u32),
    /// The call stack has no room even for the function that was called from outside.
    Overflow,
    /// It trapped: nothing to run, and its frames are still there.
    Trapped,
}

/// One module in its block of memory.
pub struct Instance<'m> {
    region: Region<'m>,
    machine: Machine,
    state: State,
    /// The function that was called from outside.
    called: u32,
    /// The function that waits for the module's start function. Its arguments are at the upper end of the stack, which is
    /// shorter in the meantime.
    waiting: Option<u32>,
    start: Option<u32>,
    imports: u32,
    import_place: Place,
    type_place: Place,
    export_place: Place,
    exports: u32,
    global_records: Place,
    code_words: u32,
    #[cfg(feature = "checked")]
    checked: bool,
}

impl<'m> Loader<'m> {
    /// The loaded module; `None` while it is not loaded, where its call stack finds no room, or where only its code was read.
    pub fn finish(mut self) -> Option<Instance<'m>> {
        if !self.is_done() || self.trace.is_some() {
            return None;
        }
        let (type_place, global_records) = (self.type_records(), self.global_records());
        let stack_slots = self.stack_slots() as usize;
        // SAFETY: the loader's scratch is what was handed out, and it is not used below.
        unsafe { self.region.reunite() }
        let stack = self.region.take::<u32>(stack_slots).ok()?;
        self.region.give_back_rest();
        let code = self.emit.code;
        let mut instance = Instance {
            machine: Machine::empty(),
            state: State::Idle,
            called: 0,
            waiting: None,
            start: self.start,
            imports: self.imports,
            import_place: self.import_place,
            type_place,
            export_place: self.export_place,
            exports: self.exports,
            global_records,
            code_words: self.emit.position,
            #[cfg(feature = "checked")]
            checked: false,
            region: self.region,
        };
        let machine = &mut instance.machine;
        machine.region = instance.region.start();
        let at = |place: Place| machine.region.wrapping_add(place.0 as usize);
        machine.memory = at(self.memory_place);
        machine.memory_bytes = self.memory_bytes;
        machine.memory_bytes_max = self.memory_bytes_max;
        machine.memory_bytes_zeroed = self.memory_bytes;
        machine.page_bytes = self.page_bytes;
        machine.code = at(code).cast();
        machine.code_end = machine.code.wrapping_add(self.emit.position as usize);
        machine.functions = at(self.function_place).cast();
        machine.function_count = self.functions;
        machine.import_count = self.imports;
        machine.globals = at(self.global_place).cast();
        machine.globals_end = machine.globals.wrapping_add(self.global_slots as usize);
        machine.tables = at(self.table_place).cast();
        machine.table_count = self.tables;
        machine.data = at(self.data_place).cast();
        machine.elements = at(self.element_place).cast();
        machine.stack = at(stack);
        machine.stack_end = machine.stack.wrapping_add(stack_slots * 4);
        Some(instance)
    }
}

// SAFETY: its pointers are into the block that it borrows, and nothing else has them.
unsafe impl Send for Instance<'_> {}

impl Instance<'_> {
    /// Bytes of the block that it uses, from its beginning: the rest may be given back.
    pub fn bytes(&self) -> usize {
        self.region.low().next_multiple_of(8)
    }

    /// Moves the instance, in the middle of whatever it does, to another place: its bytes are copied there, and it goes on
    /// there with no difference that a program could see.
    ///
    /// # Safety
    /// From `to` on there are [`Self::bytes`] bytes that live as long as the block that was handed to the loader, and
    /// that nothing else has; the two may overlap.
    pub unsafe fn relocate(&mut self, to: *mut u64) {
        let from = self.region.start();
        let distance = (to as usize).wrapping_sub(from as usize);
        if POINTERS_FIT {
            self.shift_saved(distance as u32);
        }
        // SAFETY: both places have as many bytes as the region, which ends at a whole number of 64 bits.
        unsafe {
            core::ptr::copy(from.cast::<u64>(), to, self.region.words());
            self.region.set_block(to);
        }
        self.machine.shift(to.cast());
    }

    /// Code positions and frames that the region keeps as pointers are to be pointers to elsewhere.
    fn shift_saved(&mut self, distance: u32) {
        let shift = |p: *mut u32| {
            // SAFETY: a word of the stack or of the table of functions.
            unsafe { *p = (*p).wrapping_add(distance) }
        };
        if !matches!(self.state, State::Idle | State::Overflow) {
            for active in Frames::new(&self.machine) {
                shift(active.saved);
                shift(active.saved.wrapping_add(1));
            }
        }
        for function in 0..self.machine.function_count as usize {
            let place = self.machine.functions.wrapping_add(function).cast_mut();
            // SAFETY: a word of the table of functions; those without code have none.
            if unsafe { *place } != 0 {
                shift(place);
            }
        }
    }

    /// Bytes of the call stack: what calls can need at most, or what was configured.
    pub fn stack_bytes(&self) -> usize {
        self.machine.stack_end as usize - self.machine.stack as usize
    }

    /// Bytes of translated code.
    pub fn code_bytes(&self) -> usize {
        self.code_words as usize * 2
    }

    /// Lets the checked executor run it, or the usual one.
    #[cfg(feature = "checked")]
    pub fn set_checked(&mut self, checked: bool) {
        self.checked = checked;
    }

    /// Type of a function.
    fn function_type(&self, function: u32) -> FunctionType<'_> {
        let kind = if function < self.imports {
            self.region.number(self.import_place, function as usize) & 0xffff
        } else {
            u32::from(self.head(function, header::KIND))
        };
        read_type(&self.region, self.type_place, kind)
    }

    /// A word of a function's header.
    fn head(&self, function: u32, at: usize) -> u16 {
        debug_assert!(function < self.machine.function_count, "a function of the module");
        // SAFETY: the module has this function, and those that can be called from outside have a header.
        unsafe { *self.machine.function(function as usize).add(at) }
    }

    fn find(&self, kind: u8, name: &str) -> Option<u32> {
        Exports::new(&self.region, self.export_place, self.exports)
            .find(|export| export.kind == kind && export.name == name.as_bytes())
            .map(|export| export.index)
    }

    /// The value of an exported global.
    pub fn exported_global(&self, name: &str) -> Option<Value> {
        let (value_type, _, at) = read_global(&self.region, self.global_records, self.find(3, name)?);
        let p = self.machine.globals.wrapping_add(usize::from(at));
        // SAFETY: the global's slots.
        let bits = unsafe {
            let high = if value_type.slots() == 2 { *p.add(1) } else { 0 };
            u64::from(*p) | u64::from(high) << 32
        };
        Some(Value::from_bits(value_type, bits))
    }

    /// That the program can't get at anything by a reference that is handed in: it may call a function that it gets.
    fn check_references(&self, values: &[Value]) -> Result<(), CallError> {
        let known = |function: u32| {
            // SAFETY: the module has this function. One without a place is an import that is only called by its index.
            function < self.machine.function_count
                && unsafe { *self.machine.functions.add(function as usize) } != 0
        };
        let fits = |value: &Value| match *value {
            Value::FuncRef(Some(function)) => known(function),
            Value::ExternRef(Some(number)) => number < u32::MAX,
            _ => true,
        };
        if values.iter().all(fits) { Ok(()) } else { Err(CallError::Types) }
    }

    /// Begins a call of an exported function; a call that is under way is dropped. The module's start function runs
    /// first, once.
    pub fn call(&mut self, export: &str, arguments: &[Value]) -> Result<(), CallError> {
        let function = self.find(0, export).ok_or(CallError::NoSuchFunction)?;
        if !self.function_type(function).parameters().eq(arguments.iter().map(|value| value.value_type())) {
            return Err(CallError::Types);
        }
        self.check_references(arguments)?;
        self.take_waiting();
        let Some(start) = self.start else {
            self.enter(function, arguments);
            return self.entered();
        };
        let slots: usize = arguments.iter().map(|value| usize::from(value.value_type().slots())).sum();
        if slots * 4 > self.machine.stack_end as usize - self.machine.stack as usize {
            return Err(CallError::StackOverflow);
        }
        let mut p = self.machine.stack_end.wrapping_sub(slots * 4).cast::<u32>();
        let kept = p;
        for value in arguments {
            p = self.put(p, *value);
        }
        self.machine.stack_end = kept.cast();
        self.waiting = Some(function);
        self.start = None;
        self.enter(start, &[]);
        self.entered()
    }

    fn entered(&self) -> Result<(), CallError> {
        if self.state == State::Overflow { Err(CallError::StackOverflow) } else { Ok(()) }
    }

    /// The function that waited for the start function; its arguments are where the stack ended.
    fn take_waiting(&mut self) -> Option<u32> {
        let function = self.waiting.take()?;
        let slots = self.function_type(function).slots().0 as usize;
        self.machine.stack_end = self.machine.stack_end.wrapping_add(slots * 4);
        Some(function)
    }

    /// Begins the call that waited for the start function, whose frame is gone.
    fn enter_waiting(&mut self, function: u32) {
        let slots = self.function_type(function).slots().0 as usize;
        let kept = self.machine.stack_end.wrapping_sub(slots * 4).cast::<u32>();
        // SAFETY: as many slots at both ends of the stack, which has room for them.
        unsafe { core::ptr::copy(kept, self.machine.stack.cast(), slots) }
        self.enter(function, &[]);
    }

    /// Writes a value at a slot; answers the one behind it.
    fn put(&mut self, p: *mut u32, value: Value) -> *mut u32 {
        let slots = usize::from(value.value_type().slots());
        let end = p.wrapping_add(slots);
        if end.cast() <= self.machine.stack_end {
            // SAFETY: within the stack.
            unsafe {
                *p = value.bits() as u32;
                if slots == 2 {
                    *p.add(1) = (value.bits() >> 32) as u32;
                }
            }
        }
        end
    }

    /// Reads a value at a slot; answers the one behind it.
    fn get(&self, p: *mut u32, value_type: ValueType) -> (Value, *mut u32) {
        let slots = usize::from(value_type.slots());
        let end = p.wrapping_add(slots);
        let mut bits = 0;
        if end.cast() <= self.machine.stack_end {
            // SAFETY: within the stack.
            unsafe {
                bits = u64::from(*p);
                if slots == 2 {
                    bits |= u64::from(*p.add(1)) << 32;
                }
            }
        }
        (Value::from_bits(value_type, bits), end)
    }

    /// Puts the machine at the beginning of a function.
    fn enter(&mut self, function: u32, arguments: &[Value]) {
        self.called = function;
        let frame = usize::from(self.head(function, header::FRAME));
        if frame > self.machine.stack_end as usize - self.machine.stack as usize {
            self.state = State::Overflow;
            return;
        }
        let mut p = self.machine.stack.cast::<u32>();
        for value in arguments {
            p = self.put(p, *value);
        }
        let save = usize::from(self.head(function, header::SAVE));
        let zeroed = usize::from(self.head(function, header::ZEROED));
        let return_to = self.machine.save_code(self.machine.code);
        let caller = self.machine.save_frame(self.machine.stack);
        // SAFETY: the function's frame lies within the stack.
        unsafe {
            let p = self.machine.stack.add(save).cast::<u32>();
            *p = return_to;
            *p.add(1) = caller;
            core::ptr::write_bytes(p.add(2), 0, zeroed);
            self.machine.pc = self.machine.function(function as usize).add(header::WORDS);
        }
        self.machine.frame = self.machine.stack;
        self.state = State::Running;
    }

    /// Runs until the function returns, traps, calls the host, or has used about this much fuel. The second is the fuel
    /// that was used.
    // It and what is `inline` below is compiled with the crate that has modules run, to be fast; what loads them with this one, to be small
    // where flash is.
    #[inline]
    pub fn step(&mut self, fuel: u32) -> (Step, u32) {
        let mut used = 0;
        loop {
            let (step, more) = self.run(fuel.saturating_sub(used));
            used += more;
            if step != Step::Done {
                return (step, used);
            }
            match self.take_waiting() {
                Some(function) => self.enter_waiting(function),
                None => return (step, used),
            }
        }
    }

    #[inline]
    fn run(&mut self, fuel: u32) -> (Step, u32) {
        match self.state {
            State::Running => {}
            State::Overflow => return (self.trapped(Trap::StackOverflow), 0),
            State::Idle | State::Waiting(_) | State::Trapped => return (Step::Trap(Trap::Internal), 0),
        }
        let given = i32::try_from(fuel).unwrap_or(i32::MAX);
        self.machine.fuel = given;
        let why = self.execute();
        debug_assert!(self.machine.fuel <= given, "fuel is only used");
        let used = given.wrapping_sub(self.machine.fuel) as u32;
        // First, and apart from the others: it is how slices end.
        if why == exit::FUEL {
            return (Step::OutOfFuel, used);
        }
        let trap = match why {
            exit::DONE => {
                self.state = State::Idle;
                return (Step::Done, used);
            }
            exit::HOST => {
                let function = u32::from(self.machine.host_function);
                self.state = State::Waiting(function);
                let record = self.region.number(self.import_place, function as usize);
                return (Step::HostCall((record >> 16) as u16), used);
            }
            exit::UNREACHABLE => Trap::Unreachable,
            exit::DIVISION => Trap::DivisionByZero,
            exit::OVERFLOW => Trap::IntegerOverflow,
            exit::CONVERSION => Trap::ConversionToInteger,
            exit::MEMORY => Trap::MemoryOutOfBounds,
            exit::TABLE => Trap::UndefinedElement,
            exit::TABLE_ACCESS => Trap::TableOutOfBounds,
            exit::UNINITIALIZED => Trap::UninitializedElement,
            exit::KIND => Trap::IndirectCallType,
            exit::STACK => Trap::StackOverflow,
            _ => Trap::Internal,
        };
        (self.trapped(trap), used)
    }

    #[inline]
    fn execute(&mut self) -> u32 {
        #[cfg(feature = "checked")]
        if self.checked {
            // SAFETY: the machine's pointers are into its region, whose code the translator wrote.
            return unsafe { execute::run::<true>(&mut self.machine) };
        }
        // SAFETY: the machine's pointers are into its region, whose code the translator wrote.
        unsafe { execute::run::<false>(&mut self.machine) }
    }

    fn trapped(&mut self, trap: Trap) -> Step {
        // Where something was not as promised, what the stack says is worth nothing.
        let has_frames = self.state == State::Running && trap != Trap::Internal;
        self.state = if has_frames { State::Trapped } else { State::Idle };
        self.take_waiting();
        Step::Trap(trap)
    }

    /// What was under way when the last step trapped, or called the host: the functions, and where in their code they are,
    /// for [`Loader::locate`](crate::Loader::locate). Empty at all other times.
    pub fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        let mut behind = match self.state {
            State::Trapped => 0,
            State::Waiting(_) => 1,
            State::Idle | State::Running | State::Overflow => return trace,
        };
        for active in Frames::new(&self.machine) {
            // Of callers, and of one that called the host, the call is before the place where they go on.
            let at = (active.pc as usize).wrapping_sub(self.machine.code as usize) / 2;
            if active.function >= self.machine.import_count {
                trace.push(active.function, (at as u32).saturating_sub(behind));
            }
            behind = 1;
        }
        trace
    }

    /// Arguments of the call that the host has to answer.
    pub fn arguments(&self) -> impl Iterator<Item = Value> + '_ {
        let function = if let State::Waiting(function) = self.state { Some(function) } else { None };
        let mut p = self.machine.host_frame.cast::<u32>();
        function.into_iter().flat_map(|function| self.function_type(function).parameters()).map(
            move |value_type| {
                let (value, next) = self.get(p, value_type);
                p = next;
                value
            },
        )
    }

    /// Answers the host call that the last step ended with.
    pub fn answer(&mut self, results: &[Value]) -> Result<(), CallError> {
        let State::Waiting(function) = self.state else { return Err(CallError::NotWaiting) };
        if !self.function_type(function).results().eq(results.iter().map(|value| value.value_type())) {
            return Err(CallError::Types);
        }
        self.check_references(results)?;
        let mut p = self.machine.host_frame.cast::<u32>();
        for value in results {
            p = self.put(p, *value);
        }
        self.state = State::Running;
        Ok(())
    }

    /// Type of the function whose call the host has to answer.
    pub fn answer_type(&self) -> Option<FunctionType<'_>> {
        if let State::Waiting(function) = self.state { Some(self.function_type(function)) } else { None }
    }

    /// Type of an exported function.
    pub fn exported_function(&self, name: &str) -> Option<FunctionType<'_>> {
        self.find(0, name).map(|function| self.function_type(function))
    }

    /// Linear memory.
    pub fn memory(&self) -> &[u8] {
        // SAFETY: the memory lies in the region, which nothing else has.
        unsafe { core::slice::from_raw_parts(self.machine.memory, self.machine.memory_bytes as usize) }
    }

    /// Linear memory, to be written.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory lies in the region, which nothing else has.
        unsafe { core::slice::from_raw_parts_mut(self.machine.memory, self.machine.memory_bytes as usize) }
    }

    /// How often `memory.grow` was refused.
    pub fn grows_refused(&self) -> u32 {
        self.machine.grows_refused
    }

    /// The results of the function that was called, one after the other; after [`Step::Done`].
    pub fn results(&self) -> impl Iterator<Item = Value> + '_ {
        let mut p = self.machine.stack.cast::<u32>();
        self.function_type(self.called).results().map(move |value_type| {
            let (value, next) = self.get(p, value_type);
            p = next;
            value
        })
    }
}
