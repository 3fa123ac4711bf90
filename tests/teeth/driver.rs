//! Rules of whoever drives the machine: the driver, the keeper, the clock, the fence.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

#[test]
fn a_lease_from_the_acknowledgement_is_found() {
    teeth(Breakage::LeaseFromAcknowledgement, Profile::Hangs, TWO_USERS);
}

#[test]
fn a_host_without_a_keeper_is_found() {
    teeth(Breakage::NoKeeper, Profile::Faults, TWO_USERS);
}

#[test]
fn a_clock_that_stops_in_stalls_is_found() {
    teeth(Breakage::ClockStops, Profile::Faults, TWO_USERS);
}

#[test]
fn a_driver_that_ignores_not_after_is_found() {
    teeth(Breakage::IgnoresNotAfter, Profile::Faults, "writes after its lease");
}

/// K3: a frozen filesystem's kernel does not beat.
#[test]
fn a_frozen_mount_without_a_bridge_is_found() {
    teeth(Breakage::NoBridge, Profile::MountFreezes, TWO_USERS);
}

#[test]
fn a_bridge_that_counts_on_from_the_kernels_count_is_found() {
    teeth(Breakage::NoJump, Profile::MountFreezes, "is said to beat, and is frozen");
}

/// A beat that was not seen may carry a smaller C, and landed after the look before.
#[test]
fn a_lease_from_the_look_that_saw_the_beat_is_found() {
    teeth(Breakage::LeaseFromSight, Profile::MountHangs, TWO_USERS);
}

/// A successor is overwritten after our own unmount.
#[test]
fn a_guard_that_does_not_ask_the_kernel_is_found() {
    teeth(Breakage::NeverAsks, Profile::Mounts, "and has nothing mounted");
}

/// K1 again, with a guard beside it.
#[test]
fn a_kernel_that_is_not_made_to_wait_is_found() {
    teeth(Breakage::NoSequence, Profile::Mounts, TWO_USERS);
}

/// K2: the kernel refuses only when it has waited.
#[test]
fn a_mount_that_nobody_looks_beside_is_found() {
    teeth(Breakage::NoLookBeside, Profile::Mounts, "after the hand-over");
}

/// On ext4 the shutdown ioctl is no fence.
#[test]
fn a_shutdown_in_place_of_a_cut_is_found() {
    teeth(Breakage::ShutdownFences, Profile::MountHangs, TWO_USERS);
}
