//! What is broken on purpose must be found: a simulator that finds nothing here proves nothing. Each test tells how many
//! seeds it took.

use super::outcome::Breakage;
use super::plan::Profile;
use super::run::run_range;

/// K1: the kernel's clean path does not wait. A simulator that finds nothing here proves nothing.
#[test]
fn kernels_alone_mount_twice() {
    teeth("kernels alone", Profile::Kernels, Breakage::default(), TWO_USERS);
}

#[test]
fn a_lease_from_the_acknowledgement_is_found() {
    let breakage = Breakage { lease_from_acknowledgement: true, ..Breakage::default() };
    teeth("lease from acknowledgement", Profile::Hangs, breakage, TWO_USERS);
}

#[test]
fn a_host_without_a_keeper_is_found() {
    let breakage = Breakage { no_keeper: true, ..Breakage::default() };
    teeth("no keeper", Profile::Faults, breakage, TWO_USERS);
}

#[test]
fn a_clock_that_stops_in_stalls_is_found() {
    let breakage = Breakage { clock_stops: true, ..Breakage::default() };
    teeth("clock stops", Profile::Faults, breakage, TWO_USERS);
}

#[test]
fn a_driver_that_ignores_not_after_is_found() {
    let breakage = Breakage { ignores_not_after: true, ..Breakage::default() };
    teeth("ignores not_after", Profile::Faults, breakage, "writes after its lease");
}

const TWO_USERS: &str = "use the device at once";

/// Must be found, as `symptom`; tells how many seeds it took.
fn teeth(what: &str, profile: Profile, breakage: Breakage, symptom: &str) {
    let report = run_range(profile, 0..40_000, breakage, symptom, 1);
    let Some((seed, failure)) = report.failures.first() else {
        panic!("{what}: not found in {} seeds", report.seeds);
    };
    println!("{what}: found at seed {seed}: {}", failure.what);
}

/// K3: a frozen filesystem's kernel does not beat.
#[test]
fn a_frozen_mount_without_a_bridge_is_found() {
    let breakage = Breakage { no_bridge: true, ..Breakage::default() };
    teeth("no bridge", Profile::MountFreezes, breakage, TWO_USERS);
}

#[test]
fn a_bridge_that_counts_on_from_the_kernels_count_is_found() {
    let breakage = Breakage { no_jump: true, ..Breakage::default() };
    teeth("no far jump", Profile::MountFreezes, breakage, "is said to beat, and is frozen");
}

/// A beat that was not seen may carry a smaller C, and landed after the look before.
#[test]
fn a_lease_from_the_look_that_saw_the_beat_is_found() {
    let breakage = Breakage { lease_from_sight: true, ..Breakage::default() };
    teeth("lease from sight", Profile::MountHangs, breakage, TWO_USERS);
}

/// A successor is overwritten after our own unmount.
#[test]
fn a_guard_that_does_not_ask_the_kernel_is_found() {
    let breakage = Breakage { never_asks: true, ..Breakage::default() };
    teeth("never asks", Profile::Mounts, breakage, "and has nothing mounted");
}

/// K1 again, with a guard beside it.
#[test]
fn a_kernel_that_is_not_made_to_wait_is_found() {
    let breakage = Breakage { no_sequence: true, ..Breakage::default() };
    teeth("no sequence on clean", Profile::Mounts, breakage, TWO_USERS);
}

/// K2: the kernel refuses only when it has waited.
#[test]
fn a_mount_that_nobody_looks_beside_is_found() {
    let breakage = Breakage { no_look_beside: true, ..Breakage::default() };
    teeth("no look beside the mount", Profile::Mounts, breakage, "after the hand-over");
}

/// On ext4 the shutdown ioctl is no fence.
#[test]
fn a_shutdown_in_place_of_a_cut_is_found() {
    let breakage = Breakage { shutdown_fences: true, ..Breakage::default() };
    teeth("shutdown as a fence", Profile::MountHangs, breakage, TWO_USERS);
}
