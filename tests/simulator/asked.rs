//! What is asked of a host of ours beside the claim itself: to give it up again, to believe that a node is dead, and to go
//! on where a guard that has died left off (`driver::trace`).
//!
//! A vouch for a dead node is true: its host has crashed, is cut off (what it wrote has landed), and comes back only later.
//! A vouch for a living one is made of a holder without a fault alone, who shows himself within one of his beats; of one
//! that is slow or stalls it would be what it says, a lie that kills.

use std::time::Duration;

use crate::protocol::{Adoption, Guard, Input, Left, Loss, Mode};
use mmpguard::format::NodeName;

use super::host::Feed;
use super::plan::{Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World};

/// The keeper starts another guard only if the lease lasts for so long still.
pub(crate) const SUCCESSION: Duration = Duration::from_millis(500);

impl World {
    /// A claim begins.
    pub(crate) fn plan_withdrawal(&mut self, host: usize) {
        if self.plan.peers.withdraws > 0.0 && self.rng.f64() < self.plan.peers.withdraws {
            let span = log_uniform(&mut self.rng, SECOND / 10, 60 * SECOND);
            let claim = self.hosts[host].claim_since;
            self.after(span, host, What::Withdraw(claim));
        }
    }

    /// Whoever asked for that claim has changed his mind.
    pub(crate) fn withdraw(&mut self, host: usize, claim: u64) {
        let state = &self.hosts[host];
        if state.claim_since != claim || self.mode(host) != Some(Mode::Claiming) {
            return;
        }
        if state.io.is_some() && !self.plan.hosts[host].ticks_during_io {
            return self.after(MILLISECOND, host, What::Withdraw(claim));
        }
        self.note(host, || "withdraws".into());
        self.stats.withdrawn += 1;
        self.feed(host, Feed::Plain(Input::Withdraw));
    }

    /// A holder whose kernel's clean mark stood for a moment may take what is left of a claim that was taken back for the end
    /// of a successor.
    pub(crate) fn is_stopped_by_withdrawal(&mut self, host: usize, loss: &Loss) -> bool {
        let taken_back = matches!(loss, Loss::ForeignClean { .. })
            && self.plan.hosts[host].kind == Kind::Mounted
            && self.is_taken_back(host);
        self.stats.apart.taken_back += u64::from(taken_back);
        taken_back
    }

    /// Whom the cluster says to be dead, for a claim that begins now.
    pub(crate) fn vouched_dead(&mut self, host: usize) -> Option<NodeName> {
        if self.plan.peers.vouches <= 0.0 || self.rng.f64() >= self.plan.peers.vouches {
            return None;
        }
        let calm = self.plan.profile == Profile::Calm;
        let named = (0..self.hosts.len()).filter(|&other| other != host).find(|&other| {
            let state = &self.hosts[other];
            let dead = state.died_at.is_some_and(|at| at + self.landing_bound_ns() + SECOND <= self.now);
            dead || (calm && state.using && self.plan.hosts[other].kind == Kind::Ours)
        })?;
        let node = &self.plan.hosts[named].node;
        // Of hosts that share a name nobody can vouch for one.
        let unique = self.plan.hosts.iter().filter(|plan| plan.node == *node).count() == 1;
        self.stats.vouched += u64::from(unique);
        unique.then(|| NodeName::new(node))
    }

    /// Where nodes are vouched for, who dies stays dead for long.
    pub(crate) fn dead_for_ns(&mut self) -> u64 {
        if self.plan.standby.crash_ns.is_some() {
            return 3000 * SECOND;
        }
        if self.plan.peers.vouches > 0.0 && self.rng.bool() {
            return log_uniform(&mut self.rng, 60 * SECOND, 300 * SECOND);
        }
        log_uniform(&mut self.rng, SECOND / 2, 60 * SECOND)
    }

    /// After every input.
    pub(crate) fn note_trace(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let Some(guard) = &state.guard else { return };
        state.mounted.trace.beating = guard.is_beating();
        state.mounted.trace.generation = guard.generation().or(state.mounted.trace.generation);
        state.mounted.trace.counted = Guard::kernel_counted(guard).or(state.mounted.trace.counted);
    }

    /// A keeper starts another guard.
    pub(crate) fn guard_comes_back(&mut self, host: usize) {
        // With what is left, at once; else when an administrator adopts it.
        let most = if self.plan.peers.leaves { 2 * SECOND } else { 20 * SECOND };
        let span = log_uniform(&mut self.rng, SECOND / 10, most);
        self.after(span, host, What::GuardBack);
    }

    /// For the guard that takes the place of a dead one.
    pub(crate) fn what_is_left(&mut self, host: usize) -> Adoption {
        let state = &self.hosts[host];
        let (trace, leaves) = (state.mounted.trace, self.plan.peers.leaves);
        let Some(lease_end) = state.cell.filter(|_| leaves) else {
            return Adoption { counted: state.mounted.counted, left: None };
        };
        self.stats.mounts.left += 1;
        let left = Left {
            lease_end,
            kernel_seq: trace.counted.map(|(_, seq)| seq),
            submitted_seq: trace.submitted_seq,
            beating: trace.beating,
            generation: trace.generation,
        };
        Adoption { counted: trace.counted, left: Some(left) }
    }
}
