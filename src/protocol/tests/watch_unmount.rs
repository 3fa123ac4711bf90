//! Watch: what the kernel says of its filesystem, and what stands in the block then.

use super::watch::named;
use super::*;
use crate::protocol::event::Resumption;

fn resumed(bench: &Bench) -> Option<(f64, Resumption)> {
    bench.events.iter().find_map(|(at, event)| match event {
        Event::Resumed { why } => Some((*at, *why)),
        _ => None,
    })
}

/// The kernel beats four times, then is silent, and this is what it says when it is asked.
fn silent(activity: impl Into<std::collections::VecDeque<Activity>>) -> Bench {
    let mut bench = Bench::watched(4);
    bench.activity = activity.into();
    bench
}

#[test]
fn a_filesystem_that_is_gone_and_left_a_live_block_is_beaten_after_a_second_question() {
    let mut bench = silent([Activity::Gone]);
    bench.run_until(31.0);
    assert_eq!(resumed(&bench).map(|(_, why)| why), Some(Resumption::Unmounted), "{:?}", bench.events);
    assert_eq!((bench.asked, bench.events.len()), (2, 1));
    assert!(!bench.writes.is_empty());
}

#[test]
fn a_clean_mark_between_the_look_and_the_kernels_answer_is_an_unmount() {
    let mut bench = silent([Activity::Gone]);
    bench.run_until(31.0);
    let (at, _) = resumed(&bench).expect("as above");
    let first = bench.looks.iter().copied().rev().find(|&look| look < at - 0.0015).expect("two looks");
    let mut bench = silent([Activity::Gone]);
    bench.timetable.push_back((first + 0.0005, named("mike", SEQ_CLEAN, WALL_S + 29)));
    bench.run_until(31.0);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
    assert!(bench.writes.is_empty());
}

#[test]
fn a_kernel_that_has_stopped_without_a_clean_mark_is_beaten_for() {
    for (activity, why) in
        [(Activity::ReadOnly, Resumption::ReadOnly), (Activity::Stopped, Resumption::Stopped)]
    {
        let mut bench = silent([activity]);
        bench.run_until(31.0);
        assert_eq!(resumed(&bench).map(|(_, why)| why), Some(why), "{:?}", bench.events);
        assert_eq!((bench.events.len(), bench.guard.mode()), (1, Mode::Beating));
    }
}

#[test]
fn a_kernel_that_stops_while_it_is_bridged_is_beaten_for() {
    for fate in [Fate::Takes(0.001), Fate::FailsLanded] {
        for why in [Resumption::Stopped, Resumption::ReadOnly] {
            let mut bench = silent([Activity::ReadWrite]);
            bench.run_until(35.0);
            assert_eq!(bench.guard.mode(), Mode::Bridging, "{:?}", bench.events);
            bench.fates.push_back(fate);
            let written = bench.writes.len();
            while bench.writes.len() == written {
                bench.run_until(bench.seconds + 0.01);
            }
            let stopped = if why == Resumption::Stopped { Activity::Stopped } else { Activity::ReadOnly };
            bench.activity = [stopped].into();
            bench.run_until(bench.seconds + 0.5);
            assert_eq!(resumed(&bench).map(|(_, why)| why), Some(why), "{fate:?} {:?}", bench.events);
        }
    }
}

/// Older kernels do not show that they have stopped.
#[test]
fn a_clean_mark_of_the_kernels_while_it_may_write_is_judged_after_a_second_question() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.run_until(29.0);
    let (at, why) = resumed(&bench).expect("it has stopped");
    assert_eq!((why, bench.asked), (Resumption::Stopped, 2));
    // Remounted, and back before the second look.
    let first = bench.looks.iter().copied().rev().find(|&look| look < at - 0.0015).expect("two looks");
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.kernel_beats("mike", first + 0.0005, 1, 20);
    bench.run_until(40.0);
    assert!(bench.events.is_empty() && bench.writes.is_empty(), "{:?}", bench.events);
}

