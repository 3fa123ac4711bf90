//! Claim: the small rules. How long exactly, how often, and what is told.

use super::*;

/// What stands in the superblock's interval is 1 s, and a C of 5 s is twice 2.5 s: that is the longest of the intervals.
const ONE_BEAT: Duration = Duration::from_millis(2500);

fn watching(bench: &Bench) -> (f64, Duration) {
    match &bench.events[0].1 {
        Event::Watching { until, total, .. } => (seconds(*until), *total),
        other => panic!("not watching, but {other:?}"),
    }
}

#[test]
fn nothing_is_looked_at_before_its_time() {
    let mut bench = Bench::clean();
    bench.run_until(0.5);
    let looks = bench.looks.len();
    bench.give(Input::Tick);
    assert_eq!(bench.looks.len(), looks);
}

#[test]
fn a_fifth_of_an_interval_lies_between_two_looks() {
    // The watch of an unclean block, and then the two silences of the claim.
    let mut bench = Bench::new(77, 5);
    bench.run_until(23.0);
    for (from, to) in [(0.0, 12.3), (12.7, 17.8), (18.2, 23.0)] {
        let pauses = bench.pauses(from, to);
        assert!(pauses.len() > 20 && pauses.iter().all(|pause| (0.2..0.21).contains(pause)), "{pauses:?}");
    }
    // And between a write and the first look at it.
    let (written, ..) = bench.writes[0];
    let looked = bench.looks.iter().find(|&&at| at > written).unwrap();
    assert!((0.2..0.21).contains(&(looked - written)), "{written} {looked}");
}

#[test]
fn an_e2fsck_is_refused_at_the_first_look_if_nobody_vouches_for_its_end() {
    for fenced in [None, Some(NodeName::new("alpha"))] {
        let options = GuardOptions { fenced, ..GuardOptions::default() };
        let mut bench = Bench::with(SEQ_FSCK, 5, options, superblock(false));
        bench.run_until(1.0);
        assert!(matches!(bench.refusal(), Refusal::Fsck { .. }));
        assert_eq!((bench.looks.len(), bench.events.len()), (1, 1), "{:?}", bench.events);
    }
}

/// A look that took long may have begun long before what it shows was written: the watch lasts so much longer.
#[test]
fn a_watch_lasts_longer_by_the_slowest_answer_and_its_end_is_told() {
    let slow = Duration::from_secs(2);
    let (two_waits_less_ours, one_beat) = (Duration::from_millis(11_000 + 1_500), timing::refusal(ONE_BEAT));
    let plain = GuardOptions::default();
    let fenced = GuardOptions { fenced: Some(NodeName::new("zulu")), ..plain };
    // Somebody who was seen beating must have stopped before the kernel is called.
    let kernel = GuardOptions { kernel_waits: true, seen_live: true, ..plain };
    for (options, watched) in [(plain, two_waits_less_ours), (fenced, one_beat), (kernel, one_beat)] {
        let mut bench = Bench::with(77, 5, options, superblock(false));
        bench.reads.push_back(slow.as_secs_f64());
        bench.run_until(3.0);
        let (until, total) = watching(&bench);
        assert_eq!(total, watched + slow, "{options:?}");
        about(until, 2.0 + total.as_secs_f64());
        bench.run_until(until - 0.01);
        assert!(bench.writes.is_empty() && bench.events.len() == 1, "{:?}", bench.events);
        bench.run_until(until + 0.1);
        assert!(!bench.writes.is_empty() || bench.guard.mode() == Mode::Expecting, "{:?}", bench.events);
    }
}

#[test]
fn patience_that_is_over_when_the_answer_comes_waits_no_more() {
    let mut bench = Bench::patient(SEQ_FSCK, 0);
    bench.reads.push_back(0.0);
    bench.run_until(0.1);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }));
    assert_eq!(bench.looks.len(), 1);
}

#[test]
fn a_refusal_after_patience_counts_from_when_watching_began() {
    let mut bench = Bench::patient(77, 5);
    for second in 1..=6 {
        bench.run_until(f64::from(second));
        bench.put("zulu", 77 + second, 5);
    }
    bench.run_until(7.0);
    let Refusal::InUse { after, .. } = bench.refusal() else { panic!("{:?}", bench.events) };
    about(after.as_secs_f64(), 5.05);
}

#[test]
fn a_refusal_names_whom_the_block_names_if_that_is_why() {
    for (seq, named) in [(77, Some("zulu")), (SEQ_FSCK, Some("zulu")), (SEQ_FSCK + 1, None)] {
        let mut bench = Bench::new(seq, 5);
        bench.run_until(1.0);
        if !bench.guard.is_over() {
            bench.put("zulu", seq + 1, 5);
        }
        bench.run_until(2.0);
        assert_eq!(bench.refusal().peer().map(|peer| peer.node), named.map(NodeName::new));
    }
}

