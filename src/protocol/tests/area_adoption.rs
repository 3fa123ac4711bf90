//! Adoption in areas: a guard died that held a slot, and another one of its host goes on.

use super::area::{LAST, OURS, SEQ, TARGET, THEIRS, header, record};
use super::*;
use crate::format::ChecksumSeed;
use crate::format::area::{GuardRecord, SlotBlock, SlotName, SlotState};

/// What the dead one had.
const HELD: u64 = LAST + 1;

/// What it left, whose lease ends then.
fn left(submitted_seq: Option<u32>, lease_end_s: f64) -> Left {
    let lease_end = Mono(BOOT_S * 1_000_000_000 + (lease_end_s * 1e9) as u64);
    Left { lease_end, kernel_seq: None, submitted_seq, beating: true, generation: Some(HELD) }
}

impl Bench {
    /// A new guard of node "mike", at second 40, on a slot that shows that; its lease runs until second 47.
    fn succeeds(node: &str, seq: u32, found: GuardRecord, left: Left) -> Self {
        let mut bench = Bench::on_slot(SEQ, SlotState::Holding, found.interval_ms);
        bench.seconds = 40.0;
        bench.put_slot(node, seq, found);
        let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
        let slot = GuardRecord { name: SlotName::new("db"), target: TARGET, ..found };
        let medium = Medium::Area(Area::new(header(found.interval_ms), &slot, owner, OURS));
        let adoption = Adoption { counted: None, left: Some(left) };
        bench.guard = Guard::adopt(medium, GuardOptions::default(), adoption, 7, bench.now());
        bench.events.clear();
        bench
    }

    fn goes_on(&self) -> bool {
        let slot = self.slot();
        !self.guard.is_over()
            && self.guard.mode() == Mode::Beating
            && (slot.state, slot.generation, slot.boot_id) == (SlotState::Holding, HELD, OURS)
            && (slot.name, slot.target) == (SlotName::new("db"), TARGET)
    }
}

fn ours(state: SlotState) -> GuardRecord {
    record(state, HELD, OURS, 1000)
}

fn theirs(state: SlotState, generation: u64) -> GuardRecord {
    record(state, generation, THEIRS, 1000)
}

#[test]
fn who_finds_what_was_left_counts_on_with_its_generation() {
    // Written and acknowledged, or not: what stands is what was submitted last.
    for state in [SlotState::Holding, SlotState::Claiming] {
        let mut bench = Bench::succeeds("mike", SEQ, ours(state), left(Some(SEQ), 47.0));
        assert_eq!(bench.guard.generation(), Some(HELD), "also before the first look");
        bench.run_until(60.0);
        assert!(bench.goes_on(), "{:?}", bench.events);
        let seqs: Vec<u32> = bench.writes.iter().map(|write| write.1.seq).collect();
        assert_eq!(seqs[..3], [SEQ + 1, SEQ + 2, SEQ + 3], "{state:?}");
        assert!(bench.writes[0].0 < 40.01 && bench.lease_end_s() > 69.0);
        let [(at, Event::Held { lease_end, .. })] = &bench.events[..] else { panic!("{:?}", bench.events) };
        assert!(*at < 40.01 && seconds(*lease_end) == 47.0, "the dead one's lease, and no longer one");
        assert_eq!(bench.high_water(), LAST, "nothing is drawn: the entry is as it was");
    }
}

/// What was submitted last never landed, or has yet to land: an older beat stands there.
#[test]
fn an_older_beat_is_beaten_on_with_a_sequence_that_was_not_sent() {
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ + 1), 47.0));
    bench.run_until(42.5);
    assert!(bench.goes_on() && bench.writes[0].1.seq == SEQ + 2, "{:?}", bench.writes);
    // It lands now, over what was written since.
    bench.put_slot("mike", SEQ + 1, ours(SlotState::Holding));
    let count = bench.writes.len();
    bench.run_until(44.0);
    assert!(bench.goes_on() && bench.writes.len() > count && bench.block().seq > SEQ + 1);
    assert_eq!(bench.events.len(), 1, "nobody is told of that: {:?}", bench.events);
}

#[test]
fn a_clean_mark_that_the_dead_one_left_is_beaten_over() {
    for submitted in [SEQ_CLEAN, SEQ] {
        let mut bench =
            Bench::succeeds("mike", SEQ_CLEAN, ours(SlotState::Released), left(Some(submitted), 47.0));
        bench.run_until(42.0);
        assert!(bench.goes_on() && bench.writes[0].0 < 40.01, "{:?}", bench.events);
        assert!(bench.writes.iter().all(|write| write.1.seq != 0 && write.1.seq < SEQ_CLEAN));
    }
}

