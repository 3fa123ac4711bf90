//! Watch: the time between the hand-over and the kernel's first beat, at its edges.

use super::watch::{CLAIM, named};
use super::*;
use crate::protocol::event::{Resumption, Standing};

/// A clean device that was given our sequence, so that the kernel waits; when it was handed over.
fn waiting_over_our_sequence() -> (Bench, f64) {
    let mut bench = Bench::for_kernel(SEQ_CLEAN, false);
    bench.run_until(1.0);
    let (at, Event::HandedOver { .. }) = bench.events[0] else { panic!("{:?}", bench.events) };
    (bench, at)
}

/// A holder's device, marked clean for the kernel; `mounted` if it is mounted read-only already.
fn handed_over_by_a_holder(mounted: bool) -> Bench {
    let mut bench = Bench::held();
    bench.give(Input::HandOver { mounted });
    bench.run_until(12.2);
    assert!(matches!(bench.last().1, Event::HandedOver { .. }), "{:?}", bench.events);
    bench.writes.clear();
    bench
}

/// The kernel has mounted what was unclean, and no beat of its was seen yet; second 22.6.
fn mounted_without_a_beat() -> Bench {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.run_until(22.6);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(22.7);
    bench
}

fn overtaken(bench: &Bench) -> bool {
    bench.has(|event| matches!(event, Event::Overtaken { .. }))
}

/// `block` is looked at exactly then, whatever the pace; mount(2) goes on.
fn looked_at(bench: &mut Bench, at: f64, block: MmpBlock) {
    bench.run_until(at);
    bench.activity = [Activity::Ending].into();
    block.encode_into(&mut bench.image, None);
    bench.give(Input::MountEnded { killed: false });
}

#[test]
fn a_kernel_that_need_not_wait_has_its_check_interval_to_beat() {
    let mut bench = handed_over_by_a_holder(false);
    let at = bench.last().0;
    bench.run_until(at + 4.9);
    assert!(!overtaken(&bench), "{:?}", bench.events);
    bench.run_until(at + 5.3);
    assert_eq!(bench.last().1, &Event::Overtaken { refusal: None });
}

/// Its mount hung before its claim, was told to end, and has mounted all the same.
#[test]
fn a_mount_that_came_late_has_its_check_interval_to_beat() {
    let mut bench = handed_over_by_a_holder(false);
    bench.run_until(18.0);
    assert!(overtaken(&bench), "{:?}", bench.events);
    bench.give(Input::MountEnded { killed: false });
    bench.kernel_beats("mike", 18.5, 1, 10);
    bench.run_until(19.5);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
}

#[test]
fn another_hosts_first_beat_over_a_clean_hand_over_is_no_renamed_kernels() {
    let mut bench = handed_over_by_a_holder(false);
    bench.kernel_beats("zulu", 12.5, 1, 1);
    bench.run_until(13.0);
    assert!(matches!(bench.last().1, Event::Overtaken { refusal: Some(Refusal::InUse { .. }) }));
}

/// What is mounted is used, and no lease runs yet.
#[test]
fn a_look_that_hangs_over_what_is_mounted_is_given_up_after_a_limit() {
    let mut bench = mounted_without_a_beat();
    bench.hang_in_a_look();
    let due_s = (bench.guard.deadline().0 - BOOT_S * 1_000_000_000) as f64 / 1e9;
    // One check interval after mount(8) has ended, and a quarter of the smallest wait.
    about(due_s, 22.6 + 5.0 + 2.75);
    bench.seconds = due_s - 0.1;
    bench.guard.handle(bench.now(), Input::Tick);
    assert!(!bench.guard.is_over());
    bench.seconds = due_s + 0.1;
    bench.guard.handle(bench.now(), Input::Tick);
    bench.run_until(bench.seconds);
    assert_eq!(bench.loss(), &Loss::NoKernelBeat);
}

#[test]
fn a_look_that_hung_and_shows_a_beat_was_in_time() {
    let mut bench = mounted_without_a_beat();
    bench.hang_in_a_look();
    bench.put("mike", 1, 5);
    bench.seconds = 31.0;
    bench.answer_the_look();
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
}

#[test]
fn a_look_that_hangs_while_nothing_is_mounted_is_waited_for() {
    let mut bench = handed_over_by_a_holder(false);
    bench.hang_in_a_look();
    assert_eq!(bench.guard.deadline(), Mono::FAR);
    bench.seconds = 60.0;
    bench.guard.handle(bench.now(), Input::Tick);
    assert!(!bench.guard.is_over());
}

