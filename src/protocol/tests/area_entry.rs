//! Entries of slots: which generation is drawn, and that nobody holds one that the entry does not know.

use super::area::{CREATED_S, LAST, record};
use super::*;
use crate::format::area::SlotState;

#[test]
fn a_generation_is_one_more_than_was_ever_seen() {
    // The block went back: a late mark of an old holder, and whoever came after him may hold it still.
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.set_entry(LAST + 40, "db");
    bench.run_until(40.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    assert!((22.0..22.5).contains(&held), "it is watched like a live one: {held}");
    // Both may have gone back, and then the time tells.
    assert!(bench.guard.generation().unwrap() >= WALL_S << 16);
    // The entry did.
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.set_entry(LAST - 40, "db");
    bench.run_until(12.0);
    assert_eq!((bench.guard.generation(), bench.high_water()), (Some(LAST + 1), LAST + 1));
    // Or it is damaged, and is written anew.
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.entry[0x20] ^= 1;
    bench.run_until(23.0);
    let drawn = bench.guard.generation().unwrap();
    assert!(drawn >= WALL_S << 16 && drawn == bench.high_water());
}

/// It was added, and nobody has had it yet: its first generation is seeded from the area's time.
#[test]
fn a_free_slot_with_a_name_is_claimed() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Free, 1000);
    bench.put_slot("", SEQ_CLEAN, record(SlotState::Free, 0, [0; 16], 1000));
    bench.set_entry(0, "db");
    bench.run_until(12.0);
    assert_eq!(bench.guard.generation(), Some(CREATED_S << 16), "{:?}", bench.events);
}

/// Whoever read the entry long ago may find another slot's there, or a later generation.
#[test]
fn an_entry_that_could_not_be_written_in_time_is_read_anew() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.late_entries = 1;
    bench.run_until(0.5);
    assert_eq!(bench.guard.generation(), Some(LAST + 1), "drawn again");
    assert_eq!(bench.slot().state, SlotState::Claiming);
    assert!(bench.looks.len() >= 3, "{:?}", bench.looks);
}

/// Two draw at once; the later of both writes of the entry is the one of the smaller number, whose claim comes to nothing.
#[test]
fn an_entry_that_was_set_back_during_the_claim_is_drawn_from_anew() {
    for damaged in [false, true] {
        let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
        bench.run_until(3.0);
        assert_eq!((bench.guard.generation(), bench.slot().state), (Some(LAST + 1), SlotState::Claiming));
        bench.set_entry(LAST, "db");
        bench.entry[0x20] ^= u8::from(damaged);
        bench.run_until(60.0);
        let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
        assert!((33.0..33.5).contains(&held), "its own claim is watched, and claimed over: {held}");
        let drawn = bench.guard.generation().unwrap();
        assert!(drawn > LAST + 1 && drawn == bench.high_water() && drawn == bench.slot().generation);
    }
    // A greater number there is no reason: whoever drew it sees us.
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.run_until(3.0);
    bench.set_entry(LAST + 7, "db");
    bench.run_until(12.0);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })) && bench.high_water() == LAST + 7);
}
