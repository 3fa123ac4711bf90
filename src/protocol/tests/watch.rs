//! Watch: the hand-over, the kernel's beats, the bridge, and what is foreign while the kernel has it mounted.

use super::*;
use crate::protocol::event::{Resumption, Standing};
use crate::protocol::sequence::SEQ_MAX;

pub(super) const CLAIM: u32 = 0x5000_0000;

pub(super) fn named(node: &str, seq: u32, time_s: u64) -> MmpBlock {
    let (node, device) = (NodeName::new(node), DeviceName::new("sda"));
    MmpBlock { seq, time_s, node, device, check_interval_s: 5 }
}

impl Bench {
    pub(super) fn for_kernel(seq: u32, needs_recovery: bool) -> Self {
        let options = GuardOptions { kernel_waits: true, ..GuardOptions::default() };
        Self::with(seq, 5, options, superblock(needs_recovery))
    }

    /// `count` beats of `node`'s kernel from `from` seconds on, 1.02 s apart, counting from `seq`.
    pub(super) fn kernel_beats(&mut self, node: &str, from: f64, seq: u32, count: u32) {
        for number in 0..count {
            let at = from + 1.02 * f64::from(number);
            self.timetable.push_back((at, named(node, seq + number, WALL_S + at as u64)));
        }
        self.timetable.make_contiguous().sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// The kernel's claim over what stands there: the sequence alone.
    pub(super) fn kernel_claims(&mut self, at: f64) {
        let block = MmpBlock { seq: CLAIM, ..self.block() };
        self.timetable.push_back((at, block));
    }

    /// Mounted by the kernel and watched; its first beat at about 23 s, `count` in all.
    pub(super) fn watched(count: u32) -> Self {
        Self::watched_over(77, count)
    }

    pub(super) fn watched_over(seq: u32, count: u32) -> Self {
        let mut bench = Self::for_kernel(seq, false);
        bench.run_until(1.0);
        bench.kernel_claims(11.2);
        bench.kernel_beats("mike", 22.5, 1, count);
        bench.run_until(22.3);
        bench.guard.handle(bench.now(), Input::MountEnded { killed: false });
        bench.run_until(24.5);
        assert!(bench.has(|event| matches!(event, Event::KernelBeats { .. })), "{:?}", bench.events);
        bench.events.clear();
        bench.asked = 0;
        bench
    }
}

#[test]
fn an_unclean_block_is_handed_over_at_once_and_nothing_is_written() {
    let bench = Bench::watched(40);
    assert!(bench.writes.is_empty());
    assert_eq!(bench.guard.mode(), Mode::Watching);
    // The beat of 23.5 s, from the look before it.
    assert!((33.0..34.6).contains(&bench.lease_end_s()), "{}", bench.lease_end_s());
}

/// The holder who crashed was young, and his count stood where the kernel begins its own.
#[test]
fn the_first_beat_is_known_also_if_it_is_the_sequence_that_stood_there() {
    let mut bench = Bench::for_kernel(1, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.kernel_beats("mike", 22.2, 1, 1);
    bench.run_until(22.6);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
}

#[test]
fn a_clean_block_is_given_one_sequence_so_that_the_kernel_waits() {
    let mut bench = Bench::for_kernel(SEQ_CLEAN, false);
    bench.run_until(3.0);
    let Event::HandedOver { wait, predecessor } = &bench.events[0].1 else { panic!("{:?}", bench.events) };
    assert_eq!((wait.as_secs(), predecessor.is_none()), (22, true));
    assert_eq!(bench.writes.len(), 1);
    let (_, block, durable) = bench.writes[0];
    assert!(durable && (1..=SEQ_MAX).contains(&block.seq) && block.node == NodeName::new("mike"));
    assert_eq!(bench.guard.lease_end(), None, "nothing is mounted, so nothing is protected");
}

#[test]
fn a_clean_mark_that_may_lie_is_watched_first() {
    let mut bench = Bench::for_kernel(SEQ_CLEAN, true);
    bench.run_until(46.0);
    assert!(bench.writes.is_empty());
    bench.run_until(48.0);
    assert!(bench.has(|event| matches!(event, Event::HandedOver { .. })), "{:?}", bench.events);
}

#[test]
fn the_first_foreign_change_ends_the_mount() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(0.4);
    bench.put("zulu", 78, 5);
    bench.run_until(1.0);
    let (at, Event::Overtaken { refusal: Some(Refusal::InUse { by, .. }) }) = bench.last() else {
        panic!("{:?}", bench.events)
    };
    assert!(at < 0.7 && by.node == NodeName::new("zulu"));
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    let Event::NotMounted { standing: Standing::Others, refusal: Some(_) } = bench.last().1 else {
        panic!("{:?}", bench.events)
    };
}

#[test]
fn a_claim_before_the_kernels_wait_is_over_is_a_rivals() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(9.0);
    bench.run_until(10.0);
    assert!(bench.has(|event| matches!(event, Event::Overtaken { refusal: Some(_) })), "{:?}", bench.events);
}

