//! Loading is metered: a step of modules that are as bad as they can be does about what it was told to do.

#![cfg(test)]

mod support;

use std::time::{Duration, Instant};

use wasmbed_engine::{ErrorKind, Loader, Progress, Source, Trap, Value};

/// A module, and how much of it was read.
struct Counted<'a> {
    module: &'a [u8],
    bytes: usize,
}

impl Source for Counted<'_> {
    fn length(&self) -> u32 {
        self.module.length()
    }

    fn read(&mut self, from: u32, into: &mut [u8]) -> Option<usize> {
        let count = self.module.read(from, into)?;
        self.bytes += count;
        Some(count)
    }
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn section(number: u8, contents: &[u8]) -> Vec<u8> {
    [&[number][..], &leb(contents.len()), contents].concat()
}

/// One function of type `[] -> []` with this body.
fn function(locals: &[u8], operators: &[u8]) -> Vec<u8> {
    let body = [locals, operators, &[0x0b]].concat();
    [
        b"\0asm\x01\0\0\0",
        &section(1, &[1, 0x60, 0, 0])[..],
        &section(3, &[1, 0]),
        &section(5, &[1, 0, 1]),
        &section(10, &[&[1][..], &leb(body.len()), &body].concat()),
    ]
    .concat()
}

const MODULE: usize = 1 << 20;

/// A `br_table` within two blocks, with so many targets that take turns.
fn table(results: &[u8], before: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut operators = [&[0x02][..], results, &[0x02], results, before, &[0x41, 0, 0x0e]].concat();
    operators.extend(leb(65_535));
    operators.extend([0, 1].repeat(32_768));
    operators.extend([0x0b, 0x0b]);
    operators.extend(behind);
    operators
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let names = |count: usize| {
        let mut contents = leb(count);
        for at in 0..count {
            contents.extend(leb(1_000));
            contents.extend([b'x'; 996]);
            contents.extend(format!("{at:04}").bytes());
            contents.extend([0, 0]);
        }
        contents
    };
    let types = {
        let mut contents = [&leb(2_000)[..], &[0x60, 0, 0]].concat();
        for at in 1..2_000_usize {
            contents.extend([0x60, 0xff, 0x01]);
            contents.extend([0x7f; 244]);
            contents.extend((0..11).map(|bit| if at >> bit & 1 == 0 { 0x7f } else { 0x7e }));
            contents.extend([0xff, 0x01]);
            contents.extend([0x7f; 255]);
        }
        contents
    };
    let plain = function(&[0], &[]);
    vec![
        ("branches to the end", function(&[0], &[0x41, 0, 0x0d, 0].repeat(MODULE / 4))),
        ("blocks", function(&[0], &[0x02, 0x40, 0x0b].repeat(MODULE / 3))),
        ("loops that branch", function(&[0], &[0x03, 0x40, 0x41, 0, 0x0d, 0, 0x0b].repeat(MODULE / 7))),
        (
            "groups of no locals",
            function(&[&leb(MODULE / 2)[..], &[0, 0x7f].repeat(MODULE / 2)].concat(), &[]),
        ),
        ("targets", function(&[0], &table(&[0x40], &[], &[]).repeat(8))),
        (
            "targets with values that move",
            function(&[0], &table(&[0x7f], &[0x41, 1, 0x41, 2], &[0x1a]).repeat(8)),
        ),
        (
            "64-bit constants",
            function(&[0], &[0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x1a].repeat(MODULE / 8)),
        ),
        ("exports", [&plain[..8 + 6 + 4], &section(7, &names(1_000)), &plain[8 + 6 + 4 + 5..]].concat()),
        ("types", [&plain[..8], &section(1, &types), &plain[8 + 6..]].concat()),
        ("custom sections", [&plain[..8], &section(0, &[0]).repeat(MODULE / 3), &plain[8..]].concat()),
    ]
}

