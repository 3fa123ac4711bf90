//! Adoption: of a filesystem that the kernel mounted without us, and of what a dead guard left.

use super::watch::{CLAIM, named};
use super::*;

#[test]
fn one_who_is_adopted_and_slept_stops_within_three_seconds() {
    let mut bench =
        Bench::adopted(Adoption { counted: Some((Mono(BOOT_S * 1_000_000_000), 7)), left: None }, 40.0);
    bench.kernel_beats("mike", 40.3, 9, 20);
    bench.kernel_beats("alpha", 40.7, 5, 20);
    bench.run_until(60.0);
    let Loss::Stolen { because, .. } = bench.loss() else { panic!("{:?}", bench.events) };
    assert_eq!(*because, LoserRule::Slept);
    assert!(bench.last().0 < 42.6, "{:?}", bench.last());
}

#[test]
fn our_own_count_proves_nothing_beside_another() {
    // Two beats of ours come before his second.
    for counted in [None, Some((Mono(BOOT_S * 1_000_000_000), 7))] {
        let slept = counted.is_some();
        let mut bench = Bench::adopted(Adoption { counted, left: None }, 40.0);
        bench.kernel_beats("mike", 40.3, 9, 20);
        bench.kernel_beats("alpha", 40.9, 5, 20);
        bench.run_until(60.0);
        let Loss::Stolen { because, .. } = bench.loss() else { panic!("{:?}", bench.events) };
        assert_eq!(*because == LoserRule::Slept, slept, "{because:?}");
        assert!(bench.events.len() == 1 && bench.last().0 < 47.0, "{:?}", bench.events);
    }
}

#[test]
fn one_who_slept_sees_another_whose_beat_stands_for_a_moment_only() {
    let mut bench =
        Bench::adopted(Adoption { counted: Some((Mono(BOOT_S * 1_000_000_000), 7)), left: None }, 40.0);
    bench.kernel_beats("mike", 40.3, 9, 20);
    bench.kernel_beats("alpha", 41.305, 5, 20);
    bench.run_until(60.0);
    let Loss::Stolen { because, .. } = bench.loss() else { panic!("{:?}", bench.events) };
    assert_eq!(*because, LoserRule::Slept);
}

#[test]
fn one_who_slept_and_is_alone_is_adopted_after_a_longer_look() {
    let mut bench =
        Bench::adopted(Adoption { counted: Some((Mono(BOOT_S * 1_000_000_000), 7)), left: None }, 40.0);
    bench.kernel_beats("mike", 40.3, 9, 30);
    bench.run_until(60.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
    assert!((45.0..47.0).contains(&bench.last().0), "{:?}", bench.last());
}

#[test]
fn one_who_is_adopted_and_did_not_sleep_is_watched() {
    let mut bench =
        Bench::adopted(Adoption { counted: Some((Mono(BOOT_S * 1_000_000_000), 7)), left: None }, 40.0);
    bench.put("mike", 45, 5);
    bench.kernel_beats("mike", 40.3, 46, 20);
    bench.run_until(50.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
    assert!(bench.last().0 < 41.5 && bench.guard.lease_end().is_some());
}

#[test]
fn what_does_not_beat_cannot_be_adopted() {
    let mut bench = Bench::adopted(Adoption::default(), 40.0);
    bench.put("mike", 9, 5);
    bench.run_until(60.0);
    assert!(matches!(bench.refusal(), Refusal::NoBeat { .. }));
}

/// A guard died; another takes its place within the lease.
pub(super) fn succeeded(block: MmpBlock, left: Left) -> Bench {
    let mut bench = Bench::adopted(Adoption { counted: None, left: Some(left) }, 40.0);
    block.encode_into(&mut bench.image, None);
    bench
}

pub(super) fn left(kernel_seq: Option<u32>, submitted_seq: Option<u32>, beating: bool) -> Left {
    let lease_end = Mono((BOOT_S + 45) * 1_000_000_000);
    Left { lease_end, kernel_seq, submitted_seq, beating, generation: None }
}

#[test]
fn a_dead_watchers_place_is_taken_while_the_kernel_beats() {
    let mut bench = succeeded(named("mike", 8, WALL_S + 39), left(Some(7), None, false));
    bench.kernel_beats("mike", 40.7, 9, 30);
    bench.run_until(60.0);
    assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
    assert_eq!(bench.guard.mode(), Mode::Watching);
    assert!(bench.lease_end_s() > 69.0 && bench.writes.is_empty());
}

#[test]
fn a_dead_bridges_place_is_taken_before_its_lease_ends() {
    let mut bench = succeeded(named("mike", CLAIM, WALL_S + 39), left(Some(7), Some(CLAIM), false));
    bench.kernel_beats("mike", 60.0, 8, 30);
    bench.run_until(59.0);
    assert_eq!(bench.guard.mode(), Mode::Bridging);
    assert_eq!(bench.writes[0].1.seq, CLAIM + 1);
    assert!(bench.writes[0].0 < 41.0 && bench.writes.len() > 15);
    bench.run_until(80.0);
    assert_eq!(bench.guard.mode(), Mode::Watching);
}

#[test]
fn a_dead_holders_place_is_taken() {
    let mut bench = succeeded(named("mike", CLAIM, WALL_S + 39), left(None, Some(CLAIM), true));
    bench.run_until(50.0);
    assert_eq!(bench.guard.mode(), Mode::Beating);
    assert!(bench.writes.len() > 7 && bench.writes[0].0 < 40.1);
}

#[test]
fn who_takes_a_dead_guards_place_finds_what_came_meanwhile() {
    for (block, beating) in [
        (named("zulu", SEQ_CLEAN, WALL_S + 39), false),
        (named("zulu", SEQ_CLEAN, WALL_S + 39), true),
        (named("zulu", SEQ_FSCK, WALL_S + 39), false),
        (named("zulu", SEQ_FSCK, WALL_S + 39), true),
    ] {
        let mut bench = succeeded(block, left(Some(7), Some(CLAIM), beating));
        bench.run_until(60.0);
        assert!(matches!(bench.loss(), Loss::ForeignClean { .. } | Loss::Fsck { .. }), "{:?}", bench.events);
        assert!(bench.writes.is_empty());
    }
    let mut bench = succeeded(named("mike", 7, WALL_S + 39), left(Some(7), None, false));
    bench.activity = [Activity::Gone].into();
    bench.timetable.push_back((41.0, named("mike", SEQ_CLEAN, WALL_S + 41)));
    bench.run_until(60.0);
    assert_eq!(bench.last().1, &Event::Unmounted);
}

impl Bench {
    pub(super) fn adopted(adoption: Adoption, at: f64) -> Self {
        let mut bench = Bench::for_kernel(1, false);
        let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
        let decoded = Superblock::decode(&superblock(false)).unwrap();
        let medium = Medium::Native(Native::new(decoded, owner));
        bench.seconds = at;
        bench.guard = Guard::adopt(medium, GuardOptions::default(), adoption, 7, bench.now());
        bench.events.clear();
        bench
    }
}
