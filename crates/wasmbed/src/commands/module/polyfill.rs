//! Functions of version 1.0 that stand in for operators of later versions.
//!
//! Each takes and gives what the operator takes and gives, and traps where it traps: the copy and the fill check
//! their bounds before the first byte is written, as the specification asks (bulk memory, section "execution").

use wasm_encoder::{BlockType, Function, Ieee32, Ieee64, InstructionSink, MemArg, MemArgTarget, ValType};
use wasmparser::Operator;

/// A stand-in, appended to a module that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Polyfill {
    /// `memory.copy`.
    Copy,
    /// `memory.fill`.
    Fill,
    /// One of the eight `trunc_sat` operators.
    Truncate {
        /// The float is an `f64`.
        from64: bool,
        /// The integer is an `i64`.
        to64: bool,
        /// The integer is signed.
        signed: bool,
    },
}

impl Polyfill {
    /// The stand-in that an operator needs.
    pub(crate) fn of_operator(operator: &Operator<'_>) -> Option<Self> {
        let truncate = |from64, to64, signed| Some(Self::Truncate { from64, to64, signed });
        match operator {
            Operator::MemoryCopy { .. } => Some(Self::Copy),
            Operator::MemoryFill { .. } => Some(Self::Fill),
            Operator::I32TruncSatF32S => truncate(false, false, true),
            Operator::I32TruncSatF32U => truncate(false, false, false),
            Operator::I32TruncSatF64S => truncate(true, false, true),
            Operator::I32TruncSatF64U => truncate(true, false, false),
            Operator::I64TruncSatF32S => truncate(false, true, true),
            Operator::I64TruncSatF32U => truncate(false, true, false),
            Operator::I64TruncSatF64S => truncate(true, true, true),
            Operator::I64TruncSatF64U => truncate(true, true, false),
            _ => None,
        }
    }

    /// Parameters and results.
    pub(crate) fn signature(self) -> (&'static [ValType], &'static [ValType]) {
        match self {
            Self::Copy | Self::Fill => (&[ValType::I32, ValType::I32, ValType::I32], &[]),
            Self::Truncate { from64, to64, .. } => (
                if from64 { &[ValType::F64] } else { &[ValType::F32] },
                if to64 { &[ValType::I64] } else { &[ValType::I32] },
            ),
        }
    }

    /// The function, for a memory whose page has `1 << page_log2` bytes.
    pub(crate) fn function(self, page_log2: u32) -> Function {
        match self {
            Self::Copy => copy(page_log2),
            Self::Fill => fill(page_log2),
            Self::Truncate { from64, to64, signed } => truncate(from64, to64, signed),
        }
    }
}

/// Below the range: the least integer. Above: the greatest. Not a number: zero. Else the conversion of version 1.0.
fn truncate(from64: bool, to64: bool, signed: bool) -> Function {
    let bits = if to64 { 64 } else { 32 };
    // Powers of two: exact in both formats. What lies between `low - 1` and `low` truncates to `low` anyway.
    let low = if signed { -(2f64.powi(bits - 1)) } else { 0.0 };
    let high = 2f64.powi(if signed { bits - 1 } else { bits });
    let (least, greatest) = match (to64, signed) {
        (false, true) => (i64::from(i32::MIN), i64::from(i32::MAX)),
        (false, false) => (0, -1),
        (true, true) => (i64::MIN, i64::MAX),
        (true, false) => (0, -1),
    };
    let result = BlockType::Result(if to64 { ValType::I64 } else { ValType::I32 });
    let mut function = Function::new([]);
    let mut code = function.instructions();
    let float = |code: &mut InstructionSink<'_>, value: f64| {
        if from64 {
            code.f64_const(Ieee64::from(value));
        } else {
            code.f32_const(Ieee32::from(value as f32));
        }
    };
    let integer = |code: &mut InstructionSink<'_>, value: i64| {
        if to64 {
            code.i64_const(value);
        } else {
            code.i32_const(value as i32);
        }
    };
    code.local_get(0);
    float(&mut code, low);
    if from64 {
        code.f64_lt()
    } else {
        code.f32_lt()
    };
    code.if_(result);
    integer(&mut code, least);
    code.else_().local_get(0);
    float(&mut code, high);
    if from64 {
        code.f64_ge()
    } else {
        code.f32_ge()
    };
    code.if_(result);
    integer(&mut code, greatest);
    code.else_().local_get(0).local_get(0);
    if from64 {
        code.f64_ne()
    } else {
        code.f32_ne()
    };
    code.if_(result);
    integer(&mut code, 0);
    code.else_().local_get(0);
    match (from64, to64, signed) {
        (false, false, true) => code.i32_trunc_f32_s(),
        (false, false, false) => code.i32_trunc_f32_u(),
        (true, false, true) => code.i32_trunc_f64_s(),
        (true, false, false) => code.i32_trunc_f64_u(),
        (false, true, true) => code.i64_trunc_f32_s(),
        (false, true, false) => code.i64_trunc_f32_u(),
        (true, true, true) => code.i64_trunc_f64_s(),
        (true, true, false) => code.i64_trunc_f64_u(),
    };
    code.end().end().end().end();
    function
}

