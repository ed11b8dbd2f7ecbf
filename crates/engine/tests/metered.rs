//! Loading is metered: a step of modules that are as bad as they can be does about what it was told to do.

#![cfg(test)]

mod support;

use std::time::{Duration, Instant};

use wasmbed_engine::{ErrorKind, Loader, Progress, Source};

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
