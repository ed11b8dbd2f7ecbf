//! Operators that are rare, or so expensive that a call more does not matter: out of line, so that the executor's loop
//! stays small.
//!
//! Those that work on a range of bytes or elements do a part of it for the fuel there is, write into their operands what
//! is left, and are executed again when there is fuel.
#![allow(unsafe_code)]

use core::ptr;

use crate::generated::rare;
use crate::machine::{FLOAT, Machine, exit, segment, table};

/// Fuel for a 64-bit division, which most boards have no instruction for.
const DIVISION: i32 = 32;
/// Bytes that one unit of fuel fills or copies.
const BYTES_PER_FUEL: u32 = 4;

const TWO_31: f64 = 2_147_483_648.0;
const TWO_32: f64 = 4_294_967_296.0;
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

/// Reads and writes the operands of the operator at which the machine stands.
struct Operands<'a, const CHECKED: bool> {
    machine: &'a mut Machine,
    broken: bool,
}

impl<const CHECKED: bool> Operands<'_, CHECKED> {
    /// The word behind the operator's two numbers.
    fn word(&mut self, at: usize) -> usize {
        let p = self.machine.pc.wrapping_add(2 + at);
        if CHECKED && !self.machine.is_code(p) {
            self.broken = true;
            return 0;
        }
        // SAFETY: the operator has this many operands.
        usize::from(unsafe { *p })
    }

    fn slot(&mut self, at: usize, high: usize) -> Option<*mut u32> {
        let p = self.machine.frame.wrapping_add(self.word(at) + high).cast::<u32>();
        self.broken |= CHECKED && !self.machine.is_stack(p);
        (!self.broken).then_some(p)
    }

    fn get(&mut self, at: usize) -> u32 {
        // SAFETY: the operand is a slot of this frame.
        self.slot(at, 0).map_or(0, |p| unsafe { *p })
    }

    fn get_pair(&mut self, at: usize) -> u64 {
        // SAFETY: the operand is a pair of slots of this frame.
        let high = self.slot(at, 4).map_or(0, |p| unsafe { *p });
        u64::from(self.get(at)) | u64::from(high) << 32
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(p) = self.slot(at, 0) {
            // SAFETY: the operand is a slot of this frame.
            unsafe { *p = value }
        }
    }

    fn set_pair(&mut self, at: usize, value: u64) {
        self.set(at, value as u32);
        if let Some(p) = self.slot(at, 4) {
            // SAFETY: the operand is a pair of slots of this frame.
            unsafe { *p = (value >> 32) as u32 }
        }
    }

    fn f32(&mut self, at: usize) -> f32 {
        f32::from_bits(self.get(at))
    }

    fn f64(&mut self, at: usize) -> f64 {
        f64::from_bits(self.get_pair(at))
    }

    fn charge(&mut self, fuel: i32) {
        self.machine.fuel = self.machine.fuel.wrapping_sub(fuel);
    }
}

/// Executes one rare operator.
///
/// # Safety
/// As for the executor, and the machine stands at this operator.
#[inline(never)]
pub(crate) unsafe fn run<const CHECKED: bool>(machine: &mut Machine, kind: u16) -> u32 {
    let mut operands = Operands::<CHECKED> { machine, broken: false };
    let done = if kind < rare::F32_CEIL {
        integer(&mut operands, kind)
    } else if kind < rare::I32_TRUNC_F32_S {
        float(&mut operands, kind);
        Ok(())
    } else if kind < rare::MEMORY_SIZE {
        convert(&mut operands, kind)
    } else {
        reach(&mut operands, kind)
    };
    match done {
        _ if operands.broken => exit::INTERNAL,
        Ok(()) => exit::NEXT,
        Err(why) => why,
    }
}

