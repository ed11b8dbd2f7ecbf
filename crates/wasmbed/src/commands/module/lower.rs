//! Writes a module anew for devices: what they don't run is rewritten in terms of WebAssembly 1.0, the rest stays.
//!
//! Functions keep their indices: stand-ins and wrappers are appended. What a device never looks at is dropped:
//! custom sections, and exports other than the memory and the entries.

use std::collections::BTreeSet;

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, RoundtripReencoder};
use wasm_encoder::{
    BlockType, CodeSection, DataCountSection, DataSection, ElementSection, Elements, ExportKind,
    ExportSection, Function, FunctionSection, ImportSection, Instruction, Module, StartSection, TypeSection,
};
use wasmbed_scan::Features;
use wasmparser::{DataKind, ElementItems, ElementKind, ExternalKind, Operator, Parser, Payload};

use super::anatomy::{Anatomy, element_function};
use super::polyfill::Polyfill;

/// The exports that a device looks at.
const KEPT_EXPORTS: [&str; 3] = ["memory", ENTRY_COMMAND, ENTRY_RUN];
const ENTRY_COMMAND: &str = "_start";
const ENTRY_RUN: &str = "run";
/// What a WASI reactor runs before anything else.
const INITIALIZE: &str = "_initialize";

/// A defect of the lowering itself: it was given what the survey should have refused.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// The encoder refused.
    #[error("{0}")]
    Encoding(String),
}

impl From<ReencodeError> for LowerError {
    fn from(error: ReencodeError) -> Self {
        Self::Encoding(match error {
            ReencodeError::ParseError(error) => error.to_string(),
            other => other.to_string(),
        })
    }
}

impl From<wasmparser::Error> for LowerError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// Writes the module anew. Its features were surveyed before: none of them may be one that these devices make it refuse.
pub(crate) fn lower(bytes: &[u8], anatomy: &Anatomy, devices: Features) -> Result<Vec<u8>, LowerError> {
    lower_noting(bytes, anatomy, devices, &mut |_| {})
}

/// Where an operator of the module came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Of the functions that have a body, the number of this one, in both modules.
    pub(crate) body: usize,
    /// Byte of the new body from which on its bytes are.
    pub(crate) to: usize,
    /// Byte of the module at which the operator was.
    pub(crate) from: u64,
}

/// The same; each operator is told to `note` in its order.
pub(crate) fn lower_noting(
    bytes: &[u8],
    anatomy: &Anatomy,
    devices: Features,
    note: &mut dyn FnMut(Moved),
) -> Result<Vec<u8>, LowerError> {
    let plan = Plan::new(bytes, anatomy, devices)?;
    let mut module = Module::new();
    let mut code = CodeSection::new();
    let (mut exported, mut declared) = (false, plan.declared.is_empty());
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(_) => {
                module.section(&plan.types()?);
            }
            Payload::ImportSection(section) => {
                // One by one: the compact form groups them by module.
                let mut imports = ImportSection::new();
                for import in section.into_imports() {
                    RoundtripReencoder.parse_import(&mut imports, import?)?;
                }
                module.section(&imports);
            }
            Payload::FunctionSection(_) => {
                module.section(&plan.functions());
            }
            Payload::TableSection(section) => {
                let mut tables = wasm_encoder::TableSection::new();
                RoundtripReencoder.parse_table_section(&mut tables, section)?;
                module.section(&tables);
            }
            Payload::MemorySection(section) => {
                let mut memories = wasm_encoder::MemorySection::new();
                RoundtripReencoder.parse_memory_section(&mut memories, section)?;
                module.section(&memories);
            }
            Payload::GlobalSection(section) => {
                let mut globals = wasm_encoder::GlobalSection::new();
                RoundtripReencoder.parse_global_section(&mut globals, section)?;
                module.section(&globals);
            }
            Payload::ExportSection(_) => {
                module.section(&plan.exports());
                exported = true;
            }
            Payload::StartSection { .. } => {
                if !exported {
                    module.section(&plan.exports());
                }
                if let Some(function_index) = plan.start {
                    module.section(&StartSection { function_index });
                }
            }
            Payload::ElementSection(section) => {
                module.section(&plan.elements(section)?);
                declared = true;
            }
            Payload::DataCountSection { count, .. } => {
                if !declared {
                    module.section(&plan.declare(ElementSection::new()));
                    declared = true;
                }
                if plan.devices.contains(Features::BULK_MEMORY) {
                    module.section(&DataCountSection { count });
                }
            }
            Payload::CodeSectionStart { .. } if !declared => {
                module.section(&plan.declare(ElementSection::new()));
                declared = true;
            }
            Payload::CodeSectionEntry(body) => {
                let number = code.len() as usize;
                let body = plan.body(&body, &mut |to, from| note(Moved { body: number, to, from }))?;
                code.function(&body);
                if code.len() == anatomy.functions {
                    plan.append(&mut code);
                    module.section(&code);
                }
            }
            Payload::DataSection(section) if plan.devices.contains(Features::BULK_MEMORY) => {
                let mut segments = DataSection::new();
                RoundtripReencoder.parse_data_section(&mut segments, section)?;
                module.section(&segments);
            }
            Payload::DataSection(section) => {
                module.section(&data(section)?);
            }
            _ => {}
        }
    }
    Ok(module.finish())
}

