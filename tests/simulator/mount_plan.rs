//! The part of a plan that is about hosts which mount through their kernels.

use crate::protocol::timing;
use fastrand::Rng;

use super::plan::{Kind, MILLISECOND, Plan, Profile, SECOND, pick};

/// How the kernel is handed the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// It waits for itself.
    #[default]
    Kernel,
    /// Claimed by the guard, and marked clean.
    Clean,
}

/// How one host mounts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountPlan {
    pub(crate) hand_over: HandOver,
    /// From the hand-over to the MMP block at most: the group descriptors are read before it.
    pub(crate) call_ns: u64,
    /// From there to the end of mount(2) at most: the journal.
    pub(crate) finish_ns: u64,
    /// Its `kmmpd` reads the block for its re-check (before 5.10), into the very buffer.
    pub(crate) rereads: bool,
}

/// How often something befalls a mount: per second where it says so, else per mounted second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountRates {
    /// A mount fails after the MMP check.
    pub(crate) fails: f64,
    /// What was dirty is written for at most so long when it is unmounted.
    pub(crate) flush_ns: u64,
    pub(crate) freezes: f64,
    pub(crate) remounts: f64,
    pub(crate) failures: f64,
    pub(crate) guard_stalls_per_s: f64,
    pub(crate) guard_crashes_per_s: f64,
    pub(crate) outages_per_s: f64,
}

pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    if plan.profile == Profile::Mounts && rng.f64() < 0.2 {
        plan.hosts.truncate(1);
    }
    let fleet = rng.bool();
    let shares_kernel_only = !fleet && rng.f64() < 0.7;
    let superblock = plan.filesystem.update_interval_s;
    let slow = pick(rng, &[10 * MILLISECOND, 10 * MILLISECOND, SECOND, 20 * SECOND]);
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.kind = match rng.u32(0..4) {
            _ if number == 0 => Kind::Mounted,
            0 => Kind::Ours,
            1 if shares_kernel_only => Kind::Kernel,
            _ => Kind::Mounted,
        };
        // Beside hosts that do not use this program the kernel has to wait by itself.
        let hand_over = if fleet && rng.bool() { HandOver::Clean } else { HandOver::Kernel };
        let patient = hand_over == HandOver::Clean;
        host.mount = MountPlan {
            hand_over,
            // A clean hand-over that takes longer than C is started again, for ever.
            call_ns: if patient { slow.min(SECOND) } else { slow },
            finish_ns: pick(rng, &[10 * MILLISECOND, SECOND, 10 * SECOND]),
            rereads: rng.f64() < 0.3,
        };
        if host.kind == Kind::Mounted {
            let kernel_c = timing::kernel_check_interval_s(superblock);
            let longest = host.longest_fence_ns().min((timing::wait_s(kernel_c) - 2) * SECOND);
            let hangs = plan.profile == Profile::MountHangs;
            host.fence_ns = if hangs { longest } else { host.fence_ns.min(longest) };
        }
        if plan.profile == Profile::MountHangs {
            (host.use_s, host.patience_s, host.faulty) = (None, Some(1000), number == 0);
            host.start_ns += number as u64 * 100 * SECOND;
        }
    }
    plan.mounts = rates(plan.profile, rng);
}

fn rates(profile: Profile, rng: &mut Rng) -> MountRates {
    let mut rate = |rates: &[f64]| pick(rng, rates);
    let calm = MountRates {
        fails: rate(&[0.0, 0.2]),
        flush_ns: pick(rng, &[10 * MILLISECOND, SECOND, 20 * SECOND]),
        remounts: pick(rng, &[0.0, 0.01, 0.05]),
        ..MountRates::default()
    };
    let mut rate = |rates: &[f64]| pick(rng, rates);
    let frozen = MountRates { freezes: rate(&[0.005, 0.02, 0.1]), failures: rate(&[0.0, 0.005]), ..calm };
    match profile {
        Profile::MountFreezes => frozen,
        Profile::MountHangs => MountRates {
            freezes: rate(&[0.0, 0.02]),
            remounts: 0.0,
            failures: 0.0,
            outages_per_s: rate(&[0.005, 0.02]),
            ..frozen
        },
        Profile::MountFaults | Profile::Standby => MountRates {
            freezes: rate(&[0.0, 0.005, 0.05]),
            guard_stalls_per_s: rate(&[0.0, 0.0, 0.002, 0.02]),
            guard_crashes_per_s: rate(&[0.0, 0.0, 0.002, 0.02]),
            outages_per_s: rate(&[0.0, 0.0, 0.002, 0.02]),
            ..frozen
        },
        _ => calm,
    }
}
