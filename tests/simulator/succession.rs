//! A guard's process dies in an area while what it guards goes on (a mounted XFS), and another one takes its place, as the keeper
//! of `mmp mount` has it (`keeper::mounts`): under the same lease, with what is left of it (`driver::trace`). If the lease ends
//! first, or has hardly a moment left, the keeper fences.
//!
//! What the dead guard had sent is on its way still. What was used may be used no more by the time that it is replaced: then the
//! new guard releases.
//!
//! Checked also: who goes on does so with the generation that was held, and has no lease of his own before a write of his was acknowledged.

use crate::protocol::{Adoption, Guard, GuardOptions, Mode};
use fastrand::Rng;
use mmpguard::clock::Mono;

use super::asked::SUCCESSION;
use super::plan::{Plan, SECOND, log_uniform, pick};
use super::world::{What, World};

/// What a host remembers of its guards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Succession {
    /// Its guard is dead, and another one may come.
    pub(crate) orphaned: bool,
    /// The guard is such a one, and has not seen the block yet.
    begins: bool,
    /// It is, and no write of its own was acknowledged yet.
    unwritten: bool,
    /// What was held last.
    pub(crate) generation: Option<u64>,
}

/// Drawn beside the plan's own numbers.
pub(crate) fn apply(plan: &mut Plan, rng: &Rng) {
    let mut rng = Rng::with_seed(rng.clone().u64(..) ^ 0x5CCE_5510);
    plan.mounts.guard_crashes_per_s = pick(&mut rng, &[0.0, 0.0, 0.003, 0.02, 0.1]);
}

impl World {
    /// The guard's process dies, and whatever it was about to write with it.
    pub(crate) fn holder_dies(&mut self, host: usize) {
        self.plan_fault(self.plan.mounts.guard_crashes_per_s, host, What::GuardCrash);
        let Some(mode) = self.mode(host) else { return };
        // Claims would hardly come to an end otherwise; a claimer that dies is a crash.
        if mode == Mode::Claiming && self.rng.f64() < 0.9 {
            return;
        }
        self.note(host, || format!("the GUARD DIES, {mode:?}"));
        self.stats.mounts.guard_crashes += 1;
        self.fault_until(host, self.now);
        let state = &mut self.hosts[host];
        (state.guard, state.io, state.release_wanted) = (None, None, false);
        state.succession.begins = false;
        if state.using && !state.cell_lost && state.cell.is_some() {
            state.succession.orphaned = true;
            let span = log_uniform(&mut self.rng, SECOND / 10, 2 * SECOND);
            return self.after(span, host, What::GuardBack);
        }
        if !state.using {
            state.cell = None;
        }
        self.after(SECOND, host, What::Start);
    }

    /// The keeper starts another one.
    pub(crate) fn holder_is_succeeded(&mut self, host: usize) {
        if !std::mem::take(&mut self.hosts[host].succession.orphaned) {
            return;
        }
        let now = self.clock(host);
        let state = &self.hosts[host];
        let lasts = state.cell.is_some_and(|end| now.mono + SUCCESSION <= end);
        let protected = lasts && !state.cell_lost && state.using_until.is_none();
        let adoption = if protected { self.what_is_left(host) } else { Adoption::default() };
        if adoption.left.is_none() {
            if self.hosts[host].using && self.hosts[host].using_until.is_none() {
                self.note(host, || "keeper: no guard, fences".into());
                self.fence(host, self.now);
            }
            return self.after(SECOND, host, What::Start);
        }
        self.note(host, || format!("a new guard goes on with {adoption:?}"));
        self.stats.mounts.adoptions += 1;
        self.fault_until(host, self.now);
        let seed = self.rng.u64(..);
        let options = GuardOptions { patience_until: None, ..self.guard_options(host) };
        let guard = Guard::adopt(self.guard_medium(host), options, adoption, seed, now);
        let state = &mut self.hosts[host];
        state.guard = Some(guard);
        (state.succession.begins, state.succession.unwritten) = (true, true);
        state.release_wanted = !state.using;
        self.drain(host);
    }

    /// Whether *held* is no claim's, but a successor's.
    pub(crate) fn goes_on(&mut self, host: usize) -> bool {
        if !std::mem::take(&mut self.hosts[host].succession.begins) {
            return false;
        }
        let held = self.hosts[host].succession.generation;
        let generation = self.hosts[host].guard.as_ref().and_then(Guard::generation);
        if generation != held {
            self.violate(host, format!("goes on with generation {generation:?}, and {held:?} was held"));
        }
        true
    }

    /// The lease of a host's guard ends then, and the cell is about to be moved there.
    pub(crate) fn check_succession(&mut self, host: usize, end: Mono, acknowledged: bool) {
        let state = &mut self.hosts[host];
        state.succession.unwritten &= !acknowledged;
        if state.succession.unwritten && state.cell.is_some_and(|cell| cell < end) {
            self.violate(host, "counts a lease for what it has not written".into());
        }
    }

    /// Nothing uses it any more, and its guard is dead.
    pub(crate) fn orphan_is_done(&mut self, host: usize) {
        let state = &self.hosts[host];
        if state.succession.orphaned && state.using && state.using_until.is_none() && !state.cell_lost {
            self.stop_using(host, "the user is done, and nobody guards it");
        }
    }
}
