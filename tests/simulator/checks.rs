//! What is checked of a host of ours, beside exclusion.

use std::time::Duration;

use crate::protocol::timing::Consequences;
use crate::protocol::{Loss, Refusal, Sequence, Write, timing};

use super::disk::Before;
use super::host::is_clean;
use super::plan::{HostPlan, Kind, Profile, SECOND};
use super::world::World;

impl World {
    /// A claimer never stops a live holder that had no fault of its own.
    pub(crate) fn check_loss(&mut self, host: usize, loss: &Loss) {
        let since = self.hosts[host].fault_until + 2 * self.longest_wait_ns();
        let since_then = self.hosts[host].fault_until < self.hosts[host].using_since;
        let mounted = self.plan.hosts[host].kind == Kind::Mounted;
        let faultless = if mounted { self.is_faultless(host) } else { self.now > since || since_then };
        if self.is_stopped_by_clear(host, loss) || self.is_stopped_by_withdrawal(host, loss) {
            self.stop_looking();
        } else if self.plan.profile.pauses() {
            self.check_pause_loss(host, loss);
        } else if self.plan.profile == Profile::ShortStalls {
            self.violate(host, format!("a stall shorter than the lease stopped a holder: {loss:?}"));
        } else if matches!(loss, Loss::ForeignClean { .. })
            && (self.plan.profile == Profile::LateClean || self.is_stopped_by_late_mark(host))
        {
            self.stats.apart.late_clean += 1;
        } else if faultless && (self.hosts[host].using || (mounted && !self.has_a_twin(host))) {
            self.violate(host, format!("a holder without a fault was stopped: {loss:?}"));
        } else if faultless && mounted {
            self.stats.apart.twins += 1;
        }
    }

    /// Nobody marks the block clean when he has just seen another there who uses the device.
    pub(crate) fn check_clean(&mut self, host: usize, write: &Write) {
        let Some(read) = self.hosts[host].last_read.clone().filter(|_| is_clean(&write.image)) else {
            return;
        };
        let seen = mmpguard::format::MmpBlock::fields(&read);
        let user = (0..self.hosts.len()).find(|&other| {
            let node = mmpguard::format::NodeName::new(&self.plan.hosts[other].node);
            other != host
                && self.hosts[other].using
                && node == seen.node
                && self.may_have_written(other, &read)
        });
        if let (Some(user), Sequence::Live(_)) = (user.filter(|_| !self.has_a_twin(host)), seen.seq.into()) {
            self.violate(host, format!("marks the block clean over host {user}, whom it saw"));
        }
    }

    /// A clean mark under a journal that needs recovery is watched: what was dirty may follow.
    pub(crate) fn check_doubtful(&mut self, host: usize) {
        let doubtful = self.plan.filesystem.needs_recovery && self.plan.before == Before::Clean;
        let first = self.stats.held == 1 && self.stats.kernel_mounts + self.stats.fsck.worked == 0;
        // A peer may have claimed over it, and have died: then it is that claim that was watched.
        let alone = self.plan.hosts.iter().all(|plan| plan.kind == Kind::Ours);
        if doubtful && first && alone && self.now < timing::DOUBTFUL_CLEAN_WATCH.as_nanos() as u64 {
            self.violate(host, "uses what may still be written to".into());
        }
    }

    /// Without faults the first one is in within the stated time.
    pub(crate) fn check_claim_time(&mut self, host: usize) {
        if self.plan.profile != Profile::Calm || self.stats.held + self.stats.kernel_mounts != 1 {
            return;
        }
        let own = |plan: &HostPlan| {
            timing::holder_check_interval_s(plan.interval, plan.interval, plan.check_interval_floor_s)
        };
        let superblocks = self.plan.filesystem.update_interval_s;
        let left = if let Before::Dead(left) = self.plan.before { left } else { 0 };
        let c = self.plan.hosts.iter().map(own).max().unwrap_or(0).max(left);
        let c = timing::taker_check_interval_s(superblocks, c);
        let stated = Consequences::of(c);
        let stated_s = match (self.plan.before, self.plan.filesystem.needs_recovery) {
            (Before::Dead(_), _) => stated.crash_claim_s,
            (Before::Clean, false) => stated.clean_claim_s,
            // Less what it leaves to the rest of a start.
            (Before::Clean, true) => stated.start_timeout_s as f64 - 10.0,
        };
        // One with a longer check interval watches for less of the same wait, and may overtake one that came before.
        let starts = self.plan.hosts.iter().map(|plan| plan.start_ns);
        let same = self.plan.hosts.iter().all(|plan| own(plan) == own(&self.plan.hosts[0]));
        let start = if same { starts.min() } else { starts.max() }.unwrap_or(0);
        let took_s = self.now.saturating_sub(start) as f64 / 1e9;
        if took_s > stated_s + 0.4 {
            self.violate(host, format!("the first one was in after {took_s:.2} s, stated are {stated_s} s"));
        }
    }

    /// Without faults a live holder refuses a claimer within the stated time, and nothing else ever refuses.
    pub(crate) fn check_refusal(&mut self, host: usize, refusal: &Refusal) {
        self.check_refused_by_fault(host, refusal);
        // Two kernels that beat over each other refuse nobody in time, and it is not ours to say when.
        if !matches!(self.plan.profile, Profile::Calm | Profile::Mounts) || self.stats.apart.two_kernels > 0 {
            return;
        }
        let Refusal::InUse { .. } = refusal else {
            return self.violate(host, format!("refused without a reason: {refusal:?}"));
        };
        let claim_since = self.hosts[host].claim_since;
        let holder = (0..self.hosts.len()).find(|&other| {
            self.hosts[other].using && self.hosts[other].using_since + SECOND / 10 < claim_since
        });
        let holder = holder.filter(|&holder| self.beats_evenly(holder));
        if let (Some(holder), None) = (holder, self.plan.hosts[host].patience_s) {
            let interval = match self.plan.hosts[holder].kind {
                Kind::Ours => self.plan.hosts[holder].interval,
                Kind::Mounted if !self.hosts[holder].kernel.beats() => self.plan.hosts[holder].interval,
                Kind::Kernel | Kind::Mounted | Kind::Fsck => Duration::from_secs(self.kernel_interval_s()),
            };
            let took = Duration::from_nanos(self.now - claim_since);
            if took > timing::refusal(interval) {
                self.violate(host, format!("refused only after {took:?}"));
            }
        }
    }
}
