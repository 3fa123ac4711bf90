//! Watch: the beats in a frozen kernel's stead, and what comes between them.

use super::watch::{CLAIM, named};
use super::*;

/// The kernel froze after its beat of 25.6 s, and we beat since about 29.4 s; second 40.
fn bridged() -> Bench {
    let mut bench = Bench::watched(4);
    bench.run_until(40.0);
    assert_eq!(bench.guard.mode(), Mode::Bridging);
    bench.events.clear();
    bench
}

fn write_gaps(bench: &Bench, from: f64) -> (f64, f64) {
    let writes: Vec<f64> = bench.writes.iter().map(|(at, ..)| *at).filter(|&at| at > from).collect();
    let gaps = writes.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.fold((f64::MAX, 0.0), |(shortest, longest), gap| (gap.min(shortest), gap.max(longest)))
}

#[test]
fn a_bridge_beats_once_an_interval() {
    let mut bench = bridged();
    bench.run_until(80.0);
    let (shortest, longest) = write_gaps(&bench, 29.0);
    assert!(shortest > 0.84 && longest < 1.4, "{shortest} {longest}");
    let (shortest, _) = bench.look_gaps(30.0..80.0);
    assert!(shortest > 0.19, "{shortest}");
}

/// A path failed over and shows what stood there before.
#[test]
fn a_bridges_own_older_beat_is_beaten_over_in_time() {
    let mut bench = bridged();
    let (_, older, _) = bench.writes[bench.writes.len() - 4];
    older.encode_into(&mut bench.image, None);
    bench.run_until(50.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    let (_, longest) = write_gaps(&bench, 38.0);
    assert!(longest < 1.4, "{longest}");
}

#[test]
fn a_jump_under_our_names_over_a_bridge_is_looked_at() {
    let mut bench = bridged();
    bench.put("mike", CLAIM, 5);
    let written = bench.writes.len();
    bench.run_until(44.5);
    assert_eq!(bench.writes.len(), written);
    bench.run_until(46.0);
    assert!(matches!(bench.events[0], (at, Event::Intruder { .. }) if at > 45.0), "{:?}", bench.events);
}

#[test]
fn one_who_counts_over_a_bridge_and_is_to_stop_is_shown_our_beats() {
    let mut bench = bridged();
    bench.kernel_beats("alpha", 40.5, 300, 5);
    bench.run_until(46.0);
    let shown = bench.writes.iter().filter(|(at, ..)| (41.5..45.5).contains(at)).count();
    assert!(shown >= 3, "{:?}", bench.writes);
    bench.run_until(60.0);
    assert!(!bench.guard.is_over(), "he has stopped: {:?}", bench.events);
}

#[test]
fn one_who_counts_over_a_bridge_and_has_the_higher_name_stays() {
    let mut bench = bridged();
    bench.kernel_beats("yankee", 40.5, 300, 5);
    bench.run_until(46.0);
    assert!(matches!(bench.loss(), Loss::Stolen { because: LoserRule::LowerName, .. }));
    assert!(bench.last().0 < 42.0, "{:?}", bench.last());
}

/// It thaws, and its beats were covered by ours: it may be so many further as fit into the time, and a few.
#[test]
fn a_kernel_is_known_again_by_a_count_that_fits_into_the_time() {
    for (interval_s, further, known) in [(1, 30, true), (1, 33, false), (2, 22, true), (2, 30, false)] {
        let mut superblock = superblock(false);
        superblock[0x166] = interval_s;
        let options = GuardOptions { kernel_waits: true, ..GuardOptions::default() };
        let mut bench = Bench::with(77, 5, options, superblock);
        bench.run_until(1.0);
        bench.kernel_claims(11.2);
        bench.kernel_beats("mike", 22.5, 1, 1);
        bench.run_until(24.0);
        bench.give(Input::MountEnded { killed: false });
        bench.run_until(30.0);
        assert_eq!(bench.guard.mode(), Mode::Bridging, "{:?}", bench.events);
        // 15 seconds after its beat was seen.
        bench.comes(38.0, named("mike", 1 + further, WALL_S + 38));
        bench.run_until(38.5);
        let back = bench.has(|event| matches!(event, Event::BridgeEnded));
        assert_eq!(back, known, "{interval_s} {further} {:?}", bench.events);
    }
}

/// Our own block was there at the last look: it is a clear, as over any holder.
#[test]
fn a_clear_that_is_forced_long_into_a_freeze_is_beaten_over() {
    let mut bench = Bench::watched(4);
    bench.run_until(35.8);
    assert!(bench.has(|event| matches!(event, Event::Bridging { .. })), "{:?}", bench.events);
    let block = named("other", SEQ_CLEAN, WALL_S + 36);
    bench.timetable.push_back((36.0, MmpBlock { device: DeviceName::new("/dev/sdb1"), ..block }));
    bench.run_until(40.0);
    assert!(bench.has(|event| matches!(event, Event::Cleared { .. })), "{:?}", bench.events);
    assert!(!bench.guard.is_over() && bench.block().seq != SEQ_CLEAN);
}

/// A path failed over while the kernel is frozen, and shows an older beat of its own.
#[test]
fn an_older_beat_under_a_silent_kernel_is_bridged() {
    let mut bench = Bench::watched(4);
    bench.run_until(27.0);
    let last = bench.block();
    bench.timetable.push_back((27.0, MmpBlock { seq: last.seq - 2, time_s: last.time_s - 2, ..last }));
    bench.run_until(60.0);
    assert!(!bench.guard.is_over(), "{:?}", bench.events);
    assert!(bench.has(|event| matches!(event, Event::Bridging { .. })), "{:?}", bench.events);
}

/// Behind the kernel's count under its names, but not of its time: another host that goes on, and is not beaten over.
#[test]
fn a_count_behind_a_frozen_kernels_that_goes_on_is_not_bridged() {
    let mut bench = Bench::watched(60);
    bench.run_until(84.0);
    bench.kernel_beats("mike", 84.0, 20, 40);
    bench.run_until(130.0);
    assert!(bench.guard.is_over() && bench.writes.is_empty(), "{:?} {:?}", bench.events, bench.writes);
}
