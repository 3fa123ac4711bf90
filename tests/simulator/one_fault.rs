//! Exactly one fault in the whole history, of each kind, at any time, on any host; everything else is prompt. Checked:
//! within a stated time after it somebody uses the device (`World::in_again_ns`), and nobody else is stopped or refused
//! for it. Nobody leaves by himself, so whoever is in stays in.
//!
//! A kernel-only host is not made to sleep: that is K4, and found elsewhere.

use std::time::Duration;

use crate::protocol::{Refusal, timing};
use fastrand::Rng;

use super::plan::{Kind, MILLISECOND, Plan, Profile, Rates, SECOND, pick};
use super::world::{What, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Slow,
    Error,
    StallBeforeCheck,
    StallAfterCheck,
    LateHandling,
    Torn,
    Stall,
    Crash,
    GuardStall,
    GuardCrash,
    Outage,
    /// A wall clock is set.
    ClockStep,
    /// A clear is forced.
    Clear,
    /// An e2fsck is killed at work, and its mark is cleared.
    FsckKilled,
}

const FAULTS: [Fault; 14] = [
    Fault::Slow,
    Fault::Error,
    Fault::StallBeforeCheck,
    Fault::StallAfterCheck,
    Fault::LateHandling,
    Fault::Torn,
    Fault::Stall,
    Fault::Crash,
    Fault::GuardStall,
    Fault::GuardCrash,
    Fault::Outage,
    Fault::ClockStep,
    Fault::Clear,
    Fault::FsckKilled,
];

/// The longest pause before anybody tries again, after a crash, a cut, or a refusal.
const LONGEST_PAUSE_NS: u64 = 60 * SECOND;
/// Group descriptors, journal, latencies.
const LONGEST_MOUNT_NS: u64 = 32 * SECOND;

#[derive(Clone, Copy, Debug)]
pub(crate) struct OneFault {
    pub(crate) fault: Fault,
    pub(crate) host: usize,
    /// It strikes then, or with the next I/O after it.
    pub(crate) at: u64,
}

pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    let fault = pick(rng, &FAULTS);
    let mut one = OneFault { fault, host: rng.usize(0..plan.hosts.len()), at: rng.u64(0..250 * SECOND) };
    plan.longest_pause_ns = 10 * SECOND;
    if rng.bool() {
        // It strikes the one that was there first.
        one.host = 0;
        for host in &mut plan.hosts[1..] {
            host.start_ns += 60 * SECOND;
        }
    }
    let ours = plan.hosts[one.host].kind != Kind::Kernel;
    if !ours && !matches!(fault, Fault::ClockStep | Fault::Clear) {
        one.fault = Fault::Crash;
    }
    plan.kernel_write_ns = 5 * MILLISECOND;
    plan.mounts = super::mount_plan::MountRates { flush_ns: SECOND, ..Default::default() };
    let mounts = rng.bool();
    for host in &mut plan.hosts {
        if !mounts && host.kind == Kind::Mounted {
            host.kind = Kind::Ours;
        }
        (host.use_s, host.faulty) = (None, false);
    }
    if fault == Fault::FsckKilled && plan.hosts.len() > 1 {
        (one.host, one.fault) = (1, fault);
        plan.hosts[0].start_ns += 90 * SECOND;
        plan.hosts[1].start_ns = 0;
        plan.hosts[1].kind = Kind::Fsck;
        plan.hosts[1].use_s = Some(200);
        (plan.peers.fsck_dies, plan.peers.marks_cleared) = (1.0, 1.0);
    }
    plan.hosts[one.host].faulty = true;
    let mut rates = Rates { failed_but_landed: 0.7, ..Rates::default() };
    match one.fault {
        Fault::Slow => rates.slow = 1.0,
        Fault::Error => rates.error = 1.0,
        Fault::StallBeforeCheck => rates.stall_before_check = 1.0,
        Fault::StallAfterCheck => rates.stall_after_check = 1.0,
        Fault::LateHandling => rates.late_handling = 1.0,
        Fault::Torn => rates.torn = 1.0,
        _ => {}
    }
    plan.rates = rates;
    plan.calm_ns = u64::MAX;
    plan.peers.one = Some(one);
}

