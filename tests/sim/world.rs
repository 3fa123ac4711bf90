//! The world: one clock, one disk, a queue of things to happen, the hosts, and what is checked at every step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use fastrand::Rng;
use mmpguard::clock::{Mono, Now, Wall};
use mmpguard::format::Image;
use mmpguard::protocol::timing;

use super::disk::Disk;
use super::host::Host;
use super::plan::{Kind, Plan, Profile, SECOND, log_uniform};

/// What is broken on purpose, to see whether it is found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breakage {
    /// The driver writes whatever the clock says.
    pub(crate) ignores_not_after: bool,
    /// The cell is extended from the acknowledgement, not from the look.
    pub(crate) lease_from_acknowledgement: bool,
    /// Nobody stops the user at the end of the lease.
    pub(crate) no_keeper: bool,
    /// Time does not pass for a stalled host, as on CLOCK_MONOTONIC in a suspend.
    pub(crate) clock_stops: bool,
}

/// What happened that DESIGN says cannot be promised, by name. Zero unless a profile asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apart {
    /// A host woke with its lease over while another used the device: it may write until its keeper runs.
    pub(crate) woke_beside_user: u64,
    /// Two kernels mounted at once (K1).
    pub(crate) two_kernels: u64,
    /// A clean mark of somebody who stalled or lost its fate landed on a holder.
    pub(crate) late_clean: u64,
    /// The block stood torn after the last fault: native damaged is refused, as the kernel does.
    pub(crate) left_damaged: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) simulated_ns: u64,
    pub(crate) steps: u64,
    pub(crate) held: u64,
    pub(crate) kernel_mounts: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) released: u64,
    pub(crate) lost_races: u64,
    pub(crate) too_slow: u64,
    pub(crate) intruders: u64,
    pub(crate) crashes: u64,
    pub(crate) stalls: u64,
    pub(crate) apart: Apart,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Stats) {
        let pairs = [
            (&mut self.simulated_ns, other.simulated_ns),
            (&mut self.steps, other.steps),
            (&mut self.held, other.held),
            (&mut self.kernel_mounts, other.kernel_mounts),
            (&mut self.refused, other.refused),
            (&mut self.lost, other.lost),
            (&mut self.released, other.released),
            (&mut self.lost_races, other.lost_races),
            (&mut self.too_slow, other.too_slow),
            (&mut self.intruders, other.intruders),
            (&mut self.crashes, other.crashes),
            (&mut self.stalls, other.stalls),
            (&mut self.apart.woke_beside_user, other.apart.woke_beside_user),
            (&mut self.apart.two_kernels, other.apart.two_kernels),
            (&mut self.apart.late_clean, other.apart.late_clean),
            (&mut self.apart.left_damaged, other.apart.left_damaged),
        ];
        for (sum, part) in pairs {
            *sum += part;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) stats: Stats,
    pub(crate) timeline: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Start,
    Tick,
    /// The read of that number takes its sample.
    Sample(u64),
    /// The I/O of that number is answered.
    Answer(u64),
    /// The driver checks the clock and begins its write.
    Begin(u64),
    /// The write goes out.
    Issue(u64),
    Keeper,
    /// The fence is done.
    UserStopped,
    /// The user ended by himself.
    UserDone,
    Resume,
    Crash,
    Stall,
    /// The kernel's sleep is over.
    KernelWake,
    Land(Rc<Image>, usize),
}

