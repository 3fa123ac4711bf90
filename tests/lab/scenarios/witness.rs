//! That what the scenarios are judged by sees what it must see: histories and traces made by hand, no machine.

use std::fs;

use super::soak::check::{generations_grow, one_writer_at_a_time};
use super::soak::host::History;
use crate::agent::stamps::{found_in, path_of, write_one};
use crate::book::Book;
use crate::harness::writes::read;
use crate::harness::{Doing, Lab, Outcome, Span, Write, turns};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "witness_reads_a_trace", set: Set::Short, run: reads_a_trace },
    Scenario { name: "witness_sees_two_writers", set: Set::Short, run: sees_two_writers },
    Scenario { name: "witness_sees_bad_files", set: Set::Short, run: sees_bad_files },
    Scenario { name: "witness_sees_generations", set: Set::Short, run: sees_generations },
];

const PROTECTION: Span = Span { offset: 40_960, bytes: 4096 };

/// A file that is whole, three that are not: cut short, another's under this name, one byte that is not as it was.
fn sees_bad_files(_book: &Book) -> Outcome<()> {
    let lab = Lab::new()?;
    let folder = lab.folder().join("files");
    fs::create_dir(&folder).doing("a folder")?;
    for number in 0..4 {
        let stamp = format!("alpha 1 {number}");
        write_one(&path_of(&folder, &stamp), &stamp).doing("a file")?;
    }
    let named = |number: u32| path_of(&folder, &format!("alpha 1 {number}"));
    let mut bytes = fs::read(named(1)).doing("a file")?;
    fs::write(named(1), &bytes[..bytes.len() - 1]).doing("a file")?;
    fs::copy(named(0), named(2)).doing("a file")?;
    bytes[9_000] ^= 1;
    fs::write(named(3), bytes).doing("a file")?;
    let found = found_in(&folder.display().to_string())?;
    must(found.good == ["alpha 1 0"], "the whole one is")?;
    must(found.bad.len() == 3, "the others are not")
}

fn writes(at: &[f64]) -> Vec<Write> {
    at.iter().map(|at| Write { at: *at, span: Span { offset: 8192, bytes: 4096 } }).collect()
}

fn history(host: &'static str, begun: &[f64], at: &[f64]) -> History {
    History { host, begun: begun.to_vec(), writes: writes(at), ..History::default() }
}

fn must(holds: bool, what: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(format!("not so: {what}")) }
}

/// Lines as QEMU 7.2 prints them, and one that says something else.
fn reads_a_trace(_book: &Book) -> Outcome<()> {
    let lab = Lab::new()?;
    let (trace, disk) = (lab.folder().join("trace"), lab.folder().join("shared0.raw"));
    let opened = format!(
        "7@100.000001:bdrv_open_common bs 0xa filename \"{}\" flags 0x2 format_name file\n",
        disk.display()
    );
    let lines = "7@100.500000:blk_co_pwritev blk 0x1 bs 0xa offset 8192 bytes 4096 flags 0x0\n\
                 7@100.600000:blk_co_pwritev blk 0x2 bs 0xb offset 0 bytes 4096 flags 0x0\n\
                 7@100.700000:bdrv_co_pwrite_zeroes bs 0xa offset 0 count 512 flags 0x0\n";
    fs::write(&trace, format!("{opened}{lines}")).doing("a trace")?;
    let found = read(&trace, &disk)?;
    must(found.len() == 2, "writes of another disk do not count")?;
    must(
        found[0].at > 100.4 && found[0].span == Span { offset: 8192, bytes: 4096 },
        "place and time are read",
    )?;
    must(found[1].span == Span { offset: 0, bytes: 512 }, "zeroes are written, too")?;
    must(read(&trace, &lab.folder().join("another")).is_err(), "a disk that is in no line is an error")?;
    fs::write(&trace, format!("{opened}7@100.5:blk_co_pwritev blk 0x1 bs 0xa somewhere\n"))
        .doing("a trace")?;
    must(read(&trace, &disk).is_err(), "a line that is not understood is an error")
}

fn sees_two_writers(_book: &Book) -> Outcome<()> {
    let check = |a: &History, b: &History| one_writer_at_a_time(&[a, b], PROTECTION);
    let one = check(&history("alpha", &[1.0], &[2.0, 3.0]), &history("beta", &[2.5], &[4.0, 5.0]))?;
    must(one.turns == 2, "one after the other is two turns")?;
    let again = check(&history("alpha", &[1.0, 6.0], &[2.0, 7.0]), &history("beta", &[2.5], &[4.0, 5.0]))?;
    must(again.turns == 3, "a host that was let in again begins a turn of its own")?;
    let mixed = check(&history("alpha", &[1.0], &[2.0, 4.5]), &history("beta", &[2.5], &[4.0, 5.0]));
    must(mixed.is_err(), "a late write between two of another's is found")?;
    let refused = check(&history("alpha", &[1.0, 4.2], &[2.0, 4.5]), &history("beta", &[2.5], &[4.0, 5.0]));
    must(refused.is_err(), "also when its host is trying to mount again")?;
    must(
        check(&history("alpha", &[3.0], &[2.0]), &history("beta", &[], &[])).is_err(),
        "a write before any mount is found",
    )?;
    let (mut alpha, beta) = (history("alpha", &[1.0], &[2.0, 4.5]), history("beta", &[2.5], &[4.0, 5.0]));
    alpha.resumed.push(4.4);
    let queued = check(&alpha, &beta)?;
    must(queued.queued == 1 && queued.turns == 2, "what was queued before a hang is counted by itself")?;
    let inside = [Write { at: 1.0, span: PROTECTION }];
    must(turns(&[("alpha", &inside)], PROTECTION).is_empty(), "beats are no writes")?;
    let larger = [Write { at: 1.0, span: Span { offset: PROTECTION.offset, bytes: 8192 } }];
    must(turns(&[("alpha", &larger)], PROTECTION).len() == 1, "what is more than the block is one")
}

fn sees_generations(_book: &Book) -> Outcome<()> {
    let with = |host, generations: &[(f64, u64)]| History {
        host,
        mounts: generations.len(),
        generations: generations.to_vec(),
        ..History::default()
    };
    generations_grow(&[&with("alpha", &[(1.0, 5), (3.0, 9)]), &with("beta", &[(2.0, 6)])])?;
    let same = generations_grow(&[&with("alpha", &[(1.0, 5)]), &with("beta", &[(2.0, 5)])]);
    must(same.is_err(), "the same generation twice is found")?;
    let missing = History { mounts: 2, ..with("alpha", &[(1.0, 5)]) };
    must(generations_grow(&[&missing]).is_err(), "a mount without a generation is found")
}
