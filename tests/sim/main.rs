//! The simulator: several hosts and one disk in virtual time, everything drawn from a seed, and the library's own
//! `Guard`, unmodified, on each host of our kind. Deterministic: a seed is a history.
//!
//! # Fault model
//! - *Reads* sample the disk at any instant between issue and answer. *Writes* land at any instant after they went
//!   out, at most 11 s later (the wait of the smallest check interval), also when they fail, when their
//!   acknowledgement is lost, and when their host crashes. Two sectors of 512 bytes: one may land up to 0.1 s after
//!   the other, or, of a failed write, never.
//! - *Latency*: up to 15 s, and hangs up to 150 s. *Errors*, of writes that landed and of writes that did not.
//!   *Answers* that are there and handled up to 15 s later.
//! - *Stalls* of 0.1 to 60 s with the clock running: at any time, between look and write, and between the driver's
//!   check of the clock and its write. A stalled host runs nothing, its keeper included.
//! - *Crashes* and restarts, under the same names. Hosts with equal names. Wall clocks off by up to an hour.
//! - *Fences* that take until the end of the lease and one wait of the smallest C that the holder writes, less 2 s:
//!   until then its user goes on.
//! - *Peers* with intervals of 0.1, 1, 5 and 30 s and larger check intervals; kernels, with their true behaviour.
//!   Of a kernel, look, claim and first beat lie within a wait: a stated assumption.
//! - *Mounts*: hosts of ours that mount through their own kernel, both ways of handing over, group descriptors that take
//!   up to 20 s and a journal that takes up to 10 s, mounts that fail; freezes of 1 to 120 s, also under an unmount;
//!   remounts, by the administrator (also back within a millisecond) and by `mmp remount`; errors and shutdowns, which
//!   some kernels do not show; unmounts at any time, which write for up to 20 s. Beside them: the guard's process alone
//!   stalls for up to 60 s or dies (adopted while its lease lasts, else fenced), the path hangs for up to 60 s under guard
//!   and kernel, answers of the kernel's come late.
//!
//! # Checked at every step
//! Never two users at once; a holder without a fault of its own is never stopped; somebody gets in after the last
//! fault; without faults the stated times hold; a stall shorter than the lease less a beat stops nobody. Of mounts also:
//! a freeze is no fault; after it the kernel beats and the guard only watches; nothing is written over a user by a host
//! that has nothing mounted; a guard does not end while its filesystem is in use; what it says of the kernel is true.
//!
//! # Counted apart (`Apart`), because it cannot be promised
//! What a host could write when it wakes after its lease, before its keeper runs (it counts as stopped then); two
//! kernels that mount at once; a stale write with a smaller check interval that a host began long after its check of the
//! clock, over a holder who stalls at that time too; a block left torn by a write that failed half-way. Of mounts, each of
//! which ends its history: a kernel-only host that finds the clean mark which the kernel of a mounted filesystem leaves for
//! a moment (remount, error, hand-over of a mount); the same found by a host of ours whose claim took the holder for dead,
//! since their wall clocks differ by more than two check intervals, or whose mount was killed while it read the group
//! descriptors; a fault of a host's own while such a mark stands; a fault between the hand-over and the first beat seen,
//! when no cell is armed yet. Hosts that share a name may take each other's mounts for lost before they are made.
//! *Not injected*: a stall of more than
//! 5 s between the check of the clock and a **clean mark** (it lands on a successor, who stops; `Profile::LateClean`
//! injects it among hosts of ours); a kernel holder that
//! sleeps longer than 3 s (K4); writes that land later than a wait; a clock that stands still, and the shutdown ioctl
//! as a fence of ext4 (`Breakage` only); a remount or an error before the guard has seen the first beat.
//!
//! # Use
//! `MMPGUARD_SEED=n [MMPGUARD_PROFILE=Calm] cargo test --test sim replay -- --nocapture` replays one seed with its
//! timeline if it fails; `MMPGUARD_SEEDS=a..b` runs a range on all cores and prints the figures.

// Probabilities and logarithms are floating point, and a fate may be large.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::large_enum_variant, clippy::result_large_err)]

mod checks;
mod disk;
mod driver;
mod faults;
mod filesystem;
mod host;
mod io;
mod kernel;
mod mount_checks;
mod mount_plan;
mod mounted;
mod outcome;
mod plan;
mod run;
mod teeth;
mod world;