fn integer<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) -> Result<(), u32> {
    let a = o.get_pair(0);
    if kind >= rare::I64_CLZ {
        let result = match kind {
            rare::I64_CLZ => u64::from(a.leading_zeros()),
            rare::I64_CTZ => u64::from(a.trailing_zeros()),
            rare::I64_POPCNT => u64::from(a.count_ones()),
            rare::I64_EXTEND8_S => a as i8 as i64 as u64,
            rare::I64_EXTEND16_S => a as i16 as i64 as u64,
            _ => a as i32 as i64 as u64,
        };
        o.set_pair(1, result);
        return Ok(());
    }
    o.charge(DIVISION);
    let b = o.get_pair(1);
    if b == 0 {
        return Err(exit::DIVISION);
    }
    let (signed, by) = (a as i64, b as i64);
    let result = match kind {
        rare::I64_DIV_S => signed.checked_div(by).ok_or(exit::OVERFLOW)? as u64,
        rare::I64_DIV_U => a / b,
        rare::I64_REM_S => signed.wrapping_rem(by) as u64,
        _ => a % b,
    };
    o.set_pair(2, result);
    Ok(())
}

/// Operators on floats of one width that round, take the smaller or the larger, or copy a sign.
macro_rules! floats {
    (
        $float:ident, $quiet:ident, $operators:ident, $set:ident, [$($rounding:ident => $round:path),+],
        $minimum:ident, $maximum:ident
    ) => {
        /// A NaN as arithmetic hands it on.
        fn $quiet(value: $float) -> $float {
            $float::from_bits(value.to_bits() | 1 << ($float::MANTISSA_DIGITS - 2))
        }

        fn $operators<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) {
            let a = o.$float(0);
            let rounded: Option<fn($float) -> $float> = match kind {
                $(rare::$rounding => Some($round),)+
                _ => None,
            };
            if let Some(round) = rounded {
                let result = if a.is_nan() { $quiet(a) } else { round(a) };
                o.$set(1, result.to_bits());
                return;
            }
            let b = o.$float(1);
            let result = match kind {
                rare::$minimum | rare::$maximum => match (a.is_nan(), b.is_nan()) {
                    (true, _) => $quiet(a),
                    (_, true) => $quiet(b),
                    // The sign of zero counts.
                    _ if a == b && kind == rare::$minimum => $float::from_bits(a.to_bits() | b.to_bits()),
                    _ if a == b => $float::from_bits(a.to_bits() & b.to_bits()),
                    _ if (a < b) == (kind == rare::$minimum) => a,
                    _ => b,
                },
                _ => a.copysign(b),
            };
            o.$set(2, result.to_bits());
        }
    };
}

floats!(
    f32, quiet32, operators32, set,
    [
        F32_CEIL => libm::ceilf, F32_FLOOR => libm::floorf, F32_TRUNC => libm::truncf, F32_NEAREST => libm::rintf,
        F32_SQRT => libm::sqrtf
    ],
    F32_MIN, F32_MAX
);
floats!(
    f64, quiet64, operators64, set_pair,
    [
        F64_CEIL => libm::ceil, F64_FLOOR => libm::floor, F64_TRUNC => libm::trunc, F64_NEAREST => libm::rint,
        F64_SQRT => libm::sqrt
    ],
    F64_MIN, F64_MAX
);

fn float<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) {
    o.charge(FLOAT);
    if kind < rare::F64_CEIL { operators32(o, kind) } else { operators64(o, kind) }
}

/// That a float fits an integer of so many values: `low < value < high`, both apart from what rounds to zero.
fn fits(value: f64, low: f64, high: f64) -> Result<f64, u32> {
    match value {
        value if value.is_nan() => Err(exit::CONVERSION),
        value if value > low && value < high => Ok(value),
        _ => Err(exit::OVERFLOW),
    }
}

