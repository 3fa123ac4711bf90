//! Hold: the small rules. How often is looked, how long is waited, and what an end is taken for.

use super::hold::FAR_SEQ;
use super::*;

/// At a watcher's pace, a fifth of an interval; a beat may cut one pause short.
fn close(pauses: &[f64]) -> bool {
    pauses.iter().all(|&pause| pause < 0.21)
        && pauses.iter().filter(|&&pause| pause > 0.19).count() > pauses.len() / 2
}

/// At each beat only.
fn seldom(pauses: &[f64]) -> bool {
    pauses.iter().all(|pause| (0.85..1.11).contains(pause))
}

#[test]
fn a_predecessor_is_looked_for_at_a_watchers_pace_for_one_of_his_waits() {
    let mut bench = Bench::new(77, 5);
    bench.run_until(50.0);
    let held = bench.last().0;
    about(held, 23.5);
    assert!(close(&bench.pauses(held + 0.01, held + 10.9)), "{:?}", bench.looks);
    assert!(seldom(&bench.pauses(held + 11.3, 50.0)), "{:?}", bench.looks);

    let mut bench = Bench::clean();
    bench.run_until(30.0);
    assert!(seldom(&bench.pauses(bench.last().0 + 0.01, 30.0)), "nobody was there: {:?}", bench.looks);
}

#[test]
fn whom_we_have_beaten_over_is_looked_for_at_a_watchers_pace_for_two_of_his_waits() {
    let mut bench = Bench::held();
    bench.put("zulu", FAR_SEQ, 5);
    bench.run_until(60.0);
    let (beaten_over, Event::Intruder { .. }) = bench.last() else { panic!("{:?}", bench.events) };
    assert!(close(&bench.pauses(beaten_over + 0.01, beaten_over + 21.9)), "{:?}", bench.looks);
    assert!(seldom(&bench.pauses(beaten_over + 22.3, 60.0)), "{:?}", bench.looks);
}

/// He beats every half a minute: before we have seen him silent for long enough our own lease would be over.
#[test]
fn a_foreign_block_is_beaten_over_before_the_last_quarter_of_our_lease() {
    let mut bench = Bench::held();
    bench.run_until(12.5);
    let (put, lease_end) = (bench.seconds, bench.lease_end_s());
    bench.put("zulu", FAR_SEQ, 60);
    bench.writes.clear();
    bench.run_until(30.0);
    assert!(bench.has(|event| matches!(event, Event::Intruder { .. })), "{:?}", bench.events);
    let beaten_over = bench.writes[0].0;
    about(beaten_over, lease_end - 2.75 + 0.1);
    let pauses = bench.pauses(put + 1.2, beaten_over - 0.01);
    assert!(pauses.iter().all(|pause| (0.2..0.21).contains(pause)), "{pauses:?}");
}

