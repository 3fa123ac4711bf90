//! The kernel's own protocol, with nobody of our kind about: a simulator that finds nothing wrong there proves nothing.
//! The numbers are DESIGN's.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::simulator::run::must_find;

fn found(number: &str, profile: Profile, symptom: &str, seeds: u64) {
    must_find(number, profile, Breakage::None, symptom, seeds);
}

/// The clean path does not wait.
#[test]
fn k1_kernels_mount_twice() {
    found("K1", Profile::Kernels, "use the device at once", 40_000);
}

/// A frozen filesystem does not beat. Both stay mounted, and neither sees an error.
#[test]
fn k3_a_frozen_filesystem_is_mounted_elsewhere() {
    found("K3", Profile::KernelFreezes, "till the end, and neither notices", 200);
}

/// Who slept writes on, and overwrites the block in turn with his successor: `kmmpd` compares a block with itself.
#[test]
fn k4_a_kernel_that_slept_writes_for_ever() {
    found("K4", Profile::KernelSleeps, "till the end, and neither notices", 200);
}

#[test]
fn k4_the_clean_mark_of_one_stands_while_the_other_writes() {
    found("K4", Profile::KernelSleeps, "its unmount writes clean while", 200);
}