use outcome::Breakage;
use plan::Profile;
use run::{Report, run, run_range, shown};

/// Seeds that failed once, and why.
const FAILED_ONCE: [(Profile, u64, &str); 16] = [
    (
        Profile::Faults,
        73,
        "a taker with a smaller C than the dead holder's was in before two of the holder's waits",
    ),
    (Profile::Faults, 947, "the same"),
    (Profile::Faults, 1705, "the same"),
    (Profile::Hangs, 6, "the same"),
    // An earlier form of the plan showed it at Faults 13547; `protocol::tests::claim` has it as a timeline.
    (
        Profile::Faults,
        13_547,
        "a middle beat stood for 77 s, and a rival claimed by right just after the last write",
    ),
    (
        Profile::LateClean,
        386,
        "a claimer over a live block was silent for less than the holder looked at him",
    ),
    (Profile::LateClean, 2543, "the same"),
    (Profile::LateClean, 3217, "the same"),
    (Profile::LateClean, 3691, "the same"),
    (Profile::Mounts, 16, "who was there left before the kernel looked, and the first beat was not known"),
    (Profile::MountFreezes, 12, "the same"),
    (Profile::Mounts, 28, "the guard's own interval was longer than the kernel's lease"),
    (
        Profile::Mounts,
        55,
        "the kernel was called on a live block, and found the clean mark of a remount of its holder's",
    ),
    (Profile::Mounts, 84, "the same"),
    (
        Profile::MountFaults,
        51_570,
        "a mount was handed over under the lease of its last beat, which was long ago when a claimer was beaten over",
    ),
    (Profile::Calm, 21, "one with a larger C overtakes: the stated time runs from the last start then"),
];

#[test]
fn seeds_that_failed_once() {
    for (profile, seed, cause) in FAILED_ONCE {
        if let Err(failure) = run(profile, seed, Breakage::default()) {
            panic!("again: {cause}\n{}", shown(profile, seed, &failure));
        }
    }
}

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

/// It may stop a holder, which cannot be helped, but it never lets two in.
#[test]
fn a_late_clean_mark_never_lets_two_in() {
    let report = checked(Profile::LateClean, 300);
    assert!(report.total.apart.late_clean > 0, "{}", report.figures());
}

/// Also beside kernels alone, and hosts of ours that do not mount.
#[test]
fn mounts_exclude_each_other_in_the_stated_times() {
    let report = checked(Profile::Mounts, 900);
    let mounts = &report.total.mounts;
    assert_eq!(report.total.lost, 0, "{}", report.figures());
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
    let report = run_range(profile, 0..seeds, Breakage::default(), "", 1);
    println!("{}", report.figures());
    report.expect_none();
    report
}

#[test]
fn replay() {
    let profile = match std::env::var("MMPGUARD_PROFILE").as_deref() {
        Err(_) | Ok("Faults") => Profile::Faults,
        Ok("Calm") => Profile::Calm,
        Ok("Hangs") => Profile::Hangs,
        Ok("LateClean") => Profile::LateClean,
        Ok("ShortStalls") => Profile::ShortStalls,
        Ok("Kernels") => Profile::Kernels,
        Ok("Mounts") => Profile::Mounts,
        Ok("MountFreezes") => Profile::MountFreezes,
        Ok("MountFaults") => Profile::MountFaults,
        Ok("MountHangs") => Profile::MountHangs,
        Ok(other) => panic!("MMPGUARD_PROFILE={other}: no such profile"),
    };
    if let Ok(seed) = std::env::var("MMPGUARD_SEED") {
        let seed = seed.parse().expect("MMPGUARD_SEED is a number");
        match run(profile, seed, Breakage::default()) {
            Ok(stats) => println!("seed {seed}: {stats:?}"),
            Err(failure) => panic!("{}", shown(profile, seed, &failure)),
        }
    }
    if let Ok(range) = std::env::var("MMPGUARD_SEEDS") {
        let (from, to) = range.split_once("..").expect("MMPGUARD_SEEDS is a range, as 0..1000");
        let range = from.parse().expect("a number")..to.parse().expect("a number");
        let report = run_range(profile, range, Breakage::default(), "", 20);
        println!("{}", report.figures());
        for (seed, failure) in &report.failures {
            println!("seed {seed}: {}", failure.what);
        }
        report.expect_none();
    }
}
