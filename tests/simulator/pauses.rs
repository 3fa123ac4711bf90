//! Pauses with the clock stopped, as of a virtual machine: the one failure that lets two hosts use a device at once (S6).
//! Exclusion is not promised then; what is promised, and checked here, is how it ends.
//!
//! One host sleeps, again and again; its clocks stand still for all of a pause or for most of it, and its wall clock may
//! be set right at once, or only later. The others are as patient as they can be. There is at most one kernel that
//! no guard watches, and none in `Profile::MountPauses`.

use std::time::Duration;

use crate::protocol::{LoserRule, Loss, timing};
use fastrand::Rng;

use super::disk::Before;
use super::mount_plan::{HandOver, MountPlan};
use super::plan::{Kind, MILLISECOND, Plan, Profile, Rates, SECOND, log_uniform, pick};
use super::world::World;

/// From one pause to the next, at least: whatever follows from one is over by then.
const BETWEEN_NS: u64 = 500 * SECOND;
/// Where the wall clock is not set right at once, it is set right after this.
const SET_RIGHT_AFTER_NS: u64 = 300 * SECOND;

/// What a plan says of pauses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PausePlan {
    /// The wall clock of whoever resumes is right at once.
    pub(crate) set_right: bool,
    /// Every write takes about so long, on every host.
    pub(crate) write_ns: u64,
}

/// What is known of pauses and of what they did.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The wall clock of that host is behind by so much, until then.
    behind: Option<(usize, u64, u64)>,
    /// Two use the device, and both run, since then.
    double_since: Option<u64>,
    /// Somebody came into use while that host slept.
    came_over: Option<usize>,
    /// Whoever was come over is to have stopped by then.
    due: Option<(usize, u64)>,
    /// It has beaten a foreign block over since it resumed.
    beaten_over_by: Option<usize>,
    /// Who stopped because somebody else was seen, and when.
    stopped: Option<(usize, u64)>,
}

pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    plan.filesystem.update_interval_s = pick(rng, &[1, 1, 1, 5]);
    plan.filesystem.needs_recovery = false;
    plan.before = Before::Clean;
    plan.hosts.truncate(pick(rng, &[2, 2, 3]));
    let kernel = (rng.f64() < 0.4).then(|| rng.usize(0..plan.hosts.len()));
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.kind = if kernel == Some(number) { Kind::Kernel } else { Kind::Ours };
        host.node = format!("host-{}{number}", (b'a' + rng.u8(0..26)) as char);
        host.interval = Duration::from_secs(pick(rng, &[1, 1, 1, 5]));
        (host.check_interval_floor_s, host.fence_ns) = (0, 0);
        (host.patience_s, host.faulty) = (Some(2000), number == 0);
        host.wall_skew_s = rng.i64(-1..=1);
        host.use_s = if number == 0 { None } else { pick(rng, &[None, None, Some(10), Some(60)]) };
        host.start_ns = number as u64 * 15 * SECOND + rng.u64(0..SECOND);
    }
    plan.longest_pause_ns = SECOND;
    plan.rates = Rates { stalls_per_s: 0.02, ..Rates::default() };
    plan.pauses = PausePlan {
        set_right: rng.bool(),
        write_ns: pick(rng, &[5 * MILLISECOND, 5 * MILLISECOND, 200 * MILLISECOND]),
    };
    plan.kernel_write_ns = 5 * MILLISECOND;
    if plan.profile == Profile::MountPauses {
        apply_mounts(plan, rng);
    }
}

/// At least one host mounts, and no kernel is alone.
fn apply_mounts(plan: &mut Plan, rng: &mut Rng) {
    let first = rng.usize(0..plan.hosts.len());
    let fleet = rng.bool();
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.kind = if number == first || rng.bool() { Kind::Mounted } else { Kind::Ours };
        host.mount = MountPlan {
            hand_over: if fleet { HandOver::Clean } else { HandOver::Kernel },
            call_ns: pick(rng, &[10 * MILLISECOND, SECOND]),
            finish_ns: pick(rng, &[10 * MILLISECOND, SECOND]),
            rereads: rng.f64() < 0.3,
        };
    }
    plan.mounts.flush_ns = pick(rng, &[10 * MILLISECOND, SECOND]);
}

impl World {
    /// How long the next pause lasts: a takeover fits into most.
    pub(crate) fn pause_span(&mut self, host: usize) -> Option<u64> {
        let state = &self.hosts[host];
        let soon = state.fault_until > 0 && state.fault_until + BETWEEN_NS > self.now;
        let idle = !state.using || state.using_since + 20 * SECOND > self.now;
        (!soon && !idle).then(|| log_uniform(&mut self.rng, 15 * SECOND, 200 * SECOND))
    }

