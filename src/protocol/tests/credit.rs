//! Claims that count what a standby of their host has watched.

use super::area::SEQ;
use super::*;
use crate::format::area::SlotState;

/// How long one of a standby's looks takes.
const LOOK: Duration = Duration::from_millis(1);

/// A time so long before the bench's second 0.
fn ago(seconds: f64) -> Mono {
    Mono(BOOT_S * 1_000_000_000 - Duration::from_secs_f64(seconds).as_nanos() as u64)
}

impl Bench {
    /// A standby that has looked at what stands there, from so many seconds ago to so many.
    fn stood_by(&self, from: f64, to: f64) -> Standby {
        let mut standby = Standby::new(Duration::from_secs(1));
        let mut began = ago(from);
        while began <= ago(to) {
            standby.looked(began, began + LOOK, &self.image);
            began = standby.next_look(began);
        }
        standby
    }

    /// The claim is handed what it saw.
    fn credited(mut self, standby: &Standby) -> Self {
        self.guard = self.guard.with_credit(standby.credit().expect("a live block was watched"));
        self
    }

    /// The same, watched until a tenth of a second ago.
    fn after(self, seconds: f64) -> Self {
        let standby = self.stood_by(seconds, 0.1);
        self.credited(&standby)
    }

    fn held_at(&mut self) -> f64 {
        self.run_until(200.0);
        let held = self.events.iter().find(|(_, event)| matches!(event, Event::Held { .. }));
        held.unwrap_or_else(|| panic!("not held: {:?}", self.events)).0
    }

    fn first_write_at(&mut self) -> f64 {
        self.run_until(200.0);
        self.writes.first().unwrap_or_else(|| panic!("nothing written: {:?}", self.events)).0
    }
}

#[test]
fn what_was_watched_out_is_claimed_at_once_and_held_after_one_wait() {
    let mut bench = Bench::new(77, 5).after(13.0);
    about(bench.held_at(), 11.0);
    about(bench.writes[0].0, 0.0);
    assert!(!bench.has(|event| matches!(event, Event::Watching { .. })));
    // The claim itself is as long, and as closely watched, as any.
    assert!(bench.look_gaps(0.1..10.9).1 < 0.25, "{:?}", bench.looks);
}

#[test]
fn what_is_left_of_a_watch_is_watched_and_told() {
    let mut bench = Bench::new(77, 5).after(5.0);
    bench.run_until(0.1);
    let (_, Event::Watching { until, total, .. }) = bench.last() else { panic!("{:?}", bench.events) };
    about(seconds(*until), 7.5);
    about(total.as_secs_f64(), 7.5);
    about(bench.first_write_at(), 7.5);
    about(bench.held_at(), 18.5);
    // Just short of it: the last look is due when the watch ends, not a look later.
    let mut bench = Bench::new(77, 5).after(12.4);
    assert!(bench.first_write_at() < 0.15, "{:?}", bench.writes);
}

#[test]
fn a_change_refuses_whatever_was_watched_before() {
    let mut bench = Bench::new(77, 5).after(5.0);
    bench.run_until(3.0);
    bench.put("zulu", 78, 5);
    bench.run_until(10.0);
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }));
    about(bench.last().0, 3.05);
    assert!(bench.writes.is_empty());
}

#[test]
fn the_second_wait_of_a_dead_holder_is_watched_by_his_own_check_interval() {
    // C = 30: two waits of 61 s less ours of 11, and the margin.
    about(Bench::new(77, 30).after(100.0).first_write_at(), 12.5);
    about(Bench::new(77, 30).after(113.0).held_at(), 11.0);
}

#[test]
fn a_slot_of_an_area_is_taken_over_within_one_wait() {
    for (interval_ms, wait_s) in [(100, 1.1), (1000, 11.0)] {
        let mut bench = Bench::on_slot(SEQ, SlotState::Holding, interval_ms).after(2.0 * wait_s);
        let held = bench.held_at();
        assert!((wait_s..wait_s + 0.1).contains(&held), "{interval_ms}: {held}");
        let mut bench = Bench::on_slot(SEQ, SlotState::Holding, interval_ms).after(wait_s / 2.0);
        let held = bench.held_at();
        assert!((1.5 * wait_s..1.5 * wait_s + 0.3).contains(&held), "{interval_ms}: {held}");
    }
}