const DST: u32 = 0;
const SRC: u32 = 1;
const VALUE: u32 = 1;
const LEN: u32 = 2;
/// The byte to fill with, eight times.
const PATTERN: u32 = 3;

const BYTE: MemArg = MemArg { offset: 0, align: 0, target: MemArgTarget::Memory(0), ordering: None };
/// Eight bytes at any address: alignment is a promise that these don't make.
const WORD: MemArg = MemArg { offset: 0, align: 0, target: MemArgTarget::Memory(0), ordering: None };

/// `memory.copy`: forwards if the destination comes first, else backwards, by eight bytes and then by one. Either
/// order never writes a byte that it has still to read.
fn copy(page_log2: u32) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    check_bounds(&mut code, DST, page_log2);
    check_bounds(&mut code, SRC, page_log2);
    code.local_get(DST).local_get(SRC).i32_le_u().if_(BlockType::Empty);
    while_at_least(&mut code, 8, |code| {
        code.local_get(DST).local_get(SRC).i64_load(WORD).i64_store(WORD);
        step(code, DST, 8);
        step(code, SRC, 8);
    });
    while_at_least(&mut code, 1, |code| {
        code.local_get(DST).local_get(SRC).i32_load8_u(BYTE).i32_store8(BYTE);
        step(code, DST, 1);
        step(code, SRC, 1);
    });
    code.else_();
    // From here on both point behind the bytes that are left.
    for pointer in [DST, SRC] {
        code.local_get(pointer).local_get(LEN).i32_add().local_set(pointer);
    }
    while_at_least(&mut code, 8, |code| {
        step(code, DST, -8);
        step(code, SRC, -8);
        code.local_get(DST).local_get(SRC).i64_load(WORD).i64_store(WORD);
    });
    while_at_least(&mut code, 1, |code| {
        step(code, DST, -1);
        step(code, SRC, -1);
        code.local_get(DST).local_get(SRC).i32_load8_u(BYTE).i32_store8(BYTE);
    });
    code.end().end();
    function
}

/// `memory.fill`.
fn fill(page_log2: u32) -> Function {
    let mut function = Function::new([(1, ValType::I64)]);
    let mut code = function.instructions();
    check_bounds(&mut code, DST, page_log2);
    code.local_get(VALUE).i32_const(0xff).i32_and().i64_extend_i32_u();
    code.i64_const(0x0101_0101_0101_0101).i64_mul().local_set(PATTERN);
    while_at_least(&mut code, 8, |code| {
        code.local_get(DST).local_get(PATTERN).i64_store(WORD);
        step(code, DST, 8);
    });
    while_at_least(&mut code, 1, |code| {
        code.local_get(DST).local_get(VALUE).i32_store8(BYTE);
        step(code, DST, 1);
    });
    code.end();
    function
}

/// Traps with an access out of bounds when `pointer + LEN` is more than the memory has, computed in 64 bits.
fn check_bounds(code: &mut InstructionSink<'_>, pointer: u32, page_log2: u32) {
    code.local_get(pointer).i64_extend_i32_u().local_get(LEN).i64_extend_i32_u().i64_add();
    code.memory_size(0).i64_extend_i32_u().i64_const(i64::from(page_log2)).i64_shl();
    code.i64_gt_u().if_(BlockType::Empty);
    // Beyond 4 GiB, where no 32-bit memory has a byte.
    code.i32_const(-1).i32_load8_u(MemArg { offset: u64::from(u32::MAX), ..BYTE }).drop().end();
}

/// `while LEN >= least { body; LEN -= least }`
fn while_at_least(code: &mut InstructionSink<'_>, least: i32, body: impl Fn(&mut InstructionSink<'_>)) {
    code.block(BlockType::Empty).loop_(BlockType::Empty);
    code.local_get(LEN).i32_const(least).i32_lt_u().br_if(1);
    body(code);
    step(code, LEN, -least);
    code.br(0).end().end();
}

fn step(code: &mut InstructionSink<'_>, local: u32, by: i32) {
    code.local_get(local).i32_const(by).i32_add().local_set(local);
}
