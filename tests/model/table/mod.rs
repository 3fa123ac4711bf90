//! The rules as a table: three hosts of ours, an e2fsck, and each rule left out.

mod model;
mod moves;
mod state;

use crate::check::{EXCLUSION, large, run};
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
    run(Table::new(alike(4), TWO, true, 1)).closes(400_000);
}

#[test]
fn three_of_ours() {
    run(Table::new(alike(2), THREE, true, 0)).closes(3_000_000);
}

#[test]
fn large_three_of_ours_unclean() {
    if large() {
        run(Table::new(alike(2), THREE, false, 0)).closes(3_000_000);
    }
}

/// Generations, and who came before, are left to `ours`: here is only that no margin is needed among ourselves, and no second look.
#[test]
fn two_of_ours_in_an_area() {
    run(Table::new(Rules { area: true, ..Rules::all(4) }, TWO, false, 0)).closes(150_000);
    run(Table::new(Rules { area: true, ..alike(4) }, TWO, true, 1)).closes(300_000);
}

fn alike(wait: u8) -> Rules {
    Rules { alike: true, ..Rules::all(wait) }
}

/// With an e2fsck writes land within half a wait.
fn beside_fsck(wait: u8) -> Rules {
    Rules { landing: wait / 2, ..Rules::all(wait) }
}

#[test]
fn an_e2fsck() {
    run(Table::new(beside_fsck(4), BESIDE_FSCK, true, 0)).closes(8_000);
    run(Table::new(beside_fsck(4), BESIDE_FSCK, false, 0)).closes(8_000);
}

#[test]
fn large_two_of_ours_and_an_e2fsck() {
    if large() {
        let who = [Who::Ours, Who::Ours, Who::Fsck];
        run(Table::new(beside_fsck(2), who, true, 0)).closes(500_000);
        run(Table::new(beside_fsck(2), who, false, 0)).closes(500_000);
    }
}

/// Where they end: while it works, an e2fsck neither looks nor writes for a minute. A claim of ours that lands only when it has
/// marked the block buries the mark, and what we watch then, before we claim again, is our own late claim.
#[test]
fn a_claim_that_lands_on_the_mark_of_an_e2fsck_is_not_noticed() {
    run(Table::new(Rules::all(4), BESIDE_FSCK, true, 0)).violates(EXCLUSION);
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
    let rules = Rules { margin: false, ..beside_fsck(4) };
    run(Table::new(rules, BESIDE_FSCK, true, 0)).violates(EXCLUSION);
}