    /// The clocks of a host stand still.
    pub(crate) fn pause_begins(&mut self, host: usize, span: u64) {
        let runs = pick(&mut self.rng, &[0, 0, 3, 6]) * SECOND;
        let still = span.saturating_sub(runs);
        self.hosts[host].clock_behind_ns += still;
        self.hosts[host].kernel.stands_still(still);
        self.pauses.stopped = None;
        if !self.plan.pauses.set_right {
            self.pauses.behind = Some((host, still, self.now + span + SET_RIGHT_AFTER_NS));
        }
    }

    /// By how much the wall clock of a host is behind.
    pub(crate) fn wall_behind_ns(&self, host: usize) -> u64 {
        match self.pauses.behind {
            Some((sleeper, still, until)) if sleeper == host && self.now < until => still,
            _ => 0,
        }
    }

    /// Somebody comes into use: over one that sleeps?
    pub(crate) fn comes_over(&mut self, host: usize) {
        let sleeper = (0..self.hosts.len()).find(|&other| {
            other != host && self.hosts[other].using && self.hosts[other].stalled_until > self.now
        });
        self.pauses.came_over = self.pauses.came_over.or(sleeper);
    }

    /// It runs again. Over whom somebody came, worked and left has to stop, unless its clock was set right; of two that meet
    /// one has to, and which one it is is counted.
    pub(crate) fn pause_ends(&mut self, host: usize) {
        self.pauses.beaten_over_by = None;
        let kernel = self.plan.hosts[host].kind == Kind::Kernel;
        if self.pauses.came_over.take_if(|sleeper| *sleeper == host).is_some()
            && !self.plan.pauses.set_right
            && !kernel
        {
            self.pauses.due = Some((host, self.now + self.double_use_ends_ns()));
            // Nor does it know how old an answer is that was under way; and a kernel may beat over what tells it, before its guard looks.
            let mounted = self.plan.hosts[host].kind == Kind::Mounted;
            if mounted || self.other_user(host).is_some() || self.hosts[host].io.is_some() {
                self.pauses.beaten_over_by = Some(host);
            }
        }
    }

    /// S6, and what looks and I/O take.
    fn double_use_ends_ns(&self) -> u64 {
        let ours = self.plan.hosts.iter().map(|host| host.interval).max().unwrap_or_default();
        let superblock = self.plan.filesystem.update_interval_s;
        let longest = timing::longest_interval(ours, superblock, self.largest_c);
        let span = timing::double_use(longest);
        u64::try_from(span.as_nanos()).expect("it is short") + SECOND
    }

    /// A foreign block was beaten over.
    pub(crate) fn pause_intruder(&mut self, host: usize) {
        if self.pauses.due.is_some_and(|(sleeper, _)| sleeper == host) {
            self.pauses.beaten_over_by = Some(host);
        }
    }

    /// Both of two users that meet run, at every step.
    pub(crate) fn check_pauses(&mut self) {
        let runs = |host: &super::host::Host| host.using && host.stalled_until <= self.now;
        if self.hosts.iter().filter(|host| runs(host)).count() < 2 {
            self.pauses.double_since = None;
        } else {
            if self.pauses.double_since.is_none() {
                self.stats.apart.double_uses += 1;
            }
            let since = *self.pauses.double_since.get_or_insert(self.now);
            if self.now > since + self.double_use_ends_ns() {
                self.violate(0, "a double use lasts longer than it may".into());
            }
        }
        if let Some((host, due)) = self.pauses.due {
            if !self.hosts[host].using || self.hosts[host].stalled_until > self.now {
                self.pauses.due = None;
            } else if self.now > due && self.pauses.beaten_over_by == Some(host) {
                self.stats.apart.sleeper_went_on += 1;
                self.pauses.due = None;
            } else if self.now > due {
                self.violate(host, "goes on with what another has used while it slept".into());
            }
        }
    }

    /// Where two of ours meet one goes on.
    pub(crate) fn check_pause_loss(&mut self, host: usize, loss: &Loss) {
        let Loss::Stolen { because, .. } = loss else { return };
        match self.pauses.stopped {
            // He took over, left, and came again, over his own clean mark: so he does not know that count.
            Some((other, _))
                if *because == LoserRule::EqualNames
                    && self.plan.hosts[other].mount.rereads
                    && self.began_on_clean(host) =>
            {
                self.stats.apart.taken_names += 1;
            }
            // His kernel's beats leave the other's little time to stand, and the other one's guard found them when our time was up.
            Some((other, at))
                if *because == LoserRule::OtherDidNotStop
                    && self.plan.hosts[other].kind == Kind::Mounted
                    && self.now < at + 5 * SECOND =>
            {
                self.stats.apart.stopped_together += 1;
            }
            Some((other, at)) if other != host && self.now < at + 2 * self.double_use_ends_ns() => {
                self.violate(host, format!("hosts {other} and {host} both stop for each other"));
            }
            _ => self.pauses.stopped = Some((host, self.now)),
        }
    }
}
