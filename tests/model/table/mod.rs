//! The rules as a table: three hosts of ours, an e2fsck, and each rule left out.

mod model;
mod moves;
mod state;

use crate::check::{EXCLUSION, run};
use model::Table;
use state::{Rules, Who};

const TWO: [Who; 3] = [Who::Ours, Who::Ours, Who::Nobody];
const THREE: [Who; 3] = [Who::Ours; 3];
const BESIDE_FSCK: [Who; 3] = [Who::Ours, Who::Fsck, Who::Nobody];

#[test]
fn two_of_ours() {
    run(Table::new(Rules::all(4), TWO, true, 0)).closes(200_000);
    run(Table::new(Rules::all(4), TWO, false, 0)).closes(200_000);
}

#[test]
fn two_of_ours_and_a_crash() {
    let rules = Rules { alike: true, ..Rules::all(4) };
    run(Table::new(rules, TWO, true, 1)).closes(400_000);
}

#[test]
fn three_of_ours() {
    let rules = Rules { alike: true, ..Rules::all(2) };
    run(Table::new(rules, THREE, true, 0)).closes(3_000_000);
}

/// An e2fsck at work does not look before a minute is over, so a write of ours that lands on its mark is never found: where one is a peer, writes
/// must land before it can have come to its mark.
fn beside_fsck() -> Rules {
    Rules { landing: 2, ..Rules::all(4) }
}

#[test]
fn an_e2fsck() {
    run(Table::new(beside_fsck(), BESIDE_FSCK, true, 0)).closes(8_000);
    run(Table::new(beside_fsck(), BESIDE_FSCK, false, 0)).closes(8_000);
}

#[test]
fn without_the_limit() {
    let rules = Rules { limit: false, ..Rules::all(4) };
    run(Table::new(rules, TWO, true, 0)).violates(EXCLUSION);
}

#[test]
fn without_the_lease_from_the_look() {
    let rules = Rules { lease_from_look: false, ..Rules::all(4) };
    run(Table::new(rules, TWO, true, 0)).violates(EXCLUSION);
}

#[test]
fn without_the_stamps() {
    let rules = Rules { stamps: false, ..Rules::all(4) };
    run(Table::new(rules, TWO, true, 0)).violates(EXCLUSION);
}

#[test]
fn without_the_middle_beat() {
    let rules = Rules { middle_beat: false, ..Rules::all(4) };
    run(Table::new(rules, TWO, true, 0)).violates(EXCLUSION);
}

#[test]
fn without_the_margin() {
    let rules = Rules { margin: false, ..beside_fsck() };
    run(Table::new(rules, BESIDE_FSCK, true, 0)).violates(EXCLUSION);
}