#[test]
fn a_look_under_way_is_the_only_one_when_the_mount_ends() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.hang_in_a_look();
    bench.guard.handle(bench.now(), Input::MountEnded { killed: false });
    assert_eq!(bench.guard.poll(), None);
}

#[test]
fn a_block_is_damaged_when_five_looks_in_a_row_find_it_so() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    for _ in 0..2 {
        bench.image[0] ^= 0xFF;
        bench.run_looks(4);
        bench.image[0] ^= 0xFF;
        bench.run_looks(1);
        assert!(!overtaken(&bench), "{:?}", bench.events);
    }
    bench.image[0] ^= 0xFF;
    bench.run_looks(5);
    assert!(matches!(bench.last().1, Event::Overtaken { refusal: Some(Refusal::Damaged { .. }) }));
}

#[test]
fn an_unmount_before_the_first_beat_was_seen_is_an_unmount() {
    let mut bench = mounted_without_a_beat();
    bench.timetable.push_back((23.0, named("mike", SEQ_CLEAN, WALL_S + 23)));
    bench.activity = [Activity::Gone].into();
    bench.run_until(23.5);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
}

#[test]
fn a_remount_before_the_first_beat_was_seen_is_taken_over() {
    let mut bench = mounted_without_a_beat();
    bench.timetable.push_back((23.0, named("mike", SEQ_CLEAN, WALL_S + 23)));
    bench.activity = [Activity::ReadOnly].into();
    bench.run_until(24.0);
    assert!(bench.has(|event| matches!(event, Event::Resumed { why: Resumption::ReadOnly })));
    assert_eq!(bench.guard.mode(), Mode::Beating);
}

#[test]
fn another_hosts_clean_mark_is_not_the_last_word_of_what_is_mounted() {
    let mut bench = mounted_without_a_beat();
    bench.timetable.push_back((23.0, named("zulu", SEQ_CLEAN, WALL_S + 23)));
    bench.run_until(40.0);
    assert!(!bench.has(|event| matches!(event, Event::KernelBeats { .. })), "{:?}", bench.events);
    assert_eq!(bench.loss(), &Loss::NoKernelBeat);
}

/// Nothing beats it: a device that is to be protected was mounted in a way that protects nothing.
#[test]
fn a_mount_that_is_read_only_from_the_start_is_no_holders() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(22.6);
    bench.activity = [Activity::ReadOnly].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(40.0);
    assert_eq!(bench.loss(), &Loss::NoKernelBeat);
    assert!(bench.writes.is_empty());
}

#[test]
fn while_the_mount_lets_go_the_kernel_is_asked_ten_times_a_second() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(22.6);
    bench.activity = [Activity::Ending].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(24.6);
    let (shortest, longest) = bench.look_gaps(22.6..24.6);
    assert!(shortest > 0.099 && longest < 0.105, "{shortest} {longest}");
}

#[test]
fn a_read_only_mount_that_is_gone_when_its_remount_fails_is_beaten_or_left_to_who_has_come() {
    let mut bench = handed_over_by_a_holder(true);
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(13.0);
    assert!(bench.has(|event| matches!(event, Event::Resumed { why: Resumption::Unmounted })));
    assert!(!bench.writes.is_empty());

    let mut bench = handed_over_by_a_holder(true);
    bench.put("zulu", CLAIM, 5);
    bench.activity = [Activity::Gone].into();
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(13.0);
    assert_eq!(bench.last().1, &Event::Unmounted, "{:?}", bench.events);
    assert!(bench.writes.is_empty());
}

#[test]
fn what_stands_in_the_block_after_a_mount_that_failed_is_told() {
    let ends = |bench: &mut Bench, killed| {
        bench.activity = [Activity::Gone].into();
        bench.give(Input::MountEnded { killed });
        match bench.last().1 {
            Event::NotMounted { standing, refusal } => (*standing, refusal.is_some()),
            other => panic!("{other:?}"),
        }
    };
    // Whoever was there has left.
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.put("zulu", SEQ_CLEAN, 5);
    assert_eq!(ends(&mut bench, true), (Standing::Clean, false));
    // The kernel was stopped after its claim over an unclean block.
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.run_until(12.0);
    assert_eq!(ends(&mut bench, true), (Standing::Claim, false));
    // Our own sequence has stood for too long to be taken back.
    let (mut bench, at) = waiting_over_our_sequence();
    bench.run_until(at + 12.0);
    assert_eq!(ends(&mut bench, true), (Standing::Claim, false));
}

