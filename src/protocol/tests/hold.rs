//! Hold: beats, foreign blocks, the lease, release.

use super::*;

pub(super) const FAR_SEQ: u32 = 0x7000_0000;

#[test]
fn beats_count_by_one_at_a_jittered_second_and_carry_the_lease() {
    let mut bench = Bench::held();
    bench.run_until(30.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    for pair in bench.writes.windows(2) {
        assert!((0.85..1.11).contains(&(pair[1].0 - pair[0].0)));
        assert_eq!(pair[1].1.seq, sequence::next(pair[0].1.seq));
        assert!(!pair[1].2, "a beat need not be durable");
    }
    let (at, block, _) = *bench.writes.last().unwrap();
    assert_eq!((block.check_interval_s, block.time_s), (5, WALL_S + at as u64));
    about(bench.lease_end_s(), at + 11.0);
    assert!(bench.lease_end_s() < at + 11.0);
}

#[test]
fn a_claimer_stands_still_and_is_beaten_over() {
    let mut bench = Bench::held();
    let ours = bench.block().seq;
    bench.put("zulu", FAR_SEQ, 5);
    bench.run_until(16.5);
    assert!(bench.writes.is_empty(), "looked at for two of his intervals first");
    bench.run_until(22.0);
    let (at, Event::Intruder { by }) = &bench.events[0] else { panic!("{:?}", bench.events) };
    assert_eq!(by.node, NodeName::new("zulu"));
    assert!((17.0..18.5).contains(at), "{at}");
    assert_eq!(bench.writes[0].1.seq, sequence::next(ours));
    assert!(!bench.guard.is_over());
}

#[test]
fn a_second_jump_is_beaten_over_at_once() {
    let mut bench = Bench::held();
    bench.put("zulu", FAR_SEQ, 5);
    bench.run_until(14.0);
    bench.put("zulu", FAR_SEQ / 2, 5);
    bench.run_until(14.5);
    assert!(matches!(bench.events[0].1, Event::Intruder { .. }), "{:?}", bench.events);
    assert_eq!(bench.block().node, NodeName::new("mike"));
}

#[test]
fn a_holder_who_beats_seldom_looks_often() {
    let options = GuardOptions { interval: Duration::from_secs(30), ..GuardOptions::default() };
    let mut bench = Bench::with(SEQ_CLEAN, 5, options, superblock(false));
    bench.run_until(300.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    let looks: Vec<f64> = bench.looks.iter().copied().filter(|&at| at > held).collect();
    assert!(looks.windows(2).all(|pair| pair[1] - pair[0] < 2.6), "{looks:?}");
    let beats = bench.writes.iter().filter(|write| write.0 > held).count();
    assert!((5..=8).contains(&beats), "{beats}");
}

/// Lets `node` count over our block, one more each second, until we are lost or `seconds` have passed.
fn count(bench: &mut Bench, node: &str, seconds: u32) {
    let start = bench.seconds;
    for beat in 0..seconds {
        bench.put(node, FAR_SEQ + beat, 5);
        bench.run_until(start + f64::from(beat + 1));
    }
}

fn because(bench: &Bench) -> LoserRule {
    match bench.loss() {
        Loss::Stolen { because, .. } => *because,
        other => panic!("lost, but {other:?}"),
    }
}

#[test]
fn of_two_who_count_the_lower_name_stops_and_equal_names_both() {
    let mut bench = Bench::held();
    count(&mut bench, "zulu", 3);
    assert_eq!(because(&bench), LoserRule::LowerName);
    assert!(bench.last().0 < 14.5 && bench.writes.is_empty());
    let mut bench = Bench::held();
    count(&mut bench, "mike", 3);
    assert_eq!(because(&bench), LoserRule::EqualNames);
}

#[test]
fn the_higher_name_stops_too_if_the_other_does_not() {
    let mut bench = Bench::held();
    count(&mut bench, "alpha", 13);
    assert!(bench.last().0 > 18.0, "he had his time: {:?}", bench.last());
    assert_eq!(because(&bench), LoserRule::OtherDidNotStop);
    assert!(bench.writes.len() > 2, "he has to see us");

    let mut bench = Bench::held();
    count(&mut bench, "alpha", 3);
    bench.run_until(40.0);
    assert!(!bench.guard.is_over(), "he stopped: {:?}", bench.events);
    assert_eq!(bench.block().node, NodeName::new("mike"));
}

/// In silence he would never see anybody, and would be the one to stay.
#[test]
fn who_is_to_stop_is_shown_our_beats() {
    let mut bench = Bench::held();
    count(&mut bench, "alpha", 4);
    let ours: Vec<u32> = bench.writes.iter().map(|(_, block, _)| block.seq).collect();
    assert!(bench.has(|event| matches!(event, Event::Contested { .. })));
    assert!(ours.len() >= 2 && ours.windows(2).all(|pair| pair[1] == pair[0] + 1), "we count: {ours:x?}");
    assert!(!bench.guard.is_over());
}

/// A mark would hide the other one, who counts, and the kernel would mount beside him.
#[test]
fn nothing_is_handed_over_in_a_contest() {
    let mut bench = Bench::held();
    bench.put("alpha", FAR_SEQ, 5);
    bench.give(Input::HandOver { mounted: true });
    count(&mut bench, "alpha", 4);
    assert!(bench.writes.len() >= 2, "{:?}", bench.events);
    assert!(bench.writes.iter().all(|(_, block, _)| block.seq != SEQ_CLEAN), "{:?}", bench.writes);
}

/// Whoever asked for the hand-over has given up: no mark is written for nobody.
#[test]
fn a_hand_over_that_is_given_up_is_void() {
    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLost);
    while bench.writes.is_empty() {
        bench.run_until(bench.seconds + 0.01);
    }
    bench.give(Input::HandOver { mounted: true });
    bench.run_until(bench.seconds + 1.0);
    bench.give(Input::MountEnded { killed: true });
    bench.run_until(bench.seconds + 20.0);
    assert!(!bench.guard.is_over() && bench.guard.mode() == Mode::Beating, "{:?}", bench.events);
    assert!(bench.writes.iter().all(|(_, block, _)| block.seq != SEQ_CLEAN), "{:?}", bench.writes);
}

#[test]
fn one_who_was_seen_long_ago_is_looked_at_anew() {
    for (pause, again) in [(2.0, true), (60.0, false)] {
        let mut bench = Bench::held();
        bench.put("zulu", FAR_SEQ, 5);
        bench.run_until(bench.seconds + 7.0);
        bench.run_until(bench.seconds + pause);
        let written = bench.writes.len();
        bench.put("zulu", FAR_SEQ + 0x10_0000, 5);
        bench.run_until(bench.seconds + 1.2);
        assert_eq!(bench.writes.len() > written, again, "after {pause} s");
    }
}

#[test]
fn a_contest_that_is_over_is_forgotten() {
    let mut bench = Bench::held();
    count(&mut bench, "alpha", 3);
    bench.run_until(200.0);
    count(&mut bench, "alpha", 4);
    assert!(!bench.guard.is_over(), "the next one has his time to stop: {:?}", bench.events);
}

#[test]
fn who_slept_stops() {
    let mut bench = Bench::held();
    bench.run_until(13.0);
    bench.seconds += 6.0;
    bench.run_until(20.0);
    count(&mut bench, "alpha", 3);
    assert_eq!(because(&bench), LoserRule::Slept);
}

#[test]
fn whose_clock_stood_still_stops() {
    let mut bench = Bench::held();
    let time_s = bench.now().wall.0 + 60;
    for beat in 0..3 {
        let (node, device) = (NodeName::new("alpha"), DeviceName::new("sda"));
        MmpBlock { seq: FAR_SEQ + beat, time_s, node, device, check_interval_s: 5 }
            .encode_into(&mut bench.image, None);
        bench.run_until(bench.seconds + 1.1);
    }
    assert_eq!(because(&bench), LoserRule::ClockStoodStill);
}

#[test]
fn an_fsck_and_a_foreign_clean_mark_and_rubbish_are_losses() {
    let mut bench = Bench::held();
    bench.put("zulu", SEQ_FSCK, 5);
    bench.run_until(14.0);
    assert!(matches!(bench.loss(), Loss::Fsck { .. }));

    let mut bench = Bench::held();
    bench.image[0x100] = 1;
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(14.0);
    assert!(matches!(bench.loss(), Loss::ForeignClean { .. }));

    for (at, byte) in [(0, 0xff), (4, 0xff)] {
        let mut bench = Bench::held();
        bench.put("zulu", u32::MAX, 5);
        bench.image[at] = byte;
        bench.run_until(14.0);
        assert_eq!(*bench.loss(), Loss::Unreadable);
        assert!(bench.writes.is_empty());
    }
}

#[test]
fn a_forced_clear_is_beaten_over_at_once() {
    for (node, device) in [("mike", None), ("zulu", Some("/dev/sda"))] {
        let mut bench = Bench::held();
        bench.put(node, SEQ_CLEAN, 5);
        if let Some(device) = device {
            bench.name_device(device);
        }
        bench.run_until(14.0);
        assert!(matches!(bench.events[0].1, Event::Cleared { .. }), "{:?}", bench.events);
        assert!(bench.writes[0].0 < 13.2);
        assert_eq!(bench.block().node, NodeName::new("mike"));
    }
}

#[test]
fn the_clean_mark_of_another_holder_ends_it_although_its_stamp_is_not_ahead() {
    // He came, worked and left while both our clocks stood still, and ours was set right before we looked.
    let mut bench = Bench::held();
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(14.0);
    assert!(bench.has(|event| matches!(event, Event::Lost { loss: Loss::ForeignClean { .. }, .. })));
    assert!(bench.writes.is_empty());
}

#[test]
fn the_late_clean_mark_of_a_dead_predecessor_is_beaten_over() {
    let mut bench = Bench::new(77, 5);
    bench.run_until(25.0);
    bench.image[0x100] = 1;
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(27.0);
    assert!(bench.has(|event| matches!(event, Event::Cleared { .. })), "{:?}", bench.events);
    assert!(!bench.guard.is_over());
}

#[test]
fn an_older_beat_of_ours_is_beaten_over_at_once() {
    let mut bench = Bench::held();
    bench.run_until(15.0);
    let older = bench.image;
    bench.run_until(18.0);
    bench.image = older;
    bench.run_until(20.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    for pair in bench.writes.windows(2) {
        assert_eq!(pair[1].1.seq, sequence::next(pair[0].1.seq));
    }
}

#[test]
fn an_acknowledgement_after_the_end_is_a_loss() {
    let mut bench = Bench::held();
    let end = bench.lease_end_s();
    bench.fates.push_back(Fate::Takes(10.9));
    bench.run_until(60.0);
    assert_eq!(*bench.loss(), Loss::LeaseExpired);
    assert!(bench.last().0 >= end);
    assert_eq!(bench.writes.len(), 1, "nothing is written after it");
}

#[test]
fn a_write_that_was_not_begun_is_a_loss() {
    let mut bench = Bench::held();
    bench.fates.push_back(Fate::NotBegun);
    bench.run_until(14.0);
    assert_eq!(*bench.loss(), Loss::LeaseExpired);
}

#[test]
fn errors_are_told_once_and_tried_again_within_the_lease() {
    let mut bench = Bench::held();
    let end = bench.lease_end_s();
    bench.fates.extend([Fate::FailsLost, Fate::FailsLanded, Fate::FailsLost]);
    bench.run_until(12.6);
    assert_eq!(bench.lease_end_s(), end, "a write that failed extends nothing");
    bench.read_errors = 2;
    bench.run_until(20.0);
    assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
    assert!(matches!(bench.events[0].1, Event::IoTrouble { .. }));
    assert!(bench.lease_end_s() > end);

    let mut bench = Bench::held();
    let end = bench.lease_end_s();
    bench.read_errors = u32::MAX;
    bench.run_until(60.0);
    assert_eq!(*bench.loss(), Loss::LeaseExpired);
    about(bench.last().0, end);
}

#[test]
fn a_slow_cycle_writes_a_longer_check_interval() {
    let mut bench = Bench::held();
    bench.reads.push_back(4.0);
    bench.run_until(17.5);
    let longest = bench.writes.iter().map(|write| write.1.check_interval_s).max();
    assert_eq!(longest, Some(9), "two of its cycles");
    bench.run_until(30.0);
    assert_eq!(bench.writes.last().unwrap().1.check_interval_s, 5);
}

#[test]
fn release_verifies_and_writes_clean() {
    let mut bench = Bench::held();
    bench.give(Input::Release);
    assert_eq!(*bench.last().1, Event::Released);
    let (_, block, durable) = bench.writes[0];
    assert_eq!((block.seq, block.node, durable), (SEQ_CLEAN, NodeName::new("mike"), true));
    assert!(bench.guard.is_over() && bench.writes.len() == 1);
}

/// Nothing is used any more, so he may go on, whoever he is: a mark of ours might hide a holder.
#[test]
fn a_release_over_somebody_else_leaves_his_block_alone() {
    let mut bench = Bench::held();
    bench.put("zulu", FAR_SEQ, 5);
    bench.give(Input::Release);
    bench.run_until(30.0);
    assert_eq!(*bench.last().1, Event::Released);
    assert!(bench.has(|event| matches!(event, Event::LeftToOthers { .. })));
    assert_eq!(bench.block().seq, FAR_SEQ);
}

/// The failed beat, with its small check interval, lands over the slow one, and a taker counts by it.
#[test]
fn a_failed_beat_bounds_the_lease_of_the_next_one() {
    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLost);
    while bench.writes.is_empty() {
        bench.run_until(bench.seconds + 0.01);
    }
    // The next look takes long, and so its write carries a larger C.
    bench.reads.push_back(5.0);
    while bench.writes.len() < 2 {
        bench.run_until(bench.seconds + 0.01);
    }
    bench.run_until(bench.seconds + 0.1);
    let (_, slow, _) = bench.writes[1];
    assert!(slow.check_interval_s >= 10, "{slow:?}");
    let end = bench.guard.lease_end().unwrap().0 as f64 / 1e9 - BOOT_S as f64;
    assert!(end < bench.seconds + 11.0, "{end}: as long as the smaller one says");
}

#[test]
fn a_release_of_unknown_fate_ends_without_a_second_mark() {
    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLanded);
    bench.give(Input::Release);
    bench.run_until(20.0);
    assert_eq!(*bench.last().1, Event::Released);
    assert_eq!(bench.writes.len(), 1);

    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLanded);
    bench.give(Input::Release);
    bench.put("zulu", FAR_SEQ, 5);
    bench.run_until(20.0);
    assert_eq!(*bench.last().1, Event::Released);
    assert_eq!(bench.block().seq, FAR_SEQ, "whoever stands over it is left alone");

    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLost);
    bench.give(Input::Release);
    bench.run_until(20.0);
    assert_eq!((bench.writes.len(), bench.block().seq), (2, SEQ_CLEAN));
}

#[test]
fn cell_lost_is_a_loss_and_withdraw_is_none() {
    let mut bench = Bench::held();
    bench.give(Input::Withdraw);
    assert!(!bench.guard.is_over());
    bench.give(Input::CellLost);
    assert_eq!(*bench.loss(), Loss::CellLost);
}
