//! What a seed stands for: the hosts, the disk, the faults and how often each of them strikes.

use std::time::Duration;

use crate::protocol::timing;
use fastrand::Rng;

use super::disk::{Before, Filesystem};
pub(crate) use super::mount_plan::{HandOver, MountPlan, MountRates};
use super::pauses::{self, PausePlan};
use super::peers::{self, Flavour, PeerRates};
pub(crate) use super::profile::Profile;
use super::standby::{self, StandbyPlan};
use super::{areas, edges, mount_plan, second_life};

pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// How often a fault strikes: per I/O, or per second where it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) slow: f64,
    pub(crate) error: f64,
    /// Of the failed writes, so many land all the same.
    pub(crate) failed_but_landed: f64,
    /// A stall between the decision to write and the check of the clock.
    pub(crate) stall_before_check: f64,
    /// A stall between the check of the clock and the write.
    pub(crate) stall_after_check: f64,
    /// The answer is there, and nobody runs to take it.
    pub(crate) late_handling: f64,
    pub(crate) torn: f64,
    pub(crate) crashes_per_s: f64,
    pub(crate) stalls_per_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Kernel,
    /// Ours, with the kernel's mount.
    Mounted,
    /// An e2fsck now and then.
    Fsck,
}

#[derive(Clone, Debug)]
pub(crate) struct HostPlan {
    pub(crate) kind: Kind,
    pub(crate) node: String,
    pub(crate) interval: Duration,
    pub(crate) check_interval_floor_s: u16,
    /// How patient its claims are, in seconds.
    pub(crate) patience_s: Option<u64>,
    pub(crate) clock_offset_ns: u64,
    pub(crate) wall_skew_s: i64,
    /// From the end of the lease, or from *lost*, until the user has stopped.
    pub(crate) fence_ns: u64,
    /// As the ring driver does; the thread driver is stuck in its I/O.
    pub(crate) ticks_during_io: bool,
    /// Faults strike it.
    pub(crate) faulty: bool,
    /// The user stops by himself after about so long, in seconds.
    pub(crate) use_s: Option<u64>,
    pub(crate) start_ns: u64,
    pub(crate) mount: MountPlan,
    /// Of its kernel.
    pub(crate) flavour: Flavour,
    /// Its e2fsck compares the block with itself before it marks it clean.
    pub(crate) compares_with_itself: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) filesystem: Filesystem,
    pub(crate) before: Before,
    pub(crate) hosts: Vec<HostPlan>,
    pub(crate) rates: Rates,
    /// The longest latency of a kernel's write.
    pub(crate) kernel_write_ns: u64,
    /// Until a refused claimer comes again.
    pub(crate) longest_pause_ns: u64,
    /// No new fault begins after this.
    pub(crate) calm_ns: u64,
    pub(crate) mounts: MountRates,
    pub(crate) peers: PeerRates,
    pub(crate) pauses: PausePlan,
    pub(crate) area: Option<areas::AreaPlan>,
    pub(crate) standby: StandbyPlan,
}

