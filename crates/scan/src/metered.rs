//! A scan is metered: a step of modules that are as bad as they can be does about what it was told to do.

use std::cell::Cell;
use std::format;
use std::println;
use std::string::String;
use std::time::{Duration, Instant};
use std::vec;
use std::vec::Vec;

use super::{Scan, ScanError, ScanLimits, scan};

std::thread_local! {
    /// Bytes that readers handed out one by one, read again or not.
    pub(crate) static READ: Cell<usize> = const { Cell::new(0) };
}

const MODULE: usize = 1 << 20;

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

/// A module of these sections.
fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0", &sections.concat()[..]].concat()
}

/// A module whose entry has this body, without what ends it.
fn entry(operators: &[u8]) -> Vec<u8> {
    let body = [&[0], operators, &[0x0b]].concat();
    module(&[
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(5, &[1, 0, 1]),
        section(7, &[&[1, 3][..], b"run", &[0, 0]].concat()),
        section(10, &[&[1][..], &leb(body.len()), &body].concat()),
    ])
}

/// So many of them, one after the other.
fn list(count: usize, item: &[u8]) -> Vec<u8> {
    [leb(count), item.repeat(count)].concat()
}

fn name(bytes: usize) -> Vec<u8> {
    [leb(bytes), vec![b'x'; bytes]].concat()
}

fn table(targets: usize) -> Vec<u8> {
    [&[0x02, 0x40, 0x41, 0, 0x0e][..], &leb(targets), &vec![0; targets + 1], &[0x0b]].concat()
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let types = list(1_000, &[&[0x60, 64][..], &[0x7f; 64], &[64], &[0x7f; 64]].concat());
    let imports = list(64, &[&name(1_000)[..], &name(1_000), &[0, 0]].concat());
    let known = [&[7][..], b"wasmbed", &[4], b"wait", &[0, 0]].concat();
    let constant = [&[0x41, 0xff, 0xff, 0xff, 0xff, 0x07][..], &[0x6a; 62]].concat();
    let global = [&[0x7f, 0][..], &constant, &[0x0b]].concat();
    let expressions = [&[5, 0x70][..], &list(16_384, &[0xd0, 0x70, 0x0b])].concat();
    let groups = [&list(64, &[0, 0x7f])[..], &[0x0b]].concat();
    let data: Vec<u8> = [&[0][..], &[0x41, 0, 0x0b], &name(200)].concat();
    let wait = section(1, &[1, 0x60, 1, 0x7f, 0]);
    vec![
        ("operators of a byte", entry(&vec![0x01; MODULE - 64])),
        ("blocks", entry(&[0x02, 0x40, 0x0b].repeat((MODULE - 64) / 3))),
        ("numbers in many bytes", entry(&[0x20, 0x80, 0x80, 0x80, 0x80, 0, 0x1a].repeat(MODULE / 7 - 16))),
        ("targets", entry(&table(65_535).repeat(15))),
        ("types of a select", entry(&[&[0x1c][..], &leb(MODULE - 128), &vec![0x7f; MODULE - 128]].concat())),
        (
            "groups of locals",
            module(&[
                section(1, &[1, 0x60, 0, 0]),
                section(3, &list(5_000, &[0])),
                section(10, &list(5_000, &[&leb(groups.len())[..], &groups].concat())),
            ]),
        ),
        ("a long name", module(&[section(0, &name(MODULE - 64))])),
        ("names", module(&[section(0, &name(1_000)).repeat(1_000)])),
        ("no custom sections' names", module(&[section(0, &[0]).repeat(MODULE / 3 - 16)])),
        ("types", module(&[section(1, &types)])),
        ("imports", module(&[section(1, &types), section(2, &imports)])),
        ("imports that are there", module(&[wait, section(2, &list(64, &known))])),
        ("globals", module(&[section(6, &list(1_000, &global))])),
        ("elements", module(&[section(4, &[1, 0x70, 0, 1]), section(9, &list(1, &expressions))])),
        ("data", module(&[section(5, &[1, 0, 1]), section(11, &list(5_000, &data))])),
        ("an export of a long name", module(&[section(7, &[&[1][..], &name(MODULE - 64)].concat())])),
    ]
}

/// Scans in steps; the most bytes that were read in one, the longest one, and how many there were.
fn in_steps(module: &[u8], work: u32) -> (Result<(), ScanError>, usize, Duration, usize) {
    let mut scan = Scan::new(&ScanLimits::default());
    let (mut most, mut longest, mut steps) = (0, Duration::ZERO, 0);
    loop {
        READ.set(0);
        let begun = Instant::now();
        let stepped = scan.step(module, work);
        longest = longest.max(begun.elapsed());
        most = most.max(READ.get());
        steps += 1;
        match stepped {
            Ok(None) => {}
            Ok(Some(_)) => return (Ok(()), most, longest, steps),
            Err(error) => return (Err(error), most, longest, steps),
        }
    }
}

#[test]
fn a_step_does_what_it_was_told() {
    const WORK: u32 = 64;
    for (name, module) in hostile() {
        assert!(module.len() <= MODULE, "{name}: {} bytes", module.len());
        let (ended, most, longest, steps) = in_steps(&module, WORK);
        println!(
            "{name}: {} bytes, {steps} steps of {WORK}, at most {most} bytes read in one, the longest {longest:?}: {}",
            module.len(),
            ended.as_ref().err().map_or(String::from("accepted"), |error| format!("{error}")),
        );
        // An operator has up to ten bytes or so. An item may be begun with the last of the work: an import has two names.
        assert!(most <= WORK as usize * 10 + 2_100, "{name}: {most} bytes in one step");
        let at_once = scan(&module, &ScanLimits::default()).map(|_| ());
        assert_eq!(ended, at_once, "{name}");
        assert_eq!(in_steps(&module, 1).0, at_once, "{name}");
    }
}

/// Who asks on after the end hears no second answer.
#[test]
fn what_has_ended_is_not_scanned_on() {
    let module = entry(&[]);
    let mut scan = Scan::new(&ScanLimits::default());
    assert!(matches!(scan.step(&module, u32::MAX), Ok(Some(_))));
    assert!(matches!(scan.step(&module, u32::MAX), Err(ScanError::Malformed { .. })));
}
