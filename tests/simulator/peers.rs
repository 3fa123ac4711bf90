//! Peers that are not ours: which kernel a host runs, and what befalls a host that has a kernel and nothing else. It is
//! frozen (every snapshot of a SAN does that) or sleeps for longer than anybody waits, and unmounts in the end.
//!
//! Not here: what its kernel does by itself (`kernel`), and e2fsprogs.

use fastrand::Rng;

use super::kernel::{Step, Stop};
use super::one_fault::{self, OneFault};
use super::plan::{Kind, Plan, Profile, SECOND, log_uniform, pick};
use super::world::{What, World};

/// Whose MMP code a kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Linux's own ext4: a mount does not wait on clean, and at most C + 60 s.
    #[default]
    Linux,
    /// Lustre's ldiskfs: a claim on clean stands for 2 s before it is looked at again, and no wait exceeds C + 20 s.
    Ldiskfs,
}

impl Flavour {
    pub(crate) fn clean_wait_ns(self) -> u64 {
        match self {
            Flavour::Linux => 0,
            Flavour::Ldiskfs => 2 * SECOND,
        }
    }

    /// On what is not clean, with this check interval.
    pub(crate) fn wait_ns(self, check_interval_s: u64) -> u64 {
        let longest = if self == Flavour::Ldiskfs { 20 } else { 60 };
        (2 * check_interval_s + 1).min(check_interval_s + longest) * SECOND
    }
}

/// How often it befalls a history, and what is asked of hosts of ours beside that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerRates {
    /// Of the e2fscks so many are killed at work.
    pub(crate) fsck_dies: f64,
    /// Of the marks that are left so many are cleared.
    pub(crate) marks_cleared: f64,
    pub(crate) clears_per_s: f64,
    pub(crate) one: Option<OneFault>,
    pub(crate) clock_steps_per_s: Option<f64>,
    /// Of the claims so many are given up by whoever asked for them.
    pub(crate) withdraws: f64,
    /// At so many claims a node is vouched to be dead.
    pub(crate) vouches: f64,
    /// A guard that dies leaves what its successor goes on with.
    pub(crate) leaves: bool,
}

/// What befalls a kernel-only host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerAct {
    Freeze,
    Thaw,
    Sleep,
}

/// Drawn beside the plan's own numbers: histories without a kernel stay what they are.
pub(crate) fn apply(plan: &mut Plan, rng: &Rng) {
    let mut rng = Rng::with_seed(rng.clone().u64(..));
    let all_alike = rng.bool().then(|| pick(&mut rng, &[Flavour::Linux, Flavour::Ldiskfs]));
    for host in &mut plan.hosts {
        host.compares_with_itself = rng.bool();
        host.flavour = all_alike.unwrap_or_else(|| pick(&mut rng, &[Flavour::Linux, Flavour::Ldiskfs]));
    }
    if matches!(plan.profile, Profile::Fscks | Profile::Clears) {
        apply_fscks(plan, &mut rng);
    }
    if plan.profile == Profile::OneFault {
        one_fault::apply(plan, &mut rng);
    }
    if plan.profile.has_every_fault() || plan.profile == Profile::Calm {
        plan.peers.vouches = if rng.f64() < 0.2 { 0.5 } else { 0.0 };
    }
    if plan.profile.has_every_fault() {
        plan.peers.withdraws = if rng.f64() < 0.2 { 0.2 } else { 0.0 };
        plan.peers.leaves = rng.bool();
    }
    if plan.profile.has_every_fault() && rng.f64() < 0.15 {
        plan.peers.clock_steps_per_s = Some(pick(&mut rng, &[0.003, 0.02]));
    }
    if matches!(plan.profile, Profile::KernelFreezes | Profile::KernelSleeps) {
        // Far enough apart that nobody meets on clean.
        for (number, host) in plan.hosts.iter_mut().enumerate() {
            host.start_ns += number as u64 * 5 * SECOND;
            host.use_s = host.use_s.map(|_| 200);
        }
    }
}