struct Entry {
    at: u64,
    tie: u64,
    host: usize,
    /// The incarnation that it is for.
    epoch: u32,
    what: What,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) breakage: Breakage,
    pub(crate) disk: Disk,
    pub(crate) hosts: Vec<Host>,
    pub(crate) rng: Rng,
    pub(crate) stats: Stats,
    pub(crate) violation: Option<String>,
    /// The largest check interval that anybody wrote.
    pub(crate) largest_c: u16,
    /// Somebody uses the device after the last fault.
    pub(crate) in_after_calm: bool,
    queue: BinaryHeap<Reverse<Entry>>,
    timeline: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(profile: Profile, seed: u64, breakage: Breakage, trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(profile, &mut rng);
        let disk = Disk::new(plan.filesystem, plan.before);
        let hosts = plan.hosts.iter().map(|_| Host::default()).collect();
        let largest_c = disk.block().check_interval_s.max(plan.filesystem.update_interval_s).max(5);
        let mut world = World {
            now: 0,
            breakage,
            disk,
            hosts,
            rng,
            stats: Stats::default(),
            violation: None,
            largest_c,
            in_after_calm: false,
            queue: BinaryHeap::new(),
            timeline: trace.then(Vec::new),
            plan,
        };
        world.note_plan(seed);
        for host in 0..world.hosts.len() {
            world.at(world.plan.hosts[host].start_ns, host, What::Start);
            world.plan_stall(host);
            world.plan_crash(host);
        }
        world
    }

    pub(crate) fn run(mut self) -> Result<Stats, Failure> {
        let end = self.end();
        while let Some(Reverse(entry)) = self.queue.pop() {
            if entry.at > end || self.violation.is_some() || self.is_done() {
                break;
            }
            debug_assert!(entry.at >= self.now, "time runs forward");
            self.now = entry.at;
            self.stats.steps += 1;
            self.step(entry);
            // Whoever came through the last fault as a holder is in.
            if !self.in_after_calm && self.now > self.plan.calm_ns + 30 * SECOND {
                self.in_after_calm = self.hosts.iter().any(|host| host.using && host.using_until.is_none());
            }
        }
        self.stats.simulated_ns = self.now;
        if self.plan.profile == Profile::Calm && self.stats.held + self.stats.kernel_mounts == 0 {
            self.violation.get_or_insert_with(|| "without a fault nobody got in".into());
        }
        if self.plan.profile == Profile::Faults && !self.in_after_calm && self.violation.is_none() {
            if self.disk.decodes() {
                self.violation = Some("nobody got in after the last fault".into());
            } else {
                self.stats.apart.left_damaged += 1;
            }
        }
        match self.violation {
            None => Ok(self.stats),
            Some(what) => {
                Err(Failure { what, stats: self.stats, timeline: self.timeline.unwrap_or_default() })
            }
        }
    }

    /// When the simulation ends at the latest.
    fn end(&self) -> u64 {
        match self.plan.profile {
            // Several claims, each with the longest watch there is.
            Profile::Faults => self.plan.calm_ns + 6 * 1200 * SECOND,
            Profile::ShortStalls => 2000 * SECOND,
            Profile::Calm => 900 * SECOND,
            Profile::Hangs => 1000 * SECOND,
            Profile::Kernels => 120 * SECOND,
        }
    }

    fn is_done(&self) -> bool {
        self.plan.profile == Profile::Faults
            && self.in_after_calm
            && self.now > self.plan.calm_ns + 60 * SECOND
    }

    fn step(&mut self, entry: Entry) {
        let Entry { host, epoch, what, .. } = entry;
        if let What::Land(image, sector) = &what {
            self.disk.land(image, *sector);
            self.note(host, || format!("  lands: sector {sector} of {}", shown(image)));
            return;
        }
        if epoch != self.hosts[host].epoch {
            return;
        }
        let stalled_until = self.hosts[host].stalled_until;
        // The disk's side of an I/O goes on without the host.
        let goes_on = matches!(what, What::Resume | What::Crash | What::Stall | What::Sample(_));
        if stalled_until > self.now && !goes_on {
            // Later than the resume itself, and in any order among themselves.
            let tie = self.rng.u64(1..);
            self.queue.push(Reverse(Entry { at: stalled_until, tie, host, epoch, what }));
            return;
        }
        match what {
            What::Crash => self.crash(host),
            What::Stall => {
                if let Some(span) = self.stall_span(host, 60 * SECOND) {
                    self.stall(host, span);
                }
                self.plan_stall(host);
            }
            What::Resume => self.resume(host),
            What::UserStopped => {
                if self.hosts[host].using_until.is_some_and(|until| until <= self.now) {
                    self.stop_using(host, "the user has stopped");
                }
            }
            _ if self.plan.hosts[host].kind == Kind::Kernel => self.kernel(host, what),
            _ => self.ours(host, what),
        }
    }

    pub(crate) fn at(&mut self, at: u64, host: usize, what: What) {
        let tie = self.rng.u64(1..);
        let epoch = self.hosts[host].epoch;
        self.queue.push(Reverse(Entry { at: at.max(self.now), tie, host, epoch, what }));
    }

    pub(crate) fn after(&mut self, span: u64, host: usize, what: What) {
        self.at(self.now.saturating_add(span), host, what);
    }

    /// The clocks of a host.
    pub(crate) fn clock(&self, host: usize) -> Now {
        let plan = &self.plan.hosts[host];
        let mono = self.now + plan.clock_offset_ns - self.hosts[host].clock_behind_ns;
        let wall = 1_800_000_000 + self.now / SECOND;
        Now { mono: Mono(mono), wall: Wall(wall.saturating_add_signed(plan.wall_skew_s)) }
    }

    /// When a host's clock shows `at`.
    pub(crate) fn when(&self, host: usize, at: Mono) -> u64 {
        let behind = self.hosts[host].clock_behind_ns;
        at.0.saturating_add(behind).saturating_sub(self.plan.hosts[host].clock_offset_ns)
    }

    pub(crate) fn faults_strike(&self) -> bool {
        self.now < self.plan.calm_ns
    }

    pub(crate) fn strikes(&mut self, host: usize, rate: f64) -> bool {
        rate > 0.0 && self.plan.hosts[host].faulty && self.faults_strike() && self.rng.f64() < rate
    }

    fn plan_stall(&mut self, host: usize) {
        let rate = self.plan.rates.stalls_per_s;
        self.plan_fault(rate, host, What::Stall);
    }

    pub(crate) fn plan_crash(&mut self, host: usize) {
        let rate = self.plan.rates.crashes_per_s;
        self.plan_fault(rate, host, What::Crash);
    }

    fn plan_fault(&mut self, rate: f64, host: usize, what: What) {
        if rate > 0.0 && self.plan.hosts[host].faulty {
            let wait_s = -self.rng.f64().max(1e-9).ln() / rate;
            let at = self.now + (wait_s * 1e9) as u64;
            if at < self.plan.calm_ns {
                self.at(at, host, what);
            }
        }
    }

    /// How long a stall is to last; none if it must not strike here and now.
    pub(crate) fn stall_span(&mut self, host: usize, most: u64) -> Option<u64> {
        let plan = &self.plan.hosts[host];
        let state = &self.hosts[host];
        let most = if self.plan.profile == Profile::ShortStalls {
            let c =
                timing::holder_check_interval_s(plan.interval, plan.interval, plan.check_interval_floor_s);
            let lease_ns = timing::lease_s(c) * SECOND;
            let beat_ns = u64::try_from(plan.interval.as_nanos()).expect("at most a minute") * 11 / 10;
            // The next one may come when the last one is forgotten.
            if host != 0 || !state.using || state.fault_until + 2 * lease_ns > self.now {
                return None;
            }
            lease_ns - beat_ns - SECOND / 10
        } else if plan.kind == Kind::Kernel {
            // A kernel that sleeps longer is K4, and between its look and its write a stated assumption.
            if state.fault_until + 30 * SECOND > self.now {
                return None;
            }
            most.min(3 * SECOND)
        } else {
            most
        };
        Some(log_uniform(&mut self.rng, SECOND / 10, most))
    }

    /// The host runs nothing for so long; its clock runs on.
    pub(crate) fn stall(&mut self, host: usize, span: u64) {
        let until = self.now + span;
        self.stats.stalls += 1;
        self.note(host, || format!("STALLS for {:.3} s", span as f64 / 1e9));
        if self.breakage.clock_stops {
            let already = self.hosts[host].stalled_until.max(self.now);
            self.hosts[host].clock_behind_ns += until.saturating_sub(already);
        }
        let state = &mut self.hosts[host];
        state.stalled_until = state.stalled_until.max(until);
        state.fault_until = state.fault_until.max(until);
        let epoch = state.epoch;
        self.queue.push(Reverse(Entry { at: until, tie: 0, host, epoch, what: What::Resume }));
    }

    /// Its keeper runs first: what it could write before that is a documented non-promise, counted apart.
    fn resume(&mut self, host: usize) {
        if self.hosts[host].stalled_until > self.now {
            return;
        }
        self.note(host, || "resumes".into());
        self.keeper(host);
        if self.hosts[host].using_until.is_some_and(|until| until <= self.now) {
            if self.other_user(host).is_some() {
                self.stats.apart.woke_beside_user += 1;
            }
            self.stop_using(host, "the user has stopped, at once after the stall");
        }
        self.check_exclusion(host);
    }

    fn crash(&mut self, host: usize) {
        self.stats.crashes += 1;
        self.note(host, || "CRASHES".into());
        let crashed = self.hosts[host].crashed(self.now);
        self.hosts[host] = crashed;
        let pause = log_uniform(&mut self.rng, SECOND / 2, 60 * SECOND);
        self.after(pause, host, What::Start);
        self.plan_stall(host);
        self.plan_crash(host);
    }

    pub(crate) fn start_using(&mut self, host: usize) {
        self.hosts[host].using = true;
        self.hosts[host].using_since = self.now;
        self.note(host, || "USES the device".into());
        self.check_exclusion(host);
        if let Some(use_s) = self.plan.hosts[host].use_s {
            let span = log_uniform(&mut self.rng, SECOND / 10, use_s * 2 * SECOND);
            self.after(span, host, What::UserDone);
        }
        self.in_after_calm |= !self.faults_strike();
    }

    pub(crate) fn stop_using(&mut self, host: usize, why: &str) {
        if self.hosts[host].using {
            self.hosts[host].using = false;
            self.hosts[host].using_until = None;
            self.note(host, || why.into());
        }
    }

    fn other_user(&self, host: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|&other| {
            other != host && self.hosts[other].using && self.hosts[other].stalled_until <= self.now
        })
    }

    /// Never two users at once. A host that runs nothing uses nothing: it is looked at when it resumes.
    fn check_exclusion(&mut self, host: usize) {
        if !self.hosts[host].using {
            return;
        }
        let Some(other) = self.other_user(host) else { return };
        let kernels = [host, other].iter().all(|&one| self.plan.hosts[one].kind == Kind::Kernel);
        if kernels && self.plan.profile != Profile::Kernels {
            self.stats.apart.two_kernels += 1;
            return;
        }
        self.violate(host, format!("hosts {host} and {other} use the device at once"));
    }

    pub(crate) fn violate(&mut self, host: usize, what: String) {
        self.note(host, || format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// One wait of the largest check interval about.
    pub(crate) fn longest_wait_ns(&self) -> u64 {
        timing::wait_s(self.largest_c) * SECOND
    }

    pub(crate) fn note(&mut self, host: usize, what: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            timeline.push(format!("{:>11.4} s  host {host}  {}", self.now as f64 / 1e9, what()));
        }
    }

    fn note_plan(&mut self, seed: u64) {
        if self.timeline.is_some() {
            let mut lines = vec![format!("seed {seed}: {:?}, {:?}", self.plan.profile, self.plan.filesystem)];
            lines.push(format!(
                "{:?}, calm after {} s, {:?}",
                self.plan.before,
                self.plan.calm_ns / SECOND,
                self.plan.rates
            ));
            lines.extend(
                self.plan.hosts.iter().enumerate().map(|(number, host)| format!("host {number}: {host:?}")),
            );
            self.timeline = Some(lines);
        }
    }
}

/// A block in a few words.
pub(crate) fn shown(image: &Image) -> String {
    let block = mmpguard::format::MmpBlock::fields(image);
    format!("seq {:#010x} C {} by {}", block.seq, block.check_interval_s, block.node)
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tie) == (other.at, other.tie)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie).cmp(&(other.at, other.tie))
    }
}
