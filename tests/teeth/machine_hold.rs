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

/// S6: in phase with a kernel, which compares nothing, its beats are overwritten before they are seen.
#[test]
fn beats_without_jitter_are_found() {
    teeth(Breakage::NoJitter, Profile::Pauses, LONG);
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