/// What is appended, and under which index.
struct Plan<'a> {
    anatomy: &'a Anatomy,
    /// What the devices run.
    devices: Features,
    /// Functions that the code refers to and an export, dropped, has declared.
    declared: BTreeSet<u32>,
    /// The start function, where it stays one.
    start: Option<u32>,
    polyfills: Vec<Polyfill>,
    wrappers: Vec<Wrapper>,
    /// Functions that run before the entry.
    initialisers: Vec<u32>,
    /// The start function of a module that has no entry: it becomes the entry.
    start_as_entry: Option<u32>,
}

/// An entry that first calls the initialisers.
struct Wrapper {
    name: &'static str,
    entry: u32,
    type_index: u32,
    parameters: u32,
}

impl<'a> Plan<'a> {
    fn new(bytes: &[u8], anatomy: &'a Anatomy, devices: Features) -> Result<Self, LowerError> {
        let mut polyfills = BTreeSet::new();
        let mut referred = BTreeSet::new();
        for payload in Parser::new(0).parse_all(bytes) {
            if let Payload::CodeSectionEntry(body) = payload? {
                for operator in body.get_operators_reader()? {
                    let operator = operator?;
                    polyfills.extend(stand_in(&operator, devices));
                    if let Operator::RefFunc { function_index } = operator {
                        referred.insert(function_index);
                    }
                }
            }
        }
        let dropped = anatomy.exports.iter().filter(|export| {
            export.kind == ExternalKind::Func && !KEPT_EXPORTS.contains(&export.name.as_str())
        });
        let declared = dropped.map(|export| export.index).filter(|index| referred.contains(index)).collect();
        let entries: Vec<_> = [ENTRY_COMMAND, ENTRY_RUN]
            .into_iter()
            .filter_map(|name| Some((name, anatomy.exported_function(name)?)))
            .collect();
        let start_as_entry = if entries.is_empty() { anatomy.start } else { None };
        let stays = devices.contains(Features::START_FUNCTION) && start_as_entry.is_none();
        let start = anatomy.start.filter(|_| stays);
        let mut initialisers: Vec<u32> = anatomy.start.into_iter().filter(|_| !stays).collect();
        if anatomy.exported_function(ENTRY_COMMAND).is_none() {
            initialisers.extend(anatomy.exported_function(INITIALIZE));
        }
        let mut wrappers = Vec::new();
        if !initialisers.is_empty() && anatomy.functions > 0 {
            for (name, entry) in entries {
                let (Some(ty), Some(type_index)) =
                    (anatomy.function_type(entry), anatomy.function_types.get(entry as usize))
                else {
                    continue;
                };
                let parameters = ty.params().len() as u32;
                wrappers.push(Wrapper { name, entry, type_index: *type_index, parameters });
            }
        }
        Ok(Self {
            anatomy,
            devices,
            declared,
            start,
            polyfills: polyfills.into_iter().collect(),
            wrappers,
            initialisers,
            start_as_entry,
        })
    }