fn convert<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) -> Result<(), u32> {
    o.charge(FLOAT);
    match kind {
        rare::I32_TRUNC_F32_S | rare::I32_TRUNC_F64_S => {
            let value = if kind == rare::I32_TRUNC_F32_S { f64::from(o.f32(0)) } else { o.f64(0) };
            o.set(1, fits(value, -TWO_31 - 1.0, TWO_31)? as i32 as u32);
        }
        rare::I32_TRUNC_F32_U | rare::I32_TRUNC_F64_U => {
            let value = if kind == rare::I32_TRUNC_F32_U { f64::from(o.f32(0)) } else { o.f64(0) };
            o.set(1, fits(value, -1.0, TWO_32)? as u32);
        }
        rare::I64_TRUNC_F32_S | rare::I64_TRUNC_F64_S => {
            let value = if kind == rare::I64_TRUNC_F32_S { f64::from(o.f32(0)) } else { o.f64(0) };
            // -2^63 itself fits, and no double lies between it and what doesn't.
            let value = if value == -TWO_63 { value } else { fits(value, -TWO_63, TWO_63)? };
            o.set_pair(1, value as i64 as u64);
        }
        rare::I64_TRUNC_F32_U | rare::I64_TRUNC_F64_U => {
            let value = if kind == rare::I64_TRUNC_F32_U { f64::from(o.f32(0)) } else { o.f64(0) };
            o.set_pair(1, fits(value, -1.0, TWO_64)? as u64);
        }
        rare::F32_CONVERT_I32_S => {
            let value = o.get(0) as i32 as f32;
            o.set(1, value.to_bits());
        }
        rare::F32_CONVERT_I32_U => {
            let value = o.get(0) as f32;
            o.set(1, value.to_bits());
        }
        rare::F32_CONVERT_I64_S => {
            let value = o.get_pair(0) as i64 as f32;
            o.set(1, value.to_bits());
        }
        rare::F32_CONVERT_I64_U => {
            let value = o.get_pair(0) as f32;
            o.set(1, value.to_bits());
        }
        rare::F32_DEMOTE_F64 => {
            let value = o.f64(0) as f32;
            o.set(1, if value.is_nan() { quiet32(value) } else { value }.to_bits());
        }
        rare::F64_CONVERT_I32_S => {
            let value = f64::from(o.get(0) as i32);
            o.set_pair(1, value.to_bits());
        }
        rare::F64_CONVERT_I32_U => {
            let value = f64::from(o.get(0));
            o.set_pair(1, value.to_bits());
        }
        rare::F64_CONVERT_I64_S => {
            let value = o.get_pair(0) as i64 as f64;
            o.set_pair(1, value.to_bits());
        }
        rare::F64_CONVERT_I64_U => {
            let value = o.get_pair(0) as f64;
            o.set_pair(1, value.to_bits());
        }
        rare::F64_PROMOTE_F32 => {
            let value = f64::from(o.f32(0));
            o.set_pair(1, if value.is_nan() { quiet64(value) } else { value }.to_bits());
        }
        rare::I32_TRUNC_SAT_F32_S => {
            let value = o.f32(0) as i32;
            o.set(1, value as u32);
        }
        rare::I32_TRUNC_SAT_F32_U => {
            let value = o.f32(0) as u32;
            o.set(1, value);
        }
        rare::I32_TRUNC_SAT_F64_S => {
            let value = o.f64(0) as i32;
            o.set(1, value as u32);
        }
        rare::I32_TRUNC_SAT_F64_U => {
            let value = o.f64(0) as u32;
            o.set(1, value);
        }
        rare::I64_TRUNC_SAT_F32_S => {
            let value = o.f32(0) as i64;
            o.set_pair(1, value as u64);
        }
        rare::I64_TRUNC_SAT_F32_U => {
            let value = o.f32(0) as u64;
            o.set_pair(1, value);
        }
        rare::I64_TRUNC_SAT_F64_S => {
            let value = o.f64(0) as i64;
            o.set_pair(1, value as u64);
        }
        _ => {
            let value = o.f64(0) as u64;
            o.set_pair(1, value);
        }
    }
    Ok(())
}

/// Operators on memory, tables and segments.
fn reach<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) -> Result<(), u32> {
    match kind {
        rare::MEMORY_SIZE => {
            let pages = o.machine.memory_bytes / o.machine.page_bytes;
            o.set(0, pages);
            Ok(())
        }
        rare::MEMORY_GROW => memory_grow(o),
        rare::MEMORY_FILL => memory_fill(o),
        rare::MEMORY_COPY => memory_copy(o),
        rare::MEMORY_INIT => memory_init(o),
        rare::DATA_DROP => {
            let at = o.word(0) * segment::WORDS + segment::LENGTH;
            // SAFETY: the translator checks the index of the segment.
            unsafe { *o.machine.data.add(at) = 0 }
            Ok(())
        }
        rare::ELEM_DROP => {
            let at = o.word(0) * segment::WORDS + segment::LENGTH;
            // SAFETY: the translator checks the index of the segment.
            unsafe { *o.machine.elements.add(at) = 0 }
            Ok(())
        }
        _ => tables(o, kind),
    }
}

