//! Adoption: how often it is looked, how long, and whose beats are believed.

use super::adoption::{left, succeeded};
use super::watch::{CLAIM, named};
use super::*;

/// The kernel was seen at 7 at second 0, and is adopted at second 40.
fn counted_at_boot() -> Adoption {
    Adoption { counted: Some((Mono(BOOT_S * 1_000_000_000), 7)), left: None }
}

#[test]
fn a_filesystem_is_looked_at_closely_and_for_two_of_the_longest_intervals_and_two_seconds() {
    let mut bench = Bench::adopted(Adoption::default(), 40.0);
    bench.put("mike", 9, 5);
    bench.run_until(60.0);
    assert!(matches!(bench.refusal(), Refusal::NoBeat { .. }));
    about(bench.last().0, 47.0);
    let (shortest, longest) = bench.look_gaps(40.0..47.0);
    assert!(shortest > 0.039 && longest < 0.045, "{shortest} {longest}");
}

#[test]
fn who_slept_until_shortly_before_the_end_of_the_look_is_looked_at_anew() {
    let mut bench = Bench::adopted(counted_at_boot(), 40.0);
    bench.put("mike", SEQ_CLEAN, 5);
    bench.kernel_beats("mike", 46.0, 9, 30);
    bench.run_until(70.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
    assert!((51.0..52.5).contains(&bench.last().0), "{:?}", bench.last());
    let (shortest, longest) = bench.look_gaps(46.1..51.0);
    assert!(shortest > 0.0045 && longest < 0.0075, "{shortest} {longest}");
}

#[test]
fn a_damaged_block_has_until_the_end_of_the_look_to_be_written_anew() {
    let mut bench = Bench::adopted(Adoption::default(), 40.0);
    bench.image[0] ^= 0xFF;
    bench.kernel_beats("mike", 45.0, 9, 30);
    bench.run_until(48.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);

    let mut bench = Bench::adopted(Adoption::default(), 40.0);
    bench.image[0] ^= 0xFF;
    bench.run_until(60.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }));
    about(bench.last().0, 47.0);
}

#[test]
fn the_count_of_another_host_alone_is_not_adopted() {
    let mut bench = Bench::adopted(Adoption::default(), 40.0);
    bench.kernel_beats("alpha", 40.3, 5, 40);
    bench.run_until(70.0);
    let Refusal::NoBeat { by } = bench.refusal() else { panic!("{:?}", bench.events) };
    assert_eq!((by.node, bench.events.len()), (NodeName::new("alpha"), 1));
}

/// It is frozen, and whether it slept is a matter of its next beat.
#[test]
fn a_count_that_stands_still_says_nothing_of_sleep() {
    let mut bench = Bench::adopted(counted_at_boot(), 40.0);
    bench.put("mike", 38, 5);
    bench.run_until(70.0);
    assert!(matches!(bench.refusal(), Refusal::NoBeat { .. }));
    about(bench.last().0, 47.0);
}

#[test]
fn a_torn_block_is_read_again_after_a_moment_by_who_takes_a_dead_guards_place() {
    let mut bench = succeeded(named("mike", 7, WALL_S + 39), left(Some(7), None, false));
    bench.image[0] ^= 0xFF;
    bench.kernel_beats("mike", 40.5, 8, 30);
    bench.run_until(45.5);
    let (shortest, longest) = bench.look_gaps(40.0..40.5);
    assert!(shortest > 0.009 && longest < 0.015, "{shortest} {longest}");
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
}

/// The kernel goes on with the names that it began with.
#[test]
fn a_host_that_was_renamed_is_known_by_what_its_dead_guard_left() {
    let mut bench = succeeded(named("oldname", 8, WALL_S + 39), left(Some(7), None, false));
    bench.kernel_beats("oldname", 40.7, 9, 60);
    bench.run_until(80.0);
    assert_eq!((bench.guard.mode(), bench.events.len()), (Mode::Watching, 1), "{:?}", bench.events);

    let mut bench = succeeded(named("oldname", CLAIM, WALL_S + 39), left(Some(7), Some(CLAIM), false));
    bench.run_until(60.0);
    assert_eq!(bench.guard.mode(), Mode::Bridging, "{:?}", bench.events);
    let (_, block, _) = bench.writes[0];
    assert_eq!((block.node, block.seq), (NodeName::new("oldname"), CLAIM + 1));
}

#[test]
fn the_count_on_another_device_is_not_what_a_dead_guard_left() {
    let mut bench = succeeded(named("oldname", 7, WALL_S + 39), left(Some(7), None, false));
    bench.name_device("sdz");
    bench.run_until(42.0);
    assert!(bench.asked > 0, "it is foreign, so the kernel is asked");
    let mut bench = succeeded(named("oldname", 7, WALL_S + 39), left(Some(7), None, false));
    bench.run_until(42.0);
    assert_eq!(bench.asked, 0);
}

#[test]
fn a_kernel_that_is_silent_since_the_guard_died_is_bridged() {
    for kernel_seq in [Some(7), None] {
        let mut bench = succeeded(named("mike", 7, WALL_S + 39), left(kernel_seq, None, false));
        bench.run_until(44.9);
        assert!(bench.has(|event| matches!(event, Event::Bridging { .. })), "{:?}", bench.events);
        // The dead guard's lease ends at 45 s, a quarter of one before that it has to be written.
        assert!((42.2..43.0).contains(&bench.writes[0].0), "{:?}", bench.writes);
    }
}

#[test]
fn an_unmount_since_the_guard_died_is_found_at_once() {
    let mut bench = succeeded(named("mike", SEQ_CLEAN, WALL_S + 39), left(Some(7), None, false));
    bench.activity = [Activity::Gone].into();
    bench.run_until(40.1);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
}

/// They landed at any time since the dead guard's last look, so a taker may have seen the last of them long before we did.
#[test]
fn beats_that_nobody_saw_land_give_no_longer_lease_than_the_dead_guard_left() {
    for (block, submitted) in [(8, None), (8, Some(CLAIM))] {
        let mut bench = succeeded(named("mike", block, WALL_S + 35), left(Some(7), submitted, false));
        bench.run_until(40.3);
        assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
        about(bench.lease_end_s(), 45.0);
        // The next one was not there when we looked first.
        bench.kernel_beats("mike", 40.7, 9, 1);
        bench.run_until(42.0);
        assert!((51.0..51.8).contains(&bench.lease_end_s()), "{}", bench.lease_end_s());
    }
}
