//! Watch: what the simulator found, each as the shortest timeline that shows it.

use super::watch::named;
use super::*;
use crate::protocol::event::Standing;

/// The kernel's claim stands when its mount is stopped: it may be a rival kernel's, who beats within a wait.
fn stopped_after_a_claim() -> Bench {
    let mut bench = Bench::for_kernel(SEQ_CLEAN, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.3);
    bench.run_until(14.0);
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: true });
    bench
}

#[test]
fn a_claim_is_taken_back_when_it_cannot_be_a_rivals() {
    let mut bench = stopped_after_a_claim();
    let written = bench.writes.len();
    bench.run_until(23.5);
    assert_eq!(bench.writes.len(), written, "it is watched for a wait");
    bench.run_until(26.0);
    assert_eq!(bench.last().1, &Event::Released, "{:?}", bench.events);
    assert_eq!(bench.block().seq, SEQ_CLEAN);
}

#[test]
fn a_rivals_claim_is_not_taken_back() {
    let mut bench = stopped_after_a_claim();
    let written = bench.writes.len();
    bench.kernel_beats("zulu", 22.3, 1, 10);
    bench.run_until(30.0);
    let Event::NotMounted { standing: Standing::Others, refusal: Some(_) } = bench.last().1 else {
        panic!("{:?}", bench.events)
    };
    assert_eq!(bench.writes.len(), written);
}

#[test]
fn a_peer_who_leaves_before_the_kernel_looks_leaves_it_nothing_to_wait_for() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.timetable.push_back((1.05, named("zulu", SEQ_CLEAN, WALL_S + 1)));
    bench.kernel_beats("mike", 1.1, 1, 60);
    bench.run_until(1.3);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(20.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
}

#[test]
fn another_first_beat_under_our_names_is_not_our_mount() {
    let mut bench = Bench::for_kernel(77, false);
    bench.kernel_beats("mike", 22.5, 1, 20);
    bench.run_until(24.0);
    assert!(bench.has(|event| matches!(event, Event::KernelBeats { .. })), "{:?}", bench.events);
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(60.0);
    assert!(matches!(bench.last().1, Event::NotMounted { standing: Standing::Others, .. }));
    assert!(bench.writes.is_empty());
}

#[test]
fn an_interval_longer_than_the_kernels_lease_does_no_harm() {
    let interval = std::time::Duration::from_secs(30);
    let options = GuardOptions { kernel_waits: true, interval, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 5, options, superblock(false));
    bench.run_until(1.0);
    bench.kernel_beats("mike", 22.5, 1, 100);
    bench.run_until(100.0);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
}

#[test]
fn a_remount_that_goes_on_under_our_first_beat_is_the_kernels() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly, Activity::ReadWrite].into();
    bench.run_until(30.0);
    assert_eq!(bench.guard.mode(), Mode::Beating);
    bench.kernel_beats("mike", 30.3, 1, 60);
    bench.run_until(60.0);
    assert!(!bench.has(|event| matches!(event, Event::Lost { .. })), "{:?}", bench.events);
    assert_eq!(bench.guard.mode(), Mode::Watching);
}

#[test]
fn a_live_block_has_one_beats_time_before_the_kernel_is_called() {
    let mut bench = Bench::for_kernel(77, false);
    bench.put("zulu", 77, 5);
    bench.run_until(2.9);
    assert!(!bench.has(|event| matches!(event, Event::HandedOver { .. })), "{:?}", bench.events);
    bench.run_until(3.3);
    assert!(bench.has(|event| matches!(event, Event::HandedOver { .. })), "{:?}", bench.events);
}

/// Between the kernel's clean mark and the end of the unmount a successor may have mounted already.
#[test]
fn a_successor_under_an_unmount_that_still_lets_go_is_left_alone() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((27.7, named("mike", 0x1234_5678, WALL_S + 27)));
    bench.kernel_beats("alpha", 27.9, 1, 10);
    bench.activity = [Activity::Ending; 8].into();
    bench.activity.push_back(Activity::Gone);
    bench.run_until(34.0);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
    assert!(bench.writes.is_empty());
}

/// The kernel beats seldom: our own lease has to last until its next beat.
#[test]
fn over_a_kernels_mount_we_write_no_smaller_check_interval_than_it_does() {
    let mut superblock = superblock(false);
    superblock[0x166] = 30;
    let options = GuardOptions { kernel_waits: true, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 60, options, superblock);
    bench.run_until(1.0);
    let beat = |seq, at: u64| MmpBlock { check_interval_s: 60, ..named("mike", seq, WALL_S + at) };
    bench.timetable.push_back((242.0, beat(1, 242)));
    bench.run_until(243.0);
    bench.timetable.push_back((244.0, beat(SEQ_CLEAN, 244)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(250.0);
    assert_eq!(bench.guard.mode(), Mode::Beating, "{:?}", bench.events);
    assert_eq!(bench.block().check_interval_s, 60);
}

/// Who found the mark of the remount has called his kernel, and has yet to see our beats.
#[test]
fn a_mark_that_hands_back_does_not_follow_the_mark_of_a_remount_at_once() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(28.6);
    assert_eq!(bench.events[0].1, Event::Resumed { why: Resumption::ReadOnly });
    let (resumed, beaten) = (bench.events[0].0, bench.writes.len());
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(resumed + 0.95);
    assert!(bench.writes[beaten..].iter().all(|(_, block, _)| block.seq != SEQ_CLEAN), "{:?}", bench.writes);
    bench.run_until(resumed + 1.1);
    assert_eq!(bench.block().seq, SEQ_CLEAN, "{:?}", bench.writes);
}

/// It may beat, unseen, with a smaller check interval than the one that we held with.
#[test]
fn a_hand_over_counts_by_the_kernels_lease() {
    let options = GuardOptions { kernel_waits: true, check_interval_floor_s: 60, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 5, options, superblock(false));
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.kernel_beats("mike", 22.5, 1, 5);
    bench.run_until(24.5);
    bench.give(Input::MountEnded { killed: false });
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(32.0);
    assert_eq!(bench.block().check_interval_s, 60, "{:?}", bench.events);
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(32.2);
    assert_eq!(bench.block().seq, SEQ_CLEAN);
    let end = bench.guard.lease_end().unwrap().0 as f64 / 1e9 - BOOT_S as f64;
    assert!(end < 32.2 + 11.0, "{end}");
}

#[test]
fn a_vouch_is_void_when_the_bytes_change_and_counts_for_an_e2fsck() {
    let fenced = Some(NodeName::new("zulu"));
    let options = GuardOptions { fenced, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 5, options, superblock(false));
    bench.run_until(1.0);
    bench.put("zulu", 0x1234_5678, 5);
    bench.run_until(5.0);
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }));
    let mut bench = Bench::with(SEQ_FSCK, 5, options, superblock(false));
    bench.run_until(14.5);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
}