    /// The index of a stand-in.
    fn polyfill(&self, polyfill: Polyfill) -> Option<u32> {
        let position = self.polyfills.iter().position(|known| *known == polyfill)?;
        Some((self.anatomy.function_types.len() + position) as u32)
    }

    fn types(&self) -> Result<TypeSection, LowerError> {
        let mut types = TypeSection::new();
        for ty in &self.anatomy.types {
            types.ty().func_type(&RoundtripReencoder.func_type(ty.clone())?);
        }
        for polyfill in &self.polyfills {
            let (params, results) = polyfill.signature();
            types.ty().function(params.iter().copied(), results.iter().copied());
        }
        Ok(types)
    }

    fn functions(&self) -> FunctionSection {
        let mut functions = FunctionSection::new();
        let imported = self.anatomy.function_types.len() - self.anatomy.functions as usize;
        for type_index in &self.anatomy.function_types[imported..] {
            functions.function(*type_index);
        }
        for position in 0..self.polyfills.len() {
            functions.function((self.anatomy.types.len() + position) as u32);
        }
        for wrapper in &self.wrappers {
            functions.function(wrapper.type_index);
        }
        functions
    }

    fn exports(&self) -> ExportSection {
        let mut exports = ExportSection::new();
        let wrappers = (self.anatomy.function_types.len() + self.polyfills.len()) as u32;
        for export in &self.anatomy.exports {
            if !KEPT_EXPORTS.contains(&export.name.as_str()) {
                continue;
            }
            let wrapper = self.wrappers.iter().position(|wrapper| wrapper.name == export.name);
            let (kind, index) = match (export.kind, wrapper) {
                (ExternalKind::Func | ExternalKind::FuncExact, Some(position)) => {
                    (ExportKind::Func, wrappers + position as u32)
                }
                (ExternalKind::Func | ExternalKind::FuncExact, None) => (ExportKind::Func, export.index),
                (ExternalKind::Memory, _) => (ExportKind::Memory, export.index),
                (ExternalKind::Table, _) => (ExportKind::Table, export.index),
                (ExternalKind::Global, _) => (ExportKind::Global, export.index),
                (ExternalKind::Tag, _) => (ExportKind::Tag, export.index),
            };
            exports.export(&export.name, kind, index);
        }
        if let Some(start) = self.start_as_entry {
            exports.export(ENTRY_COMMAND, ExportKind::Func, start);
        }
        exports
    }

    fn elements(&self, section: wasmparser::ElementSectionReader<'_>) -> Result<ElementSection, LowerError> {
        if !self.devices.contains(Features::REFERENCE_TYPES) {
            return elements_of_version_1(section);
        }
        let mut elements = ElementSection::new();
        RoundtripReencoder.parse_element_section(&mut elements, section)?;
        Ok(self.declare(elements))
    }

    /// Adds a segment, behind all others, that declares what no export declares any more.
    fn declare(&self, mut elements: ElementSection) -> ElementSection {
        if !self.declared.is_empty() {
            let functions: Vec<u32> = self.declared.iter().copied().collect();
            elements.declared(Elements::Functions(functions.into()));
        }
        elements
    }

    fn append(&self, code: &mut CodeSection) {
        let page_bytes = self.anatomy.memory.map_or(1 << 16, |memory| memory.page_bytes);
        for polyfill in &self.polyfills {
            code.function(&polyfill.function(page_bytes.trailing_zeros()));
        }
        for wrapper in &self.wrappers {
            let mut function = Function::new([]);
            let mut body = function.instructions();
            for initialiser in &self.initialisers {
                body.call(*initialiser);
            }
            for parameter in 0..wrapper.parameters {
                body.local_get(parameter);
            }
            body.call(wrapper.entry).end();
            code.function(&function);
        }
    }

