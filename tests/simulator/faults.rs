//! Stalls, crashes and what strikes by chance.

use crate::protocol::timing;

use super::breakage::{Breakage, is_broken};
use super::plan::{Kind, Profile, SECOND, log_uniform};
use super::world::{What, World};

impl World {
    pub(crate) fn faults_strike(&self) -> bool {
        self.now < self.plan.calm_ns
    }

    pub(crate) fn strikes(&mut self, host: usize, rate: f64) -> bool {
        if self.plan.profile == Profile::OneFault {
            return self.strikes_once(host, rate);
        }
        rate > 0.0
            && self.plan.hosts[host].faulty
            && self.faults_strike()
            && self.rng.f64() < rate
            && self.next_fault_strikes()
    }

    /// Faults are numbered, so that single ones can be left out.
    pub(crate) fn next_fault_strikes(&mut self) -> bool {
        self.stats.faults += 1;
        !self.without_faults.contains(&self.stats.faults)
    }

    /// A planned fault that does not strike; the next one of its kind is planned.
    pub(crate) fn is_left_out(&mut self, host: usize, what: &What) -> bool {
        let rate = match what {
            What::Crash => self.plan.rates.crashes_per_s,
            What::Stall => self.plan.rates.stalls_per_s,
            What::GuardStall => self.plan.mounts.guard_stalls_per_s,
            What::GuardCrash => self.plan.mounts.guard_crashes_per_s,
            What::Outage => self.plan.mounts.outages_per_s,
            _ => return false,
        };
        if self.next_fault_strikes() {
            return false;
        }
        self.plan_fault(rate, host, what.clone());
        true
    }

    pub(crate) fn plan_stall(&mut self, host: usize) {
        let rate = self.plan.rates.stalls_per_s;
        self.plan_fault(rate, host, What::Stall);
    }

    pub(crate) fn plan_crash(&mut self, host: usize) {
        let rate = self.plan.rates.crashes_per_s;
        self.plan_fault(rate, host, What::Crash);
    }

    pub(crate) fn plan_fault(&mut self, rate: f64, host: usize, what: What) {
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
        if self.plan.profile.pauses() {
            return self.pause_span(host);
        }
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
        } else if plan.kind == Kind::Fsck {
            // Beside its sleeps it takes less than the margin: a stated assumption.
            if state.fault_until + 30 * SECOND > self.now {
                return None;
            }
            if state.fsck.step == super::fsck::Step::Working { most } else { SECOND / 5 }
        } else if plan.kind == Kind::Kernel {
            // A kernel that sleeps longer is K4, and between its look and its write a stated assumption.
            if state.fault_until + 30 * SECOND > self.now {
                return None;
            }
            most.min(3 * SECOND)
        } else if plan.kind == Kind::Mounted && state.kernel.looks_or_claims() {
            // The same assumption.
            most.min(3 * SECOND)
        } else {
            most
        };
        Some(log_uniform(&mut self.rng, SECOND / 10, most.max(SECOND / 10 + 1)))
    }

    /// The host runs nothing for so long; its clock runs on.
    pub(crate) fn stall(&mut self, host: usize, span: u64) {
        let until = self.now + span;
        self.stats.stalls += 1;
        self.note(host, || format!("STALLS for {:.3} s", span as f64 / 1e9));
        if is_broken(Breakage::ClockStops) {
            let already = self.hosts[host].stalled_until.max(self.now);
            self.hosts[host].clock_behind_ns += until.saturating_sub(already);
        }
        if self.plan.profile.pauses() {
            self.pause_begins(host, span);
        }
        let state = &mut self.hosts[host];
        state.stalled_until = state.stalled_until.max(until);
        state.fault_until = state.fault_until.max(until);
        self.first_at(until, host, What::Resume);
    }

    /// Its keeper runs first: what it could write before that is a documented non-promise, counted apart.
    pub(crate) fn resume(&mut self, host: usize) {
        if self.hosts[host].stalled_until > self.now {
            return;
        }
        self.note(host, || "resumes".into());
        self.pause_ends(host);
        self.keeper(host);
        if self.hosts[host].using_until.is_some_and(|until| until <= self.now) {
            if self.other_user(host).is_some() {
                self.stats.apart.woke_beside_user += 1;
            }
            self.user_stopped(host, "the user has stopped, at once after the stall");
        }
        self.check_exclusion(host);
    }

    /// It beats over a claimer.
    pub(crate) fn intruded(&mut self, host: usize) {
        self.pause_intruder(host);
        self.stats.intruders += 1;
        self.hosts[host].intruded_at = self.now;
    }

    pub(crate) fn crash(&mut self, host: usize) {
        self.stats.crashes += 1;
        self.note(host, || "CRASHES".into());
        if self.plan.hosts[host].kind == Kind::Fsck && self.is_marked_by(host) {
            self.fsck_dies(host, "dies with its host");
        }
        let crashed = self.hosts[host].crashed(self.now);
        self.hosts[host] = crashed;
        let pause = self.dead_for_ns();
        self.after(pause, host, What::Start);
        self.plan_stall(host);
        self.plan_crash(host);
        self.plan_process_faults(host);
    }
}
