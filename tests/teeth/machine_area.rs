//! Rules of areas, left out.

use super::{TWO_USERS, teeth};
use crate::simulator::breakage::Breakage;
use crate::simulator::plan::Profile;

/// S11: a late mark of an old holder has covered the beat of one who holds it.
#[test]
fn an_old_mark_that_is_believed_is_found() {
    teeth(Breakage::BelievesOldMarks, Profile::Areas, TWO_USERS);
}

/// S11: a late write sets the block back.
#[test]
fn a_generation_that_is_given_away_again_is_found() {
    teeth(Breakage::GenerationFromTheBlock, Profile::Areas, "holds generation");
}

/// S12: what a dead guard has left of its lease is all that its successor has before his first beat.
#[test]
fn a_lease_that_a_successor_gives_himself_is_found() {
    teeth(Breakage::LeaseFromSuccession, Profile::Areas, "counts a lease for what it has not written");
}