impl Plan {
    pub(crate) fn new(profile: Profile, rng: &mut Rng) -> Self {
        let update_interval_s = pick(rng, &[1, 1, 1, 5, 5, 0, 30]);
        let kernels_here = matches!(profile, Profile::Faults | Profile::Calm) && rng.f64() < 0.4;
        let count = rng.usize(2..=4);
        let race = rng.f64() < 0.6;
        let common_node = rng.f64() < 0.05;
        let mut hosts: Vec<HostPlan> = (0..count)
            .map(|number| {
                let kernel = kernels_here && number > 0 && rng.f64() < 0.5;
                host(profile, number, kernel, race, common_node, rng)
            })
            .collect();
        suit(profile, &mut hosts, rng);
        let before = match rng.u32(0..3) {
            0 => Before::Dead(pick(rng, &[5, 5, 10, 30, 60])),
            _ => Before::Clean,
        };
        let mut plan = Plan {
            profile,
            filesystem: Filesystem {
                update_interval_s: if profile.kernels_alone() { 1 } else { update_interval_s },
                checksums: rng.bool(),
                needs_recovery: rng.f64() < 0.15 && !profile.kernels_alone(),
            },
            before: if profile.kernels_alone() { Before::Clean } else { before },
            hosts,
            rates: rates(profile, rng),
            longest_pause_ns: pick(rng, &[SECOND / 10, SECOND, 30 * SECOND]),
            kernel_write_ns: match profile {
                Profile::Calm | Profile::Mounts | Profile::KernelFreezes | Profile::KernelSleeps => {
                    5 * MILLISECOND
                }
                _ => pick(rng, &[5 * MILLISECOND, 50 * MILLISECOND, 3 * SECOND]),
            },
            calm_ns: calm_ns(profile, rng),
            mounts: MountRates::default(),
            peers: PeerRates::default(),
            pauses: PausePlan::default(),
            area: None,
            standby: StandbyPlan::default(),
        };
        match profile {
            Profile::SecondLife => plan.mounts.outages_per_s = pick(rng, &[0.01, 0.03]),
            Profile::Pauses | Profile::MountPauses => pauses::apply(&mut plan, rng),
            Profile::Edges => edges::apply(&mut plan, rng),
            Profile::Areas => areas::apply(&mut plan, rng),
            Profile::Standby => standby::apply(&mut plan, rng),
            _ => {}
        }
        if profile.mounts() {
            mount_plan::apply(&mut plan, rng);
        }
        peers::apply(&mut plan, rng);
        plan
    }
}

/// What a family asks of its hosts.
fn suit(profile: Profile, hosts: &mut [HostPlan], rng: &mut Rng) {
    if profile == Profile::ShortStalls {
        hosts[0].start_ns = 0;
        hosts[0].use_s = None;
        hosts[0].interval = pick(rng, &[SECOND, SECOND, 5 * SECOND, 30 * SECOND]).nanos();
        for rival in &mut hosts[1..] {
            rival.start_ns += 400 * SECOND;
        }
    }
    if profile == Profile::Hangs {
        for (number, host) in hosts.iter_mut().enumerate() {
            (host.use_s, host.patience_s) = (None, Some(1000));
            (host.faulty, host.start_ns) =
                (number == 0 || host.faulty, host.start_ns + number as u64 * 100 * SECOND);
            host.fence_ns = host.longest_fence_ns();
        }
    }
    if profile == Profile::SecondLife {
        second_life::plan_hosts(hosts, rng);
    }
    if profile == Profile::LateClean {
        for host in hosts {
            (host.use_s, host.patience_s, host.faulty) = (Some(20), Some(1000), true);
        }
    }
}

/// No new fault begins after that.
fn calm_ns(profile: Profile, rng: &mut Rng) -> u64 {
    match profile {
        every if every.has_every_fault() => rng.u64(60..=600) * SECOND,
        Profile::ShortStalls
        | Profile::Hangs
        | Profile::LateClean
        | Profile::Edges
        | Profile::MountHangs
        | Profile::SecondLife
        | Profile::Pauses
        | Profile::MountPauses => 2000 * SECOND,
        _ => 0,
    }
}

