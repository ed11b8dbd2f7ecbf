//! What a scan accepts.

use crate::features::Features;
use crate::interface::{HostFunction, host_functions};

/// Bounds of a scan; the default is what a device accepts.
///
/// Each count bounds the time and the memory that loading takes.
#[derive(Clone, Debug)]
pub struct ScanLimits {
    /// Bytes of a module.
    pub module_bytes: u32,
    /// Types.
    pub types: u32,
    /// Parameters of one type. Host calls have at most 9.
    pub parameters: u32,
    /// Imports. Every call is resolved by a walk over them.
    pub imports: u32,
    /// Functions of its own. Engines cut more than 65,535 to 16 bits.
    pub functions: u32,
    /// Globals.
    pub globals: u32,
    /// Exports. Checking their names for doubles is quadratic.
    pub exports: u32,
    /// Bytes of a name: of a custom section, of an import's module and of the import. Engines have no room for longer ones.
    pub name_bytes: u32,
    /// Bytes of an export's name.
    pub export_name_bytes: u32,
    /// Tables.
    pub tables: u32,
    /// Elements of all tables together, as they begin.
    pub table_elements: u32,
    /// Element segments.
    pub element_segments: u32,
    /// Elements of all segments together.
    pub segment_elements: u32,
    /// Data segments.
    pub data_segments: u32,
    /// Groups of locals in one function. Each access walks them.
    pub local_groups: u32,
    /// Locals of one function. Every call sets them to zero.
    pub locals: u32,
    /// Blocks within each other in one function.
    pub control_depth: u32,
    /// Values on the operand stack of one function.
    pub operand_depth: u32,
    /// Operators of a constant expression, its end not counted.
    pub constant_operators: u32,
    /// Values that a constant expression keeps at once.
    pub constant_operands: u32,
    /// Targets of one `br_table`, the last one not counted.
    pub branch_targets: u32,
    /// Values that calls, blocks and branches carry, for each byte of the module. An engine looks at each: an operator of
    /// two bytes could otherwise be as much work as a hundred others.
    pub carried_per_byte: u32,
    /// Features that the engine runs.
    pub features: Features,
    /// Host functions that imports may name.
    pub host_functions: &'static [HostFunction],
    /// Whether a module without an entry is refused.
    pub entry_required: bool,
}

/// Blocks within each other: the engine's control frames, less the function's own.
pub const CONTROL_FRAMES: usize = 128;
/// Values on the operand stack of a function that the engine follows.
pub const OPERANDS: usize = 128;

/// 32-bit slots of each application's call stack.
pub const STACK_SLOTS: u32 = 2_048;
/// Elements by which a table can grow, unless its own maximum is less. They are set aside when the module is loaded, if
/// anything in it grows a table.
pub const TABLE_GROWTH: u32 = 64;

impl Default for ScanLimits {
    fn default() -> Self {
        ScanLimits {
            module_bytes: 1_048_576,
            types: 1_000,
            parameters: 64,
            imports: 64,
            functions: 5_000,
            globals: 1_000,
            exports: 100,
            name_bytes: 1_000,
            export_name_bytes: 256,
            tables: 32,
            table_elements: 4_096,
            element_segments: 1_000,
            segment_elements: 16_384,
            data_segments: 5_000,
            local_groups: 64,
            locals: 1_000,
            control_depth: CONTROL_FRAMES as u32 - 1,
            operand_depth: OPERANDS as u32,
            constant_operators: 63,
            constant_operands: 16,
            branch_targets: 65_535,
            carried_per_byte: 4,
            features: Features::DEVICES,
            host_functions: host_functions(),
            entry_required: true,
        }
    }
}
