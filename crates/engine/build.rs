//! Makes the executor's match, and the numbers by which the translator names operators, from the table of operators.

use std::{env, error::Error, fmt, fmt::Write, fs, path::PathBuf};

#[path = "operators/table.rs"]
mod table;

use table::{Numeric, Operand, Operator, Table};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=operators/table.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: Cargo runs build scripts")?);
    let table = table::table();
    fs::write(out.join("executor.rs"), executor(&table)?)?;
    fs::write(out.join("operators.rs"), numbers(&table)?)?;
    Ok(())
}

/// The match alone: it stands in the function whose registers it uses.
fn executor(table: &Table) -> Result<String, fmt::Error> {
    let mut text = String::from("match code {\n");
    for (number, operator) in table.operators.iter().enumerate() {
        writeln!(text, "    {number} => {{ {} }}", arm(operator))?;
    }
    text.push_str("    _ => otherwise!(),\n}\n");
    Ok(text)
}

fn arm(operator: &Operator) -> String {
    let mut text = String::new();
    let mut result = String::new();
    for (index, operand) in operator.operands.iter().enumerate() {
        let at = index + 1;
        let bind = match operand {
            // Read when its turn comes: the first store may change it.
            Operand::Slot(_) if operator.name == "move2" && at == 3 => continue,
            Operand::Slot(name) => format!("let {name} = slot!({at}); "),
            Operand::Pair(name) => format!("let {name} = pair!({at}); "),
            Operand::Immediate(name) => format!("let {name} = immediate!({at}); "),
            Operand::Word(name) => format!("let {name} = word!({at}); "),
            Operand::Offset => continue,
            Operand::Into => {
                result = format!("set!({at}, acc); ");
                continue;
            }
            Operand::IntoPair => {
                text.push_str("let wide: u64; ");
                result = format!("set_pair!({at}, wide); ");
                continue;
            }
        };
        text.push_str(&bind);
    }
    let length = operator.operands.len() + 1;
    let advance = if operator.jumps { String::new() } else { format!("advance!({length});") };
    format!("/* {} */ {text}{} {result}{advance}", operator.name, operator.body)
}

fn numbers(table: &Table) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let operators =
        table.operators.iter().enumerate().map(|(number, operator)| (operator.name.as_str(), number));
    module(
        &mut text,
        "op",
        "Numbers of operators; those of a family are counted from its first one.",
        operators,
    )?;
    module(&mut text, "family", "Where families of operators begin.", table.families.iter().copied())?;
    let rare = table.rare.iter().enumerate().map(|(number, (name, _))| (name.as_str(), number));
    module(&mut text, "rare", "Numbers of rare operators.", rare)?;
    let lengths: Vec<String> = table.rare.iter().map(|(_, words)| (words + 2).to_string()).collect();
    writeln!(text, "/// Words of a rare operator.")?;
    writeln!(text, "pub(crate) static RARE_LENGTHS: [u8; {}] = [{}];", lengths.len(), lengths.join(", "))?;
    operator_lengths(table, &mut text)?;
    numerics(table, &mut text)?;
    Ok(text)
}

/// Words of operators, two in each byte.
fn operator_lengths(table: &Table, text: &mut String) -> fmt::Result {
    let length = |operator: &Operator| {
        assert!(operator.operands.len() < 15, "four bits hold it");
        operator.operands.len() + 1
    };
    let pair = |pair: &[Operator]| (length(&pair[0]) | pair.get(1).map_or(0, length) << 4).to_string();
    let pairs: Vec<String> = table.operators.chunks(2).map(pair).collect();
    writeln!(
        text,
        "/// Words of an operator, of an even one in the lower four bits. The targets of a table of branches are not counted, and of \
         a rare operator its own number and the next."
    )?;
    writeln!(text, "pub(crate) static LENGTHS: [u8; {}] = [{}];", pairs.len(), pairs.join(", "))
}

fn module<'a>(
    text: &mut String,
    name: &str,
    what: &str,
    numbers: impl Iterator<Item = (&'a str, usize)>,
) -> fmt::Result {
    writeln!(text, "/// {what}\n#[allow(dead_code)]\npub(crate) mod {name} {{")?;
    for (name, number) in numbers {
        writeln!(text, "    pub(crate) const {}: u16 = {number};", name.to_uppercase())?;
    }
    writeln!(text, "}}")
}

/// Numeric operators by opcode, from 0x45 on; those with the prefix follow after 0xc4.
fn numerics(table: &Table, text: &mut String) -> fmt::Result {
    const FIRST: u16 = 0x45;
    const PREFIXED: u16 = 0xc4 - FIRST + 1;
    let none = "Numeric { operator: 0, rare: false, a: 0, b: 0, result: 0 }".to_owned();
    let mut rows = vec![none; usize::from(PREFIXED) + 8];
    for numeric in &table.numerics {
        let index =
            if numeric.opcode >= 0x100 { numeric.opcode - 0x100 + PREFIXED } else { numeric.opcode - FIRST };
        rows[usize::from(index)] = row(numeric);
    }
    writeln!(
        text,
        "/// Numeric operators by opcode, from 0x45 on; those with the prefix 0xfc follow after 0xc4."
    )?;
    writeln!(
        text,
        "pub(crate) static NUMERICS: [Numeric; {}] = [\n    {},\n];",
        rows.len(),
        rows.join(",\n    ")
    )
}

fn row(numeric: &Numeric) -> String {
    let byte = |letter: Option<char>| match letter {
        Some('i') => 0x7f,
        Some('I') => 0x7e,
        Some('f') => 0x7d,
        Some('F') => 0x7c,
        _ => 0,
    };
    let mut operands = numeric.operands.chars();
    let (a, b) = (byte(operands.next()), byte(operands.next()));
    let module = if numeric.rare { "rare" } else { "op" };
    let (name, result) = (numeric.name.to_uppercase(), byte(Some(numeric.result)));
    format!(
        "Numeric {{ operator: {module}::{name}, rare: {}, a: {a:#x}, b: {b:#x}, result: {result:#x} }}",
        numeric.rare
    )
}
