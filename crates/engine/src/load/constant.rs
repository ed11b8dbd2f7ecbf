//! Constant expressions.

use super::Loader;
use crate::error::ErrorKind;
use crate::reader::{Failed, Source};
use crate::types::ValueType;

impl Loader<'_> {
    /// The value of a constant expression of this type.
    pub(crate) fn constant_expression(
        &mut self,
        source: &mut dyn Source,
        wanted: ValueType,
    ) -> Result<u64, Failed> {
        const OPERATORS: u32 = 64;
        let mut stack = [(ValueType::UNKNOWN, 0_u64); 16];
        let mut height = 0;
        for _ in 0..OPERATORS {
            self.work += 1;
            let operator = self.reader.byte(source)?;
            let pushed = match operator {
                0x0b => {
                    return match (height, stack[0]) {
                        (1, (found, bits)) if found == wanted => Ok(bits),
                        (1, (found, _)) => self.fail(ErrorKind::Type { expected: wanted, found }),
                        (0, _) => self.fail(ErrorKind::StackEmpty),
                        _ => self.fail(ErrorKind::StackHeight),
                    };
                }
                0x23 => {
                    let index = self.reader.number(source)?;
                    return self.fail(ErrorKind::Index { what: "imported global", index });
                }
                0x41 => (ValueType::I32, u64::from(self.reader.signed(source, 32)? as u32)),
                0x42 => (ValueType::I64, self.reader.signed(source, 64)? as u64),
                0x43 => (ValueType::F32, u64::from(self.reader.word(source)?)),
                0x44 => (ValueType::F64, self.reader.long_word(source)?),
                0xd0 => (self.reader.reference_type(source)?, 0),
                0xd2 => {
                    let function = self.reader.number(source)?;
                    self.declare(function)?;
                    self.refer(function);
                    (ValueType::FUNCREF, u64::from(function) + 1)
                }
                0x6a..=0x6c | 0x7c..=0x7e => {
                    let value_type = if operator < 0x70 { ValueType::I32 } else { ValueType::I64 };
                    if height < 2 {
                        return self.fail(ErrorKind::StackEmpty);
                    }
                    let ((left, a), (right, b)) = (stack[height - 2], stack[height - 1]);
                    for found in [left, right] {
                        if found != value_type {
                            return self.fail(ErrorKind::Type { expected: value_type, found });
                        }
                    }
                    height -= 2;
                    let result = match operator {
                        0x6a | 0x7c => a.wrapping_add(b),
                        0x6b | 0x7d => a.wrapping_sub(b),
                        _ => a.wrapping_mul(b),
                    };
                    (value_type, if value_type == ValueType::I32 { u64::from(result as u32) } else { result })
                }
                _ => {
                    return self.fail(ErrorKind::Invalid("an operator that constant expressions don't have"));
                }
            };
            let Some(entry) = stack.get_mut(height) else {
                return self.fail(ErrorKind::Limit { what: "operands of a constant expression", limit: 16 });
            };
            *entry = pushed;
            height += 1;
        }
        self.fail(ErrorKind::Limit { what: "operators of a constant expression", limit: OPERATORS })
    }
}
