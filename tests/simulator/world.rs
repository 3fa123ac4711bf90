//! The world: one clock, one disk, a queue of things to happen, the hosts, and what is checked at every step.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;

use crate::protocol::timing;
use fastrand::Rng;
use mmpguard::clock::{Mono, Now, Wall};
use mmpguard::format::Image;

use super::breakage::{Breakage, is_broken};
use super::clears::Forced;
use super::disk::Disk;
use super::edits::Edits;
use super::evidence::LateWrite;
use super::fsck::FsckAct;
use super::host::Host;
use super::outcome::{Stats, Told};
use super::pauses;
use super::plan::{Kind, Plan, Profile, SECOND, log_uniform};
pub(crate) use super::queue::What;
use super::queue::{Entry, is_the_drivers};

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) disk: Disk,
    pub(crate) hosts: Vec<Host>,
    pub(crate) rng: Rng,
    pub(crate) stats: Stats,
    pub(crate) violation: Option<String>,
    /// The largest check interval that anybody wrote.
    pub(crate) largest_c: u16,
    /// Writes that their hosts began late, after a stall, over the blocks of users with larger check intervals.
    pub(crate) late_writes: Vec<LateWrite>,
    /// Somebody uses the device after the last fault.
    pub(crate) in_after_calm: bool,
    /// Faults that do not strike, by number.
    pub(crate) without_faults: BTreeSet<u64>,
    /// Something happened that cannot be promised: what follows from it is not looked at.
    over: bool,
    /// Two kernels that use the device at once, and since when.
    pub(crate) met: Option<(usize, usize, u64)>,
    /// When writes of ours land that had to be begun before that.
    pub(crate) late_landings: Vec<u64>,
    /// One of them covered the mark of an e2fsck at work.
    pub(crate) mark_covered: bool,
    /// The clears that were forced over whatever stood there.
    pub(crate) forced: Vec<Forced>,
    /// A dead e2fsck's mark, as somebody saw it who had looked on its host: every claim of ours is told of it from then on, however late.
    pub(crate) answered: Option<Image>,
    pub(crate) pauses: pauses::State,
    /// Of those that held an area's slot, the last.
    pub(crate) last_generation: Option<u64>,
    queue: BinaryHeap<Reverse<Entry>>,
    timeline: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(profile: Profile, seed: u64, breakage: Breakage, edits: &Edits, trace: bool) -> Self {
        breakage.begin();
        let mut rng = Rng::with_seed(seed);
        let mut plan = Plan::new(profile, &mut rng);
        edits.apply(&mut plan);
        if edits.salt != 0 {
            rng = Rng::with_seed(seed ^ edits.salt.rotate_left(32));
        }
        let disk = Disk::new(plan.filesystem, plan.before, plan.area);
        let hosts = plan.hosts.iter().map(|_| Host::default()).collect();
        let largest_c = disk.block().check_interval_s.max(plan.filesystem.update_interval_s).max(5);
        let mut world = World {
            now: 0,
            disk,
            hosts,
            rng,
            stats: Stats::default(),
            violation: None,
            largest_c,
            late_writes: Vec::new(),
            in_after_calm: false,
            without_faults: edits.faults.clone(),
            over: false,
            met: None,
            late_landings: Vec::new(),
            mark_covered: false,
            forced: Vec::new(),
            answered: None,
            pauses: pauses::State::default(),
            last_generation: None,
            queue: BinaryHeap::new(),
            timeline: trace.then(Vec::new),
            plan,
        };
        world.note_plan(seed);
        for host in 0..world.hosts.len() {
            world.at(world.plan.hosts[host].start_ns, host, What::Start);
            world.plan_stall(host);
            world.plan_crash(host);
            world.plan_process_faults(host);
            world.plan_clear(host);
            if let Some(rate) = world.plan.peers.clock_steps_per_s {
                world.plan_fault(rate, host, What::ClockStep);
            }
        }
        world.plan_one_fault();
        world.plan_standbys();
        world
    }

    pub(crate) fn run(mut self) -> Told {
        let end = self.end();
        while let Some(Reverse(entry)) = self.queue.pop() {
            if entry.at > end || self.violation.is_some() || self.is_done() {
                break;
            }
            debug_assert!(entry.at >= self.now, "time runs forward");
            self.now = entry.at;
            self.stats.steps += 1;
            self.step(entry);
            if self.plan.profile.pauses() {
                self.check_pauses();
            }
            if self.check_in_again() {
                break;
            }
            // Whoever came through the last fault as a holder is in.
            if !self.in_after_calm && self.now > self.plan.calm_ns.saturating_add(30 * SECOND) {
                self.in_after_calm = (0..self.hosts.len()).any(|host| self.is_in(host));
            }
        }
        self.stats.simulated_ns = self.now;
        self.check_kernels_that_met();
        if matches!(self.plan.profile, Profile::Calm | Profile::Mounts)
            && self.stats.held + self.stats.kernel_mounts == 0
        {
            self.violation.get_or_insert_with(|| "without a fault nobody got in".into());
        }
        if self.plan.profile.has_every_fault()
            && !self.in_after_calm
            && !self.over
            && self.violation.is_none()
        {
            let marked = self.disk.block().seq == crate::protocol::sequence::SEQ_FSCK;
            if marked && !self.mark_is_alive() {
                self.stats.apart.left_marked += 1;
            } else if self.disk.decodes() {
                self.violation = Some("nobody got in after the last fault".into());
            } else {
                self.stats.apart.left_damaged += 1;
            }
        }
        Told { found: self.violation, stats: self.stats, timeline: self.timeline.unwrap_or_default() }
    }

    /// When the simulation ends at the latest.
    pub(crate) fn end(&self) -> u64 {
        match self.plan.profile {
            // Several claims, each with the longest watch there is.
            every if every.has_every_fault() => self.plan.calm_ns + 6 * 1200 * SECOND,
            Profile::ShortStalls | Profile::Pauses | Profile::MountPauses => 2000 * SECOND,
            Profile::Calm => 900 * SECOND,
            Profile::Clears
            | Profile::Hangs
            | Profile::SecondLife
            | Profile::LateClean
            | Profile::Edges
            | Profile::Mounts
            | Profile::MountFreezes
            | Profile::MountHangs => 1000 * SECOND,
            Profile::OneFault => 5000 * SECOND,
            Profile::KernelFreezes | Profile::KernelSleeps => 400 * SECOND,
            _ => 120 * SECOND,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let calm = self.in_after_calm && self.now > self.plan.calm_ns.saturating_add(60 * SECOND);
        self.over || (self.plan.profile.has_every_fault() && calm)
    }

    pub(crate) fn step(&mut self, entry: Entry) {
        let Entry { host, epoch, what, .. } = entry;
        if let What::Land(image, part) = &what {
            self.note_landing();
            self.disk.land(self.now, image, *part);
            self.note(host, || format!("  lands: {part:?}, {}", shown(image)));
            return;
        }
        if let What::LandEntry(image) = &what {
            return self.land_entry(Rc::clone(image));
        }
        if let What::Echo(image, until) = &what {
            return self.echo_lands(host, image, *until);
        }
        if epoch != self.hosts[host].epoch {
            return;
        }
        let stalled_until = self.hosts[host].stalled_until;
        // The disk's side of an I/O goes on without the host.
        let goes_on = matches!(
            what,
            What::Resume
                | What::Crash
                | What::Stall
                | What::KernelSample(_)
                | What::Fsck(FsckAct::Sampled, _)
        );
        let guard_until = self.hosts[host].mounted.guard_stalled_until;
        if guard_until > self.now.max(stalled_until) && is_the_drivers(&what) {
            let tie = self.rng.u64(1..);
            self.queue.push(Reverse(Entry { at: guard_until, tie, host, epoch, what }));
            return;
        }
        if stalled_until > self.now && !goes_on {
            // Later than the resume itself, and in any order among themselves.
            let tie = self.rng.u64(1..);
            self.queue.push(Reverse(Entry { at: stalled_until, tie, host, epoch, what }));
            return;
        }
        if self.is_left_out(host, &what) {
            return;
        }
        if what == What::Start {
            self.hosts[host].died_at = None;
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
            What::ClockStep => self.clock_steps(host),
            What::Clear { dead_mark } => self.clear(host, dead_mark),
            What::Standby(act, number) => self.standby_acts(host, act, number),
            What::UserStopped => {
                if self.hosts[host].using_until.is_some_and(|until| until <= self.now) {
                    self.user_stopped(host, "the user has stopped");
                }
            }
            _ if self.plan.hosts[host].kind == Kind::Kernel => self.kernel(host, what),
            _ if self.plan.hosts[host].kind == Kind::Mounted => self.mounted(host, what),
            _ if self.plan.hosts[host].kind == Kind::Fsck => self.fsck(host, what),
            _ => self.ours(host, what),
        }
    }

    /// The fence is done.
    pub(crate) fn user_stopped(&mut self, host: usize, why: &str) {
        if is_broken(Breakage::ShutdownFences) && self.shut_down(host) {
            return;
        }
        self.stop_using(host, why);
        if self.plan.hosts[host].kind == Kind::Mounted {
            self.cut(host);
        }
    }

    pub(crate) fn at(&mut self, at: u64, host: usize, what: What) {
        let tie = self.rng.u64(1..);
        let epoch = self.hosts[host].epoch;
        self.queue.push(Reverse(Entry { at: at.max(self.now), tie, host, epoch, what }));
    }

    /// Before everything else that happens at that time.
    pub(crate) fn first_at(&mut self, at: u64, host: usize, what: What) {
        let epoch = self.hosts[host].epoch;
        self.queue.push(Reverse(Entry { at, tie: 0, host, epoch, what }));
    }

    pub(crate) fn after(&mut self, span: u64, host: usize, what: What) {
        self.at(self.now.saturating_add(span), host, what);
    }

    /// The clocks of a host.
    pub(crate) fn clock(&self, host: usize) -> Now {
        let plan = &self.plan.hosts[host];
        let mono = self.now + plan.clock_offset_ns - self.hosts[host].clock_behind_ns;
        let wall = 1_800_000_000 + (self.now - self.wall_behind_ns(host)) / SECOND;
        Now { mono: Mono(mono), wall: Wall(wall.saturating_add_signed(plan.wall_skew_s)) }
    }

    /// When a host's clock shows `at`.
    pub(crate) fn when(&self, host: usize, at: Mono) -> u64 {
        let behind = self.hosts[host].clock_behind_ns;
        at.0.saturating_add(behind).saturating_sub(self.plan.hosts[host].clock_offset_ns)
    }

    pub(crate) fn start_using(&mut self, host: usize) {
        self.hosts[host].using = true;
        self.hosts[host].using_since = self.now;
        self.note(host, || "USES the device".into());
        self.comes_over(host);
        self.check_exclusion(host);
        if let Some(use_s) = self.plan.hosts[host].use_s {
            let span = log_uniform(&mut self.rng, SECOND / 10, use_s * 2 * SECOND);
            self.after(span, host, What::UserDone);
        }
        self.in_after_calm |= !self.faults_strike() && self.is_in(host);
    }

    /// An e2fsck that gets in is nobody's service.
    pub(crate) fn is_in(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        state.using && state.using_until.is_none() && self.plan.hosts[host].kind != Kind::Fsck
    }

    pub(crate) fn stop_using(&mut self, host: usize, why: &str) {
        if self.hosts[host].using {
            self.hosts[host].using = false;
            if self.plan.hosts[host].kind != Kind::Mounted {
                self.hosts[host].using_until = None;
            }
            self.note(host, || why.into());
        }
    }

    pub(crate) fn other_user(&self, host: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|&other| {
            other != host && self.hosts[other].using && self.hosts[other].stalled_until <= self.now
        })
    }

    /// Never two users at once. A host that runs nothing uses nothing: it is looked at when it resumes.
    pub(crate) fn check_exclusion(&mut self, host: usize) {
        if !self.hosts[host].using {
            return;
        }
        let Some(other) = self.other_user(host) else { return };
        if self.plan.profile.pauses() {
            return self.note(host, || format!("beside host {other}"));
        }
        if self.is_by_late_write(host, other) {
            self.stats.apart.late_write += 1;
            self.over = true;
            return;
        }
        if self.is_excused(host, other) || self.is_fscks_own(host, other) || self.is_by_clear(host, other) {
            self.over = true;
            return;
        }
        let kernels = [host, other].iter().all(|&one| self.plan.hosts[one].kind == Kind::Kernel);
        if matches!(self.plan.profile, Profile::KernelFreezes | Profile::KernelSleeps) {
            return self.kernels_meet(host, other);
        }
        if kernels && self.plan.profile != Profile::Kernels {
            self.stats.apart.two_kernels += 1;
            return;
        }
        self.violate(host, format!("hosts {host} and {other} use the device at once"));
    }

    /// Something happened that cannot be promised.
    pub(crate) fn stop_looking(&mut self) {
        self.over = true;
    }

    pub(crate) fn violate(&mut self, host: usize, what: String) {
        self.note(host, || format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// One wait of the largest check interval about.
    pub(crate) fn longest_wait_ns(&self) -> u64 {
        self.area_wait_ns().unwrap_or(timing::wait_s(self.largest_c) * SECOND)
    }

    pub(crate) fn note(&mut self, host: usize, what: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            timeline.push(format!("{:>11.4} s  host {host}  {}", self.now as f64 / 1e9, what()));
        }
    }

    pub(crate) fn note_plan(&mut self, seed: u64) {
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