fn host(
    profile: Profile,
    number: usize,
    kernel: bool,
    race: bool,
    common_node: bool,
    rng: &mut Rng,
) -> HostPlan {
    let interval = pick(rng, &[SECOND, SECOND, SECOND, 100 * MILLISECOND, 5 * SECOND, 30 * SECOND]).nanos();
    let check_interval_floor_s = pick(rng, &[0, 0, 0, 0, 10, 30]);
    let fence = rng.u32(0..5);
    let mut host = HostPlan {
        kind: if kernel || profile.kernels_alone() { Kind::Kernel } else { Kind::Ours },
        node: if common_node { "twin".into() } else { format!("host-{}", (b'a' + rng.u8(0..26)) as char) },
        interval,
        check_interval_floor_s,
        patience_s: rng.bool().then(|| pick(rng, &[5, 60, 600])),
        clock_offset_ns: rng.u64(0..1_000_000) * SECOND + rng.u64(0..SECOND),
        wall_skew_s: match (number, rng.u32(0..10)) {
            (_, 0) => pick(rng, &[-3600, -60, 60, 3600]),
            _ => rng.i64(-2..=2),
        },
        fence_ns: 0,
        ticks_during_io: rng.bool(),
        faulty: rng.f64() < 0.8,
        use_s: (rng.f64() < 0.8).then(|| pick(rng, &[1, 10, 60, 200])),
        start_ns: if race { rng.u64(0..50 * MILLISECOND) } else { rng.u64(0..90 * SECOND) },
        mount: MountPlan::default(),
        flavour: Flavour::default(),
        compares_with_itself: false,
    };
    host.fence_ns = match fence {
        0 | 1 => 0,
        2 => SECOND,
        3 => host.longest_fence_ns(),
        _ => rng.u64(0..=host.longest_fence_ns()),
    };
    host
}

impl HostPlan {
    /// DESIGN: a fence that is not done by the end of the lease and one wait, less 2 s, becomes a reboot.
    pub(crate) fn longest_fence_ns(&self) -> u64 {
        let smallest_c =
            timing::holder_check_interval_s(self.interval, self.interval, self.check_interval_floor_s);
        (timing::wait_s(smallest_c) - 2) * SECOND
    }
}

fn rates(profile: Profile, rng: &mut Rng) -> Rates {
    if profile == Profile::Hangs {
        return Rates { slow: pick(rng, &[0.01, 0.05, 0.2]), late_handling: 0.02, ..Rates::default() };
    }
    if profile == Profile::SecondLife {
        return Rates { slow: pick(rng, &[0.0, 0.1, 0.3]), ..Rates::default() };
    }
    if profile == Profile::MountHangs {
        return Rates { slow: pick(rng, &[0.0, 0.01]), stalls_per_s: 0.002, ..Rates::default() };
    }
    if profile == Profile::Edges {
        return Rates { slow: pick(rng, &[0.02, 0.1]), ..Rates::default() };
    }
    if profile == Profile::LateClean {
        return Rates { stall_after_check: 0.5, ..Rates::default() };
    }
    if profile == Profile::ShortStalls {
        let (stall_before_check, stall_after_check) = (0.01, 0.01);
        return Rates { stall_before_check, stall_after_check, stalls_per_s: 0.02, ..Rates::default() };
    }
    if !profile.has_every_fault() {
        return Rates { slow: if profile == Profile::Kernels { 0.5 } else { 0.0 }, ..Rates::default() };
    }
    // Most seeds have a few faults that are frequent: rare ones hide behind frequent ones otherwise.
    let mut rate = || pick(rng, &[0.0, 0.0, 0.001, 0.01, 0.05, 0.3]);
    Rates {
        slow: rate(),
        error: rate() / 4.0,
        stall_before_check: rate(),
        stall_after_check: rate(),
        late_handling: rate(),
        torn: rate(),
        crashes_per_s: rate() / 10.0,
        stalls_per_s: rate() / 5.0,
        failed_but_landed: 0.7,
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

/// Between `least` and `most`, each order of magnitude as likely as the next.
pub(crate) fn log_uniform(rng: &mut Rng, least: u64, most: u64) -> u64 {
    let (least_log, most_log) = ((least as f64).ln(), (most as f64).ln());
    (least_log + rng.f64() * (most_log - least_log)).exp() as u64
}

trait Nanos {
    fn nanos(self) -> Duration;
}

impl Nanos for u64 {
    fn nanos(self) -> Duration {
        Duration::from_nanos(self)
    }
}
