//! Case 13: what a disk says is hostile. Nothing of it reaches a terminal, a log or a JSON document unescaped.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use mmpguard::clock;
use mmpguard::format::{DeviceName, MmpBlock, NodeName};
use serde_json::Value;

use crate::Case;
use crate::harness::lun::{Lun, Shape};
use crate::harness::{millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[("case_13_hostile_names_are_escaped_in_text_and_json", hostile_names)];

fn hostile_names() {
    // No NUL in either: the whole field is the name.
    let evil = |start: &[u8], fill: &[u8]| -> Vec<u8> {
        start.iter().copied().chain(fill.iter().copied().cycle()).take(64).collect()
    };
    let names = [
        evil(b"\x1b[2J\x1b]0;title\x07\r\nmmp: held\n", b"\x1b[31m"),
        evil(b"\xff\xfe\x9b31m\xc3\x28", b"\xf0\x9f\x92"),
        evil("\u{9b}31m\u{202e}\u{85}\u{2028}\"\\u0000\\".as_bytes(), b"\x7f\x08"),
    ];
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| one(name));
        }
    });
}

fn one(name: &[u8]) {
    let label = "\x1b[2Jx\x07";
    let lun = Lun::shaped(Shape { more: &["-L", label], ..Shape::default() });
    let mut node = [0; 64];
    node.copy_from_slice(name);
    let mut device = [0; 32];
    device.copy_from_slice(&name[..32]);
    let raw = lun.raw();
    let block = MmpBlock {
        seq: 1000,
        node: NodeName::from_field(node),
        device: DeviceName::from_field(device),
        time_s: clock::wall().0,
        ..raw.read()
    };
    raw.write(&block);
    let path = lun.a.path();
    // A holder who died: named by show, and by check after its watch.
    harmless(&lun, &["show", path], 0, false);
    harmless(&lun, &["show", "--json", path], 0, true);
    let waits = ["check", path];
    harmless(&lun, &waits, 8, false);
    harmless(&lun, &["check", "--json", path], 8, true);

    // A holder who lives.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut block = block;
            while !stop.load(SeqCst) {
                block.seq += 1;
                raw.write(&block);
                clock::sleep(millis(300));
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            harmless(&lun, &["show", path], 0, false);
            harmless(&lun, &["check", path], 1, false);
            harmless(&lun, &["check", "--json", path], 1, true);
            harmless(&lun, &["run", path, "--", "true"], 121, false);
            harmless(&lun, &["run", "--wait", "2s", path, "--", "true"], 121, false);
        }));
        stop.store(true, SeqCst);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
}

fn harmless(lun: &Lun, arguments: &[&str], code: i32, json: bool) {
    let mut started = lun.mmp(arguments);
    let end = started.end(seconds(60));
    end.expect(code);
    let (out, err) = started.bytes();
    for bytes in [&out, &err] {
        let text =
            std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {bytes:?}"));
        assert_harmless(text, arguments);
    }
    let whole = end.text();
    assert!(
        whole.contains("\\x1b") || whole.contains("\\xff") || whole.contains("\\u{9b}"),
        "shows it: {whole}"
    );
    if json {
        let report: Value = serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {whole}"));
        strings(&report, &mut |text| assert_harmless(text, arguments));
    } else if code == 1 || code == 8 {
        let line = whole.lines().find(|line| line.contains("last named")).unwrap_or_default();
        observed("13", line.trim());
    }
}

fn assert_harmless(text: &str, arguments: &[&str]) {
    let bad = |character: char| {
        (character.is_control() && character != '\n') || matches!(character, '\u{2028}'..='\u{202e}')
    };
    let found: Vec<_> = text.chars().filter(|&character| bad(character)).collect();
    assert!(found.is_empty(), "mmp {arguments:?} lets {found:?} through: {text:?}");
}

fn strings(value: &Value, see: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, see)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            see(name);
            strings(value, see);
        }),
        _ => {}
    }
}