fn apply_fscks(plan: &mut Plan, rng: &mut Rng) {
    let fscks = plan.profile == Profile::Fscks;
    plan.peers.fsck_dies = if fscks { pick(rng, &[0.0, 0.1, 0.5]) } else { 0.0 };
    plan.peers.marks_cleared = 0.7;
    plan.peers.clears_per_s = pick(rng, &[0.003, 0.01, 0.05]);
    for (number, host) in plan.hosts.iter_mut().enumerate().skip(1) {
        host.kind = match rng.u32(0..4) {
            0 => Kind::Fsck,
            1 if fscks => Kind::Fsck,
            2 if fscks => Kind::Kernel,
            3 => Kind::Ours,
            _ => host.kind,
        };
        if fscks && number == 1 {
            host.kind = Kind::Fsck;
        }
        if host.kind == Kind::Fsck {
            host.use_s = Some(pick(rng, &[1, 30, 60, 200]));
        }
    }
}

impl World {
    /// It has mounted.
    pub(crate) fn plan_peer(&mut self, host: usize) {
        let act = match self.plan.profile {
            _ if self.plan.hosts[host].kind != Kind::Kernel => return,
            Profile::KernelFreezes => PeerAct::Freeze,
            Profile::KernelSleeps => PeerAct::Sleep,
            _ => return,
        };
        // One at a time: what follows has to show.
        if self.met.is_none() {
            let span = log_uniform(&mut self.rng, SECOND, 100 * SECOND);
            self.after(span, host, What::Peer(act));
        }
    }

    pub(crate) fn peer_acts(&mut self, host: usize, act: PeerAct) {
        if !self.hosts[host].kernel.beats() {
            return;
        }
        let span = log_uniform(&mut self.rng, 5 * SECOND, 120 * SECOND);
        match act {
            PeerAct::Freeze if !self.hosts[host].kernel.frozen => {
                self.note(host, || format!("FREEZES for {:.3} s", span as f64 / 1e9));
                self.hosts[host].kernel.frozen = true;
                self.after(span, host, What::Peer(PeerAct::Thaw));
            }
            PeerAct::Freeze => {}
            PeerAct::Thaw => {
                self.note(host, || "thaws".into());
                self.hosts[host].kernel.frozen = false;
                if self.hosts[host].kernel.step == Step::Frozen {
                    self.kernel_submits(host, Step::Beat);
                }
                self.plan_peer(host);
            }
            PeerAct::Sleep => {
                self.stall(host, span);
                self.plan_peer(host);
            }
        }
    }

    pub(crate) fn kernel_unmounts(&mut self, host: usize) {
        if self.hosts[host].kernel.frozen {
            // It waits for the thaw.
            return self.after(SECOND, host, What::UserDone);
        }
        if self.hosts[host].using {
            self.stop_using(host, "kernel: unmounts");
            self.kernel_stops(host, Stop::Unmount);
            if let (Some(_), Some(other)) = (self.met, self.other_user(host)) {
                self.violate(
                    host,
                    format!("its unmount writes clean while host {other} is mounted read-write"),
                );
            }
        }
    }

    pub(crate) fn kernel_retries(&mut self, host: usize) {
        let pause = log_uniform(&mut self.rng, SECOND / 2, 60 * SECOND);
        self.after(pause, host, What::Start);
    }

    /// Two kernels use the device at once, of whom the second has waited as it must.
    pub(crate) fn kernels_meet(&mut self, host: usize, other: usize) {
        let [one, another] = [host, other].map(|host| &self.hosts[host]);
        let later = if one.using_since > another.using_since { one } else { another };
        if !later.kernel.on_clean() && self.met.is_none() {
            self.met = Some((host, other, self.now));
            self.note(host, || format!("hosts {host} and {other} use the device at once"));
        }
    }

    /// Whether they are at it still, with no error at either, when the history ends.
    pub(crate) fn check_kernels_that_met(&mut self) {
        let Some((one, other, since)) = self.met else { return };
        let beaten_after = self.now.saturating_sub(3 * self.kernel_interval_s() * SECOND);
        let goes_on = |host: usize| {
            let state = &self.hosts[host];
            state.using && state.kernel.beats() && state.kernel.own_beat_at >= beaten_after
        };
        if goes_on(one) && goes_on(other) {
            let span = (self.now - since) as f64 / 1e9;
            self.violate(
                one,
                format!("hosts {one} and {other} write for {span:.0} s, till the end, and neither notices"),
            );
        }
    }
}
