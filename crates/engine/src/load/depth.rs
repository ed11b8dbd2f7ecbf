//! How much call stack a module can ever need: the longest path through its calls, by the frames of its functions.
//!
//! The translated code is walked. Calls go by an index, or by a table to any function of that type to which there can be a
//! reference. Where calls go round in a circle, or where finding out takes more than the loader has, there is no such bound,
//! and the instance gets all of the call stack that it is configured with.
//!
//! But for circles that need a table: types alone make those of programs that never come back, such as all that format a
//! number in Rust. Where no function calls itself by indices alone, and what calls take without coming back is at most a
//! quarter of what is configured, the instance gets half.
//!
//! What is known of a function is a word in place of its type, which its header has as well; of calls by a table, a word in
//! the translator's scratch for each type. The path that is being followed is where the translator had its operands.

use super::Loader;
use super::exports::Exports;
use super::state::{Phase, REFERRED, Walk};
use crate::error::ErrorKind;
use crate::generated::{LENGTHS, RARE_LENGTHS, op};
use crate::machine::{header, saved_code_position};
use crate::reader::Failed;
use crate::translate::scratch::{Entry, Kind, LOCALS, OPERANDS};
use crate::types::ValueType;

/// It is on the path that is being followed; what is known is what it takes at least.
const OPEN: u16 = 1 << 14;
/// Slots that it takes, plus one; 0 while nothing is known.
const SLOTS: u16 = OPEN - 1;
/// Functions that are looked at in search of those of a type, in all.
const LOOKED_AT: u32 = 1 << 20;
/// Functions that are looked at in a step.
const PART: u32 = 64;

/// What calls other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// A function, by its index.
    Function(u32),
    /// The calls of functions of this type by a table.
    Kind(u32),
}

impl Node {
    /// As it is kept on the path.
    fn entry(self) -> (Kind, u32) {
        match self {
            Node::Function(index) => (Kind::Slot, index),
            Node::Kind(index) => (Kind::Local, index),
        }
    }
}

/// There is no bound, or none that is found.
struct Unbounded;