#[test]
fn a_kernel_is_called_at_once_upon_what_has_not_stirred_for_a_beat() {
    let options = GuardOptions { kernel_waits: true, ..GuardOptions::default() };
    for (watched_s, handed_s) in [(3.2, 0.0), (1.0, 2.05)] {
        let mut bench = Bench::with(77, 5, options, superblock(false));
        bench.put("zulu", 77, 5);
        let mut bench = bench.after(watched_s);
        bench.run_until(4.0);
        let handed = bench.events.iter().find(|(_, event)| matches!(event, Event::HandedOver { .. }));
        about(handed.expect("handed over").0, handed_s);
        assert!(bench.writes.is_empty());
    }
}

#[test]
fn one_who_is_vouched_to_be_dead_has_shown_himself_to_the_standby() {
    let options = GuardOptions { fenced: Some(NodeName::new("zulu")), ..GuardOptions::default() };
    let fenced = || Bench::with(77, 5, options, superblock(false));
    about(fenced().after(4.0).first_write_at(), 0.0);
    about(fenced().after(1.0).first_write_at(), 2.05);
    // The vouch does not name whom it watched.
    let other = GuardOptions { fenced: Some(NodeName::new("yankee")), ..options };
    about(Bench::with(77, 5, other, superblock(false)).after(4.0).first_write_at(), 8.5);
}

#[test]
fn other_bytes_earn_nothing() {
    let mut bench = Bench::new(77, 5).after(100.0);
    bench.put("zulu", 78, 5);
    about(bench.first_write_at(), 12.5);
    // A bit that no field has.
    let mut bench = Bench::new(77, 5).after(100.0);
    bench.image[0x200] ^= 1;
    about(bench.first_write_at(), 12.5);
}

#[test]
fn a_hole_before_the_claim_earns_nothing() {
    for (last, first_write) in [(5.4, 0.0), (5.6, 12.5)] {
        let bench = Bench::new(77, 5);
        let standby = bench.stood_by(100.0, last);
        about(bench.credited(&standby).first_write_at(), first_write);
    }
}

#[test]
fn a_hole_in_the_watch_begins_it_anew() {
    let bench = Bench::new(77, 5);
    let mut standby = bench.stood_by(100.0, 6.0);
    for tenths in (0..=50).rev().step_by(2) {
        let began = ago(f64::from(tenths) / 10.0);
        standby.looked(began, began + LOOK, &bench.image);
    }
    about(bench.credited(&standby).first_write_at(), 7.5);
}

#[test]
fn the_slowest_look_makes_the_watch_longer() {
    let bench = Bench::new(77, 5);
    let mut standby = bench.stood_by(12.0, 1.0);
    standby.looked(ago(0.9), ago(0.2), &bench.image);
    about(bench.credited(&standby).first_write_at(), 12.5 + 0.7 - 12.0);
}

#[test]
fn a_clean_mark_is_watched_for_reasons_of_its_own() {
    let mut bench = Bench::with(SEQ_CLEAN, 5, GuardOptions::default(), superblock(true));
    assert_eq!(bench.stood_by(100.0, 0.1).credit(), None);
    // Nor does the time count for which something else stood there.
    let live = Bench::new(77, 5).stood_by(100.0, 0.1);
    bench = bench.credited(&live);
    about(bench.first_write_at(), 46.5);
}

/// Something else was there in between, so nothing has stood all the while.
#[test]
fn a_first_look_at_anything_else_voids_it_for_good() {
    let mut bench = Bench::new(77, 5).after(100.0);
    let whole = bench.image;
    bench.image[0] ^= 1;
    bench.run_until(0.015);
    bench.image = whole;
    about(bench.first_write_at(), 12.5);

    let bench = Bench::new(77, 5);
    let (whole, standby) = (bench.image, bench.stood_by(100.0, 0.1));
    let mut bench = bench.credited(&standby);
    bench.put("zulu", SEQ_CLEAN, 5);
    // Its claim is too late, and what it finds then is what the standby saw.
    bench.fates.push_back(Fate::NotBegun);
    while !bench.fates.is_empty() {
        let output = bench.guard.poll().expect("it claims");
        bench.carry_out(output);
    }
    bench.image = whole;
    let written = bench.first_write_at();
    assert!(written > 12.0, "{written}");
}
