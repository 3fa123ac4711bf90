//! Claim: from the first look to *held*, or to a refusal.

use super::*;

#[test]
fn clean_takes_one_wait_and_three_writes_that_never_count() {
    let mut bench = Bench::clean();
    bench.run_until(11.5);
    let (at, event) = bench.last();
    about(at, 11.0);
    assert!(matches!(event, Event::Held { .. }), "{event:?}");
    let times: Vec<f64> = bench.writes.iter().map(|write| write.0).collect();
    assert_eq!(times.len(), 3, "{times:?}");
    for (time, want) in times.iter().zip([0.0, 5.5, 11.0]) {
        about(*time, want);
    }
    for (_, block, durable) in &bench.writes {
        assert!(durable, "a claim must be on stable storage");
        assert_eq!((block.node, block.check_interval_s), (NodeName::new("mike"), 5));
    }
    for pair in bench.writes.windows(2) {
        assert_eq!(sequence::steps(pair[0].1.seq, pair[1].1.seq, 1000), None);
    }
    about(bench.lease_end_s(), 22.0);
    assert!(bench.lease_end_s() <= bench.writes[2].0 + 11.0, "the lease runs from the look before the write");
}

#[test]
fn unclean_is_watched_for_a_wait_and_a_margin_first() {
    let mut bench = Bench::new(77, 5);
    bench.run_until(12.4);
    assert!(bench.writes.is_empty());
    assert!(bench.looks.windows(2).all(|pair| pair[1] - pair[0] < 0.25), "{:?}", bench.looks);
    bench.run_until(30.0);
    about(bench.writes[0].0, 12.5);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    about(held, 23.5);
}

#[test]
fn the_second_wait_of_a_dead_holder_is_his_own() {
    let mut bench = Bench::new(77, 30);
    bench.run_until(130.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    about(held, timing::Consequences::of(30).crash_claim_s);
    about(held, 123.5);
}

#[test]
fn the_first_change_refuses() {
    let mut bench = Bench::new(77, 5);
    bench.run_until(3.0);
    bench.put("zulu", 78, 5);
    bench.run_until(10.0);
    about(bench.last().0, 3.05);
    let Refusal::InUse { by, after } = bench.refusal() else { panic!() };
    assert_eq!(by.node, NodeName::new("zulu"));
    about(after.as_secs_f64(), 3.05);
    assert!(bench.guard.is_over() && bench.writes.is_empty());
}

#[test]
fn marks_without_a_way_on_refuse_at_once() {
    let mut bench = Bench::new(SEQ_FSCK, 5);
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }));
    let mut bench = Bench::new(SEQ_FSCK + 1, 5);
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::UnknownSequence { .. }));
    assert!(bench.last().0 < 0.1 && bench.writes.is_empty());
}

#[test]
fn a_damaged_block_is_read_again_before_it_is_called_so() {
    let mut bench = Bench::clean();
    let whole = bench.image;
    bench.image[0] ^= 1;
    bench.run_until(0.025);
    bench.image = whole;
    bench.run_until(12.0);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })));

    let mut bench = Bench::clean();
    bench.image[0] ^= 1;
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }));
    assert_eq!(bench.looks.len(), 5);
}

#[test]
fn a_clean_mark_under_a_journal_that_needs_recovery_is_watched() {
    let mut bench = Bench::with(SEQ_CLEAN, 5, GuardOptions::default(), superblock(true));
    bench.run_until(70.0);
    about(bench.writes[0].0, 46.5);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })));
}

#[test]
fn a_superblock_that_changed_refuses() {
    let mut bench = Bench::clean();
    bench.superblock[0x68] ^= 1;
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Changed { change: Change::Gone, .. }));
    assert!(bench.writes.is_empty());

    // MMP switched off, another interval, a block size that cannot be.
    for (at, value, change) in
        [(0x61, 0, Change::Gone), (0x166, 2, Change::Settings), (0x18, 99, Change::Damaged)]
    {
        let mut bench = Bench::clean();
        bench.superblock[at] = value;
        bench.run_until(1.0);
        assert!(matches!(bench.refusal(), Refusal::Changed { change: found, .. } if *found == change));
        assert!(bench.writes.is_empty());
    }
}

#[test]
fn a_lost_race_leaves_the_block_alone_and_backs_off() {
    let mut bench = Bench::clean();
    bench.run_until(2.0);
    bench.put("zulu", 0x7000_0000, 5);
    bench.run_until(2.5);
    let (at, Event::LostRace { to, retry_at }) = bench.last() else { panic!("{:?}", bench.last()) };
    assert_eq!(to.node, NodeName::new("zulu"));
    let pause = retry_at.since(bench.now().mono).as_secs_f64() + bench.seconds - at;
    assert!((1.0..=5.5).contains(&pause), "{pause}");
    let looks = bench.looks.len();
    bench.run_until(at + pause - 0.01);
    assert_eq!((bench.writes.len(), bench.looks.len()), (1, looks), "nothing happens meanwhile");
    bench.run_until(9.0);
    bench.put("zulu", 0x7800_0000, 5);
    bench.run_until(10.0);
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }));
}

#[test]
fn a_write_that_is_too_slow_starts_again_with_a_longer_check_interval() {
    for fate in [Fate::Takes(3.0), Fate::NotBegun] {
        let mut bench = Bench::clean();
        bench.fates.push_back(fate);
        bench.run_until(4.0);
        assert!(bench.has(|event| matches!(event, Event::TooSlow { check_interval_s: 10, .. })), "{fate:?}");
        bench.run_until(60.0);
        let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
        // What landed late is watched for two waits less the one that follows; what never went out need not be.
        about(held, if fate == Fate::NotBegun { 21.0 } else { 3.0 + 22.5 + 21.0 });
    }
}

