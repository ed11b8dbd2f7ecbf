//! What a module consists of: sections, imports, exports, memory, and every feature it uses with the first place
//! that uses it.
//!
//! Reading accepts everything that is valid WebAssembly, also what no device runs, so that a refusal can name the
//! feature instead of quoting a parser.

use std::collections::BTreeMap;

use serde::Serialize;
use wasmparser::{
    CompositeInnerType, ConstExpr, DataKind, ElementItems, ElementKind, ExternalKind, FuncType, FunctionBody,
    KnownCustom, Operator, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures,
};

use super::feature::{self, Feature};

/// Why bytes could not be read as a module; the file's author is to blame for each.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The first four bytes are not `\0asm`.
    #[error("not WebAssembly: it begins with {found}, a module begins with 00 61 73 6d{hint}")]
    NotWebAssembly {
        /// The first bytes, in hexadecimal.
        found: String,
        /// What the file looks like instead, or nothing.
        hint: &'static str,
    },
    /// A component, which wraps modules.
    #[error(
        "a WebAssembly component, not a module: build for wasm32-wasip1 instead of wasm32-wasip2, or without \
         wrapping the module into a component"
    )]
    Component,
    /// Not valid.
    #[error("invalid WebAssembly at byte {offset}: {message}")]
    Invalid {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        message: String,
    },
}

impl From<wasmparser::Error> for ReadError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid { offset: error.offset(), message: error.message().to_string() }
    }
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Byte offset in the file.
    pub offset: u64,
    /// The function, by its name if the module has names and else by its index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.function {
            Some(function) => write!(f, "function {function}, byte {:#x}", self.offset),
            None => write!(f, "byte {:#x}", self.offset),
        }
    }
}

/// How often a feature is used, and where first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// Number of operators, segments or types that need it.
    pub count: u32,
    /// The first of them.
    pub first: Place,
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name; a custom section has its own in quotes.
    pub name: String,
    /// Its contents in bytes.
    pub bytes: u64,
}

/// One import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The module part of its name.
    pub module: String,
    /// The other part.
    pub name: String,
    /// Its type, as in `func (i32, i32) -> i32`.
    #[serde(rename = "type")]
    pub ty: String,
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its type, as in `func ()`.
    #[serde(rename = "type")]
    pub ty: String,
    #[serde(skip)]
    pub(crate) kind: ExternalKind,
    #[serde(skip)]
    pub(crate) index: u32,
}

/// The module's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Pages at the start.
    pub pages: u64,
    /// Pages it may grow to, if the module says so.
    pub pages_max: Option<u64>,
    /// Bytes in a page.
    pub page_bytes: u64,
    /// Whether it comes from the host.
    pub imported: bool,
}

impl Memory {
    /// Bytes at the start.
    pub fn bytes(&self) -> u64 {
        self.pages.saturating_mul(self.page_bytes)
    }
}

/// What a module consists of.
#[derive(Debug, Default, Serialize)]
pub struct Anatomy {
    /// In the file's order.
    pub sections: Vec<Section>,
    /// In the file's order.
    pub imports: Vec<Import>,
    /// In the file's order.
    pub exports: Vec<Export>,
    /// The first memory.
    pub memory: Option<Memory>,
    /// Functions with a body.
    pub functions: u32,
    /// Globals, without imported ones.
    pub globals: u32,
    /// Entries that the first table has at the start.
    pub table_entries: u64,
    /// Bytes in data segments.
    pub data_bytes: u64,
    /// What it uses beyond version 1.0.
    pub features: BTreeMap<Feature, Use>,
    /// What the tools that made it wrote about themselves: `language`, `processed-by` and `sdk` with version.
    pub producers: Vec<String>,
    #[serde(skip)]
    pub(crate) types: Vec<FuncType>,
    /// Type index of each function, imported ones first.
    #[serde(skip)]
    pub(crate) function_types: Vec<u32>,
    #[serde(skip)]
    pub(crate) start: Option<u32>,
    /// The first global if it is a mutable `i32`: what wasm-ld and its like keep the stack's top in.
    #[serde(skip)]
    pub(crate) stack_top: Option<i32>,
}

