//! Segments of elements and of data.

use super::Loader;
use super::state::{Phase, To};
use crate::error::ErrorKind;
use crate::machine::{segment, table};
use crate::reader::{Failed, Source};
use crate::region::Place;
use crate::types::ValueType;

impl Loader<'_> {
    pub(crate) fn element_segment(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let flags = self.reader.number(source)?;
        if flags > 7 {
            return self.fail(ErrorKind::Malformed("element segment"));
        }
        let (active, expressions) = (flags & 1 == 0, flags & 4 != 0);
        let mut target = None;
        if active {
            let index = if flags & 2 == 0 { 0 } else { self.reader.number(source)? };
            self.check_table(index, None)?;
            let offset = self.constant_expression(source, ValueType::I32)?;
            target = Some((index, offset as u32));
        }
        let mut value_type = ValueType::FUNCREF;
        if flags & 3 != 0 {
            if expressions {
                value_type = self.reader.reference_type(source)?;
            } else if self.reader.byte(source)? != 0 {
                return self.fail(ErrorKind::Malformed("kind of elements"));
            }
        }
        let count = self.reader.number(source)?;
        let (mut place, mut length) = (Place(0), 0);
        let to = if let Some((index, offset)) = target {
            self.check_table(index, Some(value_type))?;
            let words = index as usize * table::WORDS;
            let elements = self.region.number(self.table_place, words + table::LENGTH);
            if offset.checked_add(count).is_none_or(|end| end > elements) {
                return self.fail(ErrorKind::SegmentOutOfBounds);
            }
            To::Place(Place(self.region.number(self.table_place, words + table::PLACE)), offset)
        } else if flags & 2 == 0 {
            place = self.take::<u32>(count as usize)?;
            length = count;
            To::Place(place, 0)
        } else {
            To::Nowhere
        };
        let index = self.elements;
        let words = index as usize * segment::WORDS;
        self.region.set_number(self.element_place, words + segment::PLACE, place.0);
        self.region.set_number(self.element_place, words + segment::LENGTH, length);
        self.region.slice_mut::<u8>(self.element_types, index as usize + 1)[index as usize] =
            value_type.byte();
        self.elements += 1;
        self.phase = Phase::References { left: count, to, expressions };
        Ok(())
    }

    pub(crate) fn references(
        &mut self,
        source: &mut dyn Source,
        left: u32,
        to: To,
        expressions: bool,
    ) -> Result<(), Failed> {
        if left == 0 {
            self.phase = Phase::Items;
            return Ok(());
        }
        let value = if expressions {
            let types = self.region.slice::<u8>(self.element_types, self.elements as usize);
            let value_type = ValueType::known(types.last().copied().unwrap_or_default());
            self.constant_expression(source, value_type)? as u32
        } else {
            let function = self.reader.number(source)?;
            self.declare(function)?;
            if to != To::Nowhere {
                self.refer(function);
            }
            function + 1
        };
        let to = match to {
            To::Place(place, at) => {
                self.region.set_number(place, at as usize, value);
                To::Place(place, at + 1)
            }
            To::Nowhere => to,
        };
        self.phase = Phase::References { left: left - 1, to, expressions };
        Ok(())
    }

    /// That there is such an element segment; answers its type.
    pub(crate) fn check_elements(&self, index: u32) -> Result<ValueType, Failed> {
        if index >= self.elements {
            return self.fail(ErrorKind::Index { what: "element segment", index });
        }
        let types = self.region.slice::<u8>(self.element_types, self.elements as usize);
        Ok(ValueType::known(types[index as usize]))
    }

    pub(crate) fn check_data(&self, index: u32) -> Result<(), Failed> {
        if !self.has_data_count {
            return self.fail(ErrorKind::Malformed("module: data segments are used and not counted"));
        }
        if index < self.data { Ok(()) } else { self.fail(ErrorKind::Index { what: "data segment", index }) }
    }

    pub(crate) fn data_segment(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let flags = self.reader.number(source)?;
        if flags > 2 {
            return self.fail(ErrorKind::Malformed("data segment"));
        }
        if flags == 2 && self.reader.number(source)? != 0 {
            return self.fail(ErrorKind::Index { what: "memory", index: 1 });
        }
        let mut offset = None;
        if flags != 1 {
            self.check_memory()?;
            offset = Some(self.constant_expression(source, ValueType::I32)? as u32);
        }
        let length = self.reader.number(source)?;
        if self.reader.position().checked_add(length).is_none_or(|end| end > self.section_end) {
            return self.fail(ErrorKind::End);
        }
        let (mut place, mut kept) = (Place(0), 0);
        let to = match offset {
            Some(offset) => {
                if offset.checked_add(length).is_none_or(|end| end > self.memory_bytes) {
                    return self.fail(ErrorKind::SegmentOutOfBounds);
                }
                self.memory_place.0 + offset
            }
            None if self.has_data_count => {
                place = self.take::<u8>(length as usize)?;
                kept = length;
                place.0
            }
            None => {
                self.reader.skip(length)?;
                return Ok(());
            }
        };
        if self.has_data_count {
            let words = self.segments_done as usize * segment::WORDS;
            self.region.set_number(self.data_place, words + segment::PLACE, place.0);
            self.region.set_number(self.data_place, words + segment::LENGTH, kept);
            self.segments_done += 1;
        }
        self.phase = Phase::Bytes { left: length, to };
        Ok(())
    }

    pub(crate) fn bytes(&mut self, source: &mut dyn Source, left: u32, to: u32) -> Result<(), Failed> {
        let part = left.min(64);
        self.work += part / 8;
        let bytes = self.region.slice_mut::<u8>(Place(to), part as usize);
        self.reader.bytes(source, bytes)?;
        self.phase =
            if part == left { Phase::Items } else { Phase::Bytes { left: left - part, to: to + part } };
        Ok(())
    }
}