    fn body(
        &self,
        body: &wasmparser::FunctionBody<'_>,
        note: &mut dyn FnMut(usize, u64),
    ) -> Result<Function, LowerError> {
        let mut function = RoundtripReencoder.new_function_with_parsed_locals(body)?;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            note(function.byte_len(), offset);
            self.operator(&mut function, operator)?;
        }
        Ok(function)
    }

    fn operator(&self, function: &mut Function, operator: Operator<'_>) -> Result<(), LowerError> {
        if let Some(index) = stand_in(&operator, self.devices).and_then(|polyfill| self.polyfill(polyfill)) {
            function.instructions().call(index);
            return Ok(());
        }
        let extends = !self.devices.contains(Features::SIGN_EXTENSION);
        match operator {
            Operator::I32Extend8S if extends => extend32(function, 24),
            Operator::I32Extend16S if extends => extend32(function, 16),
            Operator::I64Extend8S if extends => extend64(function, 56),
            Operator::I64Extend16S if extends => extend64(function, 48),
            Operator::I64Extend32S if extends => extend64(function, 32),
            Operator::TypedSelect { .. } if !self.devices.contains(Features::REFERENCE_TYPES) => {
                function.instructions().select();
            }
            Operator::Block { blockty } => {
                function.instruction(&Instruction::Block(self.block_type(blockty)?));
            }
            Operator::Loop { blockty } => {
                function.instruction(&Instruction::Loop(self.block_type(blockty)?));
            }
            Operator::If { blockty } => {
                function.instruction(&Instruction::If(self.block_type(blockty)?));
            }
            other => {
                function.instruction(&RoundtripReencoder.instruction(other)?);
            }
        }
        Ok(())
    }

    /// A function type without parameters and with at most one result has a form of one byte.
    fn block_type(&self, ty: wasmparser::BlockType) -> Result<BlockType, LowerError> {
        if !self.devices.contains(Features::MULTI_VALUE)
            && let wasmparser::BlockType::FuncType(index) = ty
            && let Some(ty) = self.anatomy.types.get(index as usize)
            && ty.params().is_empty()
        {
            match ty.results() {
                [] => return Ok(BlockType::Empty),
                [one] => return Ok(BlockType::Result(RoundtripReencoder.val_type(*one)?)),
                _ => {}
            }
        }
        Ok(RoundtripReencoder.block_type(ty)?)
    }
}

fn extend32(function: &mut Function, bits: i32) {
    function.instructions().i32_const(bits).i32_shl().i32_const(bits).i32_shr_s();
}

fn extend64(function: &mut Function, bits: i64) {
    function.instructions().i64_const(bits).i64_shl().i64_const(bits).i64_shr_s();
}

/// The function that stands in for an operator, where the devices don't run it.
fn stand_in(operator: &Operator<'_>, devices: Features) -> Option<Polyfill> {
    let polyfill = Polyfill::of_operator(operator)?;
    let group = match polyfill {
        Polyfill::Copy | Polyfill::Fill => Features::BULK_MEMORY,
        Polyfill::Truncate { .. } => Features::SATURATING_FLOAT,
    };
    (!devices.contains(group)).then_some(polyfill)
}

/// Active segments of functions in the first table; declared ones say nothing to version 1.0.
fn elements_of_version_1(
    section: wasmparser::ElementSectionReader<'_>,
) -> Result<ElementSection, LowerError> {
    let mut elements = ElementSection::new();
    for element in section {
        let element = element?;
        let ElementKind::Active { offset_expr, .. } = element.kind else { continue };
        let mut functions = Vec::new();
        match element.items {
            ElementItems::Functions(items) => {
                for function in items {
                    functions.push(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    let function = element_function(&expression?);
                    functions.push(function.ok_or_else(|| {
                        LowerError::Encoding("an element segment holds something else than functions".into())
                    })?);
                }
            }
        }
        let offset = RoundtripReencoder.const_expr(offset_expr)?;
        elements.active(None, &offset, Elements::Functions(functions.into()));
    }
    Ok(elements)
}

fn data(section: wasmparser::DataSectionReader<'_>) -> Result<DataSection, LowerError> {
    let mut segments = DataSection::new();
    for segment in section {
        let segment = segment?;
        let DataKind::Active { offset_expr, .. } = segment.kind else { continue };
        let offset = RoundtripReencoder.const_expr(offset_expr)?;
        segments.active(0, &offset, segment.data.iter().copied());
    }
    Ok(segments)
}
