//! Two hosts of ours, each with the library's own guard: the configurations, and what each of them shows.
//!
//! Clean and unclean, and one in already; crashes, failed and lost writes, delays; users who end. What is broken on purpose
//! has to be found.

mod areas;
pub(crate) mod disk;
pub(crate) mod fingerprint;
pub(crate) mod guards;
pub(crate) mod model;
pub(crate) mod moves;
pub(crate) mod scale;
pub(crate) mod sequences;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod superblock;
pub(crate) mod timeline;
pub(crate) mod told;

use crate::check::{EXCLUSION, IN_TIME, large, run};
use model::TwoHosts;
use state::{Before, Breakage, Faults, Setup};

const NONE: Faults = Faults::of(0, 0, 0);

fn check(setup: Setup) -> crate::check::Outcome {
    run(TwoHosts::new(setup))
}

#[test]
fn without_faults() {
    for (before, states) in [(Before::Clean, 3_000), (Before::Dead, 3_000), (Before::Held, 3_000)] {
        check(Setup { releases: true, ..Setup::of(before, NONE) }).closes(states);
    }
}

#[test]
fn a_crash_and_a_failure() {
    check(Setup::of(Before::Clean, Faults::of(1, 1, 0))).closes(200_000);
    check(Setup::of(Before::Dead, Faults::of(1, 1, 0))).closes(150_000);
}

#[test]
fn releases_with_a_fault() {
    for faults in [Faults::of(1, 0, 0), Faults::of(0, 1, 0), Faults::of(0, 0, 1)] {
        check(Setup { releases: true, ..Setup::of(Before::Clean, faults) }).closes(50_000);
    }
}

#[test]
fn a_delay() {
    check(Setup::of(Before::Clean, Faults::of(0, 0, 1))).closes(100_000);
    check(Setup::of(Before::Dead, Faults::of(0, 0, 1))).closes(100_000);
}

#[test]
fn a_crash_and_a_delay() {
    check(Setup::of(Before::Clean, Faults::of(1, 0, 1))).closes(1_500_000);
}

#[test]
fn a_failure_and_a_delay_of_a_holder() {
    check(Setup::of(Before::Held, Faults::of(0, 1, 1))).closes(150_000);
}

/// Each I/O may take a whole limit: no claim gets in with more, and with this some begin again with a larger check interval.
#[test]
fn a_slow_device() {
    check(Setup { usual_delay: 1, ..Setup::of(Before::Clean, NONE) }).closes(1_000_000);
}

#[test]
fn large_two_delays() {
    if large() {
        check(Setup::of(Before::Clean, Faults::of(0, 0, 2))).closes(5_000_000);
    }
}

#[test]
fn two_delays_of_a_holder() {
    check(Setup::of(Before::Held, Faults::of(0, 0, 2))).closes(400_000);
}

#[test]
fn large_a_fault_of_each_kind() {
    if large() {
        // A holder's failed beat that lands over a later one with a larger check interval is found in both.
        check(Setup::of(Before::Held, Faults::of(1, 1, 1))).closes(1_000_000);
        check(Setup::of(Before::Dead, Faults::of(1, 1, 1))).closes(10_000_000);
    }
}

#[test]
fn large_a_slow_device_and_a_crash() {
    if large() {
        check(Setup { usual_delay: 1, ..Setup::of(Before::Clean, Faults::of(1, 0, 0)) }).closes(10_000_000);
    }
}

fn broken(breakage: Breakage, before: Before, faults: Faults, property: &str) {
    check(Setup { breakage, ..Setup::of(before, faults) }).violates(property);
}

#[test]
fn a_fence_of_two_waits_is_found() {
    broken(Breakage::SlowFence, Before::Held, Faults::of(0, 0, 1), EXCLUSION);
}

#[test]
fn a_host_without_a_keeper_is_found() {
    broken(Breakage::NoKeeper, Before::Held, Faults::of(0, 0, 1), EXCLUSION);
}

#[test]
fn a_lease_from_the_acknowledgement_is_found() {
    broken(Breakage::LeaseFromAcknowledgement, Before::Held, Faults::of(0, 0, 2), EXCLUSION);
}

#[test]
fn a_driver_that_ignores_not_after_is_found() {
    broken(Breakage::IgnoresNotAfter, Before::Clean, Faults::of(0, 0, 1), IN_TIME);
}

/// A1: what was acknowledged is what a later look shows.
#[test]
fn writes_acknowledged_before_they_land_are_found() {
    broken(Breakage::EarlyAcknowledgement, Before::Clean, NONE, EXCLUSION);
}