/// How much of a range there is fuel for, in whole units of `size` bytes; at least one, so that there is progress.
fn part<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, count: u32, size: u32) -> u32 {
    let fuel = u32::try_from(o.machine.fuel).unwrap_or(0);
    let part = (fuel.saturating_mul(BYTES_PER_FUEL) / size).saturating_add(1).min(count);
    o.charge((part * size / BYTES_PER_FUEL) as i32);
    part
}

fn rest(left: u32) -> Result<(), u32> {
    if left == 0 { Ok(()) } else { Err(exit::FUEL) }
}

/// That a range lies within so many.
fn within(from: u32, count: u32, length: u32, why: u32) -> Result<(), u32> {
    match from.checked_add(count) {
        Some(end) if end <= length => Ok(()),
        _ => Err(why),
    }
}

fn memory_grow<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>) -> Result<(), u32> {
    let pages = o.get(0);
    let old = o.machine.memory_bytes;
    let new = pages.checked_mul(o.machine.page_bytes).and_then(|bytes| bytes.checked_add(old));
    let Some(new) = new.filter(|new| *new <= o.machine.memory_bytes_max) else {
        o.machine.grows_refused = o.machine.grows_refused.saturating_add(1);
        o.set(1, u32::MAX);
        return Ok(());
    };
    if o.machine.memory_bytes_zeroed < new {
        let part = part(o, new - o.machine.memory_bytes_zeroed, 1);
        let from = o.machine.memory_bytes_zeroed;
        // SAFETY: the memory may grow to `memory_bytes_max`.
        unsafe { ptr::write_bytes(o.machine.memory.add(from as usize), 0, part as usize) }
        o.machine.memory_bytes_zeroed += part;
        rest(new - o.machine.memory_bytes_zeroed)?;
    }
    o.machine.memory_bytes = new;
    let before = old / o.machine.page_bytes;
    o.set(1, before);
    Ok(())
}

fn memory_fill<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>) -> Result<(), u32> {
    let (to, value, count) = (o.get(0), o.get(1), o.get(2));
    within(to, count, o.machine.memory_bytes, exit::MEMORY)?;
    let part = part(o, count, 1);
    // SAFETY: the range lies within the memory.
    unsafe { ptr::write_bytes(o.machine.memory.add(to as usize), value as u8, part as usize) }
    o.set(0, to + part);
    o.set(2, count - part);
    rest(count - part)
}

fn memory_copy<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>) -> Result<(), u32> {
    let (to, from, count) = (o.get(0), o.get(1), o.get(2));
    within(to, count, o.machine.memory_bytes, exit::MEMORY)?;
    within(from, count, o.machine.memory_bytes, exit::MEMORY)?;
    let part = part(o, count, 1);
    let left = count - part;
    // Overlapping ranges are copied from the end that is not overwritten; what is left then begins where it did.
    let ahead = if to <= from { 0 } else { left };
    // SAFETY: both ranges lie within the memory.
    unsafe {
        let memory = o.machine.memory;
        ptr::copy(memory.add((from + ahead) as usize), memory.add((to + ahead) as usize), part as usize);
    }
    if to <= from {
        o.set(0, to + part);
        o.set(1, from + part);
    }
    o.set(2, left);
    rest(left)
}

/// The place and the length of a segment.
fn segment_at(segments: *mut u32, index: usize) -> (u32, u32) {
    let words = segments.wrapping_add(index * segment::WORDS);
    // SAFETY: the translator checks the index of the segment.
    unsafe { (*words.add(segment::PLACE), *words.add(segment::LENGTH)) }
}

fn memory_init<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>) -> Result<(), u32> {
    let index = o.word(0);
    let (place, length) = segment_at(o.machine.data, index);
    let (to, from, count) = (o.get(1), o.get(2), o.get(3));
    within(from, count, length, exit::MEMORY)?;
    within(to, count, o.machine.memory_bytes, exit::MEMORY)?;
    let part = part(o, count, 1);
    // SAFETY: both ranges are within what the segment and the memory have; they don't overlap.
    unsafe {
        let source = o.machine.region.add((place + from) as usize);
        ptr::copy_nonoverlapping(source, o.machine.memory.add(to as usize), part as usize);
    }
    o.set(1, to + part);
    o.set(2, from + part);
    o.set(3, count - part);
    rest(count - part)
}