#[test]
fn a_claimer_who_came_meanwhile_is_beaten_over_at_once() {
    for generation in [HELD, HELD + 1] {
        let found = theirs(SlotState::Claiming, generation);
        let mut bench = Bench::succeeds("zulu", 77, found, left(Some(SEQ), 47.0));
        bench.run_until(45.0);
        assert!(bench.goes_on() && bench.writes[0].0 < 40.01 && bench.writes[0].1.seq == SEQ + 1);
        assert!(bench.has(|event| matches!(event, Event::Intruder { .. })), "{:?}", bench.events);
    }
    // What somebody before us had sent, and what has our names but is not ours.
    for (node, state) in
        [("zulu", SlotState::Holding), ("zulu", SlotState::Released), ("mike", SlotState::Holding)]
    {
        let seq = if state == SlotState::Released { SEQ_CLEAN } else { SEQ };
        let mut bench = Bench::succeeds(node, seq, theirs(state, LAST), left(Some(SEQ), 47.0));
        bench.run_until(45.0);
        assert!(bench.goes_on(), "{state:?}: {:?}", bench.events);
    }
}

#[test]
fn whoever_came_after_the_dead_one_is_left_alone() {
    let renamed = GuardRecord { name: SlotName::new("other"), ..theirs(SlotState::Holding, LAST) };
    for (node, found) in [
        ("zulu", theirs(SlotState::Holding, HELD + 1)),
        ("zulu", theirs(SlotState::Released, HELD + 1)),
        ("zulu", theirs(SlotState::Holding, HELD)),
        ("zulu", renamed),
        // Under our names, and with the very sequence that was left.
        ("mike", theirs(SlotState::Holding, HELD + 1)),
    ] {
        let seq = if found.state == SlotState::Released { SEQ_CLEAN } else { SEQ };
        let mut bench = Bench::succeeds(node, seq, found, left(Some(SEQ), 47.0));
        bench.run_until(45.0);
        assert!(
            matches!(bench.loss(), Loss::Stolen { .. } | Loss::ForeignClean { .. }),
            "{:?}",
            bench.events
        );
        assert!(bench.writes.is_empty() && bench.last().0 < 40.1);
    }
}

/// As any holder would: for two intervals, and then it is beaten over.
#[test]
fn a_torn_block_is_looked_at_and_beaten_over() {
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 47.0));
    bench.image[0x88] ^= 1;
    bench.run_until(45.0);
    assert!(bench.goes_on() && (42.0..43.0).contains(&bench.writes[0].0), "{:?}", bench.writes);

    // In time for the lease, if that is shorter.
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 44.0));
    bench.image[0x88] ^= 1;
    bench.run_until(45.0);
    assert!(bench.goes_on() && bench.writes[0].0 < 43.9, "{:?}", bench.writes);

    // There is no area any more.
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 47.0));
    bench.image = [0; 1024];
    bench.run_until(46.9);
    assert!(matches!(bench.loss(), Loss::Unreadable) && bench.writes.is_empty());
}

#[test]
fn nothing_is_written_once_the_dead_ones_lease_has_ended() {
    // The first look hangs for longer.
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 41.0));
    bench.reads = [1.5].into();
    bench.run_until(45.0);
    assert!(matches!(bench.loss(), Loss::LeaseExpired) && bench.writes.is_empty());

    // The first beat comes too late: it was begun in time, and counts for nothing.
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 41.0));
    bench.fates = [Fate::Takes(1.5)].into();
    bench.run_until(45.0);
    assert!(matches!(bench.loss(), Loss::LeaseExpired) && bench.writes.len() == 1);
    assert!(bench.begin_by[0] <= 41.0 + 1e-6);
}

/// Or somebody else's place is taken after it.
#[test]
fn who_dies_before_his_first_look_has_left_what_he_was_left() {
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 47.0));
    bench.hang_in_a_look();
    assert!(bench.guard.is_beating() && bench.guard.generation() == Some(HELD));
    assert_eq!(seconds(bench.guard.lease_end().unwrap()), 47.0);
}

#[test]
fn a_release_that_comes_before_the_first_look_is_carried_out() {
    let mut bench = Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left(Some(SEQ), 47.0));
    bench.hang_in_a_look();
    bench.guard.handle(bench.now(), Input::Release);
    bench.answer_the_look();
    bench.run_until(41.0);
    assert_eq!(*bench.last().1, Event::Released);
    let slot = bench.slot();
    assert_eq!((slot.state, slot.generation, bench.writes.len()), (SlotState::Released, HELD, 1));
    assert!(SlotBlock::decode(&bench.image, ChecksumSeed::from_uuid(&super::area::AREA), slot.slot).is_ok());
}

#[test]
#[should_panic(expected = "no kernel beats in an area")]
fn nothing_is_adopted_in_an_area_that_no_holder_has_left() {
    let left = Left { beating: false, ..left(Some(SEQ), 47.0) };
    Bench::succeeds("mike", SEQ, ours(SlotState::Holding), left);
}