#[test]
fn rubbish_is_believed_at_the_sixth_look_at_a_watchers_pace() {
    let mut bench = Bench::held();
    let whole = bench.image;
    bench.image[0] = 0xff;
    bench.run_until(20.0);
    assert_eq!(*bench.loss(), Loss::Unreadable);
    let first = bench.looks.iter().position(|&at| at > 11.9).unwrap();
    assert_eq!(bench.looks.len() - first, 6);
    about(bench.last().0, bench.looks[first] + 1.0);

    // Five looks at it, our block again, and five more.
    let mut bench = Bench::held();
    bench.image[0] = 0xff;
    let seen = |bench: &Bench| bench.looks.iter().filter(|&&at| at > 11.9).count();
    for looks in [5, 11] {
        while seen(&bench) < looks {
            bench.run_until(bench.seconds + 0.01);
        }
        bench.image = whole;
        bench.run_until(bench.seconds + 0.21);
        bench.image[0] = 0xff;
    }
    bench.image = whole;
    bench.run_until(30.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
}

/// Whose block gave way to ours is no longer the one under our eyes.
#[test]
fn after_our_own_block_stood_again_a_foreign_one_is_looked_at_anew() {
    let mut bench = Bench::held();
    let ours = bench.image;
    bench.put("zulu", FAR_SEQ, 5);
    bench.run_until(13.5);
    bench.image = ours;
    bench.run_until(13.8);
    bench.writes.clear();
    bench.put("alpha", FAR_SEQ / 2, 5);
    bench.run_until(18.0);
    assert!(bench.writes.is_empty(), "it is no second jump: {:?}", bench.writes);
    assert!(!bench.has(|event| matches!(event, Event::Intruder { .. })), "{:?}", bench.events);
}

/// Our mark has landed, though its acknowledgement was lost: whoever has come since is a successor.
#[test]
fn who_stands_over_a_mark_of_ours_that_may_have_landed_is_no_loss() {
    for (node, seq) in [("zulu", SEQ_FSCK), ("zulu", FAR_SEQ), ("zulu", SEQ_CLEAN), ("mike", SEQ_CLEAN)] {
        let mut bench = Bench::held();
        bench.fates.push_back(Fate::FailsLanded);
        bench.give(Input::Release);
        bench.put(node, seq, 7);
        bench.run_until(20.0);
        let told: Vec<&Event> = bench.events.iter().map(|(_, event)| event).collect();
        assert!(matches!(told[..], [Event::IoTrouble { .. }, Event::Released]), "{told:?}");
        assert_eq!((bench.writes.len(), bench.block().check_interval_s), (1, 7), "he is left alone");
    }
}

/// The read-only mount that was to become writable is unmounted before our mark could be written for its kernel.
#[test]
fn a_release_before_the_mark_of_a_hand_over_is_a_release() {
    let mut bench = Bench::held();
    bench.put("mike", SEQ_CLEAN, 5);
    while !bench.has(|event| matches!(event, Event::Cleared { .. })) {
        bench.run_until(bench.seconds + 0.01);
    }
    bench.give(Input::HandOver { mounted: true });
    assert_ne!(bench.block().seq, SEQ_CLEAN, "who found the other mark must see us first");
    bench.give(Input::Release);
    bench.run_until(20.0);
    assert_eq!((bench.last().1, bench.block().seq), (&Event::Released, SEQ_CLEAN));
    assert!(!bench.has(|event| matches!(event, Event::HandedOver { .. })), "{:?}", bench.events);
}

/// The kernel may have begun to mount on a mark that landed although its write failed.
#[test]
fn a_release_after_the_mark_of_a_hand_over_does_not_undo_it() {
    let mut bench = Bench::held();
    bench.fates.push_back(Fate::FailsLanded);
    bench.give(Input::HandOver { mounted: true });
    bench.give(Input::Release);
    bench.run_until(bench.seconds + 1.0);
    assert!(matches!(bench.last().1, Event::HandedOver { .. }), "{:?}", bench.events);
    assert_eq!((bench.guard.mode(), bench.writes.len()), (Mode::Expecting, 1));
}

#[test]
fn who_did_not_look_for_more_than_his_check_interval_has_slept() {
    for (gap, slept) in [(5.0, false), (5.001, true)] {
        let mut bench = Bench::held();
        bench.seconds = bench.looks.last().unwrap() + gap;
        for beat in 0..2 {
            bench.put("alpha", FAR_SEQ + beat, 5);
            bench.run_until(bench.seconds + 1.1);
        }
        let lost = bench.has(|event| {
            matches!(event, Event::Lost { loss: Loss::Stolen { because: LoserRule::Slept, .. }, .. })
        });
        assert_eq!((lost, bench.guard.is_over()), (slept, slept), "{gap} {:?}", bench.events);
    }
}

/// Of his beats we see every third, because ours cover the others: it is one contest all the same.
#[test]
fn a_contest_goes_on_although_some_of_his_beats_are_covered() {
    let mut bench = Bench::held();
    for beat in 0..6 {
        bench.put("alpha", FAR_SEQ + 3 * beat, 5);
        bench.run_until(bench.seconds + 3.0);
    }
    let Loss::Stolen { because: LoserRule::OtherDidNotStop, .. } = bench.loss() else {
        panic!("{:?}", bench.events)
    };
    assert_eq!(bench.events.iter().filter(|(_, event)| matches!(event, Event::Contested { .. })).count(), 1);
}

/// A mount that ends while we release for good, or whose mark may stand already, changes nothing.
#[test]
fn the_end_of_a_mount_voids_a_hand_over_only_and_only_before_its_mark() {
    let mut bench = Bench::held();
    bench.read_errors = 1;
    bench.give(Input::Release);
    bench.give(Input::MountEnded { killed: true });
    bench.run_until(bench.seconds + 1.0);
    assert_eq!((bench.last().1, bench.block().seq), (&Event::Released, SEQ_CLEAN), "nothing was written yet");

    for handing_over in [false, true] {
        let mut bench = Bench::held();
        bench.fates.push_back(Fate::FailsLanded);
        bench.give(if handing_over { Input::HandOver { mounted: true } } else { Input::Release });
        bench.give(Input::MountEnded { killed: true });
        bench.run_until(bench.seconds + 1.0);
        assert_eq!((bench.writes.len(), bench.block().seq), (1, SEQ_CLEAN), "{:?}", bench.events);
        assert_eq!(bench.has(|event| matches!(event, Event::HandedOver { .. })), handing_over);
        assert_eq!(bench.has(|event| *event == Event::Released), !handing_over);
    }
}
