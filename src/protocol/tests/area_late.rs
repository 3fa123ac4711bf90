//! Clean marks that land twice, the second time however late: what stands there may be what stood there before, and somebody has come
//! in between. The model checker found both.

use super::area::{LAST, SEQ};
use super::*;
use crate::format::area::SlotState;

/// Who drew when we did may be in by then, and the mark may hide him.
#[test]
fn an_entry_that_was_not_written_within_the_limit_counts_for_nothing() {
    for (takes_s, counts) in [(2.7, true), (2.8, false)] {
        let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
        bench.entry_writes.push_back(takes_s);
        bench.run_until(16.0);
        assert_eq!(bench.writes.is_empty(), !counts, "{:?}", bench.events);
        match counts {
            true => assert!(bench.has(|event| matches!(event, Event::Held { .. }))),
            false => assert!(matches!(bench.refusal(), Refusal::Io { .. })),
        }
    }
}

/// Seconds until it is held: a look that begins at 5.2 s takes so long, and a claim is 11.
fn held_after(seq: u32, state: SlotState, look_s: f64) -> f64 {
    let mut bench = Bench::on_slot(seq, state, 1000);
    bench.set_entry(LAST + 40, "db");
    bench.run_until(5.0);
    bench.reads.push_back(look_s);
    bench.run_until(40.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. }));
    held.unwrap_or_else(|| panic!("{:?}", bench.events)).0
}

/// Within half a wait nobody can get in between two looks, and be hidden by the mark.
#[test]
fn a_mark_that_is_watched_is_seen_at_least_every_half_wait() {
    let mark = |look_s| held_after(SEQ_CLEAN, SlotState::Released, look_s);
    about(mark(5.2), 22.0);
    about(mark(5.6), 5.2 + 5.6 + 11.0 + 11.0);
    // A live block is never written twice.
    about(held_after(SEQ, SlotState::Holding, 5.6), 22.0);
}

#[test]
fn a_mark_that_was_not_seen_while_its_watcher_slept_is_watched_anew() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.set_entry(LAST + 40, "db");
    bench.run_until(1.0);
    bench.seconds = 11.5;
    bench.run_until(22.4);
    assert!(bench.writes.is_empty(), "{:?}", bench.events);
    bench.run_until(34.0);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
}