#[test]
fn a_beat_under_our_names_comes_after_both_waits_of_the_kernel() {
    // Hosts may share their names, and nothing is mounted here yet.
    let (mut bench, at) = waiting_over_our_sequence();
    bench.kernel_beats("mike", at + 10.0, 1, 10);
    bench.run_until(at + 11.0);
    assert!(matches!(bench.last().1, Event::Overtaken { refusal: Some(Refusal::InUse { .. }) }));
    assert_eq!(bench.guard.mode(), Mode::Expecting);
    // A tick of the kernel's may be missing.
    for (waited, mode) in [(21.85, Mode::Expecting), (21.95, Mode::Watching), (30.0, Mode::Watching)] {
        let (mut bench, at) = waiting_over_our_sequence();
        looked_at(&mut bench, at + waited, named("mike", 1, WALL_S + 21));
        assert_eq!(bench.guard.mode(), mode, "{waited} {:?}", bench.events);
    }
}

/// Somebody forced our sequence clean, so the kernel has not waited.
#[test]
fn the_first_beat_of_what_is_mounted_may_come_at_any_time() {
    let (mut bench, at) = waiting_over_our_sequence();
    bench.run_until(at + 2.0);
    bench.give(Input::MountEnded { killed: false });
    bench.kernel_beats("mike", at + 2.5, 1, 10);
    bench.run_until(at + 4.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
}

/// The host got another name while its kernel waited; the kernel writes that.
#[test]
fn a_first_beat_under_another_nodes_name_counts_when_something_is_mounted_here() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_claims(11.2);
    bench.kernel_beats("renamed", 22.5, 1, 60);
    bench.run_until(24.0);
    assert_eq!((bench.guard.mode(), bench.events.len()), (Mode::Expecting, 1), "{:?}", bench.events);
    bench.give(Input::MountEnded { killed: false });
    bench.run_until(60.0);
    assert!(matches!(bench.last().1, Event::KernelBeats { .. }), "{:?}", bench.events);
    assert_eq!(bench.guard.mode(), Mode::Watching);
}

#[test]
fn a_first_beat_under_another_nodes_name_is_a_rivals_before_the_waits_are_over_or_on_another_device() {
    let mut bench = Bench::for_kernel(77, false);
    bench.run_until(1.0);
    bench.kernel_beats("renamed", 12.0, 1, 10);
    bench.run_until(12.5);
    assert!(matches!(bench.last().1, Event::Overtaken { refusal: Some(Refusal::InUse { .. }) }));

    let beat = named("renamed", 1, WALL_S + 21);
    let elsewhere = MmpBlock { device: DeviceName::new("sdz"), ..beat };
    for (waited, block, is_rivals) in
        [(21.85, beat, true), (21.95, beat, false), (23.0, beat, false), (23.0, elsewhere, true)]
    {
        let (mut bench, at) = waiting_over_our_sequence();
        looked_at(&mut bench, at + waited, block);
        assert_eq!(overtaken(&bench), is_rivals, "{waited} {:?}", bench.events);
    }
}

/// The kernel claims, finds something amiss, and marks the block clean again: what came of it is asked at the end.
#[test]
fn our_kernels_clean_mark_comes_after_both_of_its_waits() {
    let clean = named("mike", SEQ_CLEAN, WALL_S + 21);
    for (waited, early) in [(10.0, true), (21.85, true), (21.95, false), (30.0, false)] {
        let (mut bench, at) = waiting_over_our_sequence();
        looked_at(&mut bench, at + waited, clean);
        assert_eq!(overtaken(&bench), early, "{waited} {:?}", bench.events);
    }
    let (mut bench, at) = waiting_over_our_sequence();
    looked_at(&mut bench, at + 23.0, named("zulu", SEQ_CLEAN, WALL_S + 23));
    assert_eq!(bench.last().1, &Event::Overtaken { refusal: None });
}

#[test]
fn the_kernels_claim_may_come_a_tick_early() {
    for (waited, early) in [(10.85, true), (10.95, false)] {
        let (mut bench, at) = waiting_over_our_sequence();
        let claim = MmpBlock { seq: CLAIM, ..bench.block() };
        looked_at(&mut bench, at + waited, claim);
        assert_eq!(overtaken(&bench), early, "{waited} {:?}", bench.events);
    }
}