#[test]
fn too_slow_at_the_largest_check_interval_is_the_end() {
    let options = GuardOptions { check_interval_floor_s: 300, ..GuardOptions::default() };
    let mut bench = Bench::with(SEQ_CLEAN, 5, options, superblock(false));
    bench.fates.push_back(Fate::Takes(91.0));
    bench.run_until(100.0);
    assert!(matches!(bench.refusal(), Refusal::Io { .. }));
}

#[test]
fn the_last_write_does_not_count_if_a_rival_may_have_watched_what_stood_before() {
    let mut bench = Bench::clean();
    bench.run_until(7.0);
    assert_eq!(bench.writes.len(), 2);
    bench.reads.push_back(20.0);
    bench.run_until(30.0);
    assert_eq!(bench.writes.len(), 3);
    assert!(!bench.has(|event| matches!(event, Event::Held { .. })));
    let Event::TooSlow { took, limit, check_interval_s: 10 } = bench.events[1].1 else {
        panic!("{:?}", bench.events)
    };
    assert!(took > limit && limit.as_secs() == 11);
    bench.run_until(200.0);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })));
}

#[test]
fn patience_waits_for_the_clean_mark_and_ends() {
    let mut bench = Bench::patient(77, 100);
    for second in 1..=20 {
        bench.run_until(f64::from(second));
        bench.put("zulu", 77 + second, 5);
    }
    bench.run_until(21.0);
    assert_eq!(bench.events.iter().filter(|(_, event)| matches!(event, Event::Waiting { .. })).count(), 1);
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(33.0);
    assert!(matches!(bench.last().1, Event::Held { .. }));

    let mut bench = Bench::patient(77, 5);
    for second in 1..=20 {
        bench.run_until(f64::from(second));
        bench.put("zulu", 77 + second, 5);
    }
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }));
    about(bench.last().0, 5.05);

    let mut bench = Bench::patient(SEQ_FSCK, 5);
    bench.run_until(4.0);
    assert!(!bench.guard.is_over());
    bench.run_until(20.0);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }));
    about(bench.last().0, 5.0);
}

#[test]
fn withdrawing_tells_whether_the_claim_stands() {
    for input in [Input::Withdraw, Input::Release, Input::CellLost] {
        let mut bench = Bench::new(77, 5);
        bench.run_until(2.0);
        bench.give(input);
        assert_eq!(*bench.refusal(), Refusal::Withdrawn { claim_left_standing: false });
    }
    // Over a holder who crashed: as unclean as before.
    let mut bench = Bench::new(77, 5);
    bench.run_until(14.0);
    assert_eq!(bench.writes.len(), 1);
    bench.give(Input::Withdraw);
    assert_eq!(*bench.refusal(), Refusal::Withdrawn { claim_left_standing: true });
}

#[test]
fn what_was_clean_is_clean_again_when_the_claim_is_withdrawn() {
    let mut bench = Bench::clean();
    bench.run_until(2.0);
    bench.give(Input::Withdraw);
    bench.run_until(3.0);
    assert_eq!(bench.last().1, &Event::Released, "{:?}", bench.events);
    assert_eq!((bench.block().seq, bench.writes.len()), (SEQ_CLEAN, 2));
    assert!(bench.guard.lease_end().is_none() && bench.guard.is_over());
}

#[test]
fn a_claim_that_is_withdrawn_is_left_alone_if_somebody_has_claimed_over_it() {
    let mut bench = Bench::clean();
    bench.run_until(2.0);
    bench.put("zulu", 0x1234_5678, 5);
    bench.give(Input::Withdraw);
    bench.run_until(3.0);
    assert_eq!(bench.last().1, &Event::Released, "{:?}", bench.events);
    assert_eq!(bench.block().node, NodeName::new("zulu"));
    assert_eq!(bench.writes.len(), 1);
}

#[test]
fn a_claim_that_cannot_be_taken_back_in_time_is_said_to_stand() {
    let mut bench = Bench::clean();
    bench.run_until(2.0);
    bench.reads.push_back(5.0);
    bench.give(Input::Withdraw);
    bench.run_until(9.0);
    assert_eq!(*bench.refusal(), Refusal::Withdrawn { claim_left_standing: true });
    assert_eq!(bench.writes.len(), 1);
}

#[test]
fn a_failed_read_or_write_refuses() {
    let mut bench = Bench::clean();
    bench.read_errors = 1;
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Io { kind: FailureKind::System, .. }));
    let mut bench = Bench::clean();
    bench.fates.push_back(Fate::FailsLanded);
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Io { kind: FailureKind::TooShort, .. }));
}

#[test]
fn a_watcher_never_writes() {
    let options = GuardOptions { watch_only: true, ..GuardOptions::default() };
    let mut bench = Bench::with(77, 5, options, superblock(false));
    bench.run_until(30.0);
    let Event::Watched { verdict: Quiet::Dead { was, .. } } = bench.last().1 else { panic!() };
    assert_eq!(was.node, NodeName::new("zulu"));
    let mut bench = Bench::with(SEQ_CLEAN, 5, options, superblock(false));
    bench.run_until(30.0);
    assert!(matches!(bench.last().1, Event::Watched { verdict: Quiet::Clean { .. } }));
    assert!(bench.writes.is_empty());
}