/// It waits for C + 20 s where Linux waits for 2C + 1 or C + 60.
#[test]
fn an_ldiskfs_kernel_claims_and_beats_sooner_where_the_check_interval_is_large() {
    let options = GuardOptions { kernel_waits: true, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 30, options, superblock(false));
    bench.run_until(1.0);
    bench.kernel_claims(50.2);
    bench.run_until(60.0);
    assert!(!bench.has(|event| matches!(event, Event::Overtaken { .. })), "{:?}", bench.events);
    bench.kernel_beats("mike", 100.4, 1, 2);
    bench.run_until(102.0);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
}

#[test]
fn a_second_claim_is_a_rivals() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.run_until(15.0);
    assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
    let block = MmpBlock { seq: CLAIM + 99, ..bench.block() };
    bench.timetable.push_back((15.0, block));
    bench.run_until(16.0);
    assert!(bench.has(|event| matches!(event, Event::Overtaken { refusal: Some(_) })), "{:?}", bench.events);
}

#[test]
fn a_claim_that_stands_when_the_kernels_check_fails_is_a_rivals() {
    // Two kernels claim at one instant, since their timers go in steps: between two looks one change is seen, and a kernel
    // that gives up by itself has found that it is not its own. Whether it was clean before or not, it is left alone.
    for (seq, checked) in [(77, 11.3), (SEQ_CLEAN, 11.3), (77, 22.3), (SEQ_CLEAN, 22.3)] {
        for killed in [false, true] {
            let mut bench = Bench::for_kernel(seq, false);
            bench.run_until(1.0);
            bench.kernel_claims(11.2);
            bench.run_until(checked);
            bench.activity = [Activity::Gone].into();
            bench.writes.clear();
            bench.give(Input::MountEnded { killed });
            bench.run_until(checked + 14.0);
            let wrote = bench.writes.iter().any(|(_, block, _)| block.seq == SEQ_CLEAN);
            // Killed, it is our kernel's claim unless a rival shows himself, and what was clean before is made clean again.
            assert_eq!(wrote, killed && seq == SEQ_CLEAN, "{seq:#x} {killed} {:?}", bench.writes);
            if !killed {
                let Event::NotMounted { standing: Standing::Others, refusal: Some(Refusal::InUse { .. }) } =
                    bench.last().1
                else {
                    panic!("{:?}", bench.events)
                };
            }
        }
    }
}

#[test]
fn a_peer_who_leaves_cleanly_meanwhile_is_no_refusal() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(2.0);
    assert_eq!(bench.last().1, &Event::Overtaken { refusal: None });
}

#[test]
fn a_failed_mount_of_a_clean_filesystem_leaves_it_clean() {
    let mut bench = Bench::for_kernel(SEQ_CLEAN, false);
    bench.run_until(1.0);
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(bench.seconds + 1.0);
    assert_eq!(bench.last().1, &Event::Released, "{:?}", bench.events);
    assert_eq!(bench.block().seq, SEQ_CLEAN);
}