fn tables<const CHECKED: bool>(o: &mut Operands<'_, CHECKED>, kind: u16) -> Result<(), u32> {
    let index = o.word(0);
    // SAFETY: the translator checks the index of the table.
    let (elements, length) = unsafe { o.machine.table(index) };
    match kind {
        rare::TABLE_GET => {
            let at = o.get(1);
            within(at, 1, length, exit::TABLE_ACCESS)?;
            // SAFETY: within the table.
            let value = unsafe { *elements.add(at as usize) };
            o.set(2, value);
            Ok(())
        }
        rare::TABLE_SET => {
            let (at, value) = (o.get(1), o.get(2));
            within(at, 1, length, exit::TABLE_ACCESS)?;
            // SAFETY: within the table.
            unsafe { *elements.add(at as usize) = value }
            Ok(())
        }
        rare::TABLE_SIZE => {
            o.set(1, length);
            Ok(())
        }
        rare::TABLE_GROW => table_grow(o, index, elements, length),
        rare::TABLE_FILL => {
            let (to, value, count) = (o.get(1), o.get(2), o.get(3));
            within(to, count, length, exit::TABLE_ACCESS)?;
            let part = part(o, count, 4);
            fill(elements, to, value, part);
            o.set(1, to + part);
            o.set(3, count - part);
            rest(count - part)
        }
        rare::TABLE_COPY => {
            let source = o.word(1);
            // SAFETY: the translator checks the index of the table.
            let (from_elements, from_length) = unsafe { o.machine.table(source) };
            let (to, from, count) = (o.get(2), o.get(3), o.get(4));
            within(to, count, length, exit::TABLE_ACCESS)?;
            within(from, count, from_length, exit::TABLE_ACCESS)?;
            let part = part(o, count, 4);
            let left = count - part;
            let ahead = if to <= from { 0 } else { left };
            // SAFETY: both ranges lie within their tables.
            unsafe {
                let source = from_elements.add((from + ahead) as usize);
                ptr::copy(source, elements.add((to + ahead) as usize), part as usize);
            }
            if to <= from {
                o.set(2, to + part);
                o.set(3, from + part);
            }
            o.set(4, left);
            rest(left)
        }
        _ => {
            let segment = o.word(1);
            let (place, available) = segment_at(o.machine.elements, segment);
            let (to, from, count) = (o.get(2), o.get(3), o.get(4));
            within(from, count, available, exit::TABLE_ACCESS)?;
            within(to, count, length, exit::TABLE_ACCESS)?;
            let part = part(o, count, 4);
            // SAFETY: both ranges are within what the segment and the table have; they don't overlap.
            unsafe {
                let source = o.machine.region.add(place as usize).cast::<u32>().add(from as usize);
                ptr::copy_nonoverlapping(source, elements.add(to as usize), part as usize);
            }
            o.set(2, to + part);
            o.set(3, from + part);
            o.set(4, count - part);
            rest(count - part)
        }
    }
}

fn fill(elements: *mut u32, to: u32, value: u32, count: u32) {
    for at in to..to + count {
        // SAFETY: the caller has checked the range.
        unsafe { *elements.add(at as usize) = value }
    }
}

/// Not in parts: a table's length is bounded by what the region sets aside for it, and elements that are not yet counted
/// must not be seen.
fn table_grow<const CHECKED: bool>(
    o: &mut Operands<'_, CHECKED>,
    index: usize,
    elements: *mut u32,
    length: u32,
) -> Result<(), u32> {
    let (value, count) = (o.get(1), o.get(2));
    let words = o.machine.tables.wrapping_add(index * table::WORDS);
    // SAFETY: the translator checks the index of the table.
    let maximum = unsafe { *words.add(table::MAXIMUM) };
    if within(length, count, maximum, exit::TABLE).is_err() {
        o.set(3, u32::MAX);
        return Ok(());
    }
    o.charge(count as i32);
    fill(elements, length, value, count);
    // SAFETY: the translator checks the index of the table.
    unsafe { *words.add(table::LENGTH) = length + count }
    o.set(3, length);
    Ok(())
}