impl Loader<'_> {
    /// All is read: begins to find out how deep calls can go.
    pub(crate) fn begin_depth(&mut self) {
        self.depth.exports = self.export_place;
        self.depth.exports_left = self.exports;
        self.scratch.local_slots.fill(0);
        self.phase = Phase::Depth;
    }

    /// Goes on with that, by a function, an export or an operator.
    #[inline(never)]
    pub(crate) fn depth(&mut self) -> Result<(), Failed> {
        let found = if self.depth.prepared < self.functions {
            self.prepare();
            Ok(None)
        } else if self.depth.path > 0 {
            self.follow().map(|()| None)
        } else {
            self.root()
        };
        let most = self.config.stack_slots;
        let slots = match found {
            Ok(None) => return Ok(()),
            Ok(Some(slots)) if self.depth.walk == Walk::All => slots.min(most),
            Ok(Some(slots)) if self.depth.walk == Walk::Returning && slots <= most / 4 => {
                self.depth.walk = Walk::Direct;
                self.depth.prepared = 0;
                return Ok(());
            }
            Ok(Some(_)) if self.depth.walk == Walk::Direct => most / 2,
            Ok(Some(_)) | Err(Unbounded) => most,
        };
        self.config.stack_slots = slots;
        self.phase = Phase::Done;
        let bytes = slots.saturating_mul(4);
        // It may lie where the loader has its own now.
        let end = self.region.low().next_multiple_of(4).saturating_add(bytes as usize);
        if end > self.region.whole_bytes() {
            return self.fail(ErrorKind::Memory { needed: bytes });
        }
        Ok(())
    }

    /// Of some functions' words only that there can be references to them is left.
    fn prepare(&mut self) {
        let from = self.depth.prepared;
        let to = self.functions.min(from + PART);
        for function in from..to {
            let word = self.region.word(self.function_types, function);
            let referred = if self.depth.any_referred { REFERRED } else { word & REFERRED };
            self.region.set_word(self.function_types, function, referred);
        }
        self.work += PART / 8;
        self.depth.prepared = to;
    }

    /// The next function that is called from outside; the slots that all of them take once there is none.
    fn root(&mut self) -> Result<Option<u32>, Unbounded> {
        if self.depth.walk == Walk::Direct {
            return self.any_root();
        }
        let mut exports = Exports::new(&self.region, self.depth.exports, self.depth.exports_left);
        if let Some(export) = exports.next() {
            let (kind, function) = (export.kind, export.index);
            let rest = exports.rest();
            if kind == 0 {
                let Some(slots) = self.visit(Node::Function(function))? else { return Ok(None) };
                self.depth.slots = self.depth.slots.max(slots);
                let arguments = self.parameter_slots(function);
                self.depth.arguments = self.depth.arguments.max(arguments);
            }
            (self.depth.exports, self.depth.exports_left) = rest;
            return Ok(None);
        }
        if let Some(start) = self.start.filter(|_| !self.depth.start_done) {
            let Some(slots) = self.visit(Node::Function(start))? else { return Ok(None) };
            self.depth.slots = self.depth.slots.max(slots.saturating_add(self.depth.arguments));
            self.depth.start_done = true;
        }
        Ok(Some(self.depth.slots))
    }

    /// The next function, whether anything calls it or not.
    fn any_root(&mut self) -> Result<Option<u32>, Unbounded> {
        let function = self.depth.walked;
        if function == self.functions {
            return Ok(Some(0));
        }
        if function < self.imports || self.visit(Node::Function(function))?.is_some() {
            self.depth.walked += 1;
        }
        Ok(None)
    }

    /// Goes on with the last node of the path.
    fn follow(&mut self) -> Result<(), Unbounded> {
        let at = self.depth.path - 1;
        let Entry { kind, slot, value, .. } = self.scratch.entries[at];
        let done = match kind {
            Kind::Slot => self.follow_function(u32::from(slot), value)?,
            _ => self.follow_kind(u32::from(slot), value)?,
        };
        match done {
            Some(next) => self.scratch.entries[at].value = next,
            None => self.depth.path = at,
        }
        Ok(())
    }

    /// One operator of a function; answers where it goes on, or `None` at its end.
    #[inline(never)]
    fn follow_function(&mut self, function: u32, position: u32) -> Result<Option<u32>, Unbounded> {
        let node = Node::Function(function);
        let next = function + 1;
        let end = if next < self.functions { self.function_position(next) } else { self.emit.position };
        if position >= end {
            self.set_known(node, self.known(node) & !OPEN);
            return Ok(None);
        }
        let operand = |at: u32| u32::from(self.code(position + at));
        let operator = self.code(position);
        let words = match operator {
            op::RARE => u32::from(RARE_LENGTHS[operand(1) as usize]),
            op::BR_TABLE_A => 3 + operand(1),
            op::BR_TABLE_S => 4 + operand(2),
            op::BR_TABLE_FAR_A => 4 + operand(1) * 2,
            op::BR_TABLE_FAR_S => 5 + operand(2) * 2,
            _ => u32::from(LENGTHS[usize::from(operator / 2)] >> (operator % 2 * 4) & 15),
        };
        // A tail call has its frame where the caller's was.
        let called = match operator {
            op::CALL => Some((operand(1) / 4, Node::Function(operand(2)))),
            op::RETURN_CALL => Some((0, Node::Function(operand(2)))),
            op::CALL_INDIRECT | op::RETURN_CALL_INDIRECT if self.depth.walk == Walk::Direct => None,
            op::CALL_INDIRECT => Some((operand(2) / 4, Node::Kind(operand(3)))),
            op::RETURN_CALL_INDIRECT => Some((0, Node::Kind(operand(3)))),
            _ => None,
        };
        if let Some((at, called)) = called {
            let Some(slots) = self.visit(called)? else { return Ok(Some(position)) };
            self.at_least(node, at + slots)?;
        }
        Ok(Some(position + words))
    }

    /// Some of the functions that may be of a type; answers which comes next, or `None` when there is none left.
    #[inline(never)]
    fn follow_kind(&mut self, kind: u32, from: u32) -> Result<Option<u32>, Unbounded> {
        let node = Node::Kind(kind);
        let to = self.functions.min(from + PART);
        self.work += PART / 8;
        for function in from..to {
            self.depth.looked_at += 1;
            if self.depth.looked_at > LOOKED_AT {
                return Err(Unbounded);
            }
            if self.region.word(self.function_types, function) & REFERRED == 0
                || self.region.number(self.function_place, function as usize) == 0
                || self.head(function, header::KIND) != kind
            {
                continue;
            }
            let Some(slots) = self.visit(Node::Function(function))? else { return Ok(Some(function)) };
            self.at_least(node, slots)?;
        }
        if to < self.functions {
            return Ok(Some(to));
        }
        self.set_known(node, self.known(node) & !OPEN);
        Ok(None)
    }

    /// Slots that a node takes; `None` if it comes on the path first.
    #[inline(never)]
    fn visit(&mut self, node: Node) -> Result<Option<u32>, Unbounded> {
        if let Node::Kind(kind) = node
            && kind as usize >= LOCALS
        {
            return Err(Unbounded);
        }
        let known = self.known(node);
        if known & OPEN != 0 {
            return self.comes_back(node);
        }
        if known & SLOTS != 0 {
            return Ok(Some(u32::from(known & SLOTS) - 1));
        }
        let (kind, index) = node.entry();
        let (value, slots) = match node {
            Node::Function(function) => {
                let code = self.function_position(function) + header::WORDS as u32;
                (code, self.head(function, header::FRAME) / 4)
            }
            Node::Kind(_) => (0, 0),
        };
        self.set_known(node, known | 1);
        self.at_least(node, slots)?;
        if node == Node::Function(index) && index < self.imports {
            // The host has a stack of its own.
            return Ok(Some(slots));
        }
        let path = self.depth.path;
        if path >= OPERANDS {
            return Err(Unbounded);
        }
        self.scratch.entries[path] =
            Entry { value_type: ValueType::UNKNOWN, kind, slot: index as u16, value };
        self.depth.path += 1;
        self.set_known(node, self.known(node) | OPEN);
        Ok(None)
    }

    /// A call comes back to a node of the path: by a table it may, and is not counted.
    #[inline(never)]
    fn comes_back(&mut self, node: Node) -> Result<Option<u32>, Unbounded> {
        let (kind, index) = node.entry();
        let path = self.scratch.entries.get(..self.depth.path).unwrap_or(&[]);
        self.work += path.len() as u32 / 16;
        let circle = path.iter().rev().scan(false, |ended, entry| {
            let goes_on = !*ended;
            *ended = (entry.kind, u32::from(entry.slot)) == (kind, index);
            goes_on.then_some(entry)
        });
        if circle.into_iter().any(|entry| entry.kind == Kind::Local) {
            self.depth.walk = Walk::Returning;
            return Ok(Some(0));
        }
        Err(Unbounded)
    }

    /// A node takes this many slots, if not more.
    #[inline(never)]
    fn at_least(&mut self, node: Node, slots: u32) -> Result<(), Unbounded> {
        if slots > self.config.stack_slots || slots >= u32::from(SLOTS) {
            return Err(Unbounded);
        }
        let known = self.known(node);
        let slots = (slots as u16 + 1).max(known & SLOTS);
        self.set_known(node, known & !SLOTS | slots);
        Ok(())
    }

    #[inline(never)]
    fn known(&self, node: Node) -> u16 {
        match node {
            Node::Function(function) => self.region.word(self.function_types, function) & !REFERRED,
            Node::Kind(kind) => self.scratch.local_slots[kind as usize],
        }
    }

    #[inline(never)]
    fn set_known(&mut self, node: Node, known: u16) {
        match node {
            Node::Function(function) => {
                let referred = self.region.word(self.function_types, function) & REFERRED;
                self.region.set_word(self.function_types, function, referred | known);
            }
            Node::Kind(kind) => self.scratch.local_slots[kind as usize] = known,
        }
    }

    fn parameter_slots(&self, function: u32) -> u32 {
        let kind = match function < self.imports {
            true => self.region.number(self.import_place, function as usize) & 0xffff,
            false => self.head(function, header::KIND),
        };
        self.function_type(kind).slots().0
    }

    /// Where a function's header is in the code.
    #[inline(never)]
    fn function_position(&self, function: u32) -> u32 {
        let saved = self.region.number(self.function_place, function as usize);
        saved_code_position(&self.region, self.emit.code, saved)
    }

    #[inline(never)]
    fn head(&self, function: u32, at: usize) -> u32 {
        u32::from(self.code(self.function_position(function) + at as u32))
    }
}
