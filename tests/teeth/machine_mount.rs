//! Rules of the mounts, with the steps of their argument (`mmpguard::protocol`'s `watch`) that fall without them.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

/// W6: the kernel finds the clean mark that a live holder leaves for a moment.
#[test]
fn a_kernel_that_is_called_upon_a_live_block_is_found() {
    teeth(Breakage::NoBeatBeforeTheCall, Profile::Mounts, TWO_USERS);
}

/// W4: the kernel takes our beat for somebody else's, and never mounts.
#[test]
fn a_bridge_before_the_kernels_first_beat_is_found() {
    teeth(Breakage::BridgesBeforeTheBeat, Profile::Mounts, "without a fault nobody got in");
}

/// W1: the kernel's lease, which may be shorter than our interval, ends between two looks.
#[test]
fn a_guard_that_looks_as_seldom_as_it_would_beat_is_found() {
    teeth(Breakage::OwnIntervalOverKernels, Profile::Mounts, "a holder without a fault was stopped");
}

/// W6: a rival's claim is not noticed.
#[test]
fn a_claim_before_the_kernels_time_that_is_taken_for_its_own_is_found() {
    teeth(Breakage::AnyClaimIsTheKernels, Profile::Mounts, "after the hand-over");
}

/// W6: its own claim, which comes sooner, is taken for a rival's, and its mount is killed each time.
#[test]
fn an_ldiskfs_that_is_taken_for_a_kernel_that_waits_for_longer_is_found() {
    teeth(Breakage::EveryKernelWaitsLong, Profile::Mounts, "without a fault nobody got in");
}

/// W5: what is being unmounted is still written.
#[test]
fn a_forced_clear_that_ends_a_guard_is_found() {
    teeth(Breakage::ForcedIsTheLastWord, Profile::Clears, "while the device is in use");
}
