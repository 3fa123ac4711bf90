//! Rules of the hold, and of two holders that meet. Each names the step of the safety argument that falls without it
//! (`mmpguard::protocol`).

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

const LONG: &str = "a double use lasts longer";

/// S1: a later write may have landed after the taker's last look. The keeper would have fenced already; the machine must not
/// rely on it.
#[test]
fn an_acknowledgement_after_the_end_of_the_lease_is_found() {
    teeth(Breakage::LateAnswerCounts, Profile::Hangs, "extends a lease that has ended");
}

/// S6: both look before they write.
#[test]
fn a_holder_that_beats_without_comparing_is_found() {
    teeth(Breakage::BeatsBlindly, Profile::Pauses, LONG);
}

/// *Release*: the block that stands there is a successor's, who uses the device.
#[test]
fn a_release_that_verifies_nothing_is_found() {
    teeth(Breakage::ReleasesBlindly, Profile::Pauses, "marks the block clean over");
}

/// S6: *and after a while in any case*: a kernel never stops for anybody.
#[test]
fn a_holder_that_never_stops_for_another_is_found() {
    teeth(Breakage::NeverStops, Profile::Pauses, LONG);
}

/// S6: a kernel before Linux 5.10 beats on under the names of whoever took over while it slept.
#[test]
fn a_sleeper_that_is_taken_for_a_twin_is_found() {
    teeth(Breakage::TakenNamesAreATwins, Profile::MountPauses, "both stop for each other");
}

/// S7: a successor came, worked and left while our clock stood still.
#[test]
fn a_successors_clean_mark_that_is_beaten_over_is_found() {
    teeth(Breakage::CleanIsBeatenOver, Profile::Pauses, "goes on with what another has used");
}

/// S1: a taker counts from the landing, which may be as early as the look.
#[test]
fn a_lease_from_the_answer_is_found() {
    teeth(Breakage::LeaseFromAnswer, Profile::Edges, TWO_USERS);
}

/// S1: a later write of unknown fate may have landed, with a smaller check interval.
#[test]
fn a_lease_that_forgets_what_was_not_acknowledged_is_found() {
    teeth(Breakage::ForgetsUnacknowledged, Profile::Hangs, TWO_USERS);
}

/// S4: the claimer's second silence is shorter than two of the longest intervals.
#[test]
fn a_second_jump_that_is_looked_at_is_found() {
    teeth(Breakage::SecondJumpWaits, Profile::LateClean, TWO_USERS);
}

/// S4: a claimer over the block of one who beats seldom is found within his silence.
#[test]
fn a_holder_that_looks_as_seldom_as_it_beats_is_found() {
    teeth(Breakage::LooksSeldom, Profile::LateClean, TWO_USERS);
}

/// S10: it may be a holder's block.
#[test]
fn a_release_over_somebody_elses_block_is_found() {
    teeth(Breakage::ReleasesOverOthers, Profile::Pauses, "marks the block clean over");
}
