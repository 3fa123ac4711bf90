//! Two hosts of ours on a slot of an area: the same, with generations, an entry, and clean marks that come late.
//!
//! Every claim writes twice before it stands, so there are more histories than on a native block, and fewer faults fit. What is broken
//! on purpose here is in the protocol itself.

use crate::check::{EXCLUSION, GENERATIONS, GOES_ON, large, run};
use crate::left_out::Breakage;
use crate::ours::model::TwoHosts;
use crate::ours::state::{Before, Faults, Setup, Slot};

const NONE: Faults = Faults::of(0, 0, 0);
const CRASH: Faults = Faults::of(1, 0, 0);
const FAILURE: Faults = Faults::of(0, 1, 0);
const DELAY: Faults = Faults::of(0, 0, 1);

const PLAIN: Slot = Slot { clocks_behind: false, late_mark: false, tears: false, withdrawals: 0 };
const A_WITHDRAWAL: Slot = Slot { withdrawals: 1, ..PLAIN };
const A_LATE_MARK: Slot = Slot { late_mark: true, ..PLAIN };
const TEARS: Slot = Slot { tears: true, ..PLAIN };

fn closes(before: Before, faults: Faults, slot: Slot, states: usize) {
    run(TwoHosts::new(Setup::on_slot(before, faults, slot))).closes(states);
}

#[test]
fn without_faults() {
    for before in [Before::Clean, Before::Dead, Before::Held, Before::Torn] {
        let setup = Setup::on_slot(before, NONE, A_WITHDRAWAL);
        run(TwoHosts::new(Setup { releases: true, ..setup })).closes(100_000);
    }
    closes(Before::Free, NONE, PLAIN, 10_000);
}

#[test]
fn a_crash() {
    closes(Before::Clean, CRASH, A_WITHDRAWAL, 100_000);
    closes(Before::Dead, CRASH, PLAIN, 200_000);
    // The clocks say nothing: what the blocks say is enough.
    closes(Before::Dead, CRASH, Slot { clocks_behind: true, ..PLAIN }, 100_000);
}

#[test]
fn a_failure() {
    closes(Before::Clean, FAILURE, A_WITHDRAWAL, 500_000);
    closes(Before::Dead, FAILURE, PLAIN, 200_000);
}

#[test]
fn a_delay() {
    closes(Before::Clean, DELAY, PLAIN, 500_000);
    closes(Before::Dead, DELAY, PLAIN, 1_000_000);
}

#[test]
fn releases_with_a_fault() {
    for faults in [CRASH, FAILURE] {
        let setup = Setup::on_slot(Before::Clean, faults, PLAIN);
        run(TwoHosts::new(Setup { releases: true, ..setup })).closes(150_000);
    }
}

/// Of a write that was cut short nothing can be believed, of whichever block.
#[test]
fn a_torn_write() {
    closes(Before::Clean, CRASH, TEARS, 200_000);
    closes(Before::Held, CRASH, TEARS, 50_000);
}

/// A clean mark of whoever was there before comes again, whenever it likes: it stops no holder, and lets nobody in.
#[test]
fn a_late_mark() {
    closes(Before::Clean, CRASH, A_LATE_MARK, 1_000_000);
    closes(Before::Held, CRASH, A_LATE_MARK, 300_000);
    closes(Before::Held, CRASH, Slot { clocks_behind: true, ..A_LATE_MARK }, 300_000);
}

/// The mark looks like the one that stood there when the claim began, and hides whoever has come since: this model found both.
#[test]
fn a_mark_that_comes_again_in_the_middle_of_a_claim() {
    closes(Before::Drawn, CRASH, A_LATE_MARK, 500_000);
    closes(Before::Doubting, CRASH, A_LATE_MARK, 500_000);
}

#[test]
fn large_two_faults() {
    if large() {
        closes(Before::Clean, Faults::of(1, 0, 1), PLAIN, 5_000_000);
        closes(Before::Clean, DELAY, A_LATE_MARK, 5_000_000);
    }
}

fn broken(without: Breakage, before: Before, faults: Faults, slot: Slot, property: &str) {
    let setup = Setup { without, ..Setup::on_slot(before, faults, slot) };
    run(TwoHosts::new(setup)).violates(property);
}

#[test]
fn an_old_mark_that_is_believed_is_found() {
    broken(Breakage::BelievesOldMarks, Before::Held, CRASH, A_LATE_MARK, EXCLUSION);
}

/// With clocks that go right the time is more than what the entry says, whoever draws over what he does not believe: so it is found
/// only where they do not.
#[test]
fn a_generation_that_is_given_away_again_is_found() {
    let slot = Slot { clocks_behind: true, ..A_LATE_MARK };
    broken(Breakage::GenerationFromTheBlock, Before::Held, CRASH, slot, GENERATIONS);
}

#[test]
fn a_generation_that_is_not_written_is_found() {
    broken(Breakage::EntryIsNotWritten, Before::Held, CRASH, A_LATE_MARK, GENERATIONS);
}

#[test]
fn a_late_entry_that_counts_is_found() {
    broken(Breakage::LateEntryCounts, Before::Drawn, CRASH, A_LATE_MARK, GENERATIONS);
}

#[test]
fn a_mark_that_is_seldom_looked_at_is_found() {
    broken(Breakage::MarksAreSeldomSeen, Before::Doubting, CRASH, A_LATE_MARK, EXCLUSION);
}

#[test]
fn a_late_mark_that_stops_a_holder_is_found() {
    broken(Breakage::LateMarksStopHolders, Before::Held, CRASH, A_LATE_MARK, GOES_ON);
}

#[test]
fn a_late_beat_that_stops_a_holder_is_found() {
    broken(Breakage::LateBeatsAreSuccessors, Before::Held, Faults::of(1, 0, 1), PLAIN, GOES_ON);
}

#[test]
fn a_claimer_that_stops_a_holder_is_found() {
    broken(Breakage::ClaimersAreSuccessors, Before::Clean, FAILURE, PLAIN, GOES_ON);
}

#[test]
fn a_claim_that_is_taken_back_is_found() {
    broken(Breakage::TakesBackInAreas, Before::Clean, FAILURE, A_WITHDRAWAL, GOES_ON);
}

/// One wait would be enough here, where everybody has the same interval. Two are for whoever had a longer one, that the damage hides.
#[test]
fn a_damaged_block_that_is_claimed_at_once_is_found() {
    broken(Breakage::DamagedIsFree, Before::Held, CRASH, TEARS, EXCLUSION);
}

/// The rules that are the same on a native block.
#[test]
fn waits_that_are_not_kept_are_found() {
    broken(Breakage::HalfAWatch, Before::Held, CRASH, PLAIN, EXCLUSION);
    broken(Breakage::NoWaitOnClean, Before::Clean, NONE, PLAIN, EXCLUSION);
    broken(Breakage::NoMiddleBeat, Before::Clean, DELAY, PLAIN, EXCLUSION);
    broken(Breakage::NoLastBeat, Before::Clean, DELAY, PLAIN, EXCLUSION);
    broken(Breakage::LateAnswerCounts, Before::Held, DELAY, PLAIN, EXCLUSION);
}
