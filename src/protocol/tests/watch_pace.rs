//! Watch: how often it looks, what a gap between looks means, and what is told of the kernel's count.

use super::watch::named;
use super::*;

#[test]
fn twice_an_interval_is_looked_and_more_often_after_somebody_was_seen_or_has_left() {
    let mut bench = Bench::watched(200);
    // Another host's write stands for a moment, until the kernel's next beat covers it.
    bench.timetable.push_front((60.4, named("zulu", 0x1234_5678, WALL_S + 60)));
    bench.timetable.make_contiguous().sort_by(|a, b| a.0.total_cmp(&b.0));
    bench.run_until(100.0);
    assert!(bench.events.is_empty() && bench.asked > 0, "{:?}", bench.events);
    // A wait from the first beat on, the predecessor's clean mark may come late.
    let (_, longest) = bench.look_gaps(23.0..33.0);
    assert!(longest < 0.21, "{longest}");
    let (shortest, longest) = bench.look_gaps(35.0..60.0);
    assert!(shortest > 0.42 && longest < 0.56, "{shortest} {longest}");
    // Two of the longest intervals: by then he would have shown himself again.
    let (_, longest) = bench.look_gaps(61.0..65.5);
    assert!(longest < 0.21, "{longest}");
    let (shortest, _) = bench.look_gaps(67.0..100.0);
    assert!(shortest > 0.42, "{shortest}");
}

#[test]
fn how_far_the_kernel_has_counted_is_told_with_the_time_at_which_it_was_seen() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    assert_eq!(bench.guard.kernel_counted(), None);
    bench.kernel_claims(11.2);
    bench.kernel_beats("mike", 22.5, 1, 200);
    bench.run_until(60.2);
    // A beat at 22.5 s and every 1.02 s after that: the one of 59.22 s is the 37th.
    let (at, seq) = bench.guard.kernel_counted().expect("it beats");
    assert_eq!(seq, 37);
    let seen = (at.0 - BOOT_S * 1_000_000_000) as f64 / 1e9;
    assert!((59.2..59.8).contains(&seen), "{seen}");
}

#[test]
fn one_who_slept_for_longer_than_the_check_interval_stops_before_another_who_counts() {
    for (slept, because) in [(5.2, Some(LoserRule::Slept)), (3.0, None)] {
        let mut bench = Bench::watched(400);
        bench.run_until(60.0);
        bench.seconds += slept;
        // The lower name, and he counts: awake we would be the one to go on.
        bench.kernel_beats("alpha", 66.5, 300, 3);
        bench.run_until(70.5);
        let lost = bench.has(|event| matches!(event, Event::Lost { .. }));
        assert_eq!(lost, because.is_some(), "{:?}", bench.events);
        if let Some(because) = because {
            assert!(matches!(bench.loss(), Loss::Stolen { because: rule, .. } if *rule == because));
        }
    }
}

#[test]
fn reads_that_fail_are_told_once_and_tried_again_five_times_a_second() {
    let mut bench = Bench::watched(200);
    bench.run_until(60.0);
    bench.read_errors = 6;
    bench.run_until(64.0);
    assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
    let (at, Event::IoTrouble { .. }) = bench.events[0] else { panic!("{:?}", bench.events) };
    let (shortest, _) = bench.look_gaps(at - 0.01..at + 1.1);
    assert!(shortest > 0.199, "{shortest}");
    // After a beat that was seen it is news again.
    bench.read_errors = 1;
    bench.run_until(66.0);
    assert_eq!(bench.events.len(), 2, "{:?}", bench.events);
}

/// A beat that a failed look could not show has landed after the last good one.
#[test]
fn the_lease_runs_from_the_last_look_that_was_answered() {
    let mut bench = Bench::watched(200);
    bench.run_until(60.0);
    bench.read_errors = 8;
    let good = *bench.looks.last().expect("it looks");
    bench.run_until(good + 2.2);
    assert_eq!(bench.read_errors, 0);
    let seen = *bench.looks.last().expect("it looks");
    assert!(seen > good + 1.5);
    about(bench.lease_end_s(), good + 11.0);
}

#[test]
fn a_mount_that_ends_while_the_kernel_is_bridged_is_no_reason_to_look() {
    let mut bench = Bench::watched(4);
    bench.run_until(40.0);
    assert_eq!(bench.guard.mode(), Mode::Bridging);
    let looks = bench.looks.len();
    bench.give(Input::MountEnded { killed: false });
    assert_eq!(bench.looks.len(), looks);
}
