//! That what the scenarios are judged by sees what it must see: histories and traces made by hand, no machine.

use std::fs;

use super::soak::check::{
    all, generations_grow, hangs_end_in_boots, losses_have_causes, no_beats_beside, nobody_beside,
    one_writer_at_a_time, stamps_agree, writes_only_while_in,
};
use super::soak::history::{Attempt, Fault, FaultKind, History, Loss, Wakeup};
use crate::agent::stamps::{found_in, path_of, write_one};
use crate::book::Book;
use crate::harness::writes::read;
use crate::harness::{Doing, Lab, Outcome, Span, Write, turns};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "witness_reads_a_trace", set: Set::Short, run: reads_a_trace },
    Scenario { name: "witness_sees_two_writers", set: Set::Short, run: sees_two_writers },
    Scenario { name: "witness_sees_bad_files", set: Set::Short, run: sees_bad_files },
    Scenario { name: "witness_sees_a_rival", set: Set::Short, run: sees_a_rival },
    Scenario { name: "witness_sees_late_beats", set: Set::Short, run: sees_late_beats },
    Scenario { name: "witness_sees_losses", set: Set::Short, run: sees_losses },
    Scenario { name: "witness_sees_hangs", set: Set::Short, run: sees_hangs },
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

fn beats(at: &[f64]) -> Vec<Write> {
    at.iter().map(|at| Write { at: *at, span: PROTECTION }).collect()
}

/// One whose attempts have not been decided.
fn history(host: &'static str, begun: &[f64], at: &[f64]) -> History {
    let undecided = |begun: &f64| Attempt {
        begun: *begun,
        mounted: None,
        held_until: f64::INFINITY,
        over: f64::INFINITY,
    };
    History {
        host,
        attempts: begun.iter().map(undecided).collect(),
        writes: writes(at),
        ..History::default()
    }
}

/// One that began to mount, was in, let go of it, and was out at these times, and wrote outside the block meanwhile.
fn holder(host: &'static str, [begun, mounted, held_until, over]: [f64; 4], at: &[f64]) -> History {
    let attempt = Attempt { begun, mounted: Some(mounted), held_until, over };
    History { host, attempts: vec![attempt], writes: writes(at), ..History::default() }
}

fn with_fault(mut history: History, kind: FaultKind, from: f64, until: f64) -> History {
    history.faults.push(Fault { kind, from, until });
    history
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
    alpha.wakeups.push(Wakeup { resumed: 4.4, ended: Some(4.6) });
    let queued = check(&alpha, &beta)?;
    must(queued.queued == 1 && queued.turns == 2, "what was queued before a hang is counted by itself")?;
    alpha.wakeups[0].ended = Some(4.45);
    must(check(&alpha, &beta).is_err(), "what comes after the next boot was not queued")?;
    let inside = [Write { at: 1.0, span: PROTECTION }];
    must(turns(&[("alpha", &inside)], PROTECTION).is_empty(), "beats are no writes")?;
    let larger = [Write { at: 1.0, span: Span { offset: PROTECTION.offset, bytes: 8192 } }];
    must(turns(&[("alpha", &larger)], PROTECTION).len() == 1, "what is more than the block is one")
}

/// While one has it the other neither writes nor is in; a stall that outlives a lease ends that.
fn sees_a_rival(_book: &Book) -> Outcome<()> {
    let check = |a: &History, b: &History| nobody_beside(a, b, PROTECTION);
    let alpha = holder("alpha", [1.0, 10.0, 40.0, 42.0], &[11.0, 12.0]);
    let beta = holder("beta", [20.0, 45.0, 60.0, 61.0], &[46.0]);
    check(&alpha, &beta)?;
    all([&alpha, &beta], PROTECTION)?;
    let early = holder("beta", [20.0, 45.0, 60.0, 61.0], &[39.0]);
    must(
        check(&alpha, &early).is_err(),
        "a write while the other has it is found, though the other writes no more",
    )?;
    must(all([&alpha, &early], PROTECTION).is_err(), "also among all checks")?;
    let twice = holder("beta", [5.0, 39.0, 60.0, 61.0], &[46.0]);
    must(check(&alpha, &twice).is_err(), "a mount while the other has it is found, though nobody writes")?;
    for (kind, until, holds) in [
        (FaultKind::Hang, 45.0, true),
        (FaultKind::PathWaits, 45.0, true),
        (FaultKind::PathFails, 45.0, true),
        (FaultKind::Freeze, 45.0, false),
        (FaultKind::Pause, 23.0, false),
    ] {
        let stalled = with_fault(alpha.clone(), kind, 15.0, until);
        must(check(&stalled, &twice).is_ok() == holds, &format!("{kind:?} until {until} s"))?;
    }
    let twice_stalled =
        with_fault(with_fault(alpha, FaultKind::Pause, 15.0, 22.0), FaultKind::PathWaits, 24.0, 30.0);
    must(check(&twice_stalled, &twice).is_ok(), "two stalls without a breath between them are one")
}