impl World {
    pub(crate) fn plan_one_fault(&mut self) {
        let Some(OneFault { fault, host, at }) = self.plan.peers.one else { return };
        let mounted = self.plan.hosts[host].kind == Kind::Mounted;
        let what = match fault {
            Fault::Stall => What::Stall,
            Fault::Crash => What::Crash,
            Fault::GuardStall if mounted => What::GuardStall,
            Fault::GuardCrash if mounted => What::GuardCrash,
            Fault::Outage if mounted => What::Outage,
            Fault::ClockStep => What::ClockStep,
            Fault::Clear => What::Clear { dead_mark: false },
            _ => return,
        };
        self.plan.calm_ns = at;
        self.at(at, host, what);
    }

    /// Of a fault that comes with an I/O: whether this is the one.
    pub(crate) fn strikes_once(&mut self, host: usize, rate: f64) -> bool {
        let Some(one) = self.plan.peers.one else { return false };
        // An e2fsck is struck where it works.
        let strikes = rate > 0.0 && self.faults_strike() && one.host == host && one.at <= self.now;
        if strikes {
            self.one_fault_strikes();
        }
        strikes
    }

    /// There is no other after it.
    pub(crate) fn one_fault_strikes(&mut self) {
        if self.plan.profile == Profile::OneFault {
            self.plan.calm_ns = self.now;
        }
    }

    /// The administrator, or NTP, sets the wall clock.
    pub(crate) fn clock_steps(&mut self, host: usize) {
        let step_s = pick(&mut self.rng, &[-3600, -60, -5, 5, 60, 3600]);
        self.plan.hosts[host].wall_skew_s += step_s;
        self.note(host, || format!("its wall CLOCK STEPS by {step_s} s"));
        if let Some(rate) = self.plan.peers.clock_steps_per_s {
            self.plan_fault(rate, host, What::ClockStep);
        }
    }

    /// Somebody is in within this time after the fault: what it lasts is over; the lease of whom it struck has run out, and
    /// his fence is done (a wait each); whoever waits for that has made his pause; and three claims of the longest kind,
    /// since those who meet withdraw, twice at most but for one history in thousands.
    fn in_again_ns(&self) -> u64 {
        let Some(one) = self.plan.peers.one else { return u64::MAX };
        let c = self.largest_c;
        let claim = timing::claim(timing::Found::DoubtfulClean, c, c, c)
            .max(timing::claim(timing::Found::Still, c, c, c))
            .max(timing::wait(c) * 2)
            + Duration::from_nanos(LONGEST_MOUNT_NS);
        let claim_ns = u64::try_from(claim.as_nanos()).expect("hours");
        // The mark of a dead e2fsck stands until somebody clears it.
        let mark_ns = if one.fault == Fault::FsckKilled { 120 * SECOND } else { 0 };
        let fault_until = self.hosts[one.host].fault_until.max(self.plan.calm_ns);
        fault_until + mark_ns + 2 * self.longest_wait_ns() + LONGEST_PAUSE_NS + 3 * claim_ns
    }

    /// True when the history has come to its end: nobody was in within the stated time, or somebody is and has stayed in
    /// until what follows from the fault is over.
    pub(crate) fn check_in_again(&mut self) -> bool {
        let Some(one) = self.plan.peers.one.filter(|_| !self.faults_strike()) else { return false };
        let is_in = (0..self.hosts.len()).any(|host| self.is_in(host));
        let fault_until = self.hosts[one.host].fault_until.max(self.plan.calm_ns);
        let quiet = fault_until + 2 * self.longest_wait_ns() + LONGEST_PAUSE_NS;
        if self.now < if is_in { quiet } else { self.in_again_ns() } {
            return false;
        }
        let marked = self.disk.block().seq == crate::protocol::sequence::SEQ_FSCK;
        if !is_in && !self.disk.decodes() {
            self.stats.apart.left_damaged += 1;
        } else if !is_in && marked && !self.mark_is_alive() {
            self.stats.apart.left_marked += 1;
        } else if !is_in {
            let span = (self.now - self.plan.calm_ns) as f64 / 1e9;
            self.violate(0, format!("nobody is in, {span:.0} s after the only fault"));
        }
        true
    }

    /// Whoever has no fault is refused by a user or a claimer alone.
    pub(crate) fn check_refused_by_fault(&mut self, host: usize, refusal: &Refusal) {
        let Some(one) = self.plan.peers.one else { return };
        let fsck = matches!(refusal, Refusal::Fsck { .. }) && one.fault == Fault::FsckKilled;
        let torn = matches!(refusal, Refusal::Damaged { .. }) && !self.disk.decodes();
        let in_use = matches!(refusal, Refusal::InUse { .. });
        if one.host != host && !(in_use || fsck || torn) {
            self.violate(host, format!("refused without a reason: {refusal:?}"));
        }
    }
}
