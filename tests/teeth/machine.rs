//! Rules of the claim. Each names the step of the safety argument that falls without it (`mmpguard::protocol`).

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

/// S3: the kernel's way (K1).
#[test]
fn a_claim_that_does_not_wait_on_clean_is_found() {
    teeth(Breakage::NoWaitOnClean, Profile::Faults, TWO_USERS);
}

/// S1: at the end of the watch the holder's lease still runs.
#[test]
fn half_a_wait_before_a_takeover_is_found() {
    teeth(Breakage::HalfAWatch, Profile::Hangs, TWO_USERS);
}

/// S1: the holder's second wait, for his fence, is by his own check interval.
#[test]
fn one_wait_of_a_dead_holder_with_a_larger_check_interval_is_found() {
    teeth(Breakage::OneWaitOfTheDead, Profile::Hangs, TWO_USERS);
}

/// Step 1: what was dirty in a filesystem that an error stopped follows for up to 45 s.
#[test]
fn a_doubtful_clean_mark_that_is_believed_is_found() {
    teeth(Breakage::BelievesDoubtfulClean, Profile::Faults, "uses what may still be written to");
}

/// S2: a claim lands after the rival's last look.
#[test]
fn a_claim_that_counts_however_late_is_found() {
    teeth(Breakage::NoLimit, Profile::Hangs, TWO_USERS);
}

/// S2: of claims that meet only the last to land may go on.
#[test]
fn a_first_silence_without_looks_is_found() {
    teeth(Breakage::BlindFirstSilence, Profile::Hangs, TWO_USERS);
}

/// S4: a holder whose block was claimed over beats within the second silence.
#[test]
fn a_second_silence_without_looks_is_found() {
    teeth(Breakage::BlindSecondSilence, Profile::LateClean, TWO_USERS);
}

/// S1, S2: the first lease comes from a write, and what stands there is as old as half a wait.
#[test]
fn a_device_that_is_held_without_a_last_beat_is_found() {
    teeth(Breakage::NoLastBeat, Profile::Hangs, TWO_USERS);
}

/// S4: the holder takes a claimer who counts for another holder, and stops.
#[test]
fn a_claimer_that_counts_is_found() {
    teeth(Breakage::ClaimCounts, Profile::LateClean, "a holder without a fault was stopped");
}

/// S4, step 4: whoever wins a race, or holds, finds a clean mark over his block, and anybody may claim it.
#[test]
fn a_claimer_that_withdraws_by_a_clean_mark_is_found() {
    teeth(Breakage::WithdrawsByClean, Profile::LateClean, "marks the block clean over");
}

/// S2: the claim stands still for the very wait that a rival watches.
#[test]
fn a_claim_without_a_middle_beat_is_found() {
    teeth(Breakage::NoMiddleBeat, Profile::Edges, TWO_USERS);
}

/// S8: a living holder shows himself within one of his beats.
#[test]
fn a_look_at_the_vouched_that_is_shorter_than_a_beat_is_found() {
    teeth(Breakage::LooksForLessThanABeat, Profile::Calm, "refused only after");
}

/// S14: a word is for the bytes that were seen, and no e2fsck that came since.
#[test]
fn a_word_for_one_mark_that_counts_for_the_next_is_found() {
    teeth(Breakage::AnswersForAnyBytes, Profile::Fscks, TWO_USERS);
}

/// A standby's watch is worth what a claim's own would be: of the bytes that the claim finds.
#[test]
fn a_credit_for_other_bytes_is_found() {
    teeth(Breakage::CreditForOtherBytes, Profile::Standby, TWO_USERS);
}

/// And without a hole: the holder's later beat stood in it, and an earlier one landed once more.
#[test]
fn a_credit_over_a_hole_is_found() {
    teeth(Breakage::CreditOverAHole, Profile::Standby, TWO_USERS);
}
