//! Branches, and the places at which they arrive.
//!
//! A branch says how far it goes in one word, from its own operator. Those to the end of a block are not known until
//! there: until then the word holds the distance to the branch before it with the same target, and how far the word is
//! behind its operator. A function in which 16 bits are not enough is translated again, with far branches: a comparison
//! then branches around one.

use super::emit::bytes;
use super::scratch::{Construct, Entry, Fixing, Frame, Kind, NONE, Targets};
use crate::error::ErrorKind;
use crate::generated::{family, op};
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;

/// The block that a branch leaves, or begins again.
#[derive(Clone, Copy)]
struct Label {
    frame: Frame,
}

impl Label {
    pub(crate) fn is_loop(&self) -> bool {
        self.frame.block == Construct::Loop
    }
}

/// Targets of one `br_table`, without the last one.
const TARGETS: u32 = 65_535;

/// The distance of two code positions in bytes.
fn distance(from: u32, to: u32) -> i64 {
    (i64::from(to) - i64::from(from)) * 2
}

impl Loader<'_> {
    fn label_at(&self, depth: u32) -> Result<Label, Failed> {
        Ok(Label { frame: self.frame(depth)? })
    }

    /// Values that a branch to this label carries.
    fn carried(&self, label: &Label) -> usize {
        self.block_types(label.frame.block_type, !label.is_loop())
    }

    pub(crate) fn too_far<R>(&mut self) -> Result<R, Failed> {
        self.needs_far = true;
        self.invalid(ErrorKind::Limit {
            what: "bytes of code between a branch and its target",
            limit: 32_767,
        })
    }

    pub(crate) fn near(&mut self, from: u32, to: u32) -> Result<u16, Failed> {
        match i16::try_from(distance(from, to)) {
            Ok(distance) => Ok(distance as u16),
            Err(_) => self.too_far(),
        }
    }

    pub(crate) fn frame_index(&self, depth: u32) -> usize {
        self.frames - 1 - depth as usize
    }

    /// Puts the values that a branch carries where its target has them.
    fn carry_to(&mut self, label: Label) -> Result<(), Failed> {
        self.carry(self.carried(&label), label.frame.slot)
    }

    /// Puts the results of a block, at its end, where what follows has them.
    pub(crate) fn carry_results(&mut self, frame: Frame) -> Result<(), Failed> {
        self.carry(self.block_types(frame.block_type, true), frame.slot)
    }

    /// Puts so many values from the top of the stack into the slots from this one on.
    pub(crate) fn carry(&mut self, count: usize, to: u16) -> Result<(), Failed> {
        if count == 0 {
            return Ok(());
        }
        let first = self.height - count;
        if count > 1 {
            self.settle_from(first)?;
            let from = self.scratch.entries[first].slot;
            let slots = self.slot - from;
            if from != to {
                self.write(op::MOVE_MANY, &[bytes(from), bytes(to), slots])?;
            }
            return Ok(());
        }
        let entry = self.scratch.entries[first];
        match entry.kind {
            Kind::Accumulator => self.store_accumulator(to)?,
            Kind::Const => self.constant(entry.value_type, entry.value, to)?,
            Kind::Local => self.copy_value(entry.value_type, self.local_slot(entry.value), to)?,
            Kind::Slot => self.copy_value(entry.value_type, entry.slot, to)?,
        }
        self.emit.into = NONE;
        if to == entry.slot {
            self.scratch.entries[first].kind = Kind::Slot;
        }
        Ok(())
    }

    /// Writes the word of a branch to the end of a block, and remembers it.
    pub(crate) fn link(&mut self, depth: u32, from: u32) -> Result<(), Failed> {
        if self.emit.dead {
            return Ok(());
        }
        let index = self.frame_index(depth);
        let place = self.emit.position;
        let before = self.scratch.frames[index].place;
        let distance = if before == NONE { 0 } else { place - before };
        let behind = place - from;
        if self.far {
            self.word((distance << 1 | behind) as u16)?;
            self.word((distance >> 15) as u16)?;
        } else {
            if distance > 0x1fff || behind > 7 {
                return self.too_far();
            }
            self.word((distance << 3 | behind) as u16)?;
        }
        self.scratch.frames[index].place = place;
        Ok(())
    }

    /// Branches without a condition, and without values.
    pub(crate) fn jump(&mut self, depth: u32) -> Result<(), Failed> {
        let label = self.label_at(depth)?;
        if label.is_loop() {
            self.not_at(label.frame.place)?;
            let from = self.emit.position;
            let distance = distance(from, label.frame.place);
            if let Ok(near) = i16::try_from(distance) {
                self.write(op::BACK, &[near as u16])?;
            } else {
                self.write(op::BACK_FAR, &[distance as u16, (distance >> 16) as u16])?;
            }
        } else {
            let from = self.emit.position;
            self.begin(if self.far { op::BR_FAR } else { op::BR })?;
            self.link(depth, from)?;
        }
        self.seal();
        Ok(())
    }

    /// A branch back is charged by its distance, so that there has to be one.
    pub(crate) fn not_at(&mut self, place: u32) -> Result<(), Failed> {
        if self.emit.position == place {
            self.begin(op::NOTHING)?;
            self.seal();
        }
        Ok(())
    }

    pub(crate) fn branch(&mut self, depth: u32) -> Result<(), Failed> {
        let label = self.label_at(depth)?;
        self.check_types(label.frame.block_type, !label.is_loop())?;
        if !self.emit.dead {
            if label.frame.block == Construct::Function {
                self.emit_return()?;
            } else {
                self.carry_to(label)?;
                self.jump(depth)?;
            }
        }
        self.set_unreachable();
        Ok(())
    }

    /// Puts values from this place of the stack on into their own slots, and leaves a condition where it is.
    pub(crate) fn settle_around(&mut self, condition: &Entry, index: usize) -> Result<(), Failed> {
        if condition.kind == Kind::Accumulator && self.last_compares() {
            self.settle_before(index)
        } else {
            self.settle_from(index)
        }
    }

    /// Makes a comparison with a branch out of a condition; its distance is the word to be written next. Answers where
    /// the operator begins.
    pub(crate) fn condition(&mut self, condition: Entry, invert: bool, back: bool) -> Result<u32, Failed> {
        if condition.kind == Kind::Accumulator && self.last_compares() {
            self.emit.acc_local = self.emit.compared_acc_local;
        } else {
            let mut condition = condition;
            if condition.kind == Kind::Const {
                self.put_into_slot(&mut condition)?;
            }
            // Not equal to zero.
            if self.is_accumulator(&condition) {
                self.begin(family::COMPARE + 15 + 4 * 3)?;
            } else {
                self.write(family::COMPARE + 15 + 3 * 3, &[bytes(self.slot_of(&condition))])?;
            }
            self.word(0)?;
        }
        let mut distance = self.emit.last_op - family::COMPARE;
        if invert {
            distance = Self::opposite(distance);
        }
        if let Some(start) = self.count(distance, back)? {
            return Ok(start);
        }
        self.change_last(family::COMPARE + distance + if back { 2 } else { 1 });
        Ok(if self.emit.dead { self.emit.position } else { self.emit.last })
    }

    /// An addition of a constant to a slot, followed by a comparison of the sum: one operator with the branch.
    pub(crate) fn count(&mut self, distance: u16, back: bool) -> Result<Option<u32>, Failed> {
        const ADD_TO_SLOT: u16 = family::BINARY + 3 * 2 + 1;
        let (add, last) = (self.emit.before, self.emit.last);
        let (compare, form) = (distance / 15, distance % 15 / 3);
        let with_slot = form == 1 || form == 2;
        // The operator reads what it compares with before it stores the sum.
        let with_itself = || with_slot && self.code(last + 1) == self.code(add + 3);
        let fits = add != NONE
            && last != NONE
            && self.emit.before_op == ADD_TO_SLOT
            && add + 4 == last
            && compare < 2
            && (with_slot || form == 4)
            && self.code(add + 1) == self.code(add + 3)
            && !with_itself();
        if !fits {
            return Ok(None);
        }
        let with = self.code(last + 1);
        self.emit.position = add + 3;
        self.emit.last = add;
        self.emit.before = NONE;
        self.change_last(family::COUNT + if with_slot { 4 } else { 0 } + compare * 2 + u16::from(back));
        self.word(with)?;
        Ok(Some(add))
    }

    /// Branches if the condition is not met; answers the word with the distance and the operator it counts from.
    pub(crate) fn skip_unless(&mut self, condition: Entry) -> Result<(u32, u32), Failed> {
        if self.emit.dead {
            return Ok((NONE, NONE));
        }
        let from = if self.far {
            let over = self.condition(condition, false, false)?;
            self.word(0)?;
            let from = self.emit.position;
            self.set_code(from - 1, ((from + 3 - over) * 2) as u16);
            self.write(op::BR_FAR, &[0])?;
            from
        } else {
            self.condition(condition, true, false)?
        };
        let place = if self.far { from + 1 } else { self.emit.position };
        self.word(0)?;
        self.seal();
        Ok((place, from))
    }

    /// What [`Self::skip_unless`] skips ends here.
    pub(crate) fn arrive(&mut self, place: u32, from: u32) -> Result<(), Failed> {
        if place == NONE {
            return Ok(());
        }
        let here = self.emit.position;
        if self.far {
            let distance = distance(from, here);
            self.set_code(place, distance as u16);
            self.set_code(place + 1, (distance >> 16) as u16);
        } else {
            let distance = self.near(from, here)?;
            self.set_code(place, distance);
        }
        Ok(())
    }

    pub(crate) fn branch_if(&mut self, depth: u32) -> Result<(), Failed> {
        let condition = self.pop_type(T::I32)?;
        let label = self.label_at(depth)?;
        self.check_types(label.frame.block_type, !label.is_loop())?;
        if self.emit.dead {
            return Ok(());
        }
        let count = self.carried(&label);
        let mut moves = false;
        if count > 0 {
            self.settle_around(&condition, self.height - count)?;
            moves = self.scratch.entries[self.height - count].slot != label.frame.slot;
        }
        let distant = match label.is_loop() {
            true => distance(label.frame.place, self.emit.position) > 32_000,
            false => self.far,
        };
        if moves || distant {
            let over = self.condition(condition, true, false)?;
            let place = self.emit.position;
            self.word(0)?;
            self.seal();
            if moves {
                self.carry_to(label)?;
            }
            self.jump(depth)?;
            let distance = self.near(over, self.emit.position)?;
            self.set_code(place, distance);
        } else if label.is_loop() {
            let mut from = self.condition(condition, false, true)?;
            if from == label.frame.place {
                self.with_nothing_before()?;
                from = self.emit.last;
            }
            let distance = self.near(from, label.frame.place)?;
            self.word(distance)?;
        } else {
            let from = self.condition(condition, false, false)?;
            self.link(depth, from)?;
        }
        self.seal();
        Ok(())
    }

    /// Begins a table of branches; its targets are read in parts.
    pub(crate) fn branch_table(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let count = self.reader.number(source)?;
        if count > TARGETS {
            return self.invalid(ErrorKind::Limit { what: "targets of a br_table", limit: TARGETS });
        }
        let mut index = self.pop_type(T::I32)?;
        self.settle_around(&index, 0)?;
        if index.kind == Kind::Const {
            self.put_into_slot(&mut index)?;
        }
        if self.is_accumulator(&index) {
            self.begin(if self.far { op::BR_TABLE_FAR_A } else { op::BR_TABLE_A })?;
        } else {
            self.write(
                if self.far { op::BR_TABLE_FAR_S } else { op::BR_TABLE_S },
                &[bytes(self.slot_of(&index))],
            )?;
        }
        self.word(count as u16)?;
        self.seal();
        self.targets = Some(Targets {
            count,
            at: 0,
            table: self.emit.position,
            offset: self.reader.position(),
            carried: None,
            detours: false,
            second: false,
            latest: None,
        });
        Ok(())
    }

    /// Goes on with a table of branches.
    pub(crate) fn next_targets(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        const PART: u32 = 8;
        let Some(mut targets) = self.targets.take() else { return Ok(()) };
        for _ in 0..PART {
            if targets.at <= targets.count {
                if targets.second {
                    self.detour(source, &mut targets)?
                } else {
                    self.target(source, &mut targets)?
                }
                targets.at += 1;
            } else if targets.detours && !targets.second {
                self.reader.seek(targets.offset);
                targets.second = true;
                targets.at = 0;
            } else {
                self.set_unreachable();
                return Ok(());
            }
        }
        self.work += PART / 2;
        self.targets = Some(targets);
        Ok(())
    }

    /// Words of one entry of a table.
    pub(crate) fn entry_words(&self) -> u32 {
        if self.far { 2 } else { 1 }
    }

    pub(crate) fn set_entry(&mut self, place: u32, to: u32) -> Result<(), Failed> {
        if self.far {
            let distance = distance(place, to);
            self.set_code(place, distance as u16);
            self.set_code(place + 1, (distance >> 16) as u16);
            return Ok(());
        }
        let distance = self.near(place, to)?;
        self.set_code(place, distance);
        Ok(())
    }

    /// Reads one target, checks the values that it is to get, and writes its entry if that can name it.
    pub(crate) fn target(&mut self, source: &mut dyn Source, targets: &mut Targets) -> Result<(), Failed> {
        let depth = self.reader.number(source)?;
        let label = self.label_at(depth)?;
        // The values stay what they are, for the next target.
        let (height, slot) = (self.height, self.slot);
        self.pop_types(label.frame.block_type, !label.is_loop())?;
        (self.height, self.slot) = (height, slot);
        let carried = self.carried(&label);
        if *targets.carried.get_or_insert(carried) != carried {
            return self
                .invalid(ErrorKind::Invalid("targets of a br_table carry different numbers of values"));
        }
        if self.emit.dead {
            return Ok(());
        }
        let place = self.emit.position;
        if self.moves(&label) {
            targets.detours = true;
            for _ in 0..self.entry_words() {
                self.word(0)?;
            }
            Ok(())
        } else if label.is_loop() {
            for _ in 0..self.entry_words() {
                self.word(0)?;
            }
            self.set_entry(place, label.frame.place)
        } else {
            self.link(depth, place)
        }
    }

    /// Whether the values that a branch carries are elsewhere than its target has them.
    fn moves(&self, label: &Label) -> bool {
        let count = self.carried(label);
        count > 0 && self.scratch.entries[self.height - count].slot != label.frame.slot
    }

    /// Writes, behind a table, the moves and the branch of an entry that can't name its target.
    pub(crate) fn detour(&mut self, source: &mut dyn Source, targets: &mut Targets) -> Result<(), Failed> {
        let depth = self.reader.number(source)?;
        let label = self.label_at(depth)?;
        if !self.moves(&label) {
            return Ok(());
        }
        let begins = match targets.latest {
            Some((same, begins)) if same == depth => begins,
            _ => {
                let begins = self.emit.position;
                self.carry_to(label)?;
                self.jump(depth)?;
                begins
            }
        };
        targets.latest = Some((depth, begins));
        self.set_entry(targets.table + targets.at * self.entry_words(), begins)
    }

    /// Branches from this one back arrive here.
    pub(crate) fn resolve(&mut self, place: u32) -> Result<(), Failed> {
        if place != NONE {
            self.fixing = Some(Fixing { place, target: self.emit.position });
        }
        Ok(())
    }

    /// Resolves some of the branches that are to be resolved; answers whether there are more.
    pub(crate) fn fix(&mut self, count: u32) -> Result<bool, Failed> {
        for _ in 0..count {
            let Some(Fixing { place, target }) = self.fixing else { return Ok(false) };
            let word = self.code(place);
            let before = if self.far {
                let distance = distance(place - u32::from(word & 1), target);
                let before = (u32::from(word) | u32::from(self.code(place + 1)) << 16) >> 1;
                self.set_code(place, distance as u16);
                self.set_code(place + 1, (distance >> 16) as u16);
                before
            } else {
                let distance = self.near(place - u32::from(word & 7), target)?;
                self.set_code(place, distance);
                u32::from(word >> 3)
            };
            self.work += 1;
            self.fixing = (before != 0).then(|| Fixing { place: place - before, target });
        }
        Ok(self.fixing.is_some())
    }
}