#[test]
fn after_a_clean_mark_an_unmount_that_still_lets_go_has_one_interval() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::Ending].into();
    bench.run_until(32.0);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
    let at = bench.last().0;
    let first = bench.looks.iter().copied().find(|&look| look >= 28.0).expect("it looked");
    assert!((first + 0.999..first + 1.2).contains(&at), "{first} {at}");
    let (shortest, longest) = bench.look_gaps(28.0..at);
    assert!(shortest > 0.099 && longest < 0.105, "{shortest} {longest}");
}

/// Dirty blocks on a slow disk: the kernel has stopped beating, and its filesystem is not seen any more.
#[test]
fn a_long_unmount_is_bridged_until_somebody_else_counts() {
    for confirmed in [true, false] {
        let mut bench = silent(vec![Activity::ReadWrite; if confirmed { 2 } else { 0 }]);
        bench.activity.push_back(Activity::Ending);
        bench.run_until(45.0);
        let late = bench.writes.iter().filter(|(at, ..)| *at > 32.0);
        assert!(late.clone().count() >= 9 && bench.guard.lease_end().is_some(), "{:?}", bench.events);
        assert!(late.clone().zip(late.skip(1)).all(|(one, next)| next.0 - one.0 > 0.99));
    }
    let mut bench = silent([Activity::Ending]);
    // He had his two waits from somewhere, and we are the lower name.
    bench.kernel_beats("yankee", 45.2, 1, 20);
    bench.run_until(45.0);
    let asked = bench.asked;
    bench.run_until(48.0);
    assert!((10..40).contains(&(bench.asked - asked)), "{}", bench.asked - asked);
    bench.run_until(60.0);
    let Loss::Stolen { because, .. } = bench.loss() else { panic!("{:?}", bench.events) };
    assert_eq!(*because, LoserRule::LowerName);
    assert!((48.0..54.0).contains(&bench.last().0), "{:?}", bench.last());
}

/// Beats under our names before mount(2) has ended, and no filesystem is seen yet: they may be another host's.
fn beats_before_the_mount_has_ended(count: u32) -> Bench {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.kernel_beats("mike", 22.5, 1, count);
    bench.activity = [Activity::Ending].into();
    bench.run_until(24.0);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
    bench
}

#[test]
fn nothing_is_written_before_the_mount_has_ended_or_a_filesystem_is_seen() {
    let mut bench = beats_before_the_mount_has_ended(3);
    bench.run_until(60.0);
    assert_eq!(bench.loss(), &Loss::LeaseExpired);
    assert!(bench.writes.is_empty());
    let (shortest, longest) = bench.look_gaps(29.5..35.0);
    assert!(shortest > 0.099 && longest < 0.105, "{shortest} {longest}");
}

#[test]
fn a_filesystem_that_was_seen_once_is_bridged_while_it_lets_go() {
    let mut bench = beats_before_the_mount_has_ended(3);
    bench.activity = [Activity::ReadWrite, Activity::Ending].into();
    bench.run_until(60.0);
    assert!(!bench.guard.is_over() && bench.writes.len() > 20, "{:?}", bench.events);
}

/// Unmounted at once, by somebody who did not wait for us.
#[test]
fn a_mount_that_has_ended_and_lets_go_already_is_bridged() {
    let mut bench = beats_before_the_mount_has_ended(3);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(60.0);
    assert!(!bench.guard.is_over() && bench.writes.len() > 20, "{:?}", bench.events);
}

/// What is being unmounted is still used, whoever marks the block clean with e2fsprogs meanwhile.
#[test]
fn a_clear_that_is_forced_during_an_unmount_is_not_the_kernels_last_word() {
    let mut bench = silent([Activity::Ending]);
    let forced = MmpBlock { device: DeviceName::new("/dev/sdb1"), ..named("other", SEQ_CLEAN, WALL_S + 27) };
    bench.timetable.push_back((27.0, forced));
    bench.run_until(33.0);
    assert!(matches!(bench.events[0].1, Event::Cleared { by } if by.node == NodeName::new("other")));
    assert!(!bench.guard.is_over() && !bench.writes.is_empty(), "{:?}", bench.events);
}