#[test]
fn a_watcher_believes_a_doubtful_clean_mark_that_has_stood() {
    let options = GuardOptions { watch_only: true, ..GuardOptions::default() };
    let mut bench = Bench::with(SEQ_CLEAN, 5, options, superblock(true));
    bench.run_until(60.0);
    let (at, Event::Watched { verdict: Quiet::Clean { by } }) = bench.last() else {
        panic!("{:?}", bench.events)
    };
    about(at, 46.5);
    assert_eq!(by.node, NodeName::new("zulu"));
}

#[test]
fn no_write_of_a_claim_is_begun_later_than_a_quarter_of_a_wait_after_its_look() {
    let mut bench = Bench::clean();
    bench.run_until(11.5);
    assert_eq!(bench.writes.len(), 3);
    for ((written, ..), begin_by) in bench.writes.iter().zip(&bench.begin_by) {
        let looked = bench.looks.iter().rfind(|&at| at < written).expect("no write without a look");
        assert!((begin_by - looked - 2.75).abs() < 1e-6, "{looked} {begin_by}");
    }
}

#[test]
fn a_write_counts_that_was_acknowledged_just_in_time() {
    // The look and the superblock take a millisecond each.
    for (takes, counts) in [(2.748, true), (2.749, false)] {
        let mut bench = Bench::clean();
        bench.fates.push_back(Fate::Takes(takes));
        bench.run_until(4.0);
        assert_eq!(!bench.has(|event| matches!(event, Event::TooSlow { .. })), counts, "{:?}", bench.events);
    }
}

#[test]
fn a_claim_tells_when_it_will_hold() {
    let mut bench = Bench::clean();
    bench.run_until(1.0);
    let (at, Event::Claiming { until, total }) = &bench.events[0] else { panic!("{:?}", bench.events) };
    assert_eq!(*total, timing::wait(5));
    about(seconds(*until), at + 11.0);
}

/// Both silences are listened to: a rival who wrote just before our middle beat is seen in the second one.
#[test]
fn a_change_in_either_silence_is_a_lost_race() {
    for (at, written) in [(3.0, 1), (8.0, 2)] {
        let mut bench = Bench::clean();
        bench.run_until(at);
        bench.put("zulu", 0x7000_0000, 5);
        bench.run_until(at + 0.3);
        assert!(matches!(bench.last().1, Event::LostRace { .. }), "{:?}", bench.events);
        assert_eq!((bench.writes.len(), bench.block().node), (written, NodeName::new("zulu")));
    }
}

#[test]
fn an_e2fsck_over_our_claim_refuses_it_unless_we_are_patient() {
    let mut bench = Bench::clean();
    bench.run_until(2.0);
    bench.put("zulu", SEQ_FSCK, 5);
    bench.run_until(3.0);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }));

    let mut bench = Bench::patient(SEQ_CLEAN, 100);
    bench.run_until(2.0);
    bench.put("zulu", SEQ_FSCK, 5);
    bench.run_until(3.0);
    assert!(matches!(bench.last().1, Event::LostRace { .. }), "{:?}", bench.events);
    bench.run_until(20.0);
    bench.put("zulu", SEQ_CLEAN, 5);
    bench.run_until(40.0);
    assert!(matches!(bench.last().1, Event::Held { .. }), "{:?}", bench.events);
}

/// Claimers who saw each other at one instant must not meet again: each withdraws for a time of his own.
#[test]
fn one_who_lost_a_race_withdraws_for_an_interval_to_half_a_wait() {
    let mut bench = Bench::clean();
    let mut spans = Vec::new();
    for race in 0..60 {
        bench.run_until(bench.seconds + 0.5);
        bench.put("zulu", 0x7000_0000 + race, 5);
        bench.run_until(bench.seconds + 0.5);
        let (at, Event::LostRace { retry_at, .. }) = bench.last() else { panic!("{:?}", bench.events) };
        spans.push(seconds(*retry_at) - at);
        let retry_at = seconds(*retry_at);
        bench.put("zulu", SEQ_CLEAN, 5);
        bench.run_until(retry_at + 0.1);
    }
    assert!(spans.iter().all(|span| (1.0..=5.5).contains(span)), "{spans:?}");
    for (from, to) in [(1.0, 2.0), (2.0, 4.0), (4.0, 5.5)] {
        assert!(spans.iter().any(|span| (from..to).contains(span)), "{spans:?}");
    }
}
