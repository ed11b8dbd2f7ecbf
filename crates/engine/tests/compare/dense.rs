//! Functions of few locals and many operators on them: what the translator joins, leaves where it is and moves late meets
//! in more ways than in modules that are drawn from all operators alike. Every loop ends.

use std::fmt::Write;

use arbitrary::Unstructured;

#[derive(Clone, Copy, PartialEq, Eq)]
enum T {
    I,
    L,
    F,
    D,
}

impl T {
    fn name(self) -> &'static str {
        match self {
            T::I => "i32",
            T::L => "i64",
            T::F => "f32",
            T::D => "f64",
        }
    }
}

const SIGNATURES: [(&[T], &[T]); 4] = [
    (&[T::I, T::I, T::L], &[T::I]),
    (&[T::L, T::I], &[T::L, T::I]),
    (&[T::I, T::I, T::I, T::I, T::L, T::L, T::I, T::D], &[T::I]),
    (&[T::I], &[T::I, T::D, T::L, T::I, T::F]),
];
const LOCALS: [T; 8] = [T::I, T::L, T::I, T::F, T::D, T::I, T::L, T::I];
/// Loops within each other have counters of their own.
const LOOPS: usize = 3;

struct Label {
    types: Vec<T>,
    /// The counter of a loop that may be begun again from anywhere in it.
    counter: Option<usize>,
    is_loop: bool,
    base: usize,
}

struct Writer<'a, 'b> {
    random: &'a mut Unstructured<'b>,
    text: String,
    locals: Vec<T>,
    counters: usize,
    stack: Vec<T>,
    labels: Vec<Label>,
    loops: usize,
    function: usize,
    signatures: Vec<usize>,
    operators: usize,
    padding: usize,
    results: &'static [T],
}

/// A module in the text format: operators of each function, and places at which it gets kilobytes of simple ones.
pub(crate) fn module(random: &mut Unstructured<'_>, operators: usize, padding: usize) -> String {
    let memory = ["(memory 1 3)", "(memory 40 300000 (pagesize 1))", "(memory 70000 200000 (pagesize 1))"];
    let memory = memory[random.int_in_range(0..=2).unwrap_or(0)];
    let mut text = format!(
        r#"(module {memory} (export "memory" (memory 0))
        (global $i (export "i") (mut i32) (i32.const 5)) (global $l (export "l") (mut i64) (i64.const -9))
        (data $d "0123456789abcdefghijklmnopqrstuvwxyz")"#
    );
    let mut signatures = Vec::new();
    for function in 0..random.int_in_range(1..=4).unwrap_or(1) {
        let signature = random.int_in_range(0..=SIGNATURES.len() - 1).unwrap_or(0);
        let (parameters, results) = SIGNATURES[signature];
        let names = |types: &[T]| types.iter().map(|it| it.name()).collect::<Vec<_>>().join(" ");
        let locals: Vec<T> = parameters.iter().chain(&LOCALS).copied().collect();
        let mut writer = Writer {
            random: &mut *random,
            text: String::new(),
            counters: locals.len(),
            locals,
            stack: Vec::new(),
            labels: vec![Label { types: results.to_vec(), counter: None, is_loop: false, base: 0 }],
            loops: 0,
            function,
            signatures: signatures.clone(),
            operators,
            padding,
            results,
        };
        writer.body(40);
        writer.leave(results);
        let body = writer.text;
        write!(
            text,
            "(func $f{function} (export \"f{function}\") (param {}) (result {}) (local {} {})\n{body})\n",
            names(parameters),
            names(results),
            names(&LOCALS),
            "i32 ".repeat(LOOPS),
        )
        .unwrap_or_default();
        signatures.push(signature);
    }
    text.push(')');
    text
}

impl Writer<'_, '_> {
    fn draw(&mut self, count: usize) -> usize {
        self.random.int_in_range(0..=count - 1).unwrap_or(0)
    }

