//! What the kernel had mounted, and we beat again: whose block it is that stands there then.

use super::hold::FAR_SEQ;
use super::watch::named;
use super::*;

/// The kernel was remounted read-only at 28 s, and we have beaten since.
fn resumed() -> Bench {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(31.0);
    assert_eq!(bench.guard.mode(), Mode::Beating, "{:?}", bench.events);
    assert!(bench.writes.len() > 1, "{:?}", bench.writes);
    bench.writes.clear();
    bench
}

#[test]
fn only_a_small_count_under_our_names_is_the_kernel_again() {
    for (node, seq, kernels) in
        [("mike", 3, true), ("zulu", 3, false), ("zulu", FAR_SEQ, false), ("mike", FAR_SEQ, false)]
    {
        let mut bench = resumed();
        bench.put(node, seq, 5);
        bench.run_until(32.5);
        let mode = if kernels { Mode::Watching } else { Mode::Beating };
        assert_eq!(bench.guard.mode(), mode, "{node} {seq:#x} {:?}", bench.events);
        assert!(bench.writes.iter().all(|(at, ..)| *at < 31.1), "it is looked at first: {:?}", bench.writes);
    }
}

/// What one look shows, and the look before it did not, has landed after that earlier look began.
#[test]
fn the_lease_of_the_kernels_beat_runs_from_the_look_before_the_one_that_saw_it() {
    let mut bench = resumed();
    let kernel_beats_at = 31.5;
    bench.activity = [Activity::ReadWrite].into();
    bench.timetable.push_back((kernel_beats_at, named("mike", 1, WALL_S + 31)));
    while bench.guard.mode() == Mode::Beating {
        bench.run_until(bench.seconds + 0.01);
    }
    bench.run_until(bench.seconds + 0.02);
    assert_eq!(bench.guard.kernel_counted().map(|(_, seq)| seq), Some(1), "{:?}", bench.events);
    let end = bench.lease_end_s();
    let before = bench.looks.iter().copied().rfind(|&at| at < kernel_beats_at).unwrap();
    assert!(end <= before + timing::lease(5).as_secs_f64() + 1e-6, "{end} {before}");
}

/// It was to become writable, which came to nothing; meanwhile somebody found our mark, and wrote over it.
#[test]
fn who_stands_over_our_mark_when_a_remount_has_failed_is_judged_by_the_holder() {
    let mut bench = resumed();
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(33.0);
    assert_eq!((bench.guard.mode(), bench.block().seq), (Mode::Expecting, SEQ_CLEAN), "{:?}", bench.events);
    bench.put("zulu", FAR_SEQ, 5);
    bench.events.clear();
    bench.give(Input::MountEnded { killed: true });
    bench.run_until(34.0);
    assert_eq!(bench.guard.mode(), Mode::Beating, "{:?}", bench.events);
    bench.run_until(60.0);
    assert!(bench.has(|event| matches!(event, Event::Intruder { .. })), "{:?}", bench.events);
    assert_eq!(bench.block().node, NodeName::new("mike"));
}

/// A host may have been renamed since it booted, and its kernel writes the name that it knows.
#[test]
fn we_go_on_under_the_names_that_the_kernel_writes() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.run_until(22.3);
    bench.kernel_beats("mike.local", 22.5, 1, 5);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(24.5);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
    bench.timetable.push_back((28.0, named("mike.local", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(30.0);
    assert_eq!(bench.guard.mode(), Mode::Beating, "{:?}", bench.events);
    assert_eq!(bench.writes.last().unwrap().1.node, NodeName::new("mike.local"));
}

#[test]
fn how_far_the_kernel_has_counted_is_known_while_its_beats_are_watched() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    assert_eq!(bench.guard.kernel_counted(), None, "it has not begun");
    let mut bench = Bench::watched(5);
    bench.run_until(27.5);
    let (at, count) = bench.guard.kernel_counted().expect("it is watched");
    assert_eq!(count, 5);
    // Its fifth beat lands at 22.5 s and four times 1.02 s, and is seen within one pause.
    assert!((26.58..27.2).contains(&seconds(at)), "{at:?}");
    assert_eq!(resumed().guard.kernel_counted(), None, "it beats no more");
    assert_eq!(Bench::held().guard.kernel_counted(), None);
}
