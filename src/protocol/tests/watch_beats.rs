//! Watch: whose block it is that neither the kernel nor we left there.

use super::watch::{CLAIM, named};
use super::*;
use crate::protocol::event::Resumption;

fn by_path(block: MmpBlock) -> MmpBlock {
    MmpBlock { device: DeviceName::new("/dev/sdb1"), ..block }
}

impl Bench {
    /// Somebody's write at that time, between those that are planned already.
    pub(super) fn comes(&mut self, at: f64, block: MmpBlock) {
        self.timetable.push_back((at, block));
        self.timetable.make_contiguous().sort_by(|a, b| a.0.total_cmp(&b.0));
    }
}

fn lost(bench: &Bench) -> bool {
    bench.has(|event| matches!(event, Event::Lost { .. }))
}

/// "zulu" stood in the block when the kernel mounted; its kernel found ours, and marked the block clean.
#[test]
fn the_last_word_of_whom_we_took_over_from_is_beaten_over_for_a_wait() {
    let mut bench = Bench::watched(200);
    bench.comes(26.7, named("zulu", SEQ_CLEAN, WALL_S + 26));
    bench.run_until(28.0);
    assert!(matches!(bench.events[0].1, Event::Cleared { by } if by.node == NodeName::new("zulu")));
    assert!(!bench.writes.is_empty() && !lost(&bench), "{:?}", bench.events);

    let mut bench = Bench::watched(200);
    bench.comes(60.4, named("zulu", SEQ_CLEAN, WALL_S + 60));
    bench.run_until(62.0);
    assert!(matches!(bench.loss(), Loss::ForeignClean { .. }));
}

#[test]
fn a_clear_that_is_forced_on_another_host_soon_after_a_beat_is_beaten_over() {
    let mut bench = Bench::watched(4);
    // The last beat is of 25.6 s; until two silences of the kernel's after that it was seen lately.
    bench.comes(28.0, by_path(named("other", SEQ_CLEAN, WALL_S + 28)));
    bench.run_until(29.0);
    assert!(matches!(bench.events[0].1, Event::Cleared { by } if by.node == NodeName::new("other")));
    assert!(!bench.writes.is_empty() && !lost(&bench), "{:?}", bench.events);
}

/// The clear landed in the kernel's own buffer: it goes on counting, and never writes its names again.
#[test]
fn the_kernels_next_beat_under_a_path_is_its_own_and_is_put_right() {
    let mut bench = Bench::watched(5);
    let beat = |seq| by_path(named("mike", seq, WALL_S + 28));
    bench.comes(27.6, beat(6));
    bench.run_until(28.5);
    let (at, Event::Cleared { by }) = &bench.events[0] else { panic!("{:?}", bench.events) };
    assert_eq!(by.device, DeviceName::new("/dev/sdb1"));
    let (written, block, _) = bench.writes[0];
    assert!(written - at < 0.01 && block.device == DeviceName::new("sda"), "{:?}", bench.writes);
    assert!(!bench.guard.is_over() && (37.0..40.0).contains(&bench.lease_end_s()));
}

#[test]
fn neither_a_claim_under_a_path_nor_a_count_under_another_name_is_the_kernels_renamed() {
    for block in [by_path(named("mike", CLAIM, WALL_S + 28)), named("zulu", 6, WALL_S + 28)] {
        let mut bench = Bench::watched(5);
        bench.comes(27.6, block);
        bench.run_until(31.5);
        assert!(bench.events.is_empty() && bench.writes.is_empty(), "it is looked at: {:?}", bench.events);
        assert!(bench.asked > 0);
    }
}

#[test]
fn a_new_count_shows_a_twin_as_soon_as_the_old_one_goes_on() {
    let mut bench = Bench::watched(60);
    bench.run_until(80.0);
    bench.timetable.clear();
    let old = bench.block().seq;
    bench.kernel_beats("mike", 80.2, 1, 60);
    // Once: two of his beats would tell by themselves.
    bench.comes(81.5, named("mike", old + 2, WALL_S + 81));
    bench.run_until(90.0);
    assert!(matches!(bench.loss(), Loss::Stolen { because: LoserRule::EqualNames, .. }));
    assert!((81.5..81.9).contains(&bench.last().0), "{:?}", bench.last());
}

