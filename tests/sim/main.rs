//! The protocol in the simulator: families of seeds that must show nothing, and kernels alone, which must be found out. A seed
//! is a history only as long as the simulator stays what it is: so what failed once is kept as a rule that can be left out
//! (`tests/teeth`), or as a timeline among the unit tests (`docs/checks.md` lists them).

mod kernels;
mod peers;
#[path = "../simulator/mod.rs"]
mod simulator;

use mmpguard::protocol;
use simulator::breakage::Breakage;
use simulator::plan::Profile;
use simulator::run::{Report, run_range};

#[test]
fn never_two_users_under_faults() {
    let report = checked(Profile::Faults, 6000);
    let total = &report.total;
    // What is checked must have happened.
    for count in
        [total.held, total.kernel_mounts, total.lost, total.released, total.lost_races, total.too_slow]
    {
        assert!(count > 100, "{}", report.figures());
    }
}

#[test]
fn stated_times_hold_without_faults() {
    let report = checked(Profile::Calm, 700);
    assert!(report.total.held > 500 && report.total.refused > 1000, "{}", report.figures());
    assert_eq!((report.total.lost, report.total.too_slow), (0, 0), "{}", report.figures());
}

#[test]
fn a_stall_shorter_than_the_lease_stops_nobody() {
    let report = checked(Profile::ShortStalls, 500);
    assert!(report.total.stalls > 1000 && report.total.refused > 1000, "{}", report.figures());
}

#[test]
fn never_two_users_at_the_edge_of_a_lease() {
    let report = checked(Profile::Hangs, 3000);
    assert!(report.total.lost > 500, "{}", report.figures());
}

#[test]
fn never_two_users_nearer_still_to_the_edge() {
    let report = checked(Profile::Edges, 1000);
    assert!(report.total.lost > 300, "{}", report.figures());
}

/// A study: `docs/checks.md` has what came of it.
#[test]
fn a_second_life_lets_nobody_in_beside_it() {
    let report = checked(Profile::SecondLife, 500);
    assert!(report.total.second_lives_kept > 50, "{}", report.figures());
}

/// It may stop a holder, which cannot be helped, but it never lets two in.
#[test]
fn a_late_clean_mark_never_lets_two_in() {
    let report = checked(Profile::LateClean, 300);
    assert!(report.total.apart.late_clean > 0, "{}", report.figures());
}

/// What is not promised, and how it ends (S6, S7).
#[test]
fn who_meets_because_a_clock_stood_still_parts_soon() {
    let report = checked(Profile::Pauses, 600);
    assert!(report.total.apart.double_uses > 100, "{}", report.figures());
}

/// The same where the kernels of some go on by themselves, and may take the other's names.
#[test]
fn who_meets_with_a_mount_because_a_clock_stood_still_parts_soon() {
    let report = checked(Profile::MountPauses, 300);
    assert!(report.total.apart.double_uses > 100, "{}", report.figures());
}

/// And no generation is given away twice.
#[test]
fn never_two_users_of_a_slot_under_faults() {
    let report = checked(Profile::Areas, 1500);
    let total = &report.total;
    for count in [total.held, total.lost, total.released, total.lost_races, total.intruders] {
        assert!(count > 50, "{}", report.figures());
    }
}

/// What a standby has watched shortens a claim by that, and lets nobody in beside a user; takeovers take their stated time.
#[test]
fn never_two_users_where_standbys_were_watching() {
    let report = checked(Profile::Standby, 3000);
    let total = &report.total;
    for count in [total.held, total.credits, total.takeovers, total.lost, total.mounts.watched, total.echoes]
    {
        assert!(count > 100, "{}", report.figures());
    }
}

/// Also beside kernels alone, and hosts of ours that do not mount.
#[test]
fn mounts_exclude_each_other_in_the_stated_times() {
    let report = checked(Profile::Mounts, 900);
    let mounts = &report.total.mounts;
    assert_eq!(report.total.lost, report.total.apart.twins, "{}", report.figures());
    for count in [mounts.watched, mounts.overtaken, mounts.remounts, mounts.resumed, mounts.unmounts] {
        assert!(count > 500, "{}", report.figures());
    }
}

/// A freeze is no fault, however long: nobody else gets in, nobody is stopped, and the kernel beats again after it.
#[test]
fn a_frozen_mount_is_nobody_elses() {
    let report = checked(Profile::MountFreezes, 900);
    let mounts = &report.total.mounts;
    for count in [mounts.freezes, mounts.bridged, mounts.failures * 10, mounts.resumed] {
        assert!(count > 500, "{}", report.figures());
    }
}

#[test]
fn never_two_mounts_under_faults() {
    let report = checked(Profile::MountFaults, 4000);
    let mounts = &report.total.mounts;
    for count in [mounts.watched, mounts.bridged, mounts.guard_crashes, mounts.adoptions, report.total.lost] {
        assert!(count > 50, "{}", report.figures());
    }
}

#[test]
fn never_two_mounts_at_the_edge_of_a_lease() {
    let report = checked(Profile::MountHangs, 900);
    assert!(report.total.lost > 300 && report.total.mounts.bridged > 1000, "{}", report.figures());
}

fn checked(profile: Profile, seeds: u64) -> Report {
    let report = run_range(profile, 0..seeds, Breakage::None, "", 1);
    println!("{}", report.figures());
    report.expect_none()
}