#[test]
fn a_failed_takeover_leaves_the_block_as_it_was() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.activity = [Activity::Ending, Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(2.0);
    let Event::NotMounted { standing: Standing::AsBefore, refusal: None } = bench.last().1 else {
        panic!("{:?}", bench.events)
    };
    assert!(bench.writes.is_empty());
}

#[test]
fn mounted_without_a_beat_is_lost() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(22.5);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(40.0);
    assert_eq!(bench.loss(), &Loss::NoKernelBeat);
    about(bench.last().0, 27.6);
}

#[test]
fn the_kernels_beats_are_watched_and_the_kernel_is_not_asked() {
    let mut bench = Bench::watched(200);
    bench.run_until(200.0);
    assert!(bench.events.is_empty() && bench.writes.is_empty(), "{:?}", bench.events);
    assert_eq!(bench.asked, 0);
    assert!((209.0..211.0).contains(&bench.lease_end_s()));
}

#[test]
fn a_frozen_kernel_is_bridged_and_takes_over_again() {
    let mut bench = Bench::watched(4);
    let last = 22.5 + 3.0 * 1.02;
    bench.kernel_beats("mike", 70.0, 5, 100);
    bench.run_until(69.0);
    assert!(matches!(bench.events[0], (at, Event::Bridging { .. }) if (3.5..5.1).contains(&(at - last))));
    let first = bench.writes[0].1;
    assert_eq!(sequence::steps(4, first.seq, 1_000_000), None, "a far jump");
    assert!(bench.writes.windows(2).all(|pair| pair[1].1.seq == sequence::next(pair[0].1.seq)));
    assert!(
        bench
            .writes
            .iter()
            .all(|(_, block, _)| (block.node, block.check_interval_s) == (NodeName::new("mike"), 5))
    );
    assert!(bench.writes.windows(2).all(|pair| pair[1].0 - pair[0].0 < 1.5), "{:?}", bench.writes);
    bench.run_until(80.0);
    assert_eq!(bench.last().1, &Event::BridgeEnded);
    let bridged = bench.writes.len();
    bench.run_until(120.0);
    assert_eq!(bench.writes.len(), bridged);
}

#[test]
fn no_bridge_begins_after_the_lease() {
    let mut bench = Bench::watched(2);
    bench.run_until(24.6);
    // The whole host stands still.
    bench.seconds = 40.0;
    bench.give(Input::Tick);
    assert_eq!(bench.loss(), &Loss::LeaseExpired);
    assert!(bench.writes.is_empty());
}

#[test]
fn a_clean_unmount_ends_the_watch_and_nothing_is_written() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::Ending, Activity::Gone].into();
    bench.run_until(30.0);
    assert_eq!(bench.last().1, &Event::Unmounted);
    assert!(bench.writes.is_empty());
}

#[test]
fn a_successor_after_our_unmount_is_left_alone() {
    let mut bench = Bench::watched(5);
    bench.kernel_beats("zulu", 28.0, 1, 5);
    bench.activity = [Activity::Gone].into();
    bench.run_until(30.0);
    assert_eq!(bench.last().1, &Event::Unmounted);
    assert!(bench.writes.is_empty());
}

#[test]
fn somebody_else_who_claims_right_after_our_unmount_is_no_unmount_under_way() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::Ending].into();
    bench.run_until(32.0);
    assert_eq!(bench.last().1, &Event::Unmounted);
    assert!(bench.writes.is_empty());
}