impl Anatomy {
    /// Reads and validates a module.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        check_header(bytes)?;
        Validator::new_with_features(WasmFeatures::all()).validate_all(bytes)?;
        let mut reader = Reader { bytes, ..Reader::default() };
        for payload in Parser::new(0).parse_all(bytes) {
            reader.handle_payload(payload?)?;
        }
        Ok(reader.finish())
    }

    /// The type of a function, or nothing if its index or type is unknown.
    pub(crate) fn function_type(&self, function: u32) -> Option<&FuncType> {
        self.types.get(*self.function_types.get(function as usize)? as usize)
    }

    /// The function exported under a name.
    pub(crate) fn exported_function(&self, name: &str) -> Option<u32> {
        let mut exports = self.exports.iter();
        exports
            .find(|export| export.name == name && export.kind == ExternalKind::Func)
            .map(|export| export.index)
    }
}

/// Refuses what is not a module by its first eight bytes.
fn check_header(bytes: &[u8]) -> Result<(), ReadError> {
    if !bytes.starts_with(b"\0asm") {
        let found = match bytes {
            [] => "nothing".to_string(),
            some => some.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
        };
        let hint = match bytes {
            [0x7f, b'E', b'L', b'F', ..] => " (this is a native ELF file)",
            [b'(', ..] => " (this looks like the text form, which wat2wasm translates)",
            [b'!', b'<', b'a', b'r', ..] => " (this is a static library)",
            [0x1f, 0x8b, ..] => " (this is compressed with gzip)",
            _ => "",
        };
        return Err(ReadError::NotWebAssembly { found, hint });
    }
    match bytes.get(4..8) {
        Some([0x0d, 0, 1, 0]) => Err(ReadError::Component),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Reader<'a> {
    bytes: &'a [u8],
    anatomy: Anatomy,
    uses: BTreeMap<Feature, (u32, u64, Option<u32>)>,
    names: BTreeMap<u32, String>,
    imported_globals: u32,
    memories: u32,
    tables: u32,
    bodies: u32,
}

impl<'a> Reader<'a> {
    fn note(&mut self, feature: Feature, offset: u64, function: Option<u32>) {
        self.uses.entry(feature).or_insert((0, offset, function)).0 += 1;
    }

    fn handle_payload(&mut self, payload: Payload<'a>) -> Result<(), wasmparser::Error> {
        self.note_section(&payload);
        match payload {
            Payload::TypeSection(section) => self.read_types(section)?,
            Payload::ImportSection(section) => {
                for import in section.into_imports_with_offsets() {
                    let (offset, import) = import?;
                    self.read_import(offset, import);
                }
            }
            Payload::FunctionSection(section) => {
                self.anatomy.functions = section.count();
                for ty in section {
                    self.anatomy.function_types.push(ty?);
                }
            }
            Payload::TableSection(section) => {
                for table in section.into_iter_with_offsets() {
                    let (offset, table) = table?;
                    self.read_table(offset, &table.ty);
                    if let wasmparser::TableInit::Expr(_) = table.init {
                        self.note(Feature::GarbageCollection, offset, None);
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.into_iter_with_offsets() {
                    let (offset, memory) = memory?;
                    self.read_memory(offset, &memory, false);
                }
            }
            Payload::TagSection(section) => self.note(Feature::Exceptions, section.range().start, None),
            Payload::GlobalSection(section) => {
                self.anatomy.globals = section.count();
                for (position, global) in section.into_iter_with_offsets().enumerate() {
                    let (offset, global) = global?;
                    if position == 0 && global.ty.mutable {
                        self.anatomy.stack_top = constant(&global.init_expr);
                    }
                    self.note_value_type(global.ty.content_type, offset, None);
                    if global.ty.shared {
                        self.note(Feature::Threads, offset, None);
                    }
                    self.note_const_expr(&global.init_expr)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.read_export(export?);
                }
            }
            Payload::StartSection { func, range } => {
                self.anatomy.start = Some(func);
                self.note(Feature::Initialiser, range.start, None);
            }
            Payload::ElementSection(section) => self.read_elements(section)?,
            Payload::DataCountSection { range, .. } => self.note(Feature::DataCount, range.start, None),
            Payload::DataSection(section) => {
                for data in section {
                    let data = data?;
                    self.anatomy.data_bytes += data.data.len() as u64;
                    match data.kind {
                        DataKind::Passive => self.note(Feature::PassiveSegments, data.range.start, None),
                        DataKind::Active { offset_expr, .. } => self.note_const_expr(&offset_expr)?,
                    }
                }
            }
            Payload::CodeSectionEntry(body) => self.read_body(&body)?,
            Payload::CustomSection(section) => match section.as_known() {
                // Tools write these for people: one that is malformed is no reason to refuse the module.
                KnownCustom::Producers(producers) => self.read_producers(producers),
                KnownCustom::Name(names) => self.read_names(names),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn note_section(&mut self, payload: &Payload<'_>) {
        let (name, range) = match payload {
            Payload::CustomSection(section) => (format!("{:?}", section.name()), section.range()),
            Payload::CodeSectionStart { unchecked_range, .. } => {
                ("code".to_string(), unchecked_range.clone())
            }
            other => match other.as_section() {
                Some((id, range)) => (section_name(id).to_string(), range),
                None => return,
            },
        };
        self.anatomy.sections.push(Section { name, bytes: range.end - range.start });
    }

    fn read_types(&mut self, section: wasmparser::TypeSectionReader<'a>) -> Result<(), wasmparser::Error> {
        for group in section.into_iter_with_offsets() {
            let (offset, group) = group?;
            if group.is_explicit_rec_group() {
                self.note(Feature::GarbageCollection, offset, None);
            }
            for ty in group.into_types() {
                if !ty.is_final || !ty.supertype_idxs.is_empty() {
                    self.note(Feature::GarbageCollection, offset, None);
                }
                if ty.composite_type.shared {
                    self.note(Feature::Threads, offset, None);
                }
                let function = match ty.composite_type.inner {
                    CompositeInnerType::Func(function) => function,
                    _ => {
                        self.note(Feature::GarbageCollection, offset, None);
                        FuncType::new([], [])
                    }
                };
                if function.results().len() > 1 {
                    self.note(Feature::MultiValue, offset, None);
                }
                for value in function.params().iter().chain(function.results()) {
                    self.note_value_type(*value, offset, None);
                }
                self.anatomy.types.push(function);
            }
        }
        Ok(())
    }

    fn read_import(&mut self, offset: u64, import: wasmparser::Import<'_>) {
        let ty = match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                if let TypeRef::FuncExact(_) = import.ty {
                    self.note(Feature::GarbageCollection, offset, None);
                }
                self.anatomy.function_types.push(ty);
                self.signature(ty)
            }
            TypeRef::Table(ty) => {
                self.read_table(offset, &ty);
                "table".to_string()
            }
            TypeRef::Memory(ty) => {
                self.read_memory(offset, &ty, true);
                format!("memory of {} pages", ty.initial)
            }
            TypeRef::Global(ty) => {
                self.imported_globals += 1;
                self.note_value_type(ty.content_type, offset, None);
                if ty.mutable {
                    self.note(Feature::MutableGlobals, offset, None);
                }
                if ty.shared {
                    self.note(Feature::Threads, offset, None);
                }
                format!("global {}", ty.content_type)
            }
            TypeRef::Tag(_) => {
                self.note(Feature::Exceptions, offset, None);
                "tag".to_string()
            }
        };
        let (module, name) = (import.module.to_string(), import.name.to_string());
        self.anatomy.imports.push(Import { module, name, ty });
    }

    fn read_table(&mut self, offset: u64, ty: &wasmparser::TableType) {
        self.tables += 1;
        match self.tables {
            1 => self.anatomy.table_entries = ty.initial,
            _ => self.note(Feature::MultipleTables, offset, None),
        }
        if ty.table64 {
            self.note(Feature::Memory64, offset, None);
        }
        if ty.shared {
            self.note(Feature::Threads, offset, None);
        }
        if ty.element_type != wasmparser::RefType::FUNCREF {
            self.note_value_type(ValType::Ref(ty.element_type), offset, None);
        }
    }

    fn read_memory(&mut self, offset: u64, ty: &wasmparser::MemoryType, imported: bool) {
        self.memories += 1;
        let page_bytes = 1u64 << ty.page_size_log2.unwrap_or(16);
        match self.memories {
            1 => {
                let memory = Memory { pages: ty.initial, pages_max: ty.maximum, page_bytes, imported };
                self.anatomy.memory = Some(memory);
            }
            _ => self.note(Feature::MultiMemory, offset, None),
        }
        for (used, feature) in [
            (ty.memory64, Feature::Memory64),
            (ty.shared, Feature::Threads),
            (page_bytes != 1 << 16, Feature::CustomPageSizes),
        ] {
            if used {
                self.note(feature, offset, None);
            }
        }
    }

    fn read_export(&mut self, export: wasmparser::Export<'_>) {
        let ty = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                let ty = self.anatomy.function_types.get(export.index as usize).copied();
                ty.map_or_else(|| "func".to_string(), |ty| self.signature(ty))
            }
            ExternalKind::Table => "table".to_string(),
            ExternalKind::Memory => "memory".to_string(),
            ExternalKind::Global => "global".to_string(),
            ExternalKind::Tag => "tag".to_string(),
        };
        let name = export.name.to_string();
        self.anatomy.exports.push(Export { name, ty, kind: export.kind, index: export.index });
    }

    fn read_elements(
        &mut self,
        section: wasmparser::ElementSectionReader<'a>,
    ) -> Result<(), wasmparser::Error> {
        for element in section {
            let element = element?;
            let offset = element.range.start;
            match element.kind {
                ElementKind::Passive => self.note(Feature::PassiveSegments, offset, None),
                ElementKind::Declared => self.note(Feature::ElementForms, offset, None),
                ElementKind::Active { table_index, offset_expr } => {
                    self.note_const_expr(&offset_expr)?;
                    match table_index {
                        None => {}
                        Some(0) => self.note(Feature::ElementForms, offset, None),
                        Some(_) => self.note(Feature::MultipleTables, offset, None),
                    }
                }
            }
            if let ElementItems::Expressions(ty, expressions) = element.items {
                self.note(Feature::ElementForms, offset, None);
                if ty != wasmparser::RefType::FUNCREF {
                    self.note_value_type(ValType::Ref(ty), offset, None);
                }
                for expression in expressions {
                    let expression = expression?;
                    if element_function(&expression).is_none() {
                        self.note_const_expr(&expression)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read_body(&mut self, body: &FunctionBody<'a>) -> Result<(), wasmparser::Error> {
        let imported = self.anatomy.function_types.len() as u32 - self.anatomy.functions;
        let function = Some(imported + self.bodies);
        self.bodies += 1;
        let locals = body.get_locals_reader()?;
        let locals_offset = locals.original_position();
        for local in locals {
            self.note_value_type(local?.1, locals_offset, function);
        }
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            if let Some(feature) = feature::of_operator(&operator) {
                self.note(feature, offset, function);
            }
            match operator {
                Operator::CallIndirect { table_index, .. } => {
                    let end = operators.original_position();
                    if table_index != 0 {
                        self.note(Feature::MultipleTables, offset, function);
                    } else if self.long_table_index(offset, end) {
                        self.note(Feature::LongTableIndex, offset, function);
                    }
                }
                Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                    self.note_block_type(blockty, offset, function);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the table index of the `call_indirect` at these offsets takes more than one byte.
    fn long_table_index(&self, offset: u64, end: u64) -> bool {
        let Some(bytes) = self.bytes.get(offset as usize + 1..end as usize) else { return false };
        let type_index = bytes.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        bytes.len() - type_index > 1
    }

    fn note_block_type(&mut self, ty: wasmparser::BlockType, offset: u64, function: Option<u32>) {
        match ty {
            wasmparser::BlockType::Empty => {}
            wasmparser::BlockType::Type(value) => self.note_value_type(value, offset, function),
            wasmparser::BlockType::FuncType(index) => {
                let Some(ty) = self.anatomy.types.get(index as usize) else { return };
                let simple = ty.params().is_empty() && ty.results().len() <= 1;
                self.note(
                    if simple { Feature::IndexedBlockType } else { Feature::MultiValue },
                    offset,
                    function,
                );
            }
        }
    }

    fn note_value_type(&mut self, ty: ValType, offset: u64, function: Option<u32>) {
        match ty {
            ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 => {}
            ValType::V128 => self.note(Feature::Simd, offset, function),
            ValType::Ref(reference) if reference.is_func_ref() || reference.is_extern_ref() => {
                self.note(Feature::ReferenceTypes, offset, function);
            }
            ValType::Ref(_) => self.note(Feature::GarbageCollection, offset, function),
        }
    }

    /// Version 1.0 knows one constant, or one imported global.
    fn note_const_expr(&mut self, expression: &ConstExpr<'_>) -> Result<(), wasmparser::Error> {
        let mut operators = expression.get_operators_reader();
        let mut count = 0;
        loop {
            let (operator, offset) = operators.read_with_offset()?;
            match operator {
                Operator::End => return Ok(()),
                Operator::I32Const { .. }
                | Operator::I64Const { .. }
                | Operator::F32Const { .. }
                | Operator::F64Const { .. } => {}
                Operator::GlobalGet { global_index } if global_index < self.imported_globals => {}
                // Came with garbage collection.
                Operator::GlobalGet { .. } => self.note(Feature::GarbageCollection, offset, None),
                other => match feature::of_operator(&other) {
                    Some(feature) => self.note(feature, offset, None),
                    None => self.note(Feature::ExtendedConst, offset, None),
                },
            }
            count += 1;
            if count == 2 {
                self.note(Feature::ExtendedConst, offset, None);
            }
        }
    }

    fn read_producers(&mut self, section: wasmparser::ProducersSectionReader<'_>) {
        for field in section.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                let line = format!("{}: {} {}", field.name, value.name, value.version);
                self.anatomy.producers.push(line.trim_end().to_string());
            }
        }
    }

    fn read_names(&mut self, section: wasmparser::NameSectionReader<'_>) {
        for subsection in section.into_iter().flatten() {
            if let wasmparser::Name::Function(names) = subsection {
                for name in names.into_iter().flatten() {
                    self.names.insert(name.index, name.name.to_string());
                }
            }
        }
    }

    fn signature(&self, ty: u32) -> String {
        match self.anatomy.types.get(ty as usize) {
            Some(ty) => format!("func {}", signature(ty)),
            None => "func".to_string(),
        }
    }

    fn finish(mut self) -> Anatomy {
        for (feature, (count, offset, function)) in std::mem::take(&mut self.uses) {
            let function =
                function.map(|index| self.names.get(&index).cloned().unwrap_or_else(|| index.to_string()));
            self.anatomy.features.insert(feature, Use { count, first: Place { offset, function } });
        }
        self.anatomy
    }
}

/// The function that an element segment's expression names, or nothing if it names none.
pub(crate) fn element_function(expression: &ConstExpr<'_>) -> Option<u32> {
    let mut operators = expression.get_operators_reader();
    match (operators.read(), operators.read()) {
        (Ok(Operator::RefFunc { function_index }), Ok(Operator::End)) => Some(function_index),
        _ => None,
    }
}

/// The `i32` that a constant expression is, if it is one.
fn constant(expression: &ConstExpr<'_>) -> Option<i32> {
    match expression.get_operators_reader().read() {
        Ok(Operator::I32Const { value }) => Some(value),
        _ => None,
    }
}

/// A function type as people write it: `(i32, i64) -> i32`.
pub(crate) fn signature(ty: &FuncType) -> String {
    let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match ty.results() {
        [] => format!("({})", list(ty.params())),
        [one] => format!("({}) -> {one}", list(ty.params())),
        many => format!("({}) -> ({})", list(ty.params()), list(many)),
    }
}

/// Section names of the specification, by the section's id.
fn section_name(id: u8) -> &'static str {
    const NAMES: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    NAMES.get(id as usize).copied().unwrap_or("unknown")
}