    fn pick<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.draw(list.len())]
    }

    fn write(&mut self, operator: &str) {
        self.text.push_str(operator);
        self.text.push('\n');
    }

    fn base(&self) -> usize {
        self.labels.last().map_or(0, |label| label.base)
    }

    fn top(&self, types: &[T]) -> bool {
        self.stack.len() >= self.base() + types.len() && self.stack.ends_with(types)
    }

    fn take(&mut self, count: usize) {
        self.stack.truncate(self.stack.len() - count);
    }

    /// Values of these types, from a local or a constant each.
    fn value(&mut self, wanted: T) {
        let locals: Vec<usize> = (0..self.counters).filter(|at| self.locals[*at] == wanted).collect();
        if self.draw(4) > 0 && !locals.is_empty() {
            let local = locals[self.draw(locals.len())];
            self.write(&format!("local.get {local}"));
        } else {
            let number = match self.draw(4) {
                0 => self.draw(4) as i64,
                1 => self.draw(64) as i64,
                2 => [-1, 0x7fff_ffff, -0x8000_0000, 0x8000, -0x8001, 65_535, 1][self.draw(7)],
                _ => i64::from(self.random.arbitrary::<i32>().unwrap_or(0)),
            };
            match wanted {
                T::I => self.write(&format!("i32.const {number}")),
                T::L if self.draw(3) == 0 => self.write(&format!("i64.const {}", number << 21)),
                T::L => self.write(&format!("i64.const {number}")),
                T::F => self.write(&format!("f32.const {number}")),
                T::D => self.write(&format!("f64.const {number}")),
            }
        }
        self.stack.push(wanted);
    }

    /// Leaves exactly these above the innermost block's beginning.
    fn leave(&mut self, types: &[T]) {
        let base = self.base();
        while self.stack.len() > base && self.stack[base..] != *types {
            self.write("drop");
            self.take(1);
        }
        if self.stack[base..] != *types {
            for wanted in types {
                self.value(*wanted);
            }
        }
    }

    fn body(&mut self, most: usize) {
        for _ in 0..1 + self.draw(most) {
            if self.operators == 0 {
                return;
            }
            self.operators -= 1;
            while self.stack.len() > self.base() && self.stack.len() > 120 {
                self.write("drop");
                self.take(1);
            }
            self.operator();
            if self.padding > 0 && self.draw(8) == 0 {
                self.padding -= 1;
                let local = self.counters - LOCALS.len();
                let operator = format!("local.get {local} i32.const 12345 i32.xor local.set {local} ");
                self.write(&operator.repeat(2_000));
            }
        }
    }

    fn operator(&mut self) {
        const I: T = T::I;
        const L: T = T::L;
        match self.draw(30) {
            0..=4 => {
                let wanted = [I, I, I, L, I, T::F, L, T::D][self.draw(8)];
                self.value(wanted);
            }
            5..=8 if self.stack.len() > self.base() => {
                let set = self.pick(&["local.set", "local.tee"]);
                let found = self.stack[self.stack.len() - 1];
                let locals: Vec<usize> = (0..self.counters).filter(|at| self.locals[*at] == found).collect();
                let local = locals.first().map_or(0, |_| locals[self.draw(locals.len())]);
                if self.locals[local] == found {
                    self.write(&format!("{set} {local}"));
                    self.take(usize::from(set == "local.set"));
                }
            }
            9..=13 if self.top(&[I, I]) => {
                let operator = self.pick(&[
                    "add", "add", "add", "sub", "mul", "and", "or", "xor", "shl", "shl", "shr_s", "shr_u",
                    "rotl", "rotr", "eq", "ne", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s",
                    "ge_u", "div_u", "rem_s",
                ]);
                self.write(&format!("i32.{operator}"));
                self.take(1);
            }
            9..=13 if self.top(&[L, L]) => {
                let operator = self.pick(&[
                    "add", "sub", "mul", "and", "xor", "shl", "shr_s", "rotl", "eq", "lt_s", "gt_u", "le_s",
                ]);
                self.write(&format!("i64.{operator}"));
                self.take(2);
                self.stack.push(if ["eq", "lt_s", "gt_u", "le_s"].contains(&operator) { I } else { L });
            }
            9..=14 if self.top(&[I]) => {
                let operator = self.pick(&[
                    "i32.eqz",
                    "i32.clz",
                    "i32.extend8_s",
                    "f32.reinterpret_i32",
                    "i64.extend_i32_s",
                    "i64.extend_i32_u",
                    "f64.convert_i32_u",
                ]);
                self.write(operator);
                self.take(1);
                self.stack.push(match &operator[..3] {
                    "i32" => I,
                    "i64" => L,
                    "f32" => T::F,
                    _ => T::D,
                });
            }
            9..=14 if self.top(&[L]) => {
                let operator = self.pick(&["i32.wrap_i64", "i64.eqz", "i64.popcnt", "f64.reinterpret_i64"]);
                self.write(operator);
                self.take(1);
                self.stack.push(match operator {
                    "i64.popcnt" => L,
                    "f64.reinterpret_i64" => T::D,
                    _ => I,
                });
            }
            9..=14 if self.top(&[T::F]) => {
                let operator =
                    self.pick(&["f32.neg", "f32.abs", "i32.reinterpret_f32", "i32.trunc_sat_f32_s"]);
                self.write(operator);
                if operator.starts_with("i32") {
                    self.take(1);
                    self.stack.push(I);
                }
            }
            9..=14 if self.top(&[T::D]) => {
                let operator = self.pick(&["f64.neg", "i64.reinterpret_f64", "i64.trunc_sat_f64_s"]);
                self.write(operator);
                if operator.starts_with("i64") {
                    self.take(1);
                    self.stack.push(L);
                }
            }
            15 | 16 if self.top(&[I]) => self.load(),
            17 if self.stack.len() > self.base() => self.store(),
            18 if self.stack.len() >= self.base() + 2 => {
                let (a, b) = (self.stack[self.stack.len() - 2], self.stack[self.stack.len() - 1]);
                if a == b {
                    self.value(I);
                    self.write("select");
                    self.take(2);
                }
            }
            19 => {
                let operator = self.pick(&["global.get $i", "global.get $l", "memory.size"]);
                self.write(operator);
                self.stack.push(if operator == "global.get $l" { L } else { I });
            }
            19..=20 if self.top(&[I]) => {
                self.write("global.set $i");
                self.take(1);
            }
            20 if self.top(&[L]) => {
                self.write("global.set $l");
                self.take(1);
            }
            21 => self.range(),
            22 | 23 => self.block(),
            24 => self.branch_if(),
            25 => self.branch_table(),
            26 => self.call(),
            27 if self.draw(6) == 0 => {
                let results = self.results;
                if self.top(results) {
                    self.write("return");
                    let base = self.base();
                    self.stack.truncate(base);
                }
            }
            28 if self.stack.len() > self.base() => {
                self.write("drop");
                self.take(1);
            }
            29 => self.write("nop"),
            _ => self.value(I),
        }
    }

    fn load(&mut self) {
        if self.draw(2) == 0 {
            // Within the memory, most of the time.
            self.write("i32.const 31 i32.and");
        }
        let operator = self.pick(&[
            "i32.load",
            "i32.load8_u",
            "i32.load8_s",
            "i32.load16_s",
            "i64.load",
            "i64.load32_u",
            "i64.load8_s",
            "f32.load",
        ]);
        let offset = [0, 0, 4, 30, 65_530][self.draw(5)];
        self.write(&format!("{operator} offset={offset} align=1"));
        self.take(1);
        self.stack.push(match &operator[..3] {
            "i32" => T::I,
            "i64" => T::L,
            _ => T::F,
        });
    }

    fn store(&mut self) {
        // An address under the value, by way of a local that is not needed afterwards.
        let value = self.stack[self.stack.len() - 1];
        if self.stack.len() >= self.base() + 2 && self.stack[self.stack.len() - 2] == T::I {
            let operator = match value {
                T::I => self.pick(&["i32.store", "i32.store8", "i32.store16"]),
                T::L => self.pick(&["i64.store", "i64.store32", "i64.store8"]),
                T::F => "f32.store",
                T::D => "f64.store",
            };
            let offset = [0, 0, 8, 20, 65_530][self.draw(5)];
            self.write(&format!("{operator} offset={offset} align=1"));
            self.take(2);
        }
    }

    fn range(&mut self) {
        let count = self.draw(40);
        let local = self.counters - LOCALS.len();
        match self.draw(6) {
            0 => self.write(&format!("i32.const 0 local.get {local} i32.const {count} memory.fill")),
            1 => self.write(&format!("i32.const 0 i32.const 7 i32.const {} memory.copy", count.min(33))),
            2 => self.write(&format!("i32.const 9 i32.const 1 i32.const {} memory.copy", count.min(31))),
            3 => self.write(&format!("i32.const 3 i32.const 1 i32.const {} memory.init $d", count.min(35))),
            4 => self.write("i32.const 30 memory.grow drop"),
            _ => self.write("i32.const 0 memory.grow global.set $i"),
        }
    }

    fn block(&mut self) {
        if self.labels.len() > 12 {
            return;
        }
        let is_loop = self.loops < LOOPS && self.draw(3) == 0;
        let is_if = !is_loop && self.draw(2) == 0;
        if is_if {
            self.value(T::I);
            if self.draw(2) == 0 {
                self.value(T::I);
                let operator = self.pick(&["i32.lt_s", "i32.eq", "i32.ge_u", "i32.add"]);
                self.write(operator);
                self.take(1);
            }
            self.take(1);
        }
        let taken = self.draw(3).min(self.stack.len() - self.base());
        let parameters = self.stack[self.stack.len() - taken..].to_vec();
        let results: Vec<T> = (0..self.draw(3)).map(|_| [T::I, T::L, T::D][self.draw(3)]).collect();
        let counter = self.counters + self.loops;
        // One that is begun again at its end alone counts as people write it.
        let exact = is_loop && self.draw(2) == 0;
        if is_loop {
            let count = if exact { 0 } else { 1 + self.draw(5) };
            self.write(&format!("i32.const {count} local.set {counter}"));
            self.loops += 1;
        }
        let names = |types: &[T]| types.iter().map(|it| it.name()).collect::<Vec<_>>().join(" ");
        let kind = if is_loop {
            "loop"
        } else if is_if {
            "if"
        } else {
            "block"
        };
        self.write(&format!("{kind} (param {}) (result {})", names(&parameters), names(&results)));
        let base = self.stack.len() - taken;
        self.labels.push(Label {
            types: if is_loop { parameters.clone() } else { results.clone() },
            counter: (is_loop && !exact).then_some(counter),
            is_loop,
            base,
        });
        self.body(14);
        if is_loop && self.draw(8) > 0 {
            if !self.top(&parameters) {
                for wanted in &parameters {
                    self.value(*wanted);
                }
            }
            let limit = 2 + self.draw(5);
            let test = match (exact, self.draw(3)) {
                (false, _) => "i32.const -1 i32.add local.tee C i32.const 0 i32.gt_s",
                (true, 0) => "i32.const 1 i32.add local.tee C i32.const N i32.ne",
                (true, 1) => "i32.const 1 i32.add local.tee C i32.const N i32.eq i32.eqz",
                (true, _) => "i32.const 1 i32.add local.tee C i32.const N i32.lt_u",
            };
            let test = test.replace('C', &counter.to_string()).replace('N', &limit.to_string());
            self.write(&format!("local.get {counter} {test} br_if 0"));
        }
        self.leave(&results);
        if is_if && (parameters != results || self.draw(2) == 0) {
            self.write("else");
            self.stack.truncate(base);
            self.stack.extend(&parameters);
            self.body(10);
            self.leave(&results);
        }
        self.write("end");
        self.labels.pop();
        self.loops -= usize::from(is_loop);
        self.stack.truncate(base);
        self.stack.extend(results);
    }

    fn branch_if(&mut self) {
        let index = self.draw(self.labels.len());
        let depth = self.labels.len() - 1 - index;
        let types = self.labels[index].types.clone();
        if !self.top(&types) {
            return;
        }
        match (self.labels[index].is_loop, self.labels[index].counter) {
            (true, None) => return,
            (true, Some(counter)) => self.write(&format!(
                "local.get {counter} i32.const -1 i32.add local.tee {counter} i32.const 0 i32.gt_s"
            )),
            (false, _) => {
                self.value(T::I);
                if self.draw(2) == 0 {
                    self.value(T::I);
                    let operator = self.pick(&["i32.lt_s", "i32.eq", "i32.ne", "i32.gt_u", "i32.and"]);
                    self.write(operator);
                    self.take(1);
                }
                self.take(1);
            }
        }
        self.write(&format!("br_if {depth}"));
    }

    /// Leaves the innermost block by a table, to labels that take what is on the stack.
    fn branch_table(&mut self) {
        let chosen = self.draw(self.labels.len());
        let types = self.labels[chosen].types.clone();
        if !self.top(&types) || self.draw(3) > 0 {
            return;
        }
        let depths: Vec<usize> = (0..self.labels.len())
            .filter(|index| !self.labels[*index].is_loop && self.labels[*index].types == types)
            .map(|index| self.labels.len() - 1 - index)
            .collect();
        if depths.is_empty() {
            return;
        }
        let mut targets = String::new();
        for _ in 0..1 + self.draw(5) {
            write!(targets, " {}", depths[self.draw(depths.len())]).unwrap_or_default();
        }
        self.value(T::I);
        self.write(&format!("i32.const 3 i32.and br_table{targets}"));
        let base = self.base();
        self.stack.truncate(base);
    }

    fn call(&mut self) {
        if self.function == 0 {
            return;
        }
        let function = self.draw(self.function);
        let (parameters, results) = SIGNATURES[self.signatures[function]];
        for wanted in parameters {
            self.value(*wanted);
        }
        self.take(parameters.len());
        if results == self.results && self.draw(5) == 0 {
            self.write(&format!("return_call $f{function}"));
            let base = self.base();
            self.stack.truncate(base);
        } else {
            self.write(&format!("call $f{function}"));
            self.stack.extend(results);
        }
    }
}