#[test]
fn a_remount_read_only_is_taken_over_and_handed_back() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(32.0);
    assert_eq!(bench.events[0].1, Event::Resumed { why: Resumption::ReadOnly });
    assert_eq!(bench.guard.mode(), Mode::Beating);
    assert!(bench.writes.len() >= 3);
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(32.2);
    assert_eq!(bench.block().seq, SEQ_CLEAN);
    assert!(bench.guard.lease_end().is_some(), "what is mounted stays protected");
    let at = bench.seconds;
    bench.kernel_beats("mike", at + 0.1, 1, 10);
    bench.activity = [Activity::ReadWrite].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(at + 5.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
    assert_eq!(bench.guard.mode(), Mode::Watching);
}

#[test]
fn a_failed_remount_leaves_us_beating() {
    let mut bench = Bench::watched(5);
    bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(32.0);
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(32.2);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(40.0);
    assert_eq!(bench.last().1, &Event::Resumed { why: Resumption::ReadOnly });
    assert!(bench.writes.iter().filter(|(at, ..)| *at > 33.0).count() > 4);
}

#[test]
fn a_forced_shutdown_is_held_over_its_clean_mark() {
    for answers in [vec![Activity::Stopped], vec![Activity::ReadWrite]] {
        let mut bench = Bench::watched(5);
        bench.timetable.push_back((28.0, named("mike", SEQ_CLEAN, WALL_S + 28)));
        bench.activity = answers.into();
        bench.run_until(30.0);
        assert_eq!(bench.events[0].1, Event::Resumed { why: Resumption::Stopped });
        assert_ne!(bench.block().seq, SEQ_CLEAN);
    }
}

#[test]
fn remounted_and_back_between_two_looks_is_a_new_count() {
    let mut bench = Bench::watched(60);
    bench.run_until(80.0);
    bench.timetable.clear();
    bench.kernel_beats("mike", 80.2, 1, 60);
    bench.run_until(130.0);
    assert!(bench.events.is_empty() && bench.writes.is_empty(), "{:?}", bench.events);
    assert!(bench.lease_end_s() > 139.0);
}

#[test]
fn a_twin_with_our_names_is_told_by_the_old_count_that_goes_on() {
    let mut bench = Bench::watched(200);
    bench.kernel_beats("mike", 81.2, 1, 60);
    bench.run_until(130.0);
    assert!(matches!(bench.loss(), Loss::Stolen { because: LoserRule::EqualNames, .. }));
    assert!(bench.last().0 < 84.0);
}

#[test]
fn a_foreign_holder_is_found_and_the_lower_name_stops() {
    for (other, loses) in [("yankee", true), ("alpha", false)] {
        let mut bench = Bench::watched(200);
        bench.kernel_beats(other, 60.7, 1, 100);
        bench.run_until(64.0);
        assert_eq!(bench.has(|event| matches!(event, Event::Lost { .. })), loses, "{:?}", bench.events);
        bench.run_until(75.0);
        // He does not stop: so we do, after all.
        let Loss::Stolen { because, .. } = bench.loss() else { panic!("{:?}", bench.events) };
        let expected = if loses { LoserRule::LowerName } else { LoserRule::OtherDidNotStop };
        assert_eq!(*because, expected);
    }
}

#[test]
fn whom_we_took_over_from_has_his_time_to_stop_whatever_the_names() {
    // "zulu" stood in the block when the kernel mounted, and "yankee" did not.
    for (other, lost) in [("zulu", false), ("yankee", true)] {
        let mut bench = Bench::watched(200);
        bench.kernel_beats(other, 40.4, 300, 4);
        bench.run_until(60.0);
        assert_eq!(bench.has(|event| matches!(event, Event::Lost { .. })), lost, "{:?}", bench.events);
    }
}

#[test]
fn a_vouch_shortens_the_watch_of_the_bytes_that_were_seen() {
    for (fenced, held_after) in [("zulu", 14.1), ("other", 23.5)] {
        let fenced = Some(NodeName::new(fenced));
        let options = GuardOptions { fenced, ..GuardOptions::default() };
        let mut bench = Bench::with(77, 5, options, superblock(false));
        bench.run_until(held_after - 0.2);
        assert!(!bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
        bench.run_until(held_after + 0.4);
        assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
    }
}