#[test]
fn an_old_count_long_after_the_new_one_began_shows_no_twin() {
    let mut bench = Bench::watched(60);
    bench.run_until(80.0);
    bench.timetable.clear();
    let old = bench.block().seq;
    bench.kernel_beats("mike", 80.2, 1, 60);
    bench.comes(91.5, named("mike", old + 2, WALL_S + 91));
    bench.run_until(100.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
}

/// With no new count there is no old one.
#[test]
fn a_single_jump_under_our_names_shows_no_twin() {
    let mut bench = Bench::watched(200);
    bench.comes(60.5, named("mike", CLAIM, WALL_S + 60));
    bench.run_until(70.0);
    assert!(bench.events.is_empty() && bench.asked > 0, "{:?}", bench.events);
}

#[test]
fn a_second_new_count_is_believed_after_the_time_in_which_the_old_one_would_show() {
    let restarted_again = |at: f64| {
        let mut bench = Bench::watched(60);
        bench.run_until(80.0);
        bench.timetable.clear();
        // Its last beat, the fourth, is of 83.26 s.
        bench.kernel_beats("mike", 80.2, 1, 4);
        bench.comes(at, named("mike", 1, WALL_S + at as u64));
        bench.run_until(at + 0.9);
        assert!(!bench.guard.is_over(), "{:?}", bench.events);
        bench.lease_end_s()
    };
    // The lease runs on from the look before the last beat, or from the look before the new count.
    assert!((93.7..94.3).contains(&restarted_again(84.2)));
    assert!((96.0..96.8).contains(&restarted_again(85.7)));
}

#[test]
fn a_block_is_none_any_more_when_six_looks_in_a_row_say_so() {
    let nonsense = |at: f64| named("mike", 0xF000_0000, WALL_S + at as u64);
    let mut bench = Bench::watched(4);
    bench.comes(27.0, nonsense(27.0));
    bench.run_until(30.0);
    assert_eq!(bench.loss(), &Loss::Unreadable);
    let looks = bench.looks.iter().filter(|&&at| at >= 27.0).count();
    assert_eq!(looks, 6);
    let (shortest, longest) = bench.look_gaps(27.0..30.0);
    assert!(shortest > 0.199 && longest < 0.21, "{shortest} {longest}");

    let mut bench = Bench::watched(4);
    bench.comes(27.0, nonsense(27.0));
    let garbled = bench.looks.len();
    bench.run_until(27.0);
    bench.run_looks(5);
    assert!(bench.looks.len() > garbled);
    bench.kernel_beats("mike", bench.seconds, 5, 20);
    bench.run_until(40.0);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
}

/// His check interval is so large that he would be looked at for longer than our lease.
#[test]
fn a_claimer_over_a_silent_kernel_is_beaten_over_before_the_last_quarter_of_the_lease() {
    let mut bench = Bench::watched(4);
    bench.comes(26.5, MmpBlock { check_interval_s: 60, ..named("zulu", CLAIM, WALL_S + 26) });
    bench.run_until(50.0);
    let intruder = bench.events.iter().find(|(_, event)| matches!(event, Event::Intruder { .. }));
    // The lease is that of the look before 25.6 s, and three quarters of it are 8.25 s.
    assert!(intruder.is_some_and(|(at, _)| (33.0..34.5).contains(at)), "{:?}", bench.events);
    assert!(bench.writes[0].0 < 34.5 && !bench.guard.is_over(), "{:?}", bench.events);
}

#[test]
fn who_was_beaten_over_is_watched_for_at_a_watchers_pace_for_two_waits() {
    let mut bench = Bench::watched(4);
    bench.comes(60.0, named("zulu", CLAIM, WALL_S + 60));
    bench.kernel_beats("mike", 67.0, 5, 100);
    bench.run_until(100.0);
    let beaten = bench.events.iter().find(|(_, event)| matches!(event, Event::Intruder { .. }));
    let (at, _) = beaten.expect("he stood still");
    assert!((64.9..65.6).contains(at), "{at}");
    assert_eq!(bench.guard.mode(), Mode::Watching);
    let (_, longest) = bench.look_gaps(68.0..at + 21.5);
    assert!(longest < 0.21, "{longest}");
    let (shortest, _) = bench.look_gaps(at + 23.0..100.0);
    assert!(shortest > 0.42, "{shortest}");
}

/// The lower name is to stop; he sees the kernel's beats, and needs none of ours beside them.
#[test]
fn while_the_kernel_beats_nothing_is_written_over_another_who_is_to_stop() {
    let mut bench = Bench::watched(200);
    bench.kernel_beats("alpha", 60.7, 300, 3);
    bench.run_until(70.0);
    assert!(bench.events.is_empty() && bench.writes.is_empty(), "{:?}", bench.events);
    assert!(bench.asked > 2);
}

#[test]
fn under_a_remount_that_went_on_unseen_the_watch_is_as_young_as_the_holders_looks() {
    let mut bench = Bench::watched(5);
    bench.comes(28.0, named("mike", SEQ_CLEAN, WALL_S + 28));
    bench.activity = [Activity::ReadOnly, Activity::ReadWrite].into();
    bench.run_until(90.0);
    assert!(bench.has(|event| matches!(event, Event::Resumed { why: Resumption::ReadOnly })));
    assert_eq!(bench.guard.mode(), Mode::Beating);
    bench.kernel_beats("mike", 90.3, 1, 60);
    bench.run_until(92.0);
    assert_eq!(bench.guard.mode(), Mode::Watching, "{:?}", bench.events);
    assert!((100.5..103.0).contains(&bench.lease_end_s()), "{}", bench.lease_end_s());
    // Nobody slept: another who counts, and is to stop, has his time.
    bench.kernel_beats("alpha", 95.7, 300, 3);
    bench.run_until(105.0);
    assert!(!bench.guard.is_over(), "{:?}", bench.events);
}

/// Whoever we took over from stood at a count as small as that of a remount of ours, which is seen late.
#[test]
fn a_remount_that_begins_anew_near_the_predecessors_count_is_the_kernels() {
    let mut bench = Bench::watched_over(1, 120);
    bench.run_until(140.0);
    bench.timetable.clear();
    bench.kernel_beats("mike", 141.5, 2, 60);
    bench.run_until(180.0);
    assert!(!bench.guard.is_over() && bench.events.is_empty(), "{:?}", bench.events);
}

/// He slept, and his kernel goes on where he stood, under our names.
#[test]
fn a_predecessor_that_seemed_to_be_a_new_count_is_looked_at_as_himself() {
    let mut bench = Bench::watched_over(1, 200);
    for beat in 0..8_u32 {
        bench.comes(60.4 + f64::from(beat), named("mike", 2 + beat, WALL_S + 60 + u64::from(beat)));
    }
    bench.run_until(64.0);
    assert!(!bench.guard.is_over(), "no twin: {:?}", bench.events);
    bench.run_until(120.0);
    assert!(!bench.guard.is_over(), "he has stopped: {:?}", bench.events);
}