#[test]
fn a_step_does_what_it_was_told() {
    const WORK: u32 = 64;
    for (name, module) in hostile() {
        let mut block = vec![0; 4_000_000];
        let mut source = Counted { module: &module, bytes: 0 };
        let mut loader = Loader::new(&mut block, &source, support::config()).unwrap();
        let (mut steps, mut most_bytes, mut longest, begun) = (0, 0, Duration::ZERO, Instant::now());
        let ended = loop {
            source.bytes = 0;
            let step = Instant::now();
            let progress = loader.step(&mut source, &support::Every, WORK);
            longest = longest.max(step.elapsed());
            most_bytes = most_bytes.max(source.bytes);
            steps += 1;
            match progress {
                Ok(Progress::More) => {}
                ended => break ended,
            }
        };
        println!(
            "{name}: {} bytes, {steps} steps of {WORK}, {most_bytes} bytes read in one, the longest {longest:?}, all {:?}",
            module.len(),
            begun.elapsed()
        );
        assert!(
            matches!(ended, Ok(Progress::Done))
                || ended.is_err_and(|error| matches!(error.kind, ErrorKind::Memory { .. })),
            "{name}: {ended:?}"
        );
        // What is skipped costs a piece of 64 bytes that is read anew. An item may be begun with the last of the work: a name
        // has 1,000 bytes, a type 510.
        assert!(most_bytes <= WORK as usize * 64 + 1_200, "{name}: {most_bytes} bytes in one step");
    }
}

/// Types of so many parameters each, all different: as far as there are kinds of them, at the end.
fn different_types(count: usize, parameters: usize) -> Vec<u8> {
    let mut contents = leb(count);
    for number in 0..count {
        contents.extend([0x60, parameters as u8]);
        contents.extend((0..parameters).rev().map(|place| 0x7f - (number >> (2 * place).min(63) & 3) as u8));
        contents.push(0);
    }
    [b"\0asm\x01\0\0\0", &section(1, &contents)[..]].concat()
}

/// The work of loading a module, about.
fn work(module: &[u8]) -> u64 {
    let mut block = vec![0; 100_000];
    let mut source = module;
    let mut loader = Loader::new(&mut block, &source, support::config()).unwrap();
    let steps = (1..).find(|_| loader.step(&mut source, &support::Every, 1_000).unwrap() == Progress::Done);
    steps.unwrap() * 1_000
}

/// Each type is sought among those before it. Four times as many types are not sixteen times the work.
#[test]
fn many_types_are_little_more_work_each_than_few() {
    for parameters in [6, 29, 120] {
        let (few, many) =
            (work(&different_types(500, parameters)), work(&different_types(2_000, parameters)));
        println!("{parameters} parameters: {few} for 500 types, {many} for 2,000");
        assert!(many <= few * 10, "{parameters} parameters: {few} for 500 types, {many} for 2,000");
    }
}

/// Of each two types of many, a call of a function of one of them as one of the other goes through if they are equal.
#[test]
fn equal_types_are_found_in_whatever_order_they_come() {
    const TYPES: usize = 40;
    let kinds = ["i32", "i64", "f32"];
    let (mut seed, mut text, mut types) = (7_u32, String::from("(module (table 40 funcref)"), Vec::new());
    for _ in 0..TYPES {
        let mut draw = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let mut list = |most| (0..draw(most)).map(|_| kinds[draw(3) as usize]).collect::<Vec<_>>();
        types.push((list(4), list(2)));
    }
    for (number, (parameters, results)) in types.iter().enumerate() {
        let (parameters, results) = (parameters.join(" "), results.join(" "));
        text += &format!("(type $t{number} (func (param {parameters}) (result {results})))");
        text += &format!(
            "(func $f{number} (type $t{number}) unreachable) (elem (i32.const {number}) $f{number})"
        );
    }
    for (number, (parameters, _)) in types.iter().enumerate() {
        let zeros: String = parameters.iter().map(|kind| format!("({kind}.const 0) ")).collect();
        text += &format!(
            r#"(func (export "as {number}") (param i32)
                (call_indirect (type $t{number}) {zeros} (local.get 0)) unreachable)"#
        );
    }
    let module = wat::parse_str(text + ")").unwrap();
    let mut equal = 0;
    for (caller, wanted) in types.iter().enumerate() {
        for (called, found) in types.iter().enumerate() {
            let mut block = vec![0; 100_000];
            let mut instance = support::load(&mut block, &module, 64).unwrap().unwrap();
            let ended =
                support::call(&mut instance, &format!("as {caller}"), &[Value::I32(called as i32)], 1_000);
            let expected = if wanted == found { Trap::Unreachable } else { Trap::IndirectCallType };
            equal += usize::from(wanted == found && caller != called);
            assert_eq!(ended, Err(expected), "{called} as {caller}");
        }
    }
    assert!(equal > 20, "only {equal} pairs are equal");
}
