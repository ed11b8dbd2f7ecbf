// The operators of the executor: one source from which the build script makes the executor's match and the translator's
// constants, and a test the documentation.
//
// An operator is a 16-bit number and its operands, 16 bits each. The bodies are Rust; the names of the operands are bound
// before a body runs, and what it leaves in `acc` or `wide` is stored after it.

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A 32-bit slot that is read.
    Slot(&'static str),
    /// A pair of slots that is read as 64 bits.
    Pair(&'static str),
    /// A signed 16-bit number.
    Immediate(&'static str),
    /// An unsigned 16-bit number.
    Word(&'static str),
    /// The distance of a branch in bytes from its operator.
    Offset,
    /// The slot that gets the accumulator.
    Into,
    /// The pair of slots that gets the 64-bit result.
    IntoPair,
}

/// One operator.
pub(crate) struct Operator {
    /// Its name.
    pub(crate) name: String,
    /// What follows its number.
    pub(crate) operands: Vec<Operand>,
    /// What it does.
    pub(crate) body: String,
    /// Whether the body says where to go on.
    pub(crate) jumps: bool,
}

/// A numeric operator of WebAssembly that becomes one operator with slots for operands.
pub(crate) struct Numeric {
    /// Its opcode; those with the prefix 0xfc follow at 0x100.
    pub(crate) opcode: u16,
    /// The operator's name, or the name of the rare one.
    pub(crate) name: String,
    /// Types: `i`, `I`, `f`, `F`.
    pub(crate) operands: &'static str,
    /// Type of the result.
    pub(crate) result: char,
    /// Whether it is one of the rare ones.
    pub(crate) rare: bool,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Table {
    /// In the order of their numbers.
    pub(crate) operators: Vec<Operator>,
    /// Where a family of operators begins, by name.
    pub(crate) families: Vec<(&'static str, usize)>,
    /// Numeric operators, by opcode.
    pub(crate) numerics: Vec<Numeric>,
    /// Names of the rare operators, in the order of their numbers, with the words that follow.
    pub(crate) rare: Vec<(String, usize)>,
}

use Operand::{Immediate, Into as IntoSlot, IntoPair, Offset, Pair, Slot, Word};

/// Where the two operands of a 32-bit operator are: two slots, accumulator and slot, slot and accumulator, slot and
/// immediate, accumulator and immediate.
const FORMS: [(&str, &[Operand], &str); 5] = [
    ("ss", &[Slot("a"), Slot("b")], ""),
    ("as", &[Slot("b")], "let a = acc; "),
    ("sa", &[Slot("a")], "let b = acc; "),
    ("si", &[Slot("a"), Immediate("b")], ""),
    ("ai", &[Immediate("b")], "let a = acc; "),
];

const LOADS: [(&str, u32, &str); 5] = [
    ("load32", 4, "load32!(p)"),
    ("load8_u", 1, "u32::from(load8!(p))"),
    ("load8_s", 1, "load8!(p) as i8 as i32 as u32"),
    ("load16_u", 2, "u32::from(load16!(p))"),
    ("load16_s", 2, "load16!(p) as i16 as i32 as u32"),
];

const STORES: [(&str, u32, &str); 3] = [
    ("store32", 4, "store32!(p, b);"),
    ("store8", 1, "store8!(p, b as u8);"),
    ("store16", 2, "store16!(p, b as u16);"),
];

impl Table {
    fn family(&mut self, name: &'static str) {
        self.families.push((name, self.operators.len()));
    }

    fn add(&mut self, name: impl Into<String>, operands: &[Operand], body: impl Into<String>) {
        self.operators.push(Operator {
            name: name.into(),
            operands: operands.to_vec(),
            body: body.into(),
            jumps: false,
        });
    }

    fn jump(&mut self, name: impl Into<String>, operands: &[Operand], body: impl Into<String>) {
        self.operators.push(Operator {
            name: name.into(),
            operands: operands.to_vec(),
            body: body.into(),
            jumps: true,
        });
    }

    /// Two operators: the result stays in the accumulator, or goes into a slot as well.
    fn pair(&mut self, name: &str, operands: &[Operand], body: &str) {
        self.add(format!("{name}_a"), operands, body);
        let operands: Vec<Operand> = operands.iter().copied().chain([IntoSlot]).collect();
        self.add(format!("{name}_t"), &operands, body);
    }

    /// A numeric operator of its own.
    fn numeric(&mut self, opcode: u16, name: &str, operands: &'static str, result: char, body: &str) {
        let mut list: Vec<Operand> = operands
            .chars()
            .zip(["a", "b"])
            .map(|(kind, name)| if "IF".contains(kind) { Pair(name) } else { Slot(name) })
            .collect();
        if "IF".contains(result) {
            list.push(IntoPair);
        }
        self.add(name, &list, body);
        self.numerics.push(Numeric { opcode, name: name.into(), operands, result, rare: false });
    }

    /// A rare operator, with the number of words behind its own number.
    fn rare(&mut self, name: &str, words: usize) {
        self.rare.push((name.into(), words));
    }

    fn rare_numeric(&mut self, opcode: u16, name: &str, operands: &'static str, result: char) {
        self.rare(name, operands.len() + 1);
        self.numerics.push(Numeric { opcode, name: name.into(), operands, result, rare: true });
    }
}

/// The table of operators.
pub(crate) fn table() -> Table {
    let mut table = Table::default();
    let t = &mut table;
    t.jump("halt", &[], "exit!(core::hint::black_box(exit::DONE))");
    t.jump("unreachable", &[], "exit!(core::hint::black_box(exit::UNREACHABLE))");
    t.add("nothing", &[], "");
    binaries(t);
    memory(t);
    compares(t);
    unaries(t);
    moves(t);
    control(t);
    wide(t);
    floats(t);
    t.jump("rare", &[Word("kind")], "rare!(kind)");
    rare(t);
    table
}

fn binaries(t: &mut Table) {
    t.family("binary");
    for (name, result) in [
        ("add", "a.wrapping_add(b)"),
        ("mul", "a.wrapping_mul(b)"),
        ("and", "a & b"),
        ("or", "a | b"),
        ("xor", "a ^ b"),
        ("sub", "a.wrapping_sub(b)"),
        ("shl", "a.wrapping_shl(b)"),
        ("shr_s", "(a as i32).wrapping_shr(b) as u32"),
        ("shr_u", "a.wrapping_shr(b)"),
        ("rotl", "a.rotate_left(b & 31)"),
        ("rotr", "a.rotate_right(b & 31)"),
    ] {
        for (form, operands, before) in FORMS {
            t.pair(&format!("{name}_{form}"), operands, &format!("{before}acc = {result};"));
        }
    }
    for (name, body) in [
        (
            "div_s",
            "if b == 0 { exit!(exit::DIVISION) }\n            if a == 1 << 31 && b == !0 { exit!(exit::OVERFLOW) } acc = (a as i32).wrapping_div(b as i32) as u32;",
        ),
        ("div_u", "if b == 0 { exit!(exit::DIVISION) } acc = a / b;"),
        ("rem_s", "if b == 0 { exit!(exit::DIVISION) } acc = (a as i32).wrapping_rem(b as i32) as u32;"),
        ("rem_u", "if b == 0 { exit!(exit::DIVISION) } acc = a % b;"),
    ] {
        t.add(name, &[Slot("a"), Slot("b")], body);
    }
}

fn memory(t: &mut Table) {
    t.family("load");
    for (name, size, value) in LOADS {
        for (form, operands, before) in [("s", &[Slot("a")][..], ""), ("a", &[], "let a = acc; ")] {
            let offset: Vec<Operand> = operands.iter().copied().chain([Word("k")]).collect();
            t.pair(
                &format!("{name}_{form}"),
                &offset,
                &format!("{before}let p = address!(a, {size}, k); acc = {value};"),
            );
            t.pair(
                &format!("{name}_{form}0"),
                operands,
                &format!("{before}let p = address0!(a, {size}); acc = {value};"),
            );
        }
    }
    t.family("load_sum");
    for (name, size, value) in LOADS {
        for (form, operands, before) in [
            ("ss", &[Slot("x"), Slot("y"), Word("k")][..], "let a = x.wrapping_add(y); "),
            ("as", &[Slot("y"), Word("k")], "let a = acc.wrapping_add(y); "),
            ("si", &[Slot("x"), Immediate("y"), Word("k")], "let a = x.wrapping_add(y); "),
            ("ai", &[Immediate("y"), Word("k")], "let a = acc.wrapping_add(y); "),
        ] {
            t.pair(
                &format!("{name}_sum_{form}"),
                operands,
                &format!("{before}let p = address!(a, {size}, k); acc = {value};"),
            );
        }
    }
    t.family("load_scaled");
    for (name, size, value) in LOADS {
        for (form, operands, before) in [
            (
                "si",
                &[Slot("x"), Immediate("n"), Slot("y"), Word("k")][..],
                "let a = x.wrapping_shl(n).wrapping_add(y); ",
            ),
            ("ai", &[Immediate("n"), Slot("y"), Word("k")], "let a = acc.wrapping_shl(n).wrapping_add(y); "),
        ] {
            t.pair(
                &format!("{name}_scaled_{form}"),
                operands,
                &format!("{before}let p = address!(a, {size}, k); acc = {value};"),
            );
        }
    }
    t.family("load_fixed");
    for (name, size, value) in LOADS {
        t.pair(
            &format!("{name}_fixed"),
            &[Word("low"), Word("high")],
            &format!("let p = fixed!(low, high, {size}); acc = {value};"),
        );
    }
    t.family("store");
    for (name, size, store) in STORES {
        for (form, operands, before) in FORMS {
            let operands: Vec<Operand> = operands.iter().copied().chain([Word("k")]).collect();
            t.add(
                format!("{name}_{form}"),
                &operands,
                format!("{before}let p = address!(a, {size}, k); {store}"),
            );
        }
    }
    t.family("store_fixed");
    for (name, size, store) in STORES {
        for (form, operands, before) in
            [("s", &[Slot("b")][..], ""), ("a", &[], "let b = acc; "), ("i", &[Immediate("b")], "")]
        {
            let operands: Vec<Operand> =
                operands.iter().copied().chain([Word("low"), Word("high")]).collect();
            t.add(
                format!("{name}_fixed_{form}"),
                &operands,
                format!("{before}let p = fixed!(low, high, {size}); {store}"),
            );
        }
    }
    t.add("load64_s", &[Slot("a"), Word("k"), IntoPair], "let p = address!(a, 8, k); wide = load64!(p);");
    t.add("load64_a", &[Word("k"), IntoPair], "let a = acc; let p = address!(a, 8, k); wide = load64!(p);");
    t.add("store64", &[Slot("a"), Pair("b"), Word("k")], "let p = address!(a, 8, k); store64!(p, b);");
    t.add(
        "offset",
        &[Slot("a"), Word("low"), Word("high"), Word("size")],
        "let k = low as u64 | (high as u64) << 16; if u64::from(a) + k + size as u64 > u64::from(memory_bytes) { exit!(exit::MEMORY) } acc = a.wrapping_add(k as u32);",
    );
}

fn compares(t: &mut Table) {
    t.family("compare");
    for (name, holds) in [
        ("eq", "a == b"),
        ("ne", "a != b"),
        ("lt_s", "(a as i32) < (b as i32)"),
        ("ge_s", "(a as i32) >= (b as i32)"),
        ("lt_u", "a < b"),
        ("ge_u", "a >= b"),
    ] {
        for (form, operands, before) in FORMS {
            t.add(format!("{name}_{form}"), operands, format!("{before}acc = u32::from({holds});"));
            let at = operands.len() + 1;
            let operands: Vec<Operand> = operands.iter().copied().chain([Offset]).collect();
            t.jump(
                format!("br_{name}_{form}"),
                &operands,
                format!("{before}if {holds} {{ forward!({at}) }} else {{ skip!({at}) }}"),
            );
            t.jump(
                format!("back_{name}_{form}"),
                &operands,
                format!("{before}if {holds} {{ back!({at}) }} else {{ skip!({at}) }}"),
            );
        }
    }
    t.family("count");
    let add = "acc = a.wrapping_add(b); set!(1, acc); ";
    for (form, last) in [("i", Immediate("c")), ("s", Slot("c"))] {
        for (name, holds) in [("eq", "acc == c"), ("ne", "acc != c")] {
            let operands = [Slot("a"), Immediate("b"), last, Offset];
            t.jump(
                format!("count_{name}_{form}"),
                &operands,
                format!("{add}if {holds} {{ forward!(4) }} else {{ skip!(4) }}"),
            );
            t.jump(
                format!("count_back_{name}_{form}"),
                &operands,
                format!("{add}if {holds} {{ back!(4) }} else {{ skip!(4) }}"),
            );
        }
    }
}

fn unaries(t: &mut Table) {
    t.family("unary");
    for (name, result) in [
        ("clz", "a.leading_zeros()"),
        ("ctz", "a.trailing_zeros()"),
        ("popcnt", "a.count_ones()"),
        ("extend8_s", "a as i8 as i32 as u32"),
        ("extend16_s", "a as i16 as i32 as u32"),
    ] {
        t.add(format!("{name}_s"), &[Slot("a")], format!("acc = {result};"));
        t.add(format!("{name}_a"), &[], format!("let a = acc; acc = {result};"));
    }
}

fn moves(t: &mut Table) {
    t.add("store_acc", &[IntoSlot], "");
    t.add("move", &[Slot("a"), Word("to")], "set_at!(to, a);");
    t.add(
        "move2",
        &[Slot("a"), Word("to"), Slot("b"), Word("then")],
        "set_at!(to, a); let b = slot!(3); set_at!(then, b);",
    );
    t.add("move_acc", &[Slot("a"), IntoSlot], "acc = a;");
    t.add("move_pair", &[Pair("a"), IntoPair], "wide = a;");
    t.add("move_many", &[Word("from"), Word("to"), Word("count")], "move_many!(from, to, count);");
    t.add("const_i", &[Immediate("a"), Word("to")], "set_at!(to, a);");
    t.add(
        "const",
        &[Word("low"), Word("high"), Word("to")],
        "let a = low as u32 | (high as u32) << 16; set_at!(to, a);",
    );
    t.add("const_acc", &[Word("low"), Word("high")], "acc = low as u32 | (high as u32) << 16;");
    t.add("const_pair_i", &[Immediate("a"), IntoPair], "wide = a as i32 as i64 as u64;");
    t.add("const_pair_high", &[Word("high"), IntoPair], "wide = (high as u64) << 48;");
    t.add(
        "const_pair",
        &[Word("a"), Word("b"), Word("c"), Word("d"), IntoPair],
        "wide = a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48;",
    );
    t.add("global_get", &[Word("at")], "acc = global!(at);");
    t.add("global_set_s", &[Slot("a"), Word("at")], "set_global!(at, a);");
    t.add("global_set_a", &[Word("at")], "set_global!(at, acc);");
    t.add(
        "global_get_pair",
        &[Word("at"), IntoPair],
        "wide = u64::from(global!(at)) | u64::from(global!(at + 1)) << 32;",
    );
    t.add(
        "global_set_pair",
        &[Pair("a"), Word("at")],
        "set_global!(at, a as u32); set_global!(at + 1, (a >> 32) as u32);",
    );
    t.add("select_s", &[Slot("a"), Slot("b"), Slot("c")], "acc = if c != 0 { a } else { b };");
    t.add("select_a", &[Slot("a"), Slot("b")], "acc = if acc != 0 { a } else { b };");
    t.add("select_pair", &[Pair("a"), Pair("b"), Slot("c"), IntoPair], "wide = if c != 0 { a } else { b };");
}

fn control(t: &mut Table) {
    t.jump("br", &[Offset], "forward!(1)");
    t.jump("back", &[Offset], "back!(1)");
    t.jump("br_far", &[Word("low"), Word("high")], "far!(low, high)");
    t.jump("back_far", &[Word("low"), Word("high")], "back_far!(low, high)");
    t.jump("br_table_s", &[Slot("i"), Word("count")], "br_table!(i, count, 2)");
    t.jump("br_table_a", &[Word("count")], "let i = acc; br_table!(i, count, 1)");
    t.jump("br_table_far_s", &[Slot("i"), Word("count")], "br_table_far!(i, count, 2)");
    t.jump("br_table_far_a", &[Word("count")], "let i = acc; br_table_far!(i, count, 1)");
    t.jump("call", &[Word("at"), Word("function")], "call!(at, function, 3)");
    t.jump(
        "call_indirect",
        &[Slot("i"), Word("at"), Word("kind"), Word("table")],
        "call_indirect!(i, at, kind, table, 5)",
    );
    t.jump(
        "return_call",
        &[Word("at"), Word("function"), Word("words"), Word("save")],
        "return_call!(at, function, words, save)",
    );
    t.jump(
        "return_call_indirect",
        &[Slot("i"), Word("at"), Word("kind"), Word("table"), Word("words"), Word("save")],
        "return_call_indirect!(i, at, kind, table, words, save)",
    );
    t.jump("host", &[Word("at"), Word("function")], "host!(at, function, 3)");
    t.jump("return", &[Word("save")], "ret!(save)");
    t.jump("return_s", &[Word("save"), Slot("a")], "set_first!(a); ret!(save)");
    t.jump("return_a", &[Word("save")], "set_first!(acc); ret!(save)");
    t.jump("return_many", &[Word("save"), Word("from"), Word("count")], "return_many!(save, from, count)");
}

fn wide(t: &mut Table) {
    t.family("wide");
    for (name, result) in [
        ("add", "a.wrapping_add(b)"),
        ("mul", "a.wrapping_mul(b)"),
        ("and", "a & b"),
        ("or", "a | b"),
        ("xor", "a ^ b"),
        ("sub", "a.wrapping_sub(b)"),
        ("shl", "a.wrapping_shl(b as u32)"),
        ("shr_s", "(a as i64).wrapping_shr(b as u32) as u64"),
        ("shr_u", "a.wrapping_shr(b as u32)"),
        ("rotl", "a.rotate_left(b as u32 & 63)"),
        ("rotr", "a.rotate_right(b as u32 & 63)"),
    ] {
        t.add(format!("wide_{name}_ss"), &[Pair("a"), Pair("b"), IntoPair], format!("wide = {result};"));
        t.add(
            format!("wide_{name}_si"),
            &[Pair("a"), Immediate("b"), IntoPair],
            format!("let b = b as i32 as i64 as u64; wide = {result};"),
        );
    }
    t.family("wide_compare");
    for (name, holds) in [
        ("eq", "a == b"),
        ("ne", "a != b"),
        ("lt_s", "(a as i64) < (b as i64)"),
        ("ge_s", "(a as i64) >= (b as i64)"),
        ("lt_u", "a < b"),
        ("ge_u", "a >= b"),
    ] {
        t.add(format!("wide_{name}_ss"), &[Pair("a"), Pair("b")], format!("acc = u32::from({holds});"));
        t.add(
            format!("wide_{name}_si"),
            &[Pair("a"), Immediate("b")],
            format!("let b = b as i32 as i64 as u64; acc = u32::from({holds});"),
        );
    }
    t.add("extend_s_s", &[Slot("a"), IntoPair], "wide = a as i32 as i64 as u64;");
    t.add("extend_s_a", &[IntoPair], "wide = acc as i32 as i64 as u64;");
    t.add("extend_u_s", &[Slot("a"), IntoPair], "wide = u64::from(a);");
    t.add("extend_u_a", &[IntoPair], "wide = u64::from(acc);");
}

fn floats(t: &mut Table) {
    for (add, compare, neg, kind, of) in [(0x92, 0x5b, 0x8b, "f", "f32"), (0xa0, 0x61, 0x99, "F", "f64")] {
        let (two, one): (&'static str, &'static str) = if kind == "f" { ("ff", "f") } else { ("FF", "F") };
        let result = if kind == "f" { 'f' } else { 'F' };
        let into = if kind == "f" { "acc" } else { "wide" };
        let sign = if kind == "f" { "1_u32 << 31" } else { "1_u64 << 63" };
        for (index, (name, sign)) in
            [("add", '+'), ("sub", '-'), ("mul", '*'), ("div", '/')].into_iter().enumerate()
        {
            let body =
                format!("charge!(FLOAT); {into} = ({of}::from_bits(a) {sign} {of}::from_bits(b)).to_bits();");
            t.numeric(add + index as u16, &format!("{of}_{name}"), two, result, &body);
        }
        for (index, (name, sign)) in
            [("eq", "=="), ("ne", "!="), ("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">=")]
                .into_iter()
                .enumerate()
        {
            let body =
                format!("charge!(FLOAT); acc = u32::from({of}::from_bits(a) {sign} {of}::from_bits(b));");
            t.numeric(compare + index as u16, &format!("{of}_{name}"), two, 'i', &body);
        }
        t.numeric(neg, &format!("{of}_abs"), one, result, &format!("{into} = a & !({sign});"));
        t.numeric(neg + 1, &format!("{of}_neg"), one, result, &format!("{into} = a ^ ({sign});"));
    }
}

fn rare(t: &mut Table) {
    for (opcode, name) in [(0x7f, "div_s"), (0x80, "div_u"), (0x81, "rem_s"), (0x82, "rem_u")] {
        t.rare_numeric(opcode, &format!("i64_{name}"), "II", 'I');
    }
    for (opcode, name) in [
        (0x79, "clz"),
        (0x7a, "ctz"),
        (0x7b, "popcnt"),
        (0xc2, "extend8_s"),
        (0xc3, "extend16_s"),
        (0xc4, "extend32_s"),
    ] {
        t.rare_numeric(opcode, &format!("i64_{name}"), "I", 'I');
    }
    for (first, kind, name) in [(0x8d, "f", "f32"), (0x9b, "F", "f64")] {
        let (two, one): (&'static str, &'static str) = if kind == "f" { ("ff", "f") } else { ("FF", "F") };
        let result = if kind == "f" { 'f' } else { 'F' };
        for (index, operator) in ["ceil", "floor", "trunc", "nearest", "sqrt"].into_iter().enumerate() {
            t.rare_numeric(first + index as u16, &format!("{name}_{operator}"), one, result);
        }
        for (index, operator) in ["min", "max", "copysign"].into_iter().enumerate() {
            t.rare_numeric(first + 9 + index as u16, &format!("{name}_{operator}"), two, result);
        }
    }
    for (opcode, name, operand, result) in [
        (0xa8, "i32_trunc_f32_s", "f", 'i'),
        (0xa9, "i32_trunc_f32_u", "f", 'i'),
        (0xaa, "i32_trunc_f64_s", "F", 'i'),
        (0xab, "i32_trunc_f64_u", "F", 'i'),
        (0xae, "i64_trunc_f32_s", "f", 'I'),
        (0xaf, "i64_trunc_f32_u", "f", 'I'),
        (0xb0, "i64_trunc_f64_s", "F", 'I'),
        (0xb1, "i64_trunc_f64_u", "F", 'I'),
        (0xb2, "f32_convert_i32_s", "i", 'f'),
        (0xb3, "f32_convert_i32_u", "i", 'f'),
        (0xb4, "f32_convert_i64_s", "I", 'f'),
        (0xb5, "f32_convert_i64_u", "I", 'f'),
        (0xb6, "f32_demote_f64", "F", 'f'),
        (0xb7, "f64_convert_i32_s", "i", 'F'),
        (0xb8, "f64_convert_i32_u", "i", 'F'),
        (0xb9, "f64_convert_i64_s", "I", 'F'),
        (0xba, "f64_convert_i64_u", "I", 'F'),
        (0xbb, "f64_promote_f32", "f", 'F'),
        (0x100, "i32_trunc_sat_f32_s", "f", 'i'),
        (0x101, "i32_trunc_sat_f32_u", "f", 'i'),
        (0x102, "i32_trunc_sat_f64_s", "F", 'i'),
        (0x103, "i32_trunc_sat_f64_u", "F", 'i'),
        (0x104, "i64_trunc_sat_f32_s", "f", 'I'),
        (0x105, "i64_trunc_sat_f32_u", "f", 'I'),
        (0x106, "i64_trunc_sat_f64_s", "F", 'I'),
        (0x107, "i64_trunc_sat_f64_u", "F", 'I'),
    ] {
        t.rare_numeric(opcode, name, operand, result);
    }
    for (name, words) in [
        ("memory_size", 1),
        ("memory_grow", 2),
        ("memory_fill", 3),
        ("memory_copy", 3),
        ("memory_init", 4),
        ("data_drop", 1),
        ("table_get", 3),
        ("table_set", 3),
        ("table_size", 2),
        ("table_grow", 4),
        ("table_fill", 4),
        ("table_copy", 5),
        ("table_init", 5),
        ("elem_drop", 1),
    ] {
        t.rare(name, words);
    }
}
