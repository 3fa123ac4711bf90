//! Takeovers at the very edge of a lease, in which what goes wrong rarely goes wrong more often: few hosts, and hangs that
//! are short of a lease or well beyond it.

use std::time::Duration;

use fastrand::Rng;

use super::disk::Before;
use super::plan::{Plan, SECOND, pick};

/// A holder and one or two who want it, of one check interval, with fences as slow as they may be.
pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    plan.filesystem.update_interval_s = 1;
    plan.filesystem.needs_recovery = false;
    plan.before = Before::Clean;
    plan.hosts.truncate(pick(rng, &[2, 2, 3]));
    let check_interval_s = pick(rng, &[0, 0, 20]);
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.interval = Duration::from_secs(1);
        host.check_interval_floor_s = check_interval_s;
        (host.use_s, host.patience_s) = (None, Some(2000));
        host.faulty = number == 0 || rng.bool();
        host.start_ns = number as u64 * 15 * SECOND + rng.u64(0..SECOND);
        host.fence_ns = host.longest_fence_ns();
    }
}

/// How long an I/O takes that is slow: short of a lease, or well beyond it.
pub(crate) fn hang(rng: &mut Rng) -> (u64, u64) {
    pick(rng, &[(2 * SECOND, 9 * SECOND), (2 * SECOND, 9 * SECOND), (40 * SECOND, 90 * SECOND)])
}