/// A loser that beats for ever (K4), a claimer that writes without end, a write of somebody who is not in at all.
fn sees_late_beats(_book: &Book) -> Outcome<()> {
    let check = |writer: &History, other: &History| no_beats_beside(writer, other, PROTECTION);
    let beta = holder("beta", [20.0, 45.0, 60.0, 61.0], &[46.0, 58.0]);
    let with_beats = |mut history: History, at: &[f64]| {
        history.writes.extend(beats(at));
        history
    };
    let alpha = holder("alpha", [1.0, 10.0, 40.0, 42.0], &[11.0]);
    check(&beta, &with_beats(alpha.clone(), &[12.0, 41.0, 59.0]))?;
    must(check(&beta, &with_beats(alpha.clone(), &[50.0])).is_err(), "a beat of one that has left is found")?;
    let believes = holder("alpha", [1.0, 10.0, f64::INFINITY, f64::INFINITY], &[11.0]);
    must(
        check(&beta, &with_beats(believes.clone(), &[50.0])).is_err(),
        "also of one that believes it is still in",
    )?;
    let claims = history("alpha", &[1.0, 44.0], &[]);
    check(&beta, &with_beats(claims.clone(), &[47.0, 48.0, 49.0, 50.0, 51.0, 52.0]))?;
    let many = with_beats(claims, &[47.0, 48.0, 49.0, 50.0, 51.0, 52.0, 53.0]);
    must(check(&beta, &many).is_err(), "more than a claim's worth of writes is found")?;

    let idle = |at: &[f64]| writes_only_while_in(&with_beats(alpha.clone(), at));
    idle(&[9.0, 20.0, 41.9])?;
    must(idle(&[42.1]).is_err(), "a beat after it has left is found, whoever writes then")?;
    must(idle(&[0.5]).is_err(), "and one before it ever tried")?;
    let fenced = with_fault(with_beats(believes, &[38.0]), FaultKind::PathWaits, 15.0, 39.0);
    must(writes_only_while_in(&fenced).is_err(), "so is one of a host that has to be cut off by then")?;
    let waiting = with_fault(history("alpha", &[14.0], &[40.0]), FaultKind::PathWaits, 15.0, 39.0);
    writes_only_while_in(&waiting)
}

/// A loss needs a cause that is long enough, of its kind, and not long ago.
fn sees_losses(_book: &Book) -> Outcome<()> {
    let ends = |kind, until, loss, at| {
        let mut history = with_fault(history("alpha", &[1.0], &[]), kind, 10.0, until);
        history.losses.push((at, loss));
        losses_have_causes(&history)
    };
    let every = [Loss::Lost, Loss::MountFailed, Loss::UmountFailed, Loss::WriterEnded, Loss::Rebooted];
    for loss in every {
        for kind in [FaultKind::Hang, FaultKind::PathWaits, FaultKind::PathFails] {
            let what = format!("{loss:?} by {kind:?}");
            must(ends(kind, 30.0, loss, 40.0).is_ok(), &what)?;
            must(ends(kind, 30.0, loss, 66.0).is_err(), &format!("{what} long after it"))?;
            must(ends(kind, 30.0, loss, 9.0).is_err(), &format!("{what} before it"))?;
            let of_io = kind == FaultKind::PathFails && !matches!(loss, Loss::Lost | Loss::Rebooted);
            must(ends(kind, 16.5, loss, 15.0).is_ok() == of_io, &format!("{what} that was short"))?;
        }
        for kind in [FaultKind::Pause, FaultKind::Freeze] {
            must(ends(kind, 50.0, loss, 20.0).is_err(), &format!("{loss:?} by {kind:?} never is"))?;
        }
        let mut unprovoked = history("alpha", &[1.0], &[]);
        unprovoked.losses.push((5.0, loss));
        must(losses_have_causes(&unprovoked).is_err(), &format!("{loss:?} by nothing is found"))?;
    }
    Ok(())
}

/// A hang that the watchdog did not end.
fn sees_hangs(_book: &Book) -> Outcome<()> {
    let ended = |ended: Option<f64>| {
        let mut history = history("alpha", &[1.0], &[]);
        history.wakeups.push(Wakeup { resumed: 30.0, ended });
        hangs_end_in_boots(&history)
    };
    ended(Some(33.0))?;
    must(ended(Some(80.0)).is_err(), "a boot much later is not the watchdog's")?;
    must(ended(None).is_err(), "no boot at all is found")
}

fn sees_generations(_book: &Book) -> Outcome<()> {
    let with = |host, generations: &[(f64, u64)]| History {
        host,
        named: generations.len(),
        generations: generations.to_vec(),
        ..History::default()
    };
    generations_grow(&[&with("alpha", &[(1.0, 5), (3.0, 9)]), &with("beta", &[(2.0, 6)])])?;
    let same = generations_grow(&[&with("alpha", &[(1.0, 5)]), &with("beta", &[(2.0, 5)])]);
    must(same.is_err(), "the same generation twice is found")?;
    let missing = History { named: 2, ..with("alpha", &[(1.0, 5)]) };
    must(generations_grow(&[&missing]).is_err(), "a mount without a generation is found")?;

    let files = |host, stamps: &[&str]| History {
        host,
        durable: stamps.iter().map(|stamp| format!("{host} {stamp}")).collect(),
        ..History::default()
    };
    let alpha = files("alpha", &["3 0", "3 1", "7 0"]);
    stamps_agree([&alpha, &files("beta", &["5 0", "8 0"])])?;
    must(
        stamps_agree([&alpha, &files("beta", &["5 0", "7 0"])]).is_err(),
        "one generation's files of two hosts",
    )?;
    must(stamps_agree([&alpha, &files("beta", &["5 0", "4 0"])]).is_err(), "a file of an earlier generation")
}
